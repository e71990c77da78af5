// Package flowkeep is a thin client of Flowkeep, the durable workflow service: values of Go in and messages out, with the
// retries, request ids and resuming watches that the service asks of its callers. The messages are in flowkeep.dev/go/v1.
package flowkeep

import (
	"context"
	"fmt"
	"iter"
	"time"

	"google.golang.org/grpc"

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
