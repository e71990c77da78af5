package flowkeep_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"testing"

	flowkeep "flowkeep.dev/go"
	flowkeepv1 "flowkeep.dev/go/v1"
)

func TestAWatchGoesOnBehindTheLastEventWhenItsConnectionBreaks(t *testing.T) {
	client, ctx := dial(t, target(t)), t.Context()
	way := relayTo(t, target(t), "127.0.0.1:0")
	far := dial(t, way.target)
	execution := started(t, client, made(t, client, greet, pause), object{"name": "you"}, nil)
	var breaks []*flowkeep.Error
	onBreak := func(err *flowkeep.Error) {
		if breaks = append(breaks, err); len(breaks) == 1 {
			// What is watched goes on while nobody is connected.
			must[*flowkeepv1.CancelResponse](t)(client.Cancel(ctx, execution.GetExecutionId(), nil))
		}
	}
	var last int64
	for event, err := range far.Watch(ctx, execution.GetExecutionId(), &flowkeep.WatchOptions{OnBreak: onBreak}) {
		if err != nil {
			t.Fatal(err)
		}
		equal(t, event.GetSeq(), last+1)
		last = event.GetSeq()
		if event.GetStepWaiting() != nil {
			way.cut()
		}
	}
	if len(breaks) == 0 || !errors.Is(breaks[0], flowkeep.ErrUnavailable) {
		t.Fatal(breaks)
	}
	found := must[*flowkeepv1.Execution](t)(client.GetExecution(ctx, execution.GetExecutionId(), 0))
	equal(t, last, found.GetLastSeq())
}

func TestAWatchBeginsWhereItIsToldTo(t *testing.T) {
	client, ctx := dial(t, target(t)), t.Context()
	done := started(t, client, made(t, client, greet), object{"name": "you"}, &flowkeep.ExecuteOptions{Wait: true})
	id, last := done.GetExecutionId(), done.GetLastSeq()
	tail := must[[]*flowkeepv1.ExecutionEvent](t)(collected(client.Watch(ctx, id, &flowkeep.WatchOptions{AfterSeq: last - 1})))
	if len(tail) != 1 || tail[0].GetFinished() == nil {
		t.Fatal(tail)
	}
	responses := must[[]*flowkeepv1.WatchExecutionResponse](t)(
		collected(client.WatchResponses(ctx, id, &flowkeep.WatchOptions{Snapshot: true})),
	)
	equal(t, responses[0].GetSnapshot().GetSeq(), last)
	if _, err := collected(client.Watch(ctx, id, &flowkeep.WatchOptions{AfterSeq: 1000})); !errors.Is(err, flowkeep.ErrOutOfRange) {
		t.Fatal(err)
	}
	if _, err := collected(client.Watch(ctx, absent, nil)); !errors.Is(err, flowkeep.ErrNotFound) {
		t.Fatal(err)
	}
}

func TestCallsAndWatchesEndWhenTheirContextDoes(t *testing.T) {
	client := dial(t, target(t))
	execution := started(t, client, made(t, client, pause), nil, nil)
	enough := errors.New("enough")
	ctx, stop := context.WithCancelCause(t.Context())
	defer stop(nil)
	var err error
	for event, broke := range client.Watch(ctx, execution.GetExecutionId(), nil) {
		if err = broke; event.GetStepWaiting() != nil {
			stop(enough)
		}
	}
	if !errors.Is(err, enough) {
		t.Fatal(err)
	}
	if _, err := client.GetExecution(ctx, execution.GetExecutionId(), 0); !errors.Is(err, enough) {
		t.Fatal(err)
	}
	must[*flowkeepv1.CancelResponse](t)(client.Cancel(t.Context(), execution.GetExecutionId(), nil))
}

func TestFollow(t *testing.T) {
	execution := os.Getenv("FLOWKEEP_EXECUTION")
	if execution == "" {
		t.Skip("FLOWKEEP_EXECUTION names no execution")
	}
	for event, err := range dial(t, target(t)).Watch(t.Context(), execution, nil) {
		if err != nil {
			t.Fatal(err)
		}
		fmt.Printf("event %d %s\n", event.GetSeq(), kindOf(event))
	}
}

func kindOf(event *flowkeepv1.ExecutionEvent) string {
	message := event.ProtoReflect()
	return string(message.WhichOneof(message.Descriptor().Oneofs().ByName("kind")).Name())
}
