package flowkeep

import (
	"context"
	"iter"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	flowkeepv1 "flowkeep.dev/go/v1"
)

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
