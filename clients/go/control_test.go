package flowkeep_test

import (
	"errors"
	"testing"

	"google.golang.org/protobuf/types/known/structpb"

	flowkeep "flowkeep.dev/go"
	flowkeepv1 "flowkeep.dev/go/v1"
)

var (
	shout = object{"id": "shout", "handler": "transform", "params": object{"value": "${ steps.greet.output.upperAscii() }"}}
	halve = object{"id": "halve", "handler": "transform", "params": object{"expression": "10 / input.by"}}
	you   = object{"name": "you"}
)

// held returns before which step an execution is held after an event, and the number of the event that tells it.
func held(t *testing.T, client *flowkeep.Client, executionID string, afterSeq int64) (string, int64) {
	t.Helper()
	for event, err := range client.Watch(t.Context(), executionID, &flowkeep.WatchOptions{AfterSeq: afterSeq}) {
		if err != nil {
			t.Fatal(err)
		}
		if event.GetPaused() != nil {
			return event.GetPaused().GetStepPath(), event.GetSeq()
		}
	}
	t.Fatal("it has ended")
	return "", 0
}

func TestVariablesAreSetWhileAnExecutionIsHeldAndSeenByWhatComesLater(t *testing.T) {
	client, ctx := dial(t, target(t)), t.Context()
	count := object{"id": "count", "handler": "transform", "params": object{"value": 1}, "assign": object{"n": "result"}}
	show := object{"id": "show", "handler": "transform", "params": object{"value": "${ vars.n }"}}
	options := &flowkeep.ExecuteOptions{Breakpoints: []*flowkeepv1.Breakpoint{{Path: "show"}}}
	id := started(t, client, made(t, client, count, show), nil, options).GetExecutionId()
	path, _ := held(t, client, id, 0)
	equal(t, path, "show")
	must[*flowkeepv1.Execution](t)(client.EditVariables(ctx, id, object{"n": 7}))
	must[*flowkeepv1.ResumeResponse](t)(client.Resume(ctx, id, ""))
	var result int
	if err := client.Result(ctx, id, &result); err != nil {
		t.Fatal(err)
	}
	equal(t, result, 7)
}

func TestAnExecutionIsHeldBeforeStepsAndGoesOnFromOneToTheNext(t *testing.T) {
	client, ctx := dial(t, target(t)), t.Context()
	options := &flowkeep.ExecuteOptions{Breakpoints: []*flowkeepv1.Breakpoint{{Path: "greet"}}}
	id := started(t, client, made(t, client, greet, shout), you, options).GetExecutionId()
	path, seq := held(t, client, id, 0)
	equal(t, path, "greet")
	_, err := client.EditStepInput(ctx, id, "greet", object{}) // it has no handler that is called with any
	var refused *flowkeep.Error
	if !errors.As(err, &refused) || !errors.Is(err, flowkeep.ErrFailedPrecondition) {
		t.Fatal(err)
	}
	equal(t, refused.Reason, "STEP_NOT_HELD")
	must[*flowkeepv1.ResumeResponse](t)(client.StepOver(ctx, id))
	path, _ = held(t, client, id, seq)
	equal(t, path, "shout")
	equal(t, len(must[*flowkeepv1.Execution](t)(client.SetBreakpoints(ctx, id)).GetBreakpoints()), 0)
	must[*flowkeepv1.ResumeResponse](t)(client.Resume(ctx, id, "seen"))
	var result string
	if err := client.Result(ctx, id, &result); err != nil {
		t.Fatal(err)
	}
	equal(t, result, "HELLO YOU!")
	before := must[*flowkeepv1.Execution](t)(client.GetExecutionAt(ctx, id, seq))
	equal(t, before.GetState(), flowkeepv1.Execution_STATE_PAUSED)
}

func TestAnExecutionGoesOnToAStep(t *testing.T) {
	client, ctx := dial(t, target(t)), t.Context()
	options := &flowkeep.ExecuteOptions{Breakpoints: []*flowkeepv1.Breakpoint{{Path: "greet", Condition: "true"}}}
	id := started(t, client, made(t, client, greet, shout), you, options).GetExecutionId()
	_, seq := held(t, client, id, 0)
	must[*flowkeepv1.ResumeResponse](t)(client.RunTo(ctx, id, "shout"))
	path, _ := held(t, client, id, seq)
	equal(t, path, "shout")
	must[*flowkeepv1.TerminateResponse](t)(client.Terminate(ctx, id, ""))
}

func TestAnExecutionIsPausedResumedAndTerminated(t *testing.T) {
	client, ctx := dial(t, target(t)), t.Context()
	id := started(t, client, made(t, client, pause), nil, nil).GetExecutionId()
	options := &flowkeep.PauseOptions{Reason: "lunch", Hard: true, StopDeadline: true}
	paused := must[*flowkeepv1.PauseResponse](t)(client.Pause(ctx, id, options)).GetExecution()
	equal(t, paused.GetState(), flowkeepv1.Execution_STATE_PAUSED)
	equal(t, paused.GetPause().GetReason(), "lunch")
	resumed := must[*flowkeepv1.ResumeResponse](t)(client.Resume(ctx, id, "fed")).GetExecution()
	equal(t, resumed.GetState(), flowkeepv1.Execution_STATE_RUNNING)
	ended := must[*flowkeepv1.TerminateResponse](t)(client.Terminate(ctx, id, "enough")).GetExecution()
	equal(t, ended.GetState(), flowkeepv1.Execution_STATE_CANCELLED)
}

