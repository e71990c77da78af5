// Package flowkeep is a thin client of Flowkeep, the durable workflow service: values of Go in and messages out, with the
// retries, request ids and resuming watches that the service asks of its callers. The messages are in flowkeep.dev/go/v1.
package flowkeep

import (
	"context"
	"fmt"
	"iter"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	flowkeepv1 "flowkeep.dev/go/v1"
)

const waitTimeout = 300 * time.Second

// Client is a connection to Flowkeep, opened by its first call. It may be used by several goroutines.
//
// Every method returns an *Error when the service refuses a call or cannot be reached, and the cause of the context's end
// when that comes first. A call that met a broken connection, or a server that is away or has too much work, is sent
// again, with growing pauses, until the timeout (30 s) has passed in all: safe, because reads may be repeated, and each
// call that changes something carries a request id, under which the server does it once and answers it as often as it
// comes.
type Client struct {
	channel    *grpc.ClientConn
	executions flowkeepv1.ExecutionServiceClient
	workflows  flowkeepv1.WorkflowServiceClient
	workers    flowkeepv1.WorkerServiceClient
	tasks      flowkeepv1.TaskServiceClient
	bulks      flowkeepv1.BulkServiceClient
	notices    flowkeepv1.NotificationServiceClient
	token      TokenSource
	renews     bool // each call may have another token than the one before
	timeout    time.Duration
}

// New returns a client of the server at a target, host:port or unix:/path. It connects at the first call.
func New(target string, options ...Option) (*Client, error) {
	set := settings{timeout: defaultTimeout}
	for _, option := range options {
		option(&set)
	}
	channel, err := connect(target, set)
	if err != nil {
		return nil, err
	}
	return &Client{
		channel:    channel,
		executions: flowkeepv1.NewExecutionServiceClient(channel),
		workflows:  flowkeepv1.NewWorkflowServiceClient(channel),
		workers:    flowkeepv1.NewWorkerServiceClient(channel),
		tasks:      flowkeepv1.NewTaskServiceClient(channel),
		bulks:      flowkeepv1.NewBulkServiceClient(channel),
		notices:    flowkeepv1.NewNotificationServiceClient(channel),
		token:      set.token,
		renews:     set.renews,
		timeout:    set.timeout,
	}, nil
}

// Close closes the connection. Calls and watches under way end with an error.
func (c *Client) Close() error { return c.channel.Close() }

// ApplyOptions says how workflows are applied.
type ApplyOptions struct {
	// RequestID is the id of the request; without one the client makes it.
	RequestID string
	// ValidateOnly writes nothing: the results say what would be done.
	ValidateOnly bool
}

// Apply makes one or more workflows be as their definitions say, all or none, and returns in order what became of each.
// A definition is a message or what Definition reads.
//
// The error is a *DefinitionError for documents that are no definitions, or with ValidateOnly not sound, else an *Error
// that is ErrInvalidArgument; both by paths such as definitions[3].steps[0].id.
func (c *Client) Apply(ctx context.Context, options *ApplyOptions, documents ...any) ([]*flowkeepv1.ApplyWorkflowsResponse_Result, error) {
	var set ApplyOptions
	if options != nil {
		set = *options
	}
	messages, err := definitions(documents)
	if err != nil {
		return nil, err
	}
	request := &flowkeepv1.ApplyWorkflowsRequest{
		Definitions: messages, ValidateOnly: set.ValidateOnly, RequestId: requestID(set.RequestID),
	}
	response, err := call(ctx, c, c.workflows.ApplyWorkflows, request, c.timeout)
	if err != nil {
		return nil, err
	}
	if wrong := response.GetViolations(); len(wrong) > 0 {
		return nil, &DefinitionError{violations(wrong)}
	}
	return response.GetResults(), nil
}

// ValidateWorkflow returns all that is wrong with a definition, nothing if it is sound. It keeps nothing.
func (c *Client) ValidateWorkflow(ctx context.Context, document any) ([]Violation, error) {
	message, err := Definition(document)
	if wrong, isWrong := err.(*DefinitionError); isWrong {
		return wrong.Violations, nil
	}
	if err != nil {
		return nil, err
	}
	request := &flowkeepv1.ValidateWorkflowRequest{Definition: message}
	response, err := call(ctx, c, c.workflows.ValidateWorkflow, request, c.timeout)
	if err != nil {
		return nil, err
	}
	return violations(response.GetViolations()), nil
}

