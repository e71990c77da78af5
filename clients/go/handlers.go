package flowkeep

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	flowkeepv1 "flowkeep.dev/go/v1"
)

// Effect is what an attempt does outside of the execution.
type Effect int

const (
	// Idempotent: what is the same after a second attempt, given the idempotency token.
	Idempotent Effect = iota
	// None: nothing; it may be run again, unseen, after a crash.
	None
	// External: what a second attempt may do again.
	External
)

// Handler is what a worker says of a handler.
type Handler struct {
	// Name by which steps call it.
	Name string
	// Description says what it does, for people.
	Description string
	// Params is the JSON Schema (draft 2020-12) of its params: anything of which encoding/json makes an object. By default
	// they may be anything.
	Params any
	// Effect is what an attempt does outside of the execution; by default Idempotent.
	Effect Effect
}

// Attempt is one attempt of a step, as its handler sees it. Its methods may be called from any goroutine.
type Attempt struct {
	ExecutionID string
	StepPath    string
	// Iteration is the number of the whole run of the step, from 1.
	Iteration int32
	// Number is the number of the attempt within the iteration, from 1.
	Number   int32
	Workflow string
	// Owner is the subject that started the execution.
	Owner string
	// IdempotencyToken is the same for all attempts of an iteration: pass it on to what must not be done twice.
	IdempotencyToken string
	// Deadline is when the time of the attempt is over, by the server's clock. The context ends then.
	Deadline time.Time

	running *running
}

// Report says how far the attempt is, 0 to 100, and what it does. At most four a second are recorded.
func (a *Attempt) Report(progressPercent int, message string) {
	bounded := int32(min(100, max(0, progressPercent)))
	a.running.progress(&flowkeepv1.AttemptProgress{ProgressPercent: &bounded, Message: cut(message, 256)})
}

// Emit shows text to those who watch, such as tokens of a model. It is not recorded, and may be lost.
func (a *Attempt) Emit(text string) {
	for rest := valid(text); rest != ""; {
		piece := cut(rest, maxEmitted)
		rest = rest[len(piece):]
		a.running.progress(&flowkeepv1.AttemptProgress{Output: piece})
	}
}

// Use adds to what the attempt has used up: tokens of models, and cost in millionths of the org's currency.
func (a *Attempt) Use(inputTokens, outputTokens, costMicros int64) {
	a.running.use(inputTokens, outputTokens, costMicros)
}

// HandlerError makes an attempt fail with a code of its own.
type HandlerError struct {
	// Code in UPPER_SNAKE_CASE, at most 64 characters.
	Code string
	// Message says what a person needs to know to act.
	Message string
	// Details are machine-readable facts: anything of which encoding/json makes an object of at most 16 KiB.
	Details any
	// Final says that another attempt could not help.
	Final bool
	// RetryAfter is the pause before another attempt, at least.
	RetryAfter time.Duration
}

func (e *HandlerError) Error() string { return e.Code + ": " + e.Message }

// StoppedError is the cause of the end of an attempt's context: its execution was cancelled, its time is over, another
// attempt may run, or the worker stops.
type StoppedError struct {
	// Reason is REASON_UNSPECIFIED when the worker stops.
	Reason flowkeepv1.AttemptCancelled_Reason
}

func (e *StoppedError) Error() string {
	switch e.Reason {
	case flowkeepv1.AttemptCancelled_REASON_UNSPECIFIED:
		return "the worker stops"
	case flowkeepv1.AttemptCancelled_REASON_TIMEOUT:
		return "the attempt has taken longer than it may"
	case flowkeepv1.AttemptCancelled_REASON_STALE:
		return "the attempt was lost, and another one may run"
	default:
		return "the execution or the step was cancelled, or has ended"
	}
}

// handlerFunc runs an attempt: params and output are JSON.
type handlerFunc func(ctx context.Context, params []byte, attempt *Attempt) ([]byte, error)

// Handle adds a handler to a worker, before Run. Params are read into its second argument, and what it returns is
// written, as encoding/json does. The context ends, with a *StoppedError as its cause, when the attempt is to stop.
//
// It panics when the worker has a handler of that name, or the schema is no JSON object: both are mistakes of the program.
func Handle[Params, Output any](w *Worker, handler Handler, run func(context.Context, Params, *Attempt) (Output, error)) {
	schema := handler.Params
	if schema == nil {
		schema = map[string]any{"type": "object"}
	}
	message, err := toStruct(schema, "params")
	if err != nil {
		panic(fmt.Sprintf("the handler %s has no schema: %v", handler.Name, err))
	}
	if _, isThere := w.functions[handler.Name]; isThere {
		panic("there are two handlers " + handler.Name)
	}
	effects := map[Effect]flowkeepv1.Handler_Effect{
		None: flowkeepv1.Handler_EFFECT_NONE, Idempotent: flowkeepv1.Handler_EFFECT_IDEMPOTENT, External: flowkeepv1.Handler_EFFECT_EXTERNAL,
	}
	w.handlers = append(w.handlers, &flowkeepv1.Handler{
		Name: handler.Name, Description: handler.Description, ParamsSchema: message, Effect: effects[handler.Effect],
	})
	w.functions[handler.Name] = func(ctx context.Context, text []byte, attempt *Attempt) ([]byte, error) {
		var params Params
		if len(text) > 0 {
			if err := json.Unmarshal(text, &params); err != nil {
				return nil, &HandlerError{Code: "INVALID_PARAMS", Message: err.Error(), Final: true}
			}
		}
		given, err := run(ctx, params, attempt)
		if err != nil {
			return nil, err
		}
		return output(given)
	}
}

// output returns what a handler gave as JSON that payloads can carry.
func output(given any) ([]byte, error) {
	value, err := plain(given, "output")
	if err != nil {
		return nil, &HandlerError{Code: "INVALID_OUTPUT", Message: err.Error(), Final: true}
	}
	text, err := json.Marshal(value)
	if err == nil && len(text) > maxOutputBytes {
		err = errors.New("the output is larger than 2 MiB")
	}
	if err != nil {
		return nil, &HandlerError{Code: "INVALID_OUTPUT", Message: err.Error(), Final: true}
	}
	return text, nil
}
