package flowkeep

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"

	flowkeepv1 "flowkeep.dev/go/v1"
)

// lastWords is how long attempts that are given back may take to stop, and a server to settle that.
const lastWords = 5 * time.Second

// WorkerOptions says what a worker takes.
type WorkerOptions struct {
	// Name for people; by default host and process id.
	Name string
	// Capacity is how many attempts it runs at a time, 1 to 1,000; by default 10.
	Capacity int
	// Grace is how long what it runs may take to end once it drains; then it is given back, for another worker. By default
	// 30 s.
	Grace time.Duration
	// Version of its code, such as 2.1.3: by it steps choose workers.
	Version string
	// Labels are what else tells it from others, such as region: eu. By them steps choose workers.
	Labels map[string]string
	// OnBreak, if set, is called with the error of each break, and of each try after it that fails.
	OnBreak func(*Error)
}

// Worker serves handlers for the steps of executions.
//
// Attempts go on when the connection breaks; the worker connects again, names them, and keeps each result until it is
// settled. What it ran for a server that is gone is stopped, and made again.
type Worker struct {
	client    *Client
	options   WorkerOptions
	id        string
	handlers  []*flowkeepv1.Handler
	functions map[string]handlerFunc
	attempts  *attempts

	mutex   sync.Mutex
	out     *outgoing
	drained bool
}

// NewWorker returns a worker for the server at a target. Add handlers with Handle, then Run it.
func NewWorker(target string, options *WorkerOptions, connection ...Option) (*Worker, error) {
	w := &Worker{id: requestID(""), functions: map[string]handlerFunc{}}
	if options != nil {
		w.options = *options
	}
	if w.options.Capacity == 0 {
		w.options.Capacity = 10
	}
	if w.options.Capacity < 1 || w.options.Capacity > 1_000 {
		return nil, fmt.Errorf("the capacity must be from 1 to 1,000, not %d", w.options.Capacity)
	}
	client, err := New(target, connection...)
	if err != nil {
		return nil, err
	}
	w.client = client
	if w.options.Grace == 0 {
		w.options.Grace = 30 * time.Second
	}
	if w.options.Name == "" {
		host, _ := os.Hostname()
		w.options.Name = fmt.Sprintf("%s:%d", host, os.Getpid())
	}
	w.attempts = newAttempts(w.options.Capacity, w.say)
	return w, nil
}

// Close ends the worker at once: attempts are told to stop, and get lost.
func (w *Worker) Close() error {
	err := w.client.Close()
	w.attempts.abandon()
	return err
}

// Run serves until the context ends. Then it drains: it takes no more attempts, and returns nil once those that it has are
// settled, or were given back after the grace. signal.NotifyContext makes a context that ends with SIGTERM.
//
// The error is an *Error for what another try cannot mend, such as a token that is not valid, or, before there ever was a
// stream, that of the source of tokens.
func (w *Worker) Run(ctx context.Context) error {
	life, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	defer w.attempts.abandon()
	stopDraining := context.AfterFunc(ctx, func() {
		w.say(draining())
		defer time.AfterFunc(w.options.Grace, w.attempts.giveBack).Stop()
		defer time.AfterFunc(w.options.Grace+lastWords, w.leave).Stop()
		w.attempts.whenEmpty()
		w.leave()
	})
	defer stopDraining()
	var pauses pausing
	wasRegistered := false
	for !w.isDrained() {
		isRegistered := false
		err := w.stand(ctx, life, func() {
			wasRegistered, isRegistered = true, true
			pauses.reset()
		})
		if w.isDrained() {
			return nil
		}
		var broke *Error
		if !errors.As(err, &broke) {
			if !wasRegistered {
				return err
			}
			broke = newError(codes.Unauthenticated, err.Error())
		} else if isFatal(broke, isRegistered || w.client.renews) {
			return err
		}
		if w.options.OnBreak != nil {
			w.options.OnBreak(broke)
		}
		if err := sleep(life, pauses.after(broke)); err != nil {
			return err
		}
	}
	return nil
}

// leave ends the stream, and Run with it.
func (w *Worker) leave() {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	w.drained = true
	if w.out != nil {
		w.out.end()
	}
}

// isFatal says whether an error does not get better when the worker comes again. Where a token that served until now has
// expired, or the next one may be another, that may do.
func isFatal(err *Error, mayHaveToken bool) bool {
	switch err.Code {
	case codes.InvalidArgument, codes.AlreadyExists, codes.PermissionDenied, codes.FailedPrecondition, codes.Unimplemented:
		return true
	case codes.Unauthenticated:
		return !mayHaveToken
	case codes.Canceled:
		return says(err, closed)
	default:
		return false
	}
}

func (w *Worker) isDrained() bool {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	return w.drained
}

// say sends a request on the stream that stands; without one it is dropped.
func (w *Worker) say(request *flowkeepv1.WorkRequest) {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	if w.out != nil {
		w.out.push(request)
	}
}

func (w *Worker) use(out *outgoing) {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	w.out = out
}

