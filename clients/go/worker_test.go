package flowkeep_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
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
	worker, err := flowkeep.NewWorker(target(t), &flowkeep.WorkerOptions{
		Name: "go", Capacity: 2, Grace: grace, OnBreak: func(err *flowkeep.Error) { fmt.Println("broke", err.Code) },
	})
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
	var inside atomic.Int32
	flowkeep.Handle(worker, flowkeep.Handler{Name: "crowd"}, func(context.Context, object, *flowkeep.Attempt) (int32, error) {
		defer inside.Add(-1)
		inside.Add(1)
		time.Sleep(5 * time.Millisecond)
		return inside.Load(), nil
	})
	flowkeep.Handle(worker, flowkeep.Handler{Name: "hold"}, hold)
	ctx, stop := signal.NotifyContext(t.Context(), syscall.SIGTERM)
	defer stop()
	if err := worker.Run(ctx); err != nil {
		t.Fatal(err)
	}
	fmt.Println("drained")
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
