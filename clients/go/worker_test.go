package flowkeep_test

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	flowkeep "flowkeep.dev/go"
)

// TestServe is a worker, for tests that drive it: it says what it does, a line each.
func TestServe(t *testing.T) {
	if os.Getenv("FLOWKEEP_SERVE") == "" {
		t.Skip("FLOWKEEP_SERVE does not ask for a worker")
	}
	grace, _ := time.ParseDuration(os.Getenv("FLOWKEEP_GRACE"))
	capacity, err := strconv.Atoi(cmp.Or(os.Getenv("FLOWKEEP_CAPACITY"), "2"))
	if err != nil {
		t.Fatal(err)
	}
	var connection []flowkeep.Option
	if tokens := os.Getenv("FLOWKEEP_TOKENS"); tokens != "" {
		connection = append(connection, flowkeep.WithTokenSource(func(context.Context) (string, error) {
			text, err := os.ReadFile(tokens)
			return string(text), err
		}))
	}
	worker, err := flowkeep.NewWorker(target(t), &flowkeep.WorkerOptions{
		Name: "go", Capacity: capacity, Grace: grace, Version: "1.4.2", Labels: map[string]string{"language": "go"},
		OnBreak: func(err *flowkeep.Error) { fmt.Println("broke", err.Code) },
	}, connection...)
	if err != nil {
		t.Fatal(err)
	}
	defer worker.Close()
	type person struct {
		Name string `json:"name"`
	}
	greeting := flowkeep.Handler{
		Name: "greet", Description: "Greets somebody.", Effect: flowkeep.None,
		Params: object{"type": "object", "properties": object{"name": object{"type": "string"}}, "required": []string{"name"}},
	}
	flowkeep.Handle(worker, greeting, func(_ context.Context, who person, attempt *flowkeep.Attempt) (object, error) {
		attempt.Report(50, "half way")
		attempt.Use(3, 2, 7)
		return object{"text": "Hello " + who.Name + "!", "attempt": attempt.Number}, nil
	})
	flowkeep.Handle(worker, flowkeep.Handler{Name: "refuse"}, func(context.Context, object, *flowkeep.Attempt) (any, error) {
		return nil, &flowkeep.HandlerError{Code: "TOO_LATE", Message: "the shop is closed", Details: object{"opens": 9}, Final: true}
	})
	flowkeep.Handle(worker, flowkeep.Handler{Name: "break"}, func(context.Context, object, *flowkeep.Attempt) (any, error) {
		return nil, errors.New("the secret text of the error")
	})
	flowkeep.Handle(worker, flowkeep.Handler{Name: "bad"}, bad)
	var inside atomic.Int32
	flowkeep.Handle(worker, flowkeep.Handler{Name: "crowd"}, func(context.Context, object, *flowkeep.Attempt) (int32, error) {
		defer inside.Add(-1)
		inside.Add(1)
		time.Sleep(5 * time.Millisecond)
		return inside.Load(), nil
	})
	flowkeep.Handle(worker, flowkeep.Handler{Name: "hold"}, hold)
	flowkeep.Handle(worker, flowkeep.Handler{Name: "stint_go"}, stint)
	ctx, stop := signal.NotifyContext(t.Context(), syscall.SIGTERM)
	defer stop()
	if err := worker.Run(ctx); err != nil {
		t.Fatal(err)
	}
	fmt.Println("drained")
}

// stint works for so long, as tests/faults/harness/stints.py has it.
func stint(ctx context.Context, params struct{ Seconds float64 }, attempt *flowkeep.Attempt) (object, error) {
	began := float64(time.Now().UnixNano()) / 1e9
	line, err := json.Marshal(object{
		"execution_id": attempt.ExecutionID, "path": attempt.StepPath, "attempt": attempt.Number, "time": began,
	})
	if err != nil {
		return nil, err
	}
	journal, err := os.OpenFile(cmp.Or(os.Getenv("FLOWKEEP_JOURNAL"), os.DevNull), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer journal.Close()
	if _, err := journal.Write(append(line, '\n')); err != nil {
		return nil, err
	}
	select {
	case <-time.After(time.Duration(params.Seconds * float64(time.Second))):
		return object{"attempt": attempt.Number, "began": began}, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// hold waits for a file to be there.
func hold(ctx context.Context, params struct{ Until string }, attempt *flowkeep.Attempt) (int32, error) {
	fmt.Println("holds", attempt.Number)
	for {
		if _, err := os.Stat(params.Until); err == nil {
			return attempt.Number, nil
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			fmt.Println("stopped")
			return 0, ctx.Err()
		}
	}
}

// unreadable is an error that breaks whoever looks at it.
type unreadable struct{ text string }

func (u *unreadable) Error() string { return u.text }

// bad fails in ways that are anybody's: none of them may end the worker.
func bad(_ context.Context, params struct{ Way string }, attempt *flowkeep.Attempt) (any, error) {
	switch params.Way {
	case "nothing":
		var none *unreadable
		return nil, none
	case "pause":
		var none *flowkeep.HandlerError
		return nil, none
	case "progress":
		panic(attempt)
	case "usage":
		runtime.Goexit()
	}
	return nil, errors.New("text")
}

func TestACapacityThatNoWorkerHasIsRefused(t *testing.T) {
	for _, capacity := range []int{-1, 1_001, 1 << 40} {
		if _, err := flowkeep.NewWorker("localhost:1", &flowkeep.WorkerOptions{Capacity: capacity}); err == nil {
			t.Errorf("%d is taken", capacity)
		}
	}
}
