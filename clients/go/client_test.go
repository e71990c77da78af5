package flowkeep_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"iter"
	"os"
	"regexp"
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	flowkeep "flowkeep.dev/go"
	flowkeepv1 "flowkeep.dev/go/v1"
)

const absent = "01900000-0000-7000-8000-000000000000"

type object = map[string]any

var (
	greet = object{"id": "greet", "handler": "transform", "params": object{"value": "Hello ${ input.name }!"}}
	pause = object{"id": "pause", "handler": "wait", "params": object{"duration": "1h"}}
)

// target is the address of the server that these tests are against.
func target(t *testing.T) string {
	t.Helper()
	found := os.Getenv("FLOWKEEP_TARGET")
	if found == "" {
		t.Skip("FLOWKEEP_TARGET names no server")
	}
	return found
}

func dial(t *testing.T, target string, options ...flowkeep.Option) *flowkeep.Client {
	t.Helper()
	client, err := flowkeep.New(target, options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return client
}

func must[Value any](t *testing.T) func(Value, error) Value {
	return func(value Value, err error) Value {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return value
	}
}

func equal(t *testing.T, found, wanted any) {
	t.Helper()
	if fmt.Sprint(found) != fmt.Sprint(wanted) {
		t.Fatalf("found %v, wanted %v", found, wanted)
	}
}

func collected[Item any](items iter.Seq2[Item, error]) ([]Item, error) {
	var found []Item
	for item, err := range items {
		if err != nil {
			return found, err
		}
		found = append(found, item)
	}
	return found, nil
}

// made applies a workflow of these steps and returns its name.
func made(t *testing.T, client *flowkeep.Client, steps ...object) string {
	t.Helper()
	name := fmt.Sprintf("go-%d", time.Now().UnixNano())
	must[[]*flowkeepv1.ApplyWorkflowsResponse_Result](t)(client.Apply(t.Context(), nil, object{"name": name, "steps": steps}))
	return name
}

func started(t *testing.T, client *flowkeep.Client, workflow string, input any, options *flowkeep.ExecuteOptions) *flowkeepv1.Execution {
	t.Helper()
	return must[*flowkeepv1.Execution](t)(client.Execute(t.Context(), workflow, input, options))
}

func TestAnExecutionGivesItsResultWaitedForInEachWay(t *testing.T) {
	client, ctx := dial(t, target(t)), t.Context()
	name := made(t, client, greet)
	input := struct {
		Name string `json:"name"`
	}{"you"}
	waited := started(t, client, name, input, &flowkeep.ExecuteOptions{Wait: true, Tags: []string{"go"}})
	equal(t, waited.GetState(), flowkeepv1.Execution_STATE_COMPLETED)
	var result string
	if err := client.Result(ctx, waited.GetExecutionId(), &result); err != nil {
		t.Fatal(err)
	}
	equal(t, result, "Hello you!")
	if err := client.Run(ctx, name, object{"name": "all"}, &result, nil); err != nil {
		t.Fatal(err)
	}
	equal(t, result, "Hello all!")
	steps := must[[]*flowkeepv1.StepExecution](t)(collected(client.ListSteps(ctx, waited.GetExecutionId(), 0)))
	equal(t, steps[0].GetPath(), "greet")
	step := must[*flowkeepv1.GetStepResponse](t)(client.GetStep(ctx, waited.GetExecutionId(), "greet", 0))
	equal(t, step.GetStep().GetHandler(), "transform")
	compared := must[*flowkeepv1.CompareExecutionsResponse](t)(client.CompareExecutions(ctx, waited.GetExecutionId(), waited.GetExecutionId()))
	equal(t, compared.GetTotals().GetDifferingSteps(), 0)
	why := must[*flowkeepv1.ExplainExecutionResponse](t)(client.ExplainExecution(ctx, waited.GetExecutionId()))
	equal(t, why.GetObstacles()[0].GetSentence(), "It has ended: COMPLETED. Nothing is to come.")
	queue := must[*flowkeepv1.ExplainQueueResponse](t)(client.ExplainQueue(ctx, waited.GetWorkflowName(), 0))
	equal(t, len(queue.GetExecutions()), 0)
}

func TestADryRunGivesWhatItsMocksSay(t *testing.T) {
	client, ctx := dial(t, target(t)), t.Context()
	call := object{"id": "call", "handler": "call_api", "params": object{"url": "https://example.com"}}
	other := object{"id": "other", "handler": "call_api", "params": object{"url": "https://example.com"}, "on_error": "CONTINUE"}
	name := made(t, client, pause, call, other)
	failure := &flowkeep.MockFailure{Code: "BUSY", Details: object{"n": 1}}
	dry := &flowkeep.DryRun{
		Mocks: map[string]flowkeep.Mock{"call": {Output: object{"status": 200}}}, Default: &flowkeep.Mock{Failure: failure}, SkipWaits: true,
	}
	done := started(t, client, name, nil, &flowkeep.ExecuteOptions{Wait: true, DryRun: dry})
	equal(t, done.GetState(), flowkeepv1.Execution_STATE_COMPLETED)
	equal(t, done.GetDryRun(), true)
	step := must[*flowkeepv1.GetStepResponse](t)(client.GetStep(ctx, done.GetExecutionId(), "other", 0)).GetStep()
	equal(t, step.GetFailure().GetCode(), "BUSY")
	equal(t, step.GetMocked(), true)
	for dryRun, count := range map[bool]int{true: 1, false: 0} {
		filters := flowkeep.Filters{Workflow: name, DryRun: &dryRun}
		listed := must[[]*flowkeepv1.Execution](t)(collected(client.ListExecutions(ctx, &flowkeep.ListOptions{Filters: filters})))
		equal(t, len(listed), count)
	}
}

func TestTheSameRequestIDStartsNothingTwice(t *testing.T) {
	client, ctx := dial(t, target(t)), t.Context()
	name := made(t, client, greet)
	request := must[*flowkeepv1.ExecuteRequest](t)(flowkeep.NewExecuteRequest(name, object{"name": "once"}, nil))
	first := must[*flowkeepv1.ExecuteResponse](t)(client.Start(ctx, request))
	second := must[*flowkeepv1.ExecuteResponse](t)(client.Start(ctx, request))
	equal(t, []bool{first.GetCreated(), second.GetCreated()}, []bool{true, false})
	equal(t, first.GetExecution().GetExecutionId(), second.GetExecution().GetExecutionId())
	options := &flowkeep.ExecuteOptions{RequestID: request.GetRequestId()}
	if _, err := client.Execute(ctx, name, object{"name": "else"}, options); !errors.Is(err, flowkeep.ErrAlreadyExists) {
		t.Fatal(err)
	}
}

func TestASignalStartsTheExecutionThatItIsForOnce(t *testing.T) {
	client, ctx := dial(t, target(t)), t.Context()
	name := made(t, client, object{"id": "paid", "handler": "wait_signal", "params": object{"name": "paid"}})
	options := &flowkeep.SignalStartOptions{
		RequestID: name,
		Payload:   object{"amount": 12},
		Input:     object{"item": "book"},
		Start:     &flowkeep.ExecuteOptions{Tags: []string{"go"}},
	}
	first := must[*flowkeepv1.SignalWithStartResponse](t)(client.SignalWithStart(ctx, name, "A-17", "paid", options))
	second := must[*flowkeepv1.SignalWithStartResponse](t)(client.SignalWithStart(ctx, name, "A-17", "paid", options))
	equal(t, []bool{first.GetStarted(), second.GetStarted()}, []bool{true, false})
	equal(t, first.GetSignalId(), second.GetSignalId())
	var result struct {
		Payload object `json:"payload"`
	}
	if err := client.Result(ctx, first.GetExecution().GetExecutionId(), &result); err != nil {
		t.Fatal(err)
	}
	equal(t, result.Payload["amount"], 12)
}

func TestAnExecutionThatFailsSaysWhy(t *testing.T) {
	client := dial(t, target(t))
	name := made(t, client, object{"id": "broken", "handler": "transform", "params": object{"expression": "1 / 0"}})
	err := client.Run(t.Context(), name, nil, nil, nil)
	var failed *flowkeep.ExecutionFailedError
	if !errors.As(err, &failed) || !regexp.MustCompile(`FAILED: [A-Z_]+ in step broken: `).MatchString(err.Error()) {
		t.Fatal(err)
	}
	equal(t, failed.State, flowkeepv1.Execution_STATE_FAILED)
}

func TestABatchTellsOfEachRequestAndListsAreReadPageByPage(t *testing.T) {
	client, ctx := dial(t, target(t)), t.Context()
	name := made(t, client, greet)
	var requests []*flowkeepv1.ExecuteRequest
	for _, workflow := range []string{name, name, name, name, name, "absent"} {
		requests = append(requests, must[*flowkeepv1.ExecuteRequest](t)(flowkeep.NewExecuteRequest(workflow, object{"name": "n"}, nil)))
	}
	outcomes := must[[]flowkeep.Outcome](t)(client.BatchExecute(ctx, requests))
	refused := outcomes[5].Err
	equal(t, []any{errors.Is(refused, flowkeep.ErrNotFound), refused.Reason}, []any{true, "WORKFLOW_NOT_FOUND"})
	equal(t, refused.Metadata, map[string]string{"workflow": "absent"})
	var sent, listed []string
	for _, outcome := range outcomes[:5] {
		sent = append(sent, outcome.Response.GetExecution().GetExecutionId())
	}
	pages := client.ListExecutions(ctx, &flowkeep.ListOptions{Filters: flowkeep.Filters{Workflow: name}, PageSize: 2})
	for _, execution := range must[[]*flowkeepv1.Execution](t)(collected(pages)) {
		listed = append(listed, execution.GetExecutionId())
	}
	slices.Sort(sent)
	slices.Sort(listed)
	equal(t, listed, sent)
}

func TestACancelTellsWhatBecameOfEachStep(t *testing.T) {
	client, ctx := dial(t, target(t)), t.Context()
	execution := started(t, client, made(t, client, pause), nil, nil)
	cancelled := must[*flowkeepv1.CancelResponse](t)(
		client.Cancel(ctx, execution.GetExecutionId(), &flowkeep.CancelOptions{Reason: "enough"}),
	)
	equal(t, cancelled.GetSteps()[0].GetPath(), "pause")
	var failed *flowkeep.ExecutionFailedError
	if err := client.Result(ctx, execution.GetExecutionId(), nil); !errors.As(err, &failed) {
		t.Fatal(err)
	}
	equal(t, failed.State, flowkeepv1.Execution_STATE_CANCELLED)
	done := started(t, client, made(t, client, greet), object{"name": "x"}, &flowkeep.ExecuteOptions{Wait: true})
	_, err := client.Cancel(ctx, done.GetExecutionId(), nil)
	var refused *flowkeep.Error
	if !errors.As(err, &refused) || !errors.Is(err, flowkeep.ErrFailedPrecondition) {
		t.Fatal(err)
	}
	equal(t, []string{refused.Reason, refused.Metadata["state"]}, []string{"EXECUTION_FINISHED", "COMPLETED"})
}

func TestACallIsSentAgainUntilAServerIsThereAndNoLongerThanItMay(t *testing.T) {
	gone := relayTo(t, target(t), "127.0.0.1:0")
	gone.close()
	hasty := dial(t, gone.target, flowkeep.WithTimeout(300*time.Millisecond))
	if _, err := hasty.ListHandlers(t.Context()); !errors.Is(err, flowkeep.ErrUnavailable) {
		t.Fatal(err)
	}
	patient := dial(t, gone.target)
	asked := make(chan error)
	go func() {
		_, err := patient.ListHandlers(t.Context())
		asked <- err
	}()
	relayTo(t, target(t), gone.target)
	if err := <-asked; err != nil {
		t.Fatal(err)
	}
}

func TestAClientThatIsClosedSaysSo(t *testing.T) {
	client := dial(t, target(t))
	if err := client.Close(); err != nil {
		t.Fatal(err)
	}
	_, err := client.ListHandlers(t.Context())
	equal(t, status.Code(err), codes.Canceled)
}

// TestFollow prints the events of an execution, a line each, for a test that restarts the server meanwhile.
// TestSecure calls a server over TLS, as FLOWKEEP_CA has signed it, with the token FLOWKEEP_TOKEN and without.
func TestSecure(t *testing.T) {
	file := os.Getenv("FLOWKEEP_CA")
	if file == "" {
		t.Skip("FLOWKEEP_CA names no certificate")
	}
	authority, roots := must[[]byte](t)(os.ReadFile(file)), x509.NewCertPool()
	roots.AppendCertsFromPEM(authority)
	secured := flowkeep.WithTLS(&tls.Config{RootCAs: roots})
	fresh := func(context.Context) (string, error) { return os.Getenv("FLOWKEEP_TOKEN") + "\n", nil }
	known := dial(t, target(t), secured, flowkeep.WithTokenSource(fresh))
	must[[]*flowkeepv1.Execution](t)(collected(known.ListExecutions(t.Context(), nil)))
	fmt.Println("listed")
	_, err := known.Execute(t.Context(), "hello", nil, nil)
	var refused *flowkeep.Error
	if !errors.As(err, &refused) || !errors.Is(err, flowkeep.ErrPermissionDenied) {
		t.Fatal(err)
	}
	fmt.Println(refused.Metadata["permission"])
	_, err = dial(t, target(t), secured).ListHandlers(t.Context())
	if !errors.As(err, &refused) || !errors.Is(err, flowkeep.ErrUnauthenticated) {
		t.Fatal(err)
	}
	fmt.Println(refused.Reason)
}
