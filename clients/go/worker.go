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

// WorkerOptions says what a worker takes.
type WorkerOptions struct {
	// Name for people; by default host and process id.
	Name string
	// Capacity is how many attempts it runs at a time, 1 to 1,000; by default 10.
	Capacity int
	// Version of its code, for people.
	Version string
	// OnBreak, if set, is called with the error of each break, and of each try after it that fails.
	OnBreak func(*Error)
}

// Worker serves handlers for the steps of executions.
//
// Attempts go on when the connection breaks or the server stops; the worker connects again, names them, and keeps each
// result until a server has settled it.
type Worker struct {
	client    *Client
	workers   flowkeepv1.WorkerServiceClient
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
	client, err := New(target, connection...)
	if err != nil {
		return nil, err
	}
	w := &Worker{
		client: client, workers: flowkeepv1.NewWorkerServiceClient(client.channel),
		id: requestID(""), functions: map[string]handlerFunc{},
	}
	if options != nil {
		w.options = *options
	}
	if w.options.Capacity == 0 {
		w.options.Capacity = 10
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
// settled. signal.NotifyContext makes a context that ends with SIGTERM.
//
// The error is an *Error for what another try cannot mend, such as a token that is not valid.
func (w *Worker) Run(ctx context.Context) error {
	life, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	defer w.attempts.abandon()
	stopDraining := context.AfterFunc(ctx, func() {
		w.say(draining())
		w.attempts.whenEmpty()
		w.mutex.Lock()
		w.drained = true
		if w.out != nil {
			w.out.end()
		}
		w.mutex.Unlock()
	})
	defer stopDraining()
	var pauses pausing
	for !w.isDrained() {
		err := w.stand(ctx, life, &pauses)
		if w.isDrained() {
			return nil
		}
		var broke *Error
		if !errors.As(err, &broke) || !mayResume(broke) {
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
func (w *Worker) stand(wish, life context.Context, pauses *pausing) error {
	ctx, cancel := context.WithCancelCause(life)
	defer cancel(nil)
	authorized, err := w.client.authorized(ctx)
	if err != nil {
		return err
	}
	stream, err := w.workers.Work(authorized)
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
	patience := longestSilence
	for {
		response, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return newError(codes.Unavailable, "the server has ended the stream")
		}
		if err != nil {
			return silenceOr(ctx, err)
		}
		if registered := response.GetRegistered(); registered != nil {
			pauses.reset()
			patience = orElse(registered.GetHeartbeatTimeout(), longestSilence)
			go beat(ctx, out, orElse(registered.GetHeartbeatInterval(), longestSilence/4))
			w.use(out)
			w.registered(wish, registered, out)
		}
		silence.Reset(patience)
		if response.GetDraining() != nil {
			return newError(codes.Unavailable, "the server stops")
		}
		w.take(life, response)
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
		Version: w.options.Version, Attempts: w.attempts.named(),
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
	if !o.isEnded {
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