func violations(wrong []*flowkeepv1.ValidateWorkflowResponse_Violation) []Violation {
	var found []Violation
	for _, each := range wrong {
		found = append(found, Violation{each.GetField(), each.GetDescription()})
	}
	return found
}

// GetWorkflow returns a workflow, by id or name, at a revision; 0 is the latest.
func (c *Client) GetWorkflow(ctx context.Context, workflow string, revision int32) (*flowkeepv1.Workflow, error) {
	request := &flowkeepv1.GetWorkflowRequest{Workflow: workflow, Revision: revision}
	response, err := call(ctx, c, c.workflows.GetWorkflow, request, c.timeout)
	return response.GetWorkflow(), err
}

// ListWorkflows yields the workflows whose names begin with a prefix, newest first, without their definitions.
func (c *Client) ListWorkflows(ctx context.Context, namePrefix string) iter.Seq2[*flowkeepv1.Workflow, error] {
	request := &flowkeepv1.ListWorkflowsRequest{NamePrefix: namePrefix}
	return pages(&request.PageToken, func() ([]*flowkeepv1.Workflow, string, error) {
		page, err := call(ctx, c, c.workflows.ListWorkflows, request, c.timeout)
		return page.GetWorkflows(), page.GetNextPageToken(), err
	})
}

// DeleteOptions says how a workflow is deleted.
type DeleteOptions struct {
	// RequestID is the id of the request; without one the client makes it.
	RequestID string
	// Etag of the workflow as it was read: when that no longer fits, the error is ErrFailedPrecondition.
	Etag string
	// Force cancels executions that have not ended; without it the error is ErrFailedPrecondition then.
	Force bool
}

// DeleteWorkflow deletes a workflow with all its executions.
func (c *Client) DeleteWorkflow(ctx context.Context, workflow string, options *DeleteOptions) error {
	var set DeleteOptions
	if options != nil {
		set = *options
	}
	request := &flowkeepv1.DeleteWorkflowRequest{
		Workflow: workflow, Etag: set.Etag, Force: set.Force, RequestId: requestID(set.RequestID),
	}
	_, err := call(ctx, c, c.workflows.DeleteWorkflow, request, c.timeout)
	return err
}

// PauseWorkflowOptions says how a whole workflow is paused.
type PauseWorkflowOptions struct {
	// RequestID is the id of the request; without one the client makes it.
	RequestID string
	// Reason is for all who look at it.
	Reason string
	// PauseRunning pauses executions that run, too, as Pause does with Hard and StopDeadline.
	PauseRunning, Hard, StopDeadline bool
}

// PauseWorkflow lets executions of a workflow wait, PENDING, before they start until it is resumed, and returns it.
func (c *Client) PauseWorkflow(ctx context.Context, workflow string, options *PauseWorkflowOptions) (*flowkeepv1.Workflow, error) {
	var set PauseWorkflowOptions
	if options != nil {
		set = *options
	}
	request := &flowkeepv1.PauseWorkflowRequest{
		Workflow: workflow, Reason: set.Reason, PauseRunning: set.PauseRunning, Hard: set.Hard,
		StopDeadline: set.StopDeadline, RequestId: requestID(set.RequestID),
	}
	response, err := call(ctx, c, c.workflows.PauseWorkflow, request, c.timeout)
	return response.GetWorkflow(), err
}

// ResumeWorkflow lets what waits of a paused workflow start, and what its pause has paused go on, and returns it.
func (c *Client) ResumeWorkflow(ctx context.Context, workflow, reason string) (*flowkeepv1.Workflow, error) {
	request := &flowkeepv1.ResumeWorkflowRequest{Workflow: workflow, Reason: reason, RequestId: requestID("")}
	response, err := call(ctx, c, c.workflows.ResumeWorkflow, request, c.timeout)
	return response.GetWorkflow(), err
}

// WorkflowBreakpointsOptions says for how many of the next executions breakpoints are, and until when.
type WorkflowBreakpointsOptions struct {
	// RequestID is the id of the request; without one the client makes it.
	RequestID string
	// Executions is how many take them up; 0 for one.
	Executions int32
	// ExpireTime is until when; the zero time for a day.
	ExpireTime time.Time
}

