package flowkeep

import (
	"context"
	"errors"
	"io"
	"iter"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
)

// opener opens a stream with the request as it is at that moment.
type opener[Response any] func(context.Context) (grpc.ServerStreamingClient[Response], error)

// lasting yields what a stream without an end gives, opening it again whenever it ends, breaks or is silent for too long.
//
// An error is the last thing that it yields: an *Error for what another try cannot mend, or the cause of the context's end.
func lasting[Response any](ctx context.Context, c *Client, open opener[Response], onBreak func(*Error)) iter.Seq2[*Response, error] {
	return func(yield func(*Response, error) bool) {
		var pauses pausing
		for {
			err := hear(ctx, c, open, func(response *Response) bool {
				pauses.reset()
				return yield(response, nil)
			})
			if errors.Is(err, errStopped) {
				return
			}
			var broke *Error
			if ctx.Err() != nil {
				err = context.Cause(ctx)
			} else if errors.As(err, &broke) && mayResume(broke) {
				if onBreak != nil {
					onBreak(broke)
				}
				if err = sleep(ctx, pauses.after(broke)); err == nil {
					continue
				}
			}
			yield(nil, err)
			return
		}
	}
}

// hear takes what one stream gives, until it breaks or the caller stops.
func hear[Response any](ctx context.Context, c *Client, open opener[Response], take func(*Response) bool) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	authorized, err := c.authorized(ctx)
	if err != nil {
		return err
	}
	silence := time.AfterFunc(longestSilence, func() { cancel(errSilence) })
	defer silence.Stop()
	stream, err := open(authorized)
	if err != nil {
		return silenceOr(ctx, err)
	}
	for {
		response, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return newError(codes.Unavailable, "the server has ended the stream")
		}
		if err != nil {
			return silenceOr(ctx, err)
		}
		silence.Stop() // how long the caller takes is his affair
		if !take(response) {
			return errStopped
		}
		silence.Reset(longestSilence)
	}
}
