package flowkeep

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc/codes"

	flowkeepv1 "flowkeep.dev/go/v1"
)

// Outcome is what became of one request of a batch: either what Execute answers, or the error that it ends with.
type Outcome struct {
	Response *flowkeepv1.ExecuteResponse
	Err      *Error
}

// BatchExecute starts up to 1,000 executions by requests that NewExecuteRequest made, and returns in order what became of
// each; what may succeed later is sent again. The error is what is wrong with the call as a whole: too many requests, or
// more than 4 MiB of them.
func (c *Client) BatchExecute(ctx context.Context, requests []*flowkeepv1.ExecuteRequest) ([]Outcome, error) {
	deadline := time.Now().Add(c.timeout)
	places := make([]int, len(requests))
	for index := range places {
		places[index] = index
	}
	outcomes, err := c.sendBatch(ctx, requests, places, c.timeout)
	if err != nil {
		return nil, err
	}
	var pauses pausing
	for {
		again, longest := worthAnotherTry(outcomes)
		if len(again) == 0 {
			return outcomes, nil
		}
		pause := pauses.after(longest)
		if time.Now().Add(pause).After(deadline) {
			return outcomes, nil
		}
		if err := sleep(ctx, pause); err != nil {
			return nil, err
		}
		found, err := c.sendBatch(ctx, requests, again, time.Until(deadline))
		var failure *Error
		if errors.As(err, &failure) {
			return outcomes, nil // what is known of each stays what was told last
		}
		if err != nil {
			return nil, err
		}
		for index, place := range again {
			outcomes[place] = found[index]
		}
	}
}

// worthAnotherTry returns the places of what may succeed later, and the error that asks for the longest pause.
func worthAnotherTry(outcomes []Outcome) (places []int, longest *Error) {
	for place, outcome := range outcomes {
		if outcome.Err == nil || !mayRepeat(outcome.Err) {
			continue
		}
		places = append(places, place)
		if longest == nil || asked(outcome.Err) > asked(longest) {
			longest = outcome.Err
		}
	}
	return places, longest
}

func asked(err *Error) time.Duration {
	if err.RetryAfter == nil {
		return 0
	}
	return *err.RetryAfter
}

func (c *Client) sendBatch(ctx context.Context, requests []*flowkeepv1.ExecuteRequest, places []int, timeout time.Duration) ([]Outcome, error) {
	batch := &flowkeepv1.BatchExecuteRequest{}
	for _, place := range places {
		batch.Requests = append(batch.Requests, requests[place])
	}
	response, err := call(ctx, c, c.executions.BatchExecute, batch, timeout)
	if err != nil {
		return nil, err
	}
	if len(response.GetResults()) != len(places) {
		return nil, newError(codes.Internal, "the server does not tell of each request what became of it")
	}
	outcomes := make([]Outcome, len(places))
	for index, result := range response.GetResults() {
		if failure := result.GetError(); failure != nil {
			from, to := fmt.Sprintf("requests[%d]", index), fmt.Sprintf("requests[%d]", places[index])
			outcomes[index].Err = fromMessage(failure).moved(from, to)
		} else {
			outcomes[index].Response = result.GetResponse()
		}
	}
	return outcomes, nil
}