// SetWorkflowBreakpoints lets the next executions of a workflow be held before steps, without breakpoints none, and
// returns what is set: nil for nothing.
func (c *Client) SetWorkflowBreakpoints(ctx context.Context, workflow string, options *WorkflowBreakpointsOptions, breakpoints ...*flowkeepv1.Breakpoint) (*flowkeepv1.WorkflowBreakpoints, error) {
	var set WorkflowBreakpointsOptions
	if options != nil {
		set = *options
	}
	request := &flowkeepv1.SetWorkflowBreakpointsRequest{
		Workflow: workflow, Breakpoints: breakpoints, Executions: set.Executions, RequestId: requestID(set.RequestID),
	}
	if !set.ExpireTime.IsZero() {
		request.ExpireTime = timestamppb.New(set.ExpireTime)
	}
	response, err := call(ctx, c, c.workflows.SetWorkflowBreakpoints, request, c.timeout)
	return response.GetBreakpoints(), err
}

// ListHandlers returns what steps can run, by name.
func (c *Client) ListHandlers(ctx context.Context) ([]*flowkeepv1.Handler, error) {
	response, err := call(ctx, c, c.workflows.ListHandlers, &flowkeepv1.ListHandlersRequest{}, c.timeout)
	return response.GetHandlers(), err
}

// ListWorkers returns the workers that are connected, by name, and what they run; with a handler those that have it.
func (c *Client) ListWorkers(ctx context.Context, handler string) ([]*flowkeepv1.Worker, error) {
	response, err := call(ctx, c, c.workers.ListWorkers, &flowkeepv1.ListWorkersRequest{Handler: handler}, c.timeout)
	return response.GetWorkers(), err
}

// Execute starts an execution and returns it, with Wait when it has ended. The input is anything of which encoding/json
// makes an object, or nil.
//
// Once this returns without an error, the execution is kept and will reach its end. When the error is ErrUnavailable it
// may have started: call again with the same RequestID.
func (c *Client) Execute(ctx context.Context, workflow string, input any, options *ExecuteOptions) (*flowkeepv1.Execution, error) {
	request, err := NewExecuteRequest(workflow, input, options)
	if err != nil {
		return nil, err
	}
	response, err := c.Start(ctx, request)
	return response.GetExecution(), err
}

// Start sends a request made by NewExecuteRequest; the response also tells whether this call made the execution.
func (c *Client) Start(ctx context.Context, request *flowkeepv1.ExecuteRequest) (*flowkeepv1.ExecuteResponse, error) {
	timeout := c.timeout
	if request.GetWait() {
		timeout = max(timeout, waitTimeout)
	}
	return call(ctx, c, c.executions.Execute, request, timeout)
}

// GetExecution returns an execution, with its steps and payloads in the view FULL.
func (c *Client) GetExecution(ctx context.Context, executionID string, view flowkeepv1.ExecutionView) (*flowkeepv1.Execution, error) {
	request := &flowkeepv1.GetExecutionRequest{ExecutionId: executionID, View: view}
	response, err := call(ctx, c, c.executions.GetExecution, request, c.timeout)
	return response.GetExecution(), err
}

// GetExecutionAt returns an execution as it was after an event, with its steps and payloads. The error is ErrOutOfRange
// beyond the newest event.
func (c *Client) GetExecutionAt(ctx context.Context, executionID string, seq int64) (*flowkeepv1.Execution, error) {
	request := &flowkeepv1.GetExecutionRequest{ExecutionId: executionID, AtSeq: seq}
	response, err := call(ctx, c, c.executions.GetExecution, request, c.timeout)
	return response.GetExecution(), err
}

// ListExecutions yields the executions that meet all filters. Pages are fetched as needed; an error is the last thing
// that it yields.
func (c *Client) ListExecutions(ctx context.Context, options *ListOptions) iter.Seq2[*flowkeepv1.Execution, error] {
	var set ListOptions
	if options != nil {
		set = *options
	}
	request := &flowkeepv1.ListExecutionsRequest{
		Filter: set.message(), Order: set.Order, View: set.View, PageSize: set.PageSize,
	}
	return pages(&request.PageToken, func() ([]*flowkeepv1.Execution, string, error) {
		page, err := call(ctx, c, c.executions.ListExecutions, request, c.timeout)
		return page.GetExecutions(), page.GetNextPageToken(), err
	})
}

// ListSteps yields the steps of an execution in the order of the definition, in the view FULL with their payloads.
func (c *Client) ListSteps(ctx context.Context, executionID string, view flowkeepv1.StepView) iter.Seq2[*flowkeepv1.StepExecution, error] {
	request := &flowkeepv1.ListStepsRequest{ExecutionId: executionID, View: view}
	return pages(&request.PageToken, func() ([]*flowkeepv1.StepExecution, string, error) {
		page, err := call(ctx, c, c.executions.ListSteps, request, c.timeout)
		return page.GetSteps(), page.GetNextPageToken(), err
	})
}

