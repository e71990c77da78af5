package flowkeep_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	flowkeep "flowkeep.dev/go"
	flowkeepv1 "flowkeep.dev/go/v1"
)

func TestWorkflowsAreAppliedAndAgainChangeNothing(t *testing.T) {
	client, ctx := dial(t, target(t)), t.Context()
	name := fmt.Sprintf("go-%d", time.Now().UnixNano())
	document := object{"name": name, "ordering": "GRAPH", "timeout": "1h30m", "steps": []object{greet}}
	for _, wanted := range []string{"OUTCOME_CREATED", "OUTCOME_UNCHANGED"} {
		results := must[[]*flowkeepv1.ApplyWorkflowsResponse_Result](t)(client.Apply(ctx, nil, document))
		equal(t, results[0].GetOutcome().String(), wanted)
	}
	found := must[*flowkeepv1.Workflow](t)(client.GetWorkflow(ctx, name, 0))
	equal(t, found.GetDefinition().GetTimeout().AsDuration(), 90*time.Minute)
	listed := must[[]*flowkeepv1.Workflow](t)(collected(client.ListWorkflows(ctx, name)))
	equal(t, len(listed), 1)
	if err := client.DeleteWorkflow(ctx, name, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := client.GetWorkflow(ctx, name, 0); !errors.Is(err, flowkeep.ErrNotFound) {
		t.Fatal(err)
	}
}

func TestADefinitionThatIsNotSoundIsRefusedWithItsPaths(t *testing.T) {
	client, ctx := dial(t, target(t)), t.Context()
	unsound := object{"name": "unsound", "steps": []object{{"id": "a", "handler": "absent"}}}
	violations := must[[]flowkeep.Violation](t)(client.ValidateWorkflow(ctx, unsound))
	equal(t, violations[0].Field, "steps[0].handler")
	var wrong *flowkeep.DefinitionError
	if _, err := client.Apply(ctx, &flowkeep.ApplyOptions{ValidateOnly: true}, unsound); !errors.As(err, &wrong) {
		t.Fatal(err)
	}
	_, err := client.Apply(ctx, nil, unsound)
	var refused *flowkeep.Error
	if !errors.As(err, &refused) || !errors.Is(err, flowkeep.ErrInvalidArgument) {
		t.Fatal(err)
	}
	equal(t, refused.Reason, "INVALID_FIELDS")
	equal(t, refused.Violations[0].Field, "definitions[0].steps[0].handler")
	equal(t, status.Code(err), codes.InvalidArgument)
}

func TestTheNextExecutionOfAWorkflowIsHeld(t *testing.T) {
	client, ctx := dial(t, target(t)), t.Context()
	name := made(t, client, object{"id": "greet", "handler": "transform", "params": object{"value": "hello"}})
	options := &flowkeep.WorkflowBreakpointsOptions{Executions: 1, ExpireTime: time.Now().Add(time.Hour)}
	set := must[*flowkeepv1.WorkflowBreakpoints](t)(client.SetWorkflowBreakpoints(ctx, name, options, &flowkeepv1.Breakpoint{Path: "greet"}))
	equal(t, set.GetExecutionsLeft(), 1)
	held := must[*flowkeepv1.Execution](t)(client.Execute(ctx, name, nil, nil))
	equal(t, held.GetBreakpoints()[0].GetPath(), "greet")
	gone := must[*flowkeepv1.WorkflowBreakpoints](t)(client.SetWorkflowBreakpoints(ctx, name, nil))
	equal(t, gone == nil, true)
	var result string
	if err := client.Run(ctx, name, nil, &result, nil); err != nil {
		t.Fatal(err)
	}
	equal(t, result, "hello")
}

func TestAPausedWorkflowLetsExecutionsWait(t *testing.T) {
	client, ctx := dial(t, target(t)), t.Context()
	name := made(t, client, object{"id": "greet", "handler": "transform", "params": object{"value": "hello"}})
	options := &flowkeep.PauseWorkflowOptions{Reason: "an incident", PauseRunning: true}
	paused := must[*flowkeepv1.Workflow](t)(client.PauseWorkflow(ctx, name, options))
	equal(t, paused.GetPause().GetReason(), "an incident")
	equal(t, paused.GetPause().GetRunningPaused(), true)
	execution := must[*flowkeepv1.Execution](t)(client.Execute(ctx, name, nil, nil))
	equal(t, execution.GetState(), flowkeepv1.Execution_STATE_PENDING)
	resumed := must[*flowkeepv1.Workflow](t)(client.ResumeWorkflow(ctx, name, "over"))
	equal(t, resumed.GetPause() == nil, true)
	var result string
	if err := client.Result(ctx, execution.GetExecutionId(), &result); err != nil {
		t.Fatal(err)
	}
	equal(t, result, "hello")
}
