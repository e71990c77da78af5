package flowkeep

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	flowkeepv1 "flowkeep.dev/go/v1"
)

const (
	maxGaps = 5
	// The server gives a sign of life every 10 s. A stream silent for this long hangs in a proxy or a stopped process.
	longestSilence = 35 * time.Second
	endPatience    = time.Second
)

var (
	errStopped = errors.New("the caller has stopped")
	errSilence = newError(codes.Unavailable, "the server gave no sign of life")
)

// WatchOptions says where a watch begins; the zero value is the beginning.
type WatchOptions struct {
	// AfterSeq leaves out the events up to this one.
	AfterSeq int64
	// Snapshot asks for events from now on only; it excludes AfterSeq.
	Snapshot bool
	// OnBreak, if set, is called with the error of each break, and of each try after it that fails.
	OnBreak func(*Error)
}

// Watch yields the events of an execution, first those that happened, up to the finished event.
//
// Every event after AfterSeq comes exactly once and in order, through any broken connection, for as long as it takes;
// bound it with the context. An error is the last thing that it yields: an *Error that is ErrNotFound, ErrOutOfRange for
// a position that is not, or no longer, in the history, or one of identity; or the cause of the context's end.
func (c *Client) Watch(ctx context.Context, executionID string, options *WatchOptions) iter.Seq2[*flowkeepv1.ExecutionEvent, error] {
	return func(yield func(*flowkeepv1.ExecutionEvent, error) bool) {
		for response, err := range c.WatchResponses(ctx, executionID, options) {
			if err != nil {
				yield(nil, err)
				return
			}
			for _, event := range response.GetEvents().GetEvents() {
				if !yield(event, nil) {
					return
				}
			}
		}
	}
}

// WatchResponses yields what Watch does as whole messages: the events of a transition together, bookmarks, output of
// steps. With Snapshot the first message holds the execution as it stands.
func (c *Client) WatchResponses(ctx context.Context, executionID string, options *WatchOptions) iter.Seq2[*flowkeepv1.WatchExecutionResponse, error] {
	var set WatchOptions
	if options != nil {
		set = *options
	}
	return func(yield func(*flowkeepv1.WatchExecutionResponse, error) bool) {
		if set.Snapshot && set.AfterSeq != 0 {
			yield(nil, errors.New("a watch begins after a seq or with a snapshot, not both"))
			return
		}
		at := &cursor{executionID: executionID, seq: set.AfterSeq, wantsSnapshot: set.Snapshot}
		if err := c.follow(ctx, at, set.OnBreak, yield); err != nil {
			yield(nil, err)
		}
	}
}

// follow yields responses until the execution has ended or the caller stops, opening the stream again whenever it breaks.
func (c *Client) follow(ctx context.Context, at *cursor, onBreak func(*Error), yield func(*flowkeepv1.WatchExecutionResponse, error) bool) error {
	var pauses pausing
	gaps := 0
	for {
		err := c.read(ctx, at, func(response *flowkeepv1.WatchExecutionResponse) bool {
			pauses.reset()
			if response.GetEvents() != nil {
				gaps = 0
			}
			return yield(response, nil)
		})
		if err == nil || errors.Is(err, errStopped) || at.atEnd {
			return nil
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		var broke *Error
		if !errors.As(err, &broke) {
			return err
		}
		if broke.Code == codes.DataLoss && broke.Reason == "" {
			if gaps++; gaps == maxGaps {
				return broke
			}
		} else if !mayResume(broke) {
			return broke
		}
		if onBreak != nil {
			onBreak(broke)
		}
		if err := sleep(ctx, pauses.after(broke)); err != nil {
			return err
		}
	}
}

// read takes what one stream gives: nil when that ended well.
func (c *Client) read(ctx context.Context, at *cursor, take func(*flowkeepv1.WatchExecutionResponse) bool) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	authorized, err := c.authorized(ctx)
	if err != nil {
		return err
	}
	silence := time.AfterFunc(longestSilence, func() { cancel(errSilence) })
	defer silence.Stop()
	stream, err := c.executions.WatchExecution(authorized, at.request())
	if err != nil {
		return silenceOr(ctx, err)
	}
	for {
		response, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return silenceOr(ctx, err)
		}
		silence.Stop() // how long the caller takes is his affair
		fresh, err := at.admit(response)
		if err != nil {
			return err
		}
		if fresh != nil && !take(fresh) {
			letEnd(stream, at, cancel)
			return errStopped
		}
		silence.Reset(longestSilence)
	}
}

