package flowkeep_test

import (
	"errors"
	"math"
	"strings"
	"testing"

	flowkeep "flowkeep.dev/go"
	flowkeepv1 "flowkeep.dev/go/v1"
)

func TestPayloadsHoldWhatJSONHolds(t *testing.T) {
	input := object{"n": 7, "large": 1e30, "list": []any{nil, object{"a": "ä"}}}
	request := must[*flowkeepv1.ExecuteRequest](t)(flowkeep.NewExecuteRequest("any", input, nil))
	fields := request.GetInput().GetFields()
	equal(t, fields["n"].GetNumberValue(), 7)
	equal(t, fields["large"].GetNumberValue(), 1e30)
	equal(t, fields["list"].GetListValue().GetValues()[1].GetStructValue().GetFields()["a"].GetStringValue(), "ä")
	if len(request.GetRequestId()) != 36 {
		t.Fatal(request.GetRequestId())
	}
}

func TestWhatPayloadsCannotHoldIsRefusedWithItsPlace(t *testing.T) {
	for place, value := range map[string]any{
		"input.a[1]":     object{"a": []any{1, 1<<53 + 1}},
		`input["a b"].c`: object{"a b": object{"c": uint64(math.MaxUint64)}},
		"input.t":        object{"t": "\x00"},
		"input":          []int{1},
	} {
		_, err := flowkeep.NewExecuteRequest("any", value, nil)
		var unfit *flowkeep.PayloadError
		if !errors.As(err, &unfit) || unfit.Path != place {
			t.Errorf("%s: %v", place, err)
		}
	}
}

func TestADefinitionIsReadAsPeopleWriteIt(t *testing.T) {
	found := must[*flowkeepv1.WorkflowDefinition](t)(flowkeep.Definition(object{
		"name": "review", "ordering": "graph", "timeout": "1h30m",
		"input_schema": object{"type": "object"},
		"steps": []object{
			{"id": "page", "handler": "call_api", "params": object{"url": "${ input.url }"}, "timeout": 0.1, "on_error": "CONTINUE"},
			{"id": "each", "for_each": object{"items": "[1, 2]", "steps": []object{{"id": "one", "handler": "wait"}}}},
		},
		"output": nil,
	}))
	page, each := found.GetSteps()[0], found.GetSteps()[1]
	equal(t, found.GetOrdering(), flowkeepv1.Ordering_ORDERING_GRAPH)
	equal(t, found.GetTimeout().AsDuration().Minutes(), 90)
	equal(t, page.GetTimeout().AsDuration().Milliseconds(), 100)
	equal(t, page.GetOnError(), flowkeepv1.Step_ON_ERROR_CONTINUE)
	equal(t, each.GetForEach().GetSteps()[0].GetHandler(), "wait")
}

func TestADefinitionThatIsNoneIsToldEverythingAtOnce(t *testing.T) {
	_, err := flowkeep.Definition(object{
		"name": 7, "ordering": "SIDEWAYS", "timeout": "soon",
		"steps": []any{object{"id": "a", "params": []any{}, "tool": "x"}, 3},
	})
	var wrong *flowkeep.DefinitionError
	if !errors.As(err, &wrong) {
		t.Fatal(err)
	}
	var fields []string
	for _, violation := range wrong.Violations {
		fields = append(fields, violation.Field)
	}
	equal(t, strings.Join(fields, " "), "name ordering steps[0].params steps[0].tool steps[1] timeout")
}

func TestATargetThatIsAURLIsRefused(t *testing.T) {
	if _, err := flowkeep.New("http://localhost:50051"); err == nil {
		t.Fatal("it was taken")
	}
}
