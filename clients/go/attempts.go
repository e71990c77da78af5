package flowkeep

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"runtime/debug"
	"strings"
	"sync"
	"unicode/utf8"

	"google.golang.org/protobuf/types/known/durationpb"

	flowkeepv1 "flowkeep.dev/go/v1"
)

const (
	maxOutputBytes  = 2 << 20
	maxDetailsBytes = 16 << 10
	maxEmitted      = 32 << 10
	maxNamed        = 2_000 // a server looks at no more
)

var code = regexp.MustCompile(`^[A-Z][A-Z0-9_]{0,63}$`)

// attempts are those that a worker runs, or whose results are not settled. They outlive the stream that brought them.
type attempts struct {
	send func(*flowkeepv1.WorkRequest)
	room chan struct{}

	mutex   sync.Mutex
	kept    map[key]*running
	changed *sync.Cond
}

type key struct {
	execution, path    string
	iteration, attempt int32
}

func keyOf(attempt *flowkeepv1.Attempt) key {
	return key{attempt.GetExecutionId(), attempt.GetStepPath(), attempt.GetIteration(), attempt.GetAttempt()}
}

// running is one attempt, from its assignment until it is settled.
type running struct {
	attempts *attempts
	attempt  *flowkeepv1.Attempt
	stop     context.CancelCauseFunc
	usage    flowkeepv1.Usage
	// result is what is sent until it is settled, once there is one.
	result *flowkeepv1.WorkRequest
}

func newAttempts(capacity int, send func(*flowkeepv1.WorkRequest)) *attempts {
	a := &attempts{send: send, room: make(chan struct{}, capacity), kept: map[key]*running{}}
	a.changed = sync.NewCond(&a.mutex)
	return a
}

// named returns what a server should know of when the worker connects, what runs first: results beyond what it looks at
// are said to it all the same.
func (a *attempts) named() []*flowkeepv1.Attempt {
	a.mutex.Lock()
	defer a.mutex.Unlock()
	var runs, ended []*flowkeepv1.Attempt
	for _, each := range a.kept {
		if each.result == nil {
			runs = append(runs, each.attempt)
		} else {
			ended = append(ended, each.attempt)
		}
	}
	found := append(runs, ended...)
	return found[:min(len(found), maxNamed)]
}

// isEmpty says whether no attempt is kept.
func (a *attempts) isEmpty() bool {
	a.mutex.Lock()
	defer a.mutex.Unlock()
	return len(a.kept) == 0
}

// resend sends the results that are not settled, again.
func (a *attempts) resend() {
	a.mutex.Lock()
	defer a.mutex.Unlock()
	for _, each := range a.kept {
		if each.result != nil {
			a.send(each.result)
		}
	}
}

// begin runs an attempt by its handler; one that is kept already is not begun twice.
func (a *attempts) begin(ctx context.Context, assignment *flowkeepv1.Assignment, run handlerFunc) {
	a.mutex.Lock()
	defer a.mutex.Unlock()
	attempt := assignment.GetAttempt()
	if kept := a.kept[keyOf(attempt)]; kept != nil {
		if kept.result != nil {
			a.send(kept.result)
		}
		return
	}
	ctx, stop := context.WithCancelCause(ctx)
	begun := &running{attempts: a, attempt: attempt, stop: stop}
	a.kept[keyOf(attempt)] = begun
	go begun.run(ctx, assignment, run)
}

// cancel tells an attempt to stop. One that is stale is forgotten: nothing of it is sent any more.
func (a *attempts) cancel(attempt *flowkeepv1.Attempt, reason flowkeepv1.AttemptCancelled_Reason) {
	a.mutex.Lock()
	kept := a.kept[keyOf(attempt)]
	a.mutex.Unlock()
	if kept == nil {
		return
	}
	if reason == flowkeepv1.AttemptCancelled_REASON_STALE {
		a.forget(attempt)
	}
	kept.stop(&StoppedError{reason})
}

// forget lets go of an attempt that is settled, or stale.
func (a *attempts) forget(attempt *flowkeepv1.Attempt) {
	a.mutex.Lock()
	defer a.mutex.Unlock()
	delete(a.kept, keyOf(attempt))
	a.changed.Broadcast()
}

// giveBack stops what runs, so that another worker gets it.
func (a *attempts) giveBack() {
	a.mutex.Lock()
	defer a.mutex.Unlock()
	for _, each := range a.kept {
		if each.result == nil {
			each.stop(&StoppedError{flowkeepv1.AttemptCancelled_REASON_UNSPECIFIED})
		}
	}
}

// abandon stops all attempts; nothing of them is sent any more.
func (a *attempts) abandon() {
	for !a.isEmpty() {
		for _, attempt := range a.named() {
			a.cancel(attempt, flowkeepv1.AttemptCancelled_REASON_STALE)
		}
	}
}

// whenEmpty returns when no attempt is kept any more.
func (a *attempts) whenEmpty() {
	a.mutex.Lock()
	defer a.mutex.Unlock()
	for len(a.kept) > 0 {
		a.changed.Wait()
	}
}

// errLeft is what is known of a handler that ended its goroutine, as runtime.Goexit does, and testing.T.FailNow with it.
var errLeft = errors.New("the handler has ended its goroutine")

func (r *running) run(ctx context.Context, assignment *flowkeepv1.Assignment, run handlerFunc) {
	defer r.stop(nil)
	text, err := []byte(nil), errLeft
	defer func() { r.end(ctx, assignment.GetHandler(), text, err) }()
	text, err = r.ran(ctx, assignment, run)
}

