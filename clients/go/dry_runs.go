package flowkeep

import (
	flowkeepv1 "flowkeep.dev/go/v1"
)

// DryRun makes an execution a dry run, which sends nothing outside: what stands in the place of its steps.
type DryRun struct {
	// Mocks by the paths of steps, such as "ship", "orders[3].ship", or "orders.ship" for each item.
	Mocks map[string]Mock
	// Handlers has mocks by the names of handlers, for all steps that have them.
	Handlers map[string]Mock
	// Default stands for each step that may send something and has no other mock.
	Default *Mock
	// SkipWaits: no time is waited for.
	SkipWaits bool
}

// Mock is what stands in the place of a step: it gives the output, as far as it does not fail.
type Mock struct {
	// Output is anything of which encoding/json makes JSON; nil is null.
	Output any
	// Failure says how attempts of the step fail; nil: none does.
	Failure *MockFailure
}

// MockFailure says how attempts of a step fail in whose place a mock stands.
type MockFailure struct {
	// Code says what went wrong, such as "HTTP_STATUS_5XX".
	Code    string
	Message string
	// Details are anything of which encoding/json makes an object, or nil.
	Details any
	// Retryable: the retry policy of the step decides whether it is tried again.
	Retryable bool
	// Times is how many attempts fail, before one gives the output; 0: all of them do, and the output counts for nothing.
	Times int32
}

// message returns a dry run as it is sent. The error is a *PayloadError.
func (d *DryRun) message() (*flowkeepv1.DryRun, error) {
	if d == nil {
		return nil, nil
	}
	mocks, err := mockMessages(d.Mocks, "dry_run.mocks")
	if err != nil {
		return nil, err
	}
	handlers, err := mockMessages(d.Handlers, "dry_run.handlers")
	if err != nil {
		return nil, err
	}
	made := &flowkeepv1.DryRun{Mocks: mocks, Handlers: handlers, SkipWaits: d.SkipWaits}
	if d.Default != nil {
		if made.DefaultMock, err = d.Default.message("dry_run.default_mock"); err != nil {
			return nil, err
		}
	}
	return made, nil
}

func mockMessages(mocks map[string]Mock, path string) (map[string]*flowkeepv1.Mock, error) {
	made := make(map[string]*flowkeepv1.Mock, len(mocks))
	for name, mock := range mocks {
		message, err := mock.message(path + "." + name)
		if err != nil {
			return nil, err
		}
		made[name] = message
	}
	return made, nil
}

func (m Mock) message(path string) (*flowkeepv1.Mock, error) {
	made := &flowkeepv1.Mock{}
	var err error
	if m.Failure == nil || m.Failure.Times != 0 {
		if made.Output, err = toValue(m.Output, path+".output"); err != nil {
			return nil, err
		}
	}
	if f := m.Failure; f != nil {
		details, err := toStruct(f.Details, path+".failure.details")
		if err != nil {
			return nil, err
		}
		made.Failure = &flowkeepv1.MockFailure{
			Code: f.Code, Message: f.Message, Details: details, Retryable: f.Retryable, Times: f.Times,
		}
	}
	return made, nil
}
