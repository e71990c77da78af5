package flowkeep

import (
	"context"

	flowkeepv1 "flowkeep.dev/go/v1"
)

// SignalOptions says what a signal carries, and how its execution is told.
type SignalOptions struct {
	// RequestID is the id of the request; without one the client makes it.
	RequestID string
	// Payload is what it carries: anything of which encoding/json makes an object.
	Payload any
	// Workflow and CorrelationID tell the execution where no id is given: the one of these that has not ended.
	Workflow, CorrelationID string
}

// Signal sends an execution a signal, for which one of its steps waits or will. It is sent once, however often it is
// tried. With an empty id it goes to the execution of a workflow with a correlation id.
func (c *Client) Signal(ctx context.Context, executionID, name string, options *SignalOptions) (*flowkeepv1.SignalExecutionResponse, error) {
	var set SignalOptions
	if options != nil {
		set = *options
	}
	payload, err := toStruct(set.Payload, "payload")
	if err != nil {
		return nil, err
	}
	request := &flowkeepv1.SignalExecutionRequest{Name: name, Payload: payload, RequestId: requestID(set.RequestID)}
	if executionID != "" {
		request.Target = &flowkeepv1.SignalExecutionRequest_ExecutionId{ExecutionId: executionID}
	} else {
		correlation := &flowkeepv1.SignalExecutionRequest_Correlation{Workflow: set.Workflow, CorrelationId: set.CorrelationID}
		request.Target = &flowkeepv1.SignalExecutionRequest_Correlation_{Correlation: correlation}
	}
	return call(ctx, c, c.executions.SignalExecution, request, c.timeout)
}

// SignalStartOptions says what a signal carries, and how an execution is started where none goes on.
type SignalStartOptions struct {
	// RequestID is the id of the request; without one the client makes it.
	RequestID string
	// Payload is what the signal carries: anything of which encoding/json makes an object.
	Payload any
	// Input is that of an execution which is started: anything of which encoding/json makes an object.
	Input any
	// Start says how it is started; nil is the workflow's own way. Its RequestID, CorrelationID, Wait and View do not count.
	Start *ExecuteOptions
}

// SignalWithStart sends a signal to the execution of a workflow with a correlation id that has not ended, or starts one
// with it; the response says whether it started. Of any number of calls at once one starts an execution. It is sent
// once, however often it is tried.
func (c *Client) SignalWithStart(ctx context.Context, workflow, correlationID, name string, options *SignalStartOptions) (*flowkeepv1.SignalWithStartResponse, error) {
	var set SignalStartOptions
	if options != nil {
		set = *options
	}
	var start ExecuteOptions
	if set.Start != nil {
		start = *set.Start
	}
	start.CorrelationID, start.Wait, start.View = correlationID, false, 0
	execute, err := NewExecuteRequest(workflow, set.Input, &start)
	if err != nil {
		return nil, err
	}
	execute.RequestId = "" // the request as a whole has one
	payload, err := toStruct(set.Payload, "payload")
	if err != nil {
		return nil, err
	}
	request := &flowkeepv1.SignalWithStartRequest{
		Start: execute, Name: name, Payload: payload, RequestId: requestID(set.RequestID),
	}
	return call(ctx, c, c.executions.SignalWithStart, request, c.timeout)
}