// GetStep returns a step with all of its payloads, in an iteration; 0 is the newest.
func (c *Client) GetStep(ctx context.Context, executionID, path string, iteration int32) (*flowkeepv1.GetStepResponse, error) {
	request := &flowkeepv1.GetStepRequest{ExecutionId: executionID, Path: path, Iteration: iteration}
	return call(ctx, c, c.executions.GetStep, request, c.timeout)
}

// CompareExecutions returns how another execution, of the same workflow or another one, differs from one, step by step.
func (c *Client) CompareExecutions(ctx context.Context, executionID, otherExecutionID string) (*flowkeepv1.CompareExecutionsResponse, error) {
	request := &flowkeepv1.CompareExecutionsRequest{ExecutionId: executionID, OtherExecutionId: otherExecutionID}
	return call(ctx, c, c.executions.CompareExecutions, request, c.timeout)
}

// ExplainExecution returns why an execution and each of its open steps do not move.
func (c *Client) ExplainExecution(ctx context.Context, executionID string) (*flowkeepv1.ExplainExecutionResponse, error) {
	request := &flowkeepv1.ExplainExecutionRequest{ExecutionId: executionID}
	return call(ctx, c, c.executions.ExplainExecution, request, c.timeout)
}

// ExplainQueue returns why executions of a workflow, by name or id, wait for a server with room: up to pageSize of them, 0 for 50.
func (c *Client) ExplainQueue(ctx context.Context, workflow string, pageSize int32) (*flowkeepv1.ExplainQueueResponse, error) {
	request := &flowkeepv1.ExplainQueueRequest{Workflow: workflow, PageSize: pageSize}
	return call(ctx, c, c.executions.ExplainQueue, request, c.timeout)
}

// TestStep runs one step by itself and keeps nothing of it. The handler is really called, once: a call that met a broken
// connection is not made again. It takes as long as ctx lets it. A step that cannot be run so is ErrFailedPrecondition,
// STEP_NOT_TESTED.
func (c *Client) TestStep(ctx context.Context, request *flowkeepv1.TestStepRequest) (*flowkeepv1.TestStepResponse, error) {
	attempt, err := c.authorized(ctx)
	if err != nil {
		return nil, err
	}
	response, err := c.executions.TestStep(attempt, request)
	switch {
	case err == nil:
		return response, nil
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	}
	return nil, fromRPC(err)
}

// Result waits for the end of an execution and reads its result into what target points to, as encoding/json does; nil
// leaves it unread. The error is an *ExecutionFailedError when it ended otherwise than COMPLETED, or one of Watch.
func (c *Client) Result(ctx context.Context, executionID string, target any) error {
	execution, err := c.GetExecution(ctx, executionID, flowkeepv1.ExecutionView_EXECUTION_VIEW_BASIC)
	if err != nil {
		return err
	}
	return c.resultOf(ctx, execution, target)
}

// Run starts an execution, waits for its end and reads its result, as Execute and Result do.
func (c *Client) Run(ctx context.Context, workflow string, input, target any, options *ExecuteOptions) error {
	execution, err := c.Execute(ctx, workflow, input, options)
	if err != nil {
		return err
	}
	return c.resultOf(ctx, execution, target)
}

func (c *Client) resultOf(ctx context.Context, execution *flowkeepv1.Execution, target any) error {
	// From the newest event on: of an execution that has ended, that one is the finished event.
	from := &WatchOptions{AfterSeq: max(0, execution.GetLastSeq()-1)}
	for event, err := range c.Watch(ctx, execution.GetExecutionId(), from) {
		if err != nil {
			return err
		}
		finished := event.GetFinished()
		if finished == nil {
			continue
		}
		if finished.GetState() != flowkeepv1.Execution_STATE_COMPLETED {
			return &ExecutionFailedError{execution.GetExecutionId(), finished.GetState(), finished.GetFailure()}
		}
		return into(finished.GetResult(), target)
	}
	return fmt.Errorf("the history of execution %s ended without its finished event", execution.GetExecutionId())
}

// pages yields what a list holds, fetching page after page until the last.
func pages[Item any](token *string, fetch func() (items []Item, nextToken string, err error)) iter.Seq2[Item, error] {
	return func(yield func(Item, error) bool) {
		*token = ""
		for {
			items, nextToken, err := fetch()
			if err != nil {
				var none Item
				yield(none, err)
				return
			}
			for _, item := range items {
				if !yield(item, nil) {
					return
				}
			}
			if *token = nextToken; nextToken == "" {
				return
			}
		}
	}
}
