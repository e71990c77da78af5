package flowkeep

import (
	"crypto/rand"
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	flowkeepv1 "flowkeep.dev/go/v1"
)

// ExecuteOptions says how a workflow is executed; the zero value is the workflow's own way.
type ExecuteOptions struct {
	// RequestID is the id of the request; without one the client makes it. Give your own where you may have to call again.
	RequestID string
	// Revision to run; 0 is the latest.
	Revision int32
	// Tags, Labels and CorrelationID are to find the execution by.
	Tags          []string
	Labels        map[string]string
	CorrelationID string
	// Priority, -100 to 100, higher goes first; nil is the workflow's.
	Priority *int32
	// StartDelay puts off the start.
	StartDelay time.Duration
	// Timeout is how long the execution may take from its start; 0 is the workflow's.
	Timeout time.Duration
	// Breakpoints are where it is held: before which steps, each always or where its condition is true.
	Breakpoints []*flowkeepv1.Breakpoint
	// Wait for the end: the answer comes when the execution has ended, or after 300 s, or the context's deadline, with the
	// execution still running.
	Wait bool
	// View is how much of the execution is returned: by default BASIC, with Wait together with the result.
	View flowkeepv1.ExecutionView
	// DryRun makes it a dry run, which sends nothing outside; nil: it is none.
	DryRun *DryRun
}

// Filters says which executions are meant; all that is given must hold. Beginnings of ranges are inclusive, their ends
// exclusive.
type Filters struct {
	// Workflow is an id or a name.
	Workflow          string
	States            []flowkeepv1.Execution_State
	Owner             string
	Tags              []string
	Labels            map[string]string
	CorrelationID     string
	CreatedFrom       time.Time
	CreatedBefore     time.Time
	EndedFrom         time.Time
	EndedBefore       time.Time
	ExecutionIDPrefix string
	// SourceExecutionID is the id of the execution that they were made from.
	SourceExecutionID string
	// DryRun: only dry runs, or with false only what is none; nil: both.
	DryRun *bool
}

// ListOptions says which executions to list, in which order, and how much of each; by default all, newest first, BASIC.
type ListOptions struct {
	Filters
	Order flowkeepv1.ListExecutionsRequest_Order
	View  flowkeepv1.ExecutionView
	// PageSize is how many come with one call of the service.
	PageSize int32
}

// NewExecuteRequest returns a request of Execute. It always has a request id, so that sending it again starts nothing
// twice. The input is anything of which encoding/json makes an object, or nil. The error is a *PayloadError.
func NewExecuteRequest(workflow string, input any, options *ExecuteOptions) (*flowkeepv1.ExecuteRequest, error) {
	var set ExecuteOptions
	if options != nil {
		set = *options
	}
	payload, err := toStruct(input, "input")
	if err != nil {
		return nil, err
	}
	dryRun, err := set.DryRun.message()
	if err != nil {
		return nil, err
	}
	return &flowkeepv1.ExecuteRequest{
		Workflow:      workflow,
		Revision:      set.Revision,
		Input:         payload,
		RequestId:     requestID(set.RequestID),
		Tags:          set.Tags,
		Labels:        set.Labels,
		Priority:      set.Priority,
		CorrelationId: set.CorrelationID,
		StartDelay:    span(set.StartDelay),
		Timeout:       span(set.Timeout),
		Breakpoints:   set.Breakpoints,
		Wait:          set.Wait,
		View:          set.View,
		DryRun:        dryRun,
	}, nil
}

// requestID returns a request id as it is sent: the given one, or one that nobody else has.
func requestID(given string) string {
	if given != "" {
		return given
	}
	var id [16]byte
	_, _ = rand.Read(id[:]) // it never fails
	id[6], id[8] = id[6]&0x0f|0x40, id[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", id[:4], id[4:6], id[6:8], id[8:10], id[10:])
}

func (f Filters) message() *flowkeepv1.ExecutionFilter {
	return &flowkeepv1.ExecutionFilter{
		Workflow:          f.Workflow,
		States:            f.States,
		Owner:             f.Owner,
		Tags:              f.Tags,
		Labels:            f.Labels,
		CorrelationId:     f.CorrelationID,
		CreateTime:        timeRange(f.CreatedFrom, f.CreatedBefore),
		EndTime:           timeRange(f.EndedFrom, f.EndedBefore),
		ExecutionIdPrefix: f.ExecutionIDPrefix,
		SourceExecutionId: f.SourceExecutionID,
		DryRun:            f.DryRun,
	}
}

func timeRange(start, end time.Time) *flowkeepv1.TimeRange {
	if start.IsZero() && end.IsZero() {
		return nil
	}
	return &flowkeepv1.TimeRange{StartTime: stamp(start), EndTime: stamp(end)}
}

func stamp(moment time.Time) *timestamppb.Timestamp {
	if moment.IsZero() {
		return nil
	}
	return timestamppb.New(moment)
}

func span(duration time.Duration) *durationpb.Duration {
	if duration == 0 {
		return nil
	}
	return durationpb.New(duration)
}