// stand keeps one stream until it ends or breaks. The wish is the context whose end makes the worker drain.
func (w *Worker) stand(wish, life context.Context, onRegistered func()) error {
	ctx, cancel := context.WithCancelCause(life)
	defer cancel(nil)
	authorized, err := w.client.authorized(ctx)
	if err != nil {
		return err
	}
	stream, err := w.client.workers.Work(authorized)
	if err != nil {
		return fromRPC(err)
	}
	out := newOutgoing()
	defer out.end()
	defer w.use(nil)
	out.push(w.registration())
	go out.pump(stream)
	silence := time.AfterFunc(longestSilence, func() { cancel(errSilence) })
	defer silence.Stop()
	patience, isLeaving := longestSilence, false
	for {
		response, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return newError(codes.Unavailable, "the server has ended the stream")
		}
		if err != nil {
			return silenceOr(ctx, err)
		}
		if registered := response.GetRegistered(); registered != nil {
			onRegistered()
			patience = orElse(registered.GetHeartbeatTimeout(), longestSilence)
			go beat(ctx, out, orElse(registered.GetHeartbeatInterval(), longestSilence/4))
			w.use(out)
			w.registered(wish, registered, out)
		}
		silence.Reset(patience)
		w.take(life, response)
		// A server that stops still records results: the worker leaves when it has none, or is sent away.
		isLeaving = isLeaving || response.GetDraining() != nil
		if isLeaving && w.attempts.isEmpty() {
			return newError(codes.Unavailable, "the server stops")
		}
	}
}

func (w *Worker) registered(wish context.Context, registered *flowkeepv1.Registered, out *outgoing) {
	for _, unwanted := range registered.GetUnwanted() {
		w.attempts.cancel(unwanted, flowkeepv1.AttemptCancelled_REASON_STALE)
	}
	if wish.Err() != nil {
		out.push(draining())
	}
	w.attempts.resend()
	if w.isDrained() {
		out.end()
	}
}

func (w *Worker) take(life context.Context, response *flowkeepv1.WorkResponse) {
	switch said := response.GetMessage().(type) {
	case *flowkeepv1.WorkResponse_Assignment:
		w.attempts.begin(life, said.Assignment, w.functions[said.Assignment.GetHandler()])
	case *flowkeepv1.WorkResponse_Cancelled:
		w.attempts.cancel(said.Cancelled.GetAttempt(), said.Cancelled.GetReason())
	case *flowkeepv1.WorkResponse_Settled:
		w.attempts.forget(said.Settled.GetAttempt())
	}
}

func (w *Worker) registration() *flowkeepv1.WorkRequest {
	return &flowkeepv1.WorkRequest{Message: &flowkeepv1.WorkRequest_Register{Register: &flowkeepv1.Register{
		Name: w.options.Name, WorkerId: w.id, Handlers: w.handlers, Capacity: int32(w.options.Capacity),
		Version: w.options.Version, Labels: w.options.Labels, Attempts: w.attempts.named(),
	}}}
}

func draining() *flowkeepv1.WorkRequest {
	return &flowkeepv1.WorkRequest{Message: &flowkeepv1.WorkRequest_Draining{Draining: &flowkeepv1.WorkerDraining{}}}
}

func orElse(span *durationpb.Duration, other time.Duration) time.Duration {
	if found := span.AsDuration(); found > 0 {
		return found
	}
	return other
}

// beat says that the worker lives, for as long as its stream does.
func beat(ctx context.Context, out *outgoing, interval time.Duration) {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			out.push(&flowkeepv1.WorkRequest{Message: &flowkeepv1.WorkRequest_Heartbeat{Heartbeat: &flowkeepv1.Heartbeat{}}})
		case <-ctx.Done():
			return
		}
	}
}

// maxProgress is how much progress waits to be sent; more is left out.
const maxProgress = 1_000

// outgoing are requests on their way: what is pushed comes out in order, until the end. It never blocks who pushes.
type outgoing struct {
	mutex   sync.Mutex
	queue   []*flowkeepv1.WorkRequest
	wake    chan struct{}
	isEnded bool
}

func newOutgoing() *outgoing { return &outgoing{wake: make(chan struct{}, 1)} }

func (o *outgoing) push(request *flowkeepv1.WorkRequest) {
	o.mutex.Lock()
	defer o.mutex.Unlock()
	isSpare := request.GetProgress() != nil && len(o.queue) >= maxProgress
	if !o.isEnded && !isSpare {
		o.queue = append(o.queue, request)
		o.signal()
	}
}

func (o *outgoing) end() {
	o.mutex.Lock()
	defer o.mutex.Unlock()
	o.isEnded = true
	o.signal()
}

func (o *outgoing) signal() {
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

// pump sends what is pushed until the end, or until the stream breaks, which its reader hears of.
func (o *outgoing) pump(stream grpc.BidiStreamingClient[flowkeepv1.WorkRequest, flowkeepv1.WorkResponse]) {
	for {
		o.mutex.Lock()
		queue, isEnded := o.queue, o.isEnded
		o.queue = nil
		o.mutex.Unlock()
		for _, request := range queue {
			if stream.Send(request) != nil {
				return
			}
		}
		if len(queue) > 0 {
			continue
		}
		if isEnded {
			_ = stream.CloseSend()
			return
		}
		<-o.wake
	}
}
