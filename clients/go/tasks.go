package flowkeep

import (
	"context"
	"iter"

	"google.golang.org/grpc"

	flowkeepv1 "flowkeep.dev/go/v1"
)

// TaskFilters says which tasks of people are meant; all that is given must hold.
type TaskFilters struct {
	States []flowkeepv1.Task_State
	// Mine: those that the caller could complete.
	Mine        bool
	Group       string
	ExecutionID string
}

func (f *TaskFilters) message() *flowkeepv1.TaskFilter {
	if f == nil {
		return &flowkeepv1.TaskFilter{}
	}
	return &flowkeepv1.TaskFilter{States: f.States, Mine: f.Mine, Group: f.Group, ExecutionId: f.ExecutionID}
}

// TaskOptions says how a task is changed.
type TaskOptions struct {
	// RequestID is the id of the request; without one the client makes it.
	RequestID string
	// Comment is kept with a task that is completed or delegated.
	Comment string
}

func (o *TaskOptions) orNone() TaskOptions {
	if o == nil {
		return TaskOptions{}
	}
	return *o
}

// GetTask returns a task with its description, form, values and comments. The error is ErrNotFound for one that the caller
// does not see.
func (c *Client) GetTask(ctx context.Context, taskID string) (*flowkeepv1.Task, error) {
	response, err := call(ctx, c, c.tasks.GetTask, &flowkeepv1.GetTaskRequest{TaskId: taskID}, c.timeout)
	return response.GetTask(), err
}

// ListTasks yields the tasks that meet all filters, newest first. Pages are fetched as needed; an error is the last thing
// that it yields.
func (c *Client) ListTasks(ctx context.Context, filters *TaskFilters) iter.Seq2[*flowkeepv1.Task, error] {
	request := &flowkeepv1.ListTasksRequest{Filter: filters.message()}
	return pages(&request.PageToken, func() ([]*flowkeepv1.Task, string, error) {
		page, err := call(ctx, c, c.tasks.ListTasks, request, c.timeout)
		return page.GetTasks(), page.GetNextPageToken(), err
	})
}

// WatchTasks yields the newest 2,000 tasks that meet all filters, then what changes, through any broken connection: after a
// break all of them come again. It never ends by itself; an error is the last thing that it yields.
func (c *Client) WatchTasks(ctx context.Context, filters *TaskFilters) iter.Seq2[*flowkeepv1.WatchTasksResponse, error] {
	request := &flowkeepv1.WatchTasksRequest{Filter: filters.message()}
	return lasting(ctx, c, func(ctx context.Context) (grpc.ServerStreamingClient[flowkeepv1.WatchTasksResponse], error) {
		return c.tasks.WatchTasks(ctx, request)
	}, nil)
}

// ClaimTask takes a task, so that nobody else works on it, and returns it. The error is ErrPermissionDenied,
// TASK_NOT_ASSIGNED, for what is for others, and ErrFailedPrecondition for what has ended, TASK_ENDED, or is claimed by
// another, TASK_CLAIMED; so it is of the calls below.
func (c *Client) ClaimTask(ctx context.Context, taskID string, options *TaskOptions) (*flowkeepv1.Task, error) {
	request := &flowkeepv1.ClaimTaskRequest{TaskId: taskID, RequestId: requestID(options.orNone().RequestID)}
	response, err := call(ctx, c, c.tasks.ClaimTask, request, c.timeout)
	return response.GetTask(), err
}

// ReleaseTask gives a claimed task back, and returns it.
func (c *Client) ReleaseTask(ctx context.Context, taskID string, options *TaskOptions) (*flowkeepv1.Task, error) {
	request := &flowkeepv1.ReleaseTaskRequest{TaskId: taskID, RequestId: requestID(options.orNone().RequestID)}
	response, err := call(ctx, c, c.tasks.ReleaseTask, request, c.timeout)
	return response.GetTask(), err
}

// CompleteTask ends a task with one of its outcomes, empty for the only one, and values that meet its form: anything of
// which encoding/json makes an object, or nil. The error is a *PayloadError for values that payloads cannot carry, and
// ErrInvalidArgument for those that the form refuses.
func (c *Client) CompleteTask(ctx context.Context, taskID, outcome string, values any, options *TaskOptions) (*flowkeepv1.Task, error) {
	payload, err := toStruct(values, "values")
	if err != nil {
		return nil, err
	}
	set := options.orNone()
	request := &flowkeepv1.CompleteTaskRequest{
		TaskId: taskID, Outcome: outcome, Values: payload, Comment: set.Comment, RequestId: requestID(set.RequestID),
	}
	response, err := call(ctx, c, c.tasks.CompleteTask, request, c.timeout)
	return response.GetTask(), err
}

// DelegateTask hands a task to another subject, and returns it.
func (c *Client) DelegateTask(ctx context.Context, taskID, assignee string, options *TaskOptions) (*flowkeepv1.Task, error) {
	set := options.orNone()
	request := &flowkeepv1.DelegateTaskRequest{
		TaskId: taskID, Assignee: assignee, Comment: set.Comment, RequestId: requestID(set.RequestID),
	}
	response, err := call(ctx, c, c.tasks.DelegateTask, request, c.timeout)
	return response.GetTask(), err
}

// CommentTask adds a comment to a task, and returns it.
func (c *Client) CommentTask(ctx context.Context, taskID, comment string, options *TaskOptions) (*flowkeepv1.Task, error) {
	request := &flowkeepv1.CommentTaskRequest{
		TaskId: taskID, Text: comment, RequestId: requestID(options.orNone().RequestID),
	}
	response, err := call(ctx, c, c.tasks.CommentTask, request, c.timeout)
	return response.GetTask(), err
}
