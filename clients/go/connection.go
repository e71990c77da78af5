package flowkeep

import (
	"context"
	"crypto/tls"
	"fmt"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
)

const (
	maxRequestBytes = 4 << 20
	// maxAnswerBytes is what the server sends at most: an execution in the view FULL with all its payloads.
	maxAnswerBytes = 64 << 20
	defaultTimeout = 30 * time.Second
	userAgent      = "flowkeep-go/0.1.0"
)

// TokenSource gives a fresh bearer token. It is called before every call.
type TokenSource func(context.Context) (string, error)

// Option says how to connect.
type Option func(*settings)

type settings struct {
	token   TokenSource
	renews  bool
	tls     *tls.Config
	timeout time.Duration
	dial    []grpc.DialOption
}

// WithToken sends a bearer token with each call. Without WithTLS it travels in plain text.
func WithToken(token string) Option {
	return func(s *settings) {
		s.token, s.renews = func(context.Context) (string, error) { return token, nil }, false
	}
}

// WithTokenSource sends with each call the bearer token that the source gives.
func WithTokenSource(source TokenSource) Option {
	return func(s *settings) { s.token, s.renews = source, source != nil }
}

// WithTLS encrypts the connection; nil stands for the certificates of the system.
func WithTLS(config *tls.Config) Option {
	return func(s *settings) {
		s.tls = config
		if config == nil {
			s.tls = &tls.Config{MinVersion: tls.VersionTLS12}
		}
	}
}

// WithTimeout bounds a call with all its tries. The default is 30 s.
func WithTimeout(timeout time.Duration) Option { return func(s *settings) { s.timeout = timeout } }

// WithDialOptions gives gRPC options of its own, which go before those of the client.
func WithDialOptions(options ...grpc.DialOption) Option {
	return func(s *settings) { s.dial = append(s.dial, options...) }
}

func connect(target string, set settings) (*grpc.ClientConn, error) {
	if strings.HasPrefix(target, "http://") || strings.HasPrefix(target, "https://") {
		return nil, fmt.Errorf("the target %s is a URL: it must be host:port or unix:/path, with TLS as an option", target)
	}
	security := insecure.NewCredentials()
	if set.tls != nil {
		security = credentials.NewTLS(set.tls)
	}
	options := []grpc.DialOption{
		grpc.WithTransportCredentials(security),
		grpc.WithUserAgent(userAgent),
		grpc.WithDisableServiceConfig(),
		// The server permits a ping each 20 s and more; without pings a dead peer behind a firewall goes unnoticed.
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 30 * time.Second, Timeout: 10 * time.Second}),
		// By default it pauses up to two minutes between attempts to connect, and fails every call meanwhile.
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Second},
			MinConnectTimeout: 20 * time.Second,
		}),
		grpc.WithDefaultCallOptions(
			grpc.MaxCallRecvMsgSize(maxAnswerBytes), grpc.MaxCallSendMsgSize(maxRequestBytes),
		),
	}
	return grpc.NewClient(strings.TrimSpace(target), append(options, set.dial...)...)
}

// authorized returns the context of one call, which carries the token. The error never shows it.
func (c *Client) authorized(ctx context.Context) (context.Context, error) {
	if c.token == nil {
		return ctx, nil
	}
	given, err := c.token(ctx)
	if err != nil {
		return nil, fmt.Errorf("there is no token: %w", err)
	}
	bare := strings.TrimSpace(given)
	for index := range len(bare) {
		if bare[index] < 0x21 || bare[index] > 0x7e {
			return nil, fmt.Errorf("the token holds a character that no token has, at %d of %d", index+1, len(bare))
		}
	}
	if bare == "" {
		return ctx, nil
	}
	return metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+bare), nil
}

// call sends a request, again where it may be, with growing pauses, until the timeout has passed in all. The error is an
// *Error, or the cause of the context's end.
func call[Request, Response any](
	ctx context.Context,
	c *Client,
	method func(context.Context, Request, ...grpc.CallOption) (Response, error),
	request Request,
	timeout time.Duration,
) (Response, error) {
	var none Response
	deadline := time.Now().Add(timeout)
	bounded, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	var pauses pausing
	for {
		attempt, err := c.authorized(bounded)
		if err != nil {
			return none, err
		}
		response, err := method(attempt, request)
		if err == nil {
			return response, nil
		}
		if ctx.Err() != nil {
			return none, context.Cause(ctx)
		}
		failure := fromRPC(err)
		pause := pauses.after(failure)
		if !mayRepeat(failure) || time.Now().Add(pause).After(deadline) {
			return none, failure
		}
		if err := sleep(ctx, pause); err != nil {
			return none, err
		}
	}
}