// letEnd takes the OK that is on its way, so that a watch that went well does not show as cancelled on the server.
func letEnd(stream grpc.ServerStreamingClient[flowkeepv1.WatchExecutionResponse], at *cursor, cancel context.CancelCauseFunc) {
	if !at.atEnd {
		return
	}
	late := time.AfterFunc(endPatience, func() { cancel(nil) })
	defer late.Stop()
	for {
		if _, err := stream.Recv(); err != nil {
			return
		}
	}
}

func silenceOr(ctx context.Context, err error) error {
	if errors.Is(context.Cause(ctx), errSilence) {
		return errSilence
	}
	return fromRPC(err)
}

// cursor is the position of a watch: what was delivered, and what to ask for next.
type cursor struct {
	executionID   string
	seq           int64
	wantsSnapshot bool
	atEnd         bool
}

// request returns the request that goes on from here.
func (at *cursor) request() *flowkeepv1.WatchExecutionRequest {
	if at.wantsSnapshot {
		return &flowkeepv1.WatchExecutionRequest{ExecutionId: at.executionID, Snapshot: true}
	}
	return &flowkeepv1.WatchExecutionRequest{ExecutionId: at.executionID, AfterSeq: at.seq}
}

// admit returns what is new in a response, if anything. The error is DATA_LOSS when something is missing before it.
func (at *cursor) admit(response *flowkeepv1.WatchExecutionResponse) (*flowkeepv1.WatchExecutionResponse, error) {
	switch kind := response.GetKind().(type) {
	case *flowkeepv1.WatchExecutionResponse_Snapshot:
		if !at.wantsSnapshot {
			return nil, nil
		}
		at.wantsSnapshot, at.seq = false, kind.Snapshot.GetSeq()
		at.atEnd = ended(kind.Snapshot.GetExecution().GetState())
	case *flowkeepv1.WatchExecutionResponse_Events:
		return at.admitEvents(response, kind.Events)
	case *flowkeepv1.WatchExecutionResponse_Bookmark:
		if seq := kind.Bookmark.GetSeq(); seq > at.seq && !at.wantsSnapshot {
			return nil, newError(codes.DataLoss, fmt.Sprintf("the server passed over the events %d to %d", at.seq+1, seq))
		}
	}
	return response, nil
}

func (at *cursor) admitEvents(response *flowkeepv1.WatchExecutionResponse, batch *flowkeepv1.EventBatch) (*flowkeepv1.WatchExecutionResponse, error) {
	fresh := batch.GetEvents()
	for len(fresh) > 0 && fresh[0].GetSeq() <= at.seq {
		fresh = fresh[1:]
	}
	if len(fresh) == 0 {
		return nil, nil
	}
	for index, event := range fresh {
		if expected := at.seq + int64(index) + 1; event.GetSeq() != expected {
			return nil, newError(codes.DataLoss, fmt.Sprintf("the server sent event %d where %d was due", event.GetSeq(), expected))
		}
	}
	last := fresh[len(fresh)-1]
	at.seq, at.atEnd = last.GetSeq(), last.GetFinished() != nil
	batch.Events = fresh
	return response, nil
}

func ended(state flowkeepv1.Execution_State) bool {
	switch state {
	case flowkeepv1.Execution_STATE_COMPLETED, flowkeepv1.Execution_STATE_FAILED,
		flowkeepv1.Execution_STATE_CANCELLED, flowkeepv1.Execution_STATE_TIMED_OUT:
		return true
	default:
		return false
	}
}