func TestASignalIsForAnExecutionByItsIDOrByWhatBothKnow(t *testing.T) {
	client, ctx := dial(t, target(t)), t.Context()
	name := made(t, client, object{"id": "paid", "handler": "wait_signal", "params": object{"name": "paid"}})
	for _, by := range []string{"id", "correlation"} {
		id := started(t, client, name, nil, &flowkeep.ExecuteOptions{CorrelationID: by}).GetExecutionId()
		signal := &flowkeep.SignalOptions{Payload: object{"by": by}, Workflow: name, CorrelationID: by}
		meant := id
		if by == "correlation" {
			meant = ""
		}
		must[*flowkeepv1.SignalExecutionResponse](t)(client.Signal(ctx, meant, "paid", signal))
		var result struct{ Payload struct{ By string } }
		if err := client.Result(ctx, id, &result); err != nil {
			t.Fatal(err)
		}
		equal(t, result.Payload.By, by)
	}
}

func TestWhatFailedIsRetriedInPlaceAndForked(t *testing.T) {
	client, ctx := dial(t, target(t)), t.Context()
	id := started(t, client, made(t, client, greet, halve), object{"name": "you", "by": 0}, nil).GetExecutionId()
	if err := client.Result(ctx, id, nil); err == nil {
		t.Fatal("10 / 0 has a result")
	}
	skip := &flowkeepv1.RetryRequest_SkippedStep{Path: "halve", Output: structpb.NewNumberValue(5)}
	again := must[*flowkeepv1.Execution](t)(client.Retry(ctx, id, &flowkeep.RetryOptions{Skip: skip, Reason: "by hand"}))
	equal(t, again.GetRun(), 2)
	var result float64
	if err := client.Result(ctx, id, &result); err != nil {
		t.Fatal(err)
	}
	equal(t, result, 5)
	options := &flowkeep.ForkOptions{Step: "halve", Input: object{"name": "you", "by": 5}, ValidateOnly: true}
	checked := must[*flowkeepv1.ForkExecutionResponse](t)(client.Fork(ctx, id, options))
	equal(t, len(checked.GetChecks()), 0)
	options.ValidateOnly = false
	fork := must[*flowkeepv1.ForkExecutionResponse](t)(client.Fork(ctx, id, options)).GetExecution().GetExecutionId()
	if err := client.Result(ctx, fork, &result); err != nil {
		t.Fatal(err)
	}
	equal(t, result, 2)
	step := must[*flowkeepv1.GetStepResponse](t)(client.GetStep(ctx, fork, "greet", 0)).GetStep()
	equal(t, step.GetInherited(), true)
}

func TestAStepRunsByItself(t *testing.T) {
	client := dial(t, target(t))
	outputs := must[*structpb.Struct](t)(structpb.NewStruct(object{"greet": "hi"}))
	request := &flowkeepv1.TestStepRequest{
		Source: &flowkeepv1.TestStepRequest_Workflow{Workflow: made(t, client, greet, shout)}, Path: "shout", Outputs: outputs,
	}
	tried := must[*flowkeepv1.TestStepResponse](t)(client.TestStep(t.Context(), request))
	equal(t, tried.GetStep().GetOutput().AsInterface(), "HI")
}

func TestAllExecutionsOfAWorkflowAreCancelledInBulk(t *testing.T) {
	client, ctx := dial(t, target(t)), t.Context()
	name := made(t, client, pause)
	for range 3 {
		started(t, client, name, nil, nil)
	}
	options := &flowkeep.BulkOptions{Filters: flowkeep.Filters{Workflow: name}, Reason: "no longer wanted"}
	cancel := &flowkeepv1.BulkAction{Kind: &flowkeepv1.BulkAction_Cancel_{}}
	preview := must[*flowkeepv1.StartBulkResponse](t)(client.PreviewBulk(ctx, cancel, options))
	equal(t, preview.GetMatchedCount(), 3)
	id := must[*flowkeepv1.Bulk](t)(client.StartBulk(ctx, cancel, options)).GetBulkId()
	seen := must[[]*flowkeepv1.Bulk](t)(collected(client.WatchBulk(ctx, id)))
	equal(t, seen[len(seen)-1].GetState(), flowkeepv1.Bulk_STATE_COMPLETED)
	equal(t, must[*flowkeepv1.Bulk](t)(client.GetBulk(ctx, id)).GetDoneCount(), 3)
	done := client.ListBulkResults(ctx, id, flowkeepv1.BulkResult_OUTCOME_DONE)
	equal(t, len(must[[]*flowkeepv1.BulkResult](t)(collected(done))), 3)
	for bulk, err := range client.ListBulks(ctx, flowkeepv1.Bulk_STATE_COMPLETED) {
		if err != nil {
			t.Fatal(err)
		}
		if bulk.GetBulkId() == id {
			return
		}
	}
	t.Fatal("it is not listed")
}

func TestAnOperationInBulkThatIsStoppedDoesNothingMore(t *testing.T) {
	client, ctx := dial(t, target(t)), t.Context()
	name := made(t, client, pause)
	for range 3 {
		started(t, client, name, nil, nil)
	}
	options := &flowkeep.BulkOptions{Filters: flowkeep.Filters{Workflow: name}, Rate: 1}
	halt := &flowkeepv1.BulkAction{Kind: &flowkeepv1.BulkAction_Pause_{}}
	id := must[*flowkeepv1.Bulk](t)(client.StartBulk(ctx, halt, options)).GetBulkId()
	must[*flowkeepv1.Bulk](t)(client.StopBulk(ctx, id))
	seen := must[[]*flowkeepv1.Bulk](t)(collected(client.WatchBulk(ctx, id)))
	equal(t, seen[len(seen)-1].GetState(), flowkeepv1.Bulk_STATE_STOPPED)
}
