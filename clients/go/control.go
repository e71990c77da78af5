package flowkeep

import (
	"context"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	flowkeepv1 "flowkeep.dev/go/v1"
)

// CancelOptions says how an execution is cancelled.
type CancelOptions struct {
	// RequestID is the id of the request; without one the client makes it.
	RequestID string
	// Reason is for the history.
	Reason string
}

// Cancel cancels an execution and returns it with what became of each step. It is idempotent; of an execution that ended
// otherwise the error is ErrFailedPrecondition, EXECUTION_FINISHED.
func (c *Client) Cancel(ctx context.Context, executionID string, options *CancelOptions) (*flowkeepv1.CancelResponse, error) {
	var set CancelOptions
	if options != nil {
		set = *options
	}
	request := &flowkeepv1.CancelRequest{
		ExecutionId: executionID, Reason: set.Reason, RequestId: requestID(set.RequestID),
	}
	return call(ctx, c, c.executions.Cancel, request, c.timeout)
}

// PauseOptions says how an execution is paused.
type PauseOptions struct {
	// RequestID is the id of the request; without one the client makes it.
	RequestID string
	// Reason is for the history.
	Reason string
	// Hard stops what runs, too; it is made again when the execution is resumed.
	Hard bool
	// StopDeadline lets the time of the pause not count for the deadline.
	StopDeadline bool
}

// Pause lets nothing of an execution begin until it is resumed, and returns it.
func (c *Client) Pause(ctx context.Context, executionID string, options *PauseOptions) (*flowkeepv1.PauseResponse, error) {
	var set PauseOptions
	if options != nil {
		set = *options
	}
	request := &flowkeepv1.PauseRequest{
		ExecutionId: executionID, Reason: set.Reason, Hard: set.Hard, StopDeadline: set.StopDeadline,
		RequestId: requestID(set.RequestID),
	}
	return call(ctx, c, c.executions.Pause, request, c.timeout)
}

// Resume lets a paused execution go on, and returns it.
func (c *Client) Resume(ctx context.Context, executionID, reason string) (*flowkeepv1.ResumeResponse, error) {
	return c.resume(ctx, &flowkeepv1.ResumeRequest{ExecutionId: executionID, Reason: reason})
}

// StepOver lets a paused execution go on to the next step that begins, before which it is paused again.
func (c *Client) StepOver(ctx context.Context, executionID string) (*flowkeepv1.ResumeResponse, error) {
	halt := &flowkeepv1.ResumeRequest_StepOver{StepOver: true}
	return c.resume(ctx, &flowkeepv1.ResumeRequest{ExecutionId: executionID, Halt: halt})
}

// RunTo lets a paused execution go on to the step at a path, before which it is paused again.
func (c *Client) RunTo(ctx context.Context, executionID, path string) (*flowkeepv1.ResumeResponse, error) {
	halt := &flowkeepv1.ResumeRequest_RunTo{RunTo: path}
	return c.resume(ctx, &flowkeepv1.ResumeRequest{ExecutionId: executionID, Halt: halt})
}

func (c *Client) resume(ctx context.Context, request *flowkeepv1.ResumeRequest) (*flowkeepv1.ResumeResponse, error) {
	request.RequestId = requestID("")
	return call(ctx, c, c.executions.Resume, request, c.timeout)
}

// SetBreakpoints lets an execution be held before these steps from now on, and before no others.
func (c *Client) SetBreakpoints(ctx context.Context, executionID string, breakpoints ...*flowkeepv1.Breakpoint) (*flowkeepv1.Execution, error) {
	request := &flowkeepv1.SetBreakpointsRequest{
		ExecutionId: executionID, Breakpoints: breakpoints, RequestId: requestID(""),
	}
	response, err := call(ctx, c, c.executions.SetBreakpoints, request, c.timeout)
	return response.GetExecution(), err
}

// EditStepInput lets a step that a breakpoint holds be called with this input. Of one that is not held the error is
// ErrFailedPrecondition, STEP_NOT_HELD.
func (c *Client) EditStepInput(ctx context.Context, executionID, path string, input any) (*flowkeepv1.Execution, error) {
	given, err := toStruct(input, "input")
	if err != nil {
		return nil, err
	}
	request := &flowkeepv1.EditStepInputRequest{
		ExecutionId: executionID, Path: path, Input: given, RequestId: requestID(""),
	}
	response, err := call(ctx, c, c.executions.EditStepInput, request, c.timeout)
	return response.GetExecution(), err
}