// ran runs the handler once there is room for it.
func (r *running) ran(ctx context.Context, assignment *flowkeepv1.Assignment, run handlerFunc) ([]byte, error) {
	select {
	case r.attempts.room <- struct{}{}:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	defer func() { <-r.attempts.room }()
	if run == nil {
		message := fmt.Sprintf("this worker has no handler %s", assignment.GetHandler())
		return nil, &HandlerError{Code: "INVALID_PARAMS", Message: message, Final: true}
	}
	return r.call(ctx, assignment, run)
}

// end says what came of the attempt, and keeps it until it is settled.
func (r *running) end(ctx context.Context, handler string, text []byte, err error) {
	result := &flowkeepv1.WorkRequest{}
	if err == nil {
		completed := &flowkeepv1.AttemptCompleted{Attempt: r.attempt, Output: text, Usage: &r.usage}
		result.Message = &flowkeepv1.WorkRequest_Completed{Completed: completed}
	} else {
		result.Message = &flowkeepv1.WorkRequest_Failed{Failed: r.failed(ctx, handler, err)}
	}
	a := r.attempts
	a.mutex.Lock()
	defer a.mutex.Unlock()
	if a.kept[keyOf(r.attempt)] == r {
		r.result = result
		a.send(result)
	}
}

// panicked is a handler that has panicked.
type panicked struct {
	value any
	stack []byte
}

func (p *panicked) Error() string { return fmt.Sprint("the handler has panicked: ", p.value) }

func (r *running) call(ctx context.Context, assignment *flowkeepv1.Assignment, run handlerFunc) (text []byte, err error) {
	defer func() {
		if value := recover(); value != nil {
			err = &panicked{value, debug.Stack()}
		}
	}()
	return run(ctx, assignment.GetParams(), &Attempt{
		ExecutionID:      r.attempt.GetExecutionId(),
		StepPath:         r.attempt.GetStepPath(),
		Iteration:        r.attempt.GetIteration(),
		Number:           r.attempt.GetAttempt(),
		Workflow:         assignment.GetWorkflow(),
		Owner:            assignment.GetOwner(),
		IdempotencyToken: assignment.GetIdempotencyToken(),
		Deadline:         assignment.GetDeadlineTime().AsTime(),
		running:          r,
	})
}

// failed returns what the server is told of an error. An error is anybody's, such as a nil pointer of a type of its own:
// whatever it does when it is looked at, the attempt fails, and not the worker.
func (r *running) failed(ctx context.Context, handler string, err error) (told *flowkeepv1.AttemptFailed) {
	defer func() {
		if recover() != nil {
			message := cut(fmt.Sprintf("handler %q gave %T, which cannot be read", handler, err), 2048)
			told = &flowkeepv1.AttemptFailed{
				Attempt: r.attempt, Code: "HANDLER_ERROR", Message: message, Retryable: true, Usage: &r.usage,
			}
		}
	}()
	// Only the stack trace, which not everybody sees, has the text of an error that is no HandlerError: it may hold secrets.
	message := fmt.Sprintf("handler %q gave %T; its stack trace tells more", handler, err)
	failed := &flowkeepv1.AttemptFailed{
		Attempt: r.attempt, Code: "HANDLER_ERROR", Message: cut(message, 2048), Retryable: true, Usage: &r.usage,
	}
	var own *HandlerError
	var broken *panicked
	switch {
	case errors.As(err, &own) && code.MatchString(own.Code):
		failed.Code, failed.Message, failed.Retryable = own.Code, cut(own.Message, 2048), !own.Final
		failed.Details = details(own.Details)
		if own.RetryAfter > 0 {
			failed.RetryAfter = durationpb.New(own.RetryAfter)
		}
	case errors.As(err, &broken):
		failed.Message = fmt.Sprintf("handler %q has panicked; its stack trace tells more", handler)
		failed.StackTrace = cut(broken.Error()+"\n"+string(broken.stack), 8192)
	case ctx.Err() != nil:
		failed.Code, failed.Message, failed.Retryable = "CANCELLED", "stopped as it was told to", false
	default:
		failed.StackTrace = cut(err.Error(), 8192)
	}
	return failed
}

// details returns facts as JSON, nothing where they are no object or too large: the failure itself matters more.
func details(given any) []byte {
	if given == nil {
		return nil
	}
	value, err := plain(given, "details")
	if _, isObject := value.(map[string]any); err != nil || !isObject {
		return nil
	}
	text, err := json.Marshal(value)
	if err != nil || len(text) > maxDetailsBytes {
		return nil
	}
	return text
}

// progress tells how far the attempt is, unless it has ended.
func (r *running) progress(said *flowkeepv1.AttemptProgress) {
	a := r.attempts
	a.mutex.Lock()
	defer a.mutex.Unlock()
	if r.result == nil && a.kept[keyOf(r.attempt)] == r {
		said.Attempt = r.attempt
		a.send(&flowkeepv1.WorkRequest{Message: &flowkeepv1.WorkRequest_Progress{Progress: said}})
	}
}

// use adds to what is told with the result: an attempt whose stream broke must not tell it twice.
func (r *running) use(inputTokens, outputTokens, costMicros int64) {
	r.attempts.mutex.Lock()
	defer r.attempts.mutex.Unlock()
	if r.result == nil {
		r.usage.InputTokens += inputTokens
		r.usage.OutputTokens += outputTokens
		r.usage.CostMicros += costMicros
	}
}

// cut returns the beginning of a text, at most so many bytes, as valid UTF-8.
func cut(text string, longest int) string {
	text = valid(text)
	if len(text) <= longest {
		return text
	}
	for longest > 0 && !utf8.RuneStart(text[longest]) {
		longest--
	}
	return text[:longest]
}

// valid returns a text as one that the server can keep.
func valid(text string) string {
	return strings.ReplaceAll(strings.ToValidUTF8(text, "\uFFFD"), "\x00", "\uFFFD")
}
