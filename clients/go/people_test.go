package flowkeep_test

import (
	"errors"
	"fmt"
	"testing"

	flowkeep "flowkeep.dev/go"
	flowkeepv1 "flowkeep.dev/go/v1"
)

var ask = object{"id": "ask", "handler": "create_task", "params": object{
	"title":     "Approve",
	"outcomes":  []string{"approved", "rejected"},
	"assignees": []string{"developer"},
	"form":      object{"type": "object", "properties": object{"amount": object{"type": "number", "maximum": 100}}},
}}

// taskOf returns the task of an execution, once it is there.
func taskOf(t *testing.T, client *flowkeep.Client, executionID string) *flowkeepv1.Task {
	t.Helper()
	for response, err := range client.WatchTasks(t.Context(), &flowkeep.TaskFilters{ExecutionID: executionID}) {
		if err != nil {
			t.Fatal(err)
		}
		if tasks := response.GetTasks(); len(tasks) > 0 {
			return tasks[0]
		}
	}
	return nil
}

func TestATaskIsSeenThroughABrokenConnectionWorkedOnAndCompleted(t *testing.T) {
	client, ctx := dial(t, target(t)), t.Context()
	way := relayTo(t, target(t), "127.0.0.1:0")
	far := dial(t, way.target)
	execution := started(t, client, made(t, client, ask), nil, nil)
	task := taskOf(t, client, execution.GetExecutionId())
	id, responses := task.GetTaskId(), 0
	for response, err := range far.WatchTasks(ctx, &flowkeep.TaskFilters{ExecutionID: execution.GetExecutionId()}) {
		if err != nil {
			t.Fatal(err)
		}
		if len(response.GetTasks()) == 0 {
			continue
		}
		if responses++; responses == 1 {
			way.cut()
			must[*flowkeepv1.Task](t)(client.ClaimTask(ctx, id, nil)) // while nobody is connected
		} else if response.GetTasks()[0].GetState() == flowkeepv1.Task_STATE_CLAIMED {
			break
		}
	}
	must[*flowkeepv1.Task](t)(client.ReleaseTask(ctx, id, nil))
	must[*flowkeepv1.Task](t)(client.ClaimTask(ctx, id, &flowkeep.TaskOptions{RequestID: "claim-" + id}))
	must[*flowkeepv1.Task](t)(client.CommentTask(ctx, id, "one moment", nil))
	if _, err := client.CompleteTask(ctx, id, "approved", object{"amount": 1000}, nil); !errors.Is(err, flowkeep.ErrInvalidArgument) {
		t.Fatal(err)
	}
	done := must[*flowkeepv1.Task](t)(
		client.CompleteTask(ctx, id, "approved", object{"amount": 90}, &flowkeep.TaskOptions{Comment: "fine"}),
	)
	equal(t, len(done.GetComments()), 2)
	if _, err := client.ClaimTask(ctx, id, nil); !errors.Is(err, flowkeep.ErrFailedPrecondition) {
		t.Fatal(err)
	}
	if _, err := client.GetTask(ctx, absent); !errors.Is(err, flowkeep.ErrNotFound) {
		t.Fatal(err)
	}
	if err := client.Result(ctx, execution.GetExecutionId(), nil); err != nil {
		t.Fatal(err)
	}
}

func TestTasksAreListedByWhatTheyAreAndHandedOn(t *testing.T) {
	client, ctx := dial(t, target(t)), t.Context()
	execution := started(t, client, made(t, client, ask), nil, nil)
	taskOf(t, client, execution.GetExecutionId())
	filters := &flowkeep.TaskFilters{
		ExecutionID: execution.GetExecutionId(), Mine: true, States: []flowkeepv1.Task_State{flowkeepv1.Task_STATE_OPEN},
	}
	found := must[[]*flowkeepv1.Task](t)(collected(client.ListTasks(ctx, filters)))
	equal(t, len(found), 1)
	handed := must[*flowkeepv1.Task](t)(client.DelegateTask(ctx, found[0].GetTaskId(), "somebody", nil))
	equal(t, handed.GetAssignees(), []string{"somebody"})
	must[*flowkeepv1.CancelResponse](t)(client.Cancel(ctx, execution.GetExecutionId(), nil))
}

func TestNotificationsAreWatchedThroughABrokenConnectionCountedAndRead(t *testing.T) {
	client, ctx := dial(t, target(t)), t.Context()
	way := relayTo(t, target(t), "127.0.0.1:0")
	far := dial(t, way.target)
	tell := func(title string) *flowkeepv1.Execution {
		params := object{"in_app": object{"to": "developer", "title": title}}
		step := object{"id": "tell", "handler": "send_notification", "params": params}
		return started(t, client, made(t, client, step), nil, &flowkeep.ExecuteOptions{Wait: true})
	}
	tell("1")
	var newest *flowkeepv1.Notification
	for notification, err := range client.ListNotifications(ctx, false) {
		if err != nil {
			t.Fatal(err)
		}
		newest = notification
		break
	}
	before, seen := newest.GetSeq()-1, 0
	for notification, err := range far.WatchNotifications(ctx, &before) {
		if err != nil {
			t.Fatal(err)
		}
		seen++
		equal(t, notification.GetTitle(), seen)
		newest = notification
		if seen == 3 {
			break
		}
		way.cut()
		tell(fmt.Sprint(seen + 1)) // while nobody is connected
	}
	if unread := must[int](t)(client.CountUnreadNotifications(ctx)); unread < 3 {
		t.Fatal(unread)
	}
	for _, read := range []flowkeep.ReadOptions{{UpToSeq: newest.GetSeq()}, {Seqs: []int64{newest.GetSeq()}}} {
		equal(t, must[int](t)(client.MarkNotificationsRead(ctx, read)), 0)
	}
	equal(t, len(must[[]*flowkeepv1.Notification](t)(collected(client.ListNotifications(ctx, true)))), 0)
}

func TestWorkersAreListedByWhatTheyHave(t *testing.T) {
	found := must[[]*flowkeepv1.Worker](t)(dial(t, target(t)).ListWorkers(t.Context(), "none"))
	equal(t, len(found), 0)
}