// EditVariables sets variables of an execution that is paused: what is evaluated from then on sees them. The variables are
// anything of which encoding/json makes an object. Of one that is not paused the error is ErrFailedPrecondition,
// EXECUTION_STATE.
func (c *Client) EditVariables(ctx context.Context, executionID string, vars any) (*flowkeepv1.Execution, error) {
	given, err := toStruct(vars, "vars")
	if err != nil {
		return nil, err
	}
	request := &flowkeepv1.EditVariablesRequest{ExecutionId: executionID, Vars: given, RequestId: requestID("")}
	response, err := call(ctx, c, c.executions.EditVariables, request, c.timeout)
	return response.GetExecution(), err
}

// Terminate ends an execution at once, without waiting for what runs, and returns it.
func (c *Client) Terminate(ctx context.Context, executionID, reason string) (*flowkeepv1.TerminateResponse, error) {
	request := &flowkeepv1.TerminateRequest{ExecutionId: executionID, Reason: reason, RequestId: requestID("")}
	return call(ctx, c, c.executions.Terminate, request, c.timeout)
}

// RetryOptions says how an execution goes on after its end.
type RetryOptions struct {
	// RequestID is the id of the request; without one the client makes it.
	RequestID string
	// Reason is for the history.
	Reason string
	// Timeout is how long the new run may take from now on; by default the timeout of the execution.
	Timeout time.Duration
	// Edit is what one step is called with this time; it excludes Skip.
	Edit *flowkeepv1.RetryRequest_EditedInput
	// Skip is a step that is not run, and what it gives.
	Skip *flowkeepv1.RetryRequest_SkippedStep
}

// Retry lets an execution that ended FAILED, TIMED_OUT or CANCELLED go on from what failed, keeping what is done. Of one
// in another state the error is ErrFailedPrecondition, EXECUTION_STATE.
func (c *Client) Retry(ctx context.Context, executionID string, options *RetryOptions) (*flowkeepv1.Execution, error) {
	var set RetryOptions
	if options != nil {
		set = *options
	}
	request := &flowkeepv1.RetryRequest{
		ExecutionId: executionID, Reason: set.Reason, RequestId: requestID(set.RequestID),
	}
	if set.Timeout > 0 {
		request.Timeout = durationpb.New(set.Timeout)
	}
	if set.Edit != nil {
		request.Change = &flowkeepv1.RetryRequest_Edit{Edit: set.Edit}
	} else if set.Skip != nil {
		request.Change = &flowkeepv1.RetryRequest_Skip{Skip: set.Skip}
	}
	response, err := call(ctx, c, c.executions.Retry, request, c.timeout)
	return response.GetExecution(), err
}

// ForkOptions says what is otherwise in an execution that is made from another one; what is not given is as it was.
type ForkOptions struct {
	// RequestID is the id of the request; without one the client makes it.
	RequestID string
	// Step is the id of the step to begin from; what lies before is inherited and does not run. Empty is the beginning.
	Step string
	// Iteration is the number of the whole run of that step; 0 is the newest.
	Iteration int32
	// Input is the input of the new execution, as for Execute.
	Input any
	// Vars are variables that stand so where it begins, as an input is given.
	Vars any
	// Outputs are those of steps before, in place of what was recorded.
	Outputs []*flowkeepv1.ForkExecutionRequest_GivenOutput
	// Revision is the one that it runs; 0 is the latest.
	Revision *int32
	// ValidateOnly only asks what does not fit.
	ValidateOnly bool
}

// Fork makes a new execution of an existing one, which stays as it is. With ValidateOnly the response only has the checks:
// what is recorded and does not fit; else the error is ErrFailedPrecondition, FORK_NOT_FITTING, where there are some.
func (c *Client) Fork(
	ctx context.Context, executionID string, options *ForkOptions,
) (*flowkeepv1.ForkExecutionResponse, error) {
	var set ForkOptions
	if options != nil {
		set = *options
	}
	request := &flowkeepv1.ForkExecutionRequest{
		ExecutionId: executionID, RequestId: requestID(set.RequestID), Revision: set.Revision, ValidateOnly: set.ValidateOnly,
	}
	if set.Input != nil {
		given, err := toStruct(set.Input, "input")
		if err != nil {
			return nil, err
		}
		request.Input = given
	}
	if set.Vars != nil {
		given, err := toStruct(set.Vars, "vars")
		if err != nil {
			return nil, err
		}
		request.Vars = given
	}
	request.StepPath, request.StepIteration, request.Outputs = set.Step, set.Iteration, set.Outputs
	return call(ctx, c, c.executions.ForkExecution, request, c.timeout)
}
