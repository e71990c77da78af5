package flowkeep

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	flowkeepv1 "flowkeep.dev/go/v1"
)

// Kinds of errors, for errors.Is: errors.Is(err, flowkeep.ErrNotFound).
const (
	// ErrInvalidArgument: fields of the request break a rule; Error.Violations says which and what would be right.
	ErrInvalidArgument = kind(codes.InvalidArgument)
	// ErrUnauthenticated: there is no token, or it is not valid.
	ErrUnauthenticated = kind(codes.Unauthenticated)
	// ErrPermissionDenied: the identity lacks the permission named in Error.Metadata["permission"].
	ErrPermissionDenied = kind(codes.PermissionDenied)
	// ErrNotFound: there is no such workflow, revision or execution, or it belongs to somebody else.
	ErrNotFound = kind(codes.NotFound)
	// ErrAlreadyExists: the name is taken, or the request id was used with other content.
	ErrAlreadyExists = kind(codes.AlreadyExists)
	// ErrFailedPrecondition: the thing is not in the state that the call needs.
	ErrFailedPrecondition = kind(codes.FailedPrecondition)
	// ErrOutOfRange: the resume position lies beyond the newest event or is no longer kept, or the page token is too old.
	ErrOutOfRange = kind(codes.OutOfRange)
	// ErrResourceExhausted: the server has more work than it may hold. Nothing was done; Error.RetryAfter says when to
	// come back.
	ErrResourceExhausted = kind(codes.ResourceExhausted)
	// ErrUnavailable: server or database cannot be reached. What the call did is unknown, unless it only reads.
	ErrUnavailable = kind(codes.Unavailable)
)

// kind is what all errors of one code are.
type kind codes.Code

func (k kind) Error() string { return codes.Code(k).String() }

// Violation is one thing that is wrong: the path of the field, and what would be right.
type Violation struct {
	Field       string
	Description string
}

func (v Violation) String() string {
	if v.Field == "" {
		return v.Description
	}
	return v.Field + ": " + v.Description
}

// Error is why an RPC was refused, or could not be done.
type Error struct {
	// Code is the canonical code of gRPC.
	Code codes.Code
	// Reason is a name of flowkeepv1.ErrorReason without its prefix, such as WORKFLOW_NOT_FOUND. It is empty when the
	// error is not from the service itself: a broken connection, say.
	Reason string
	// Message says it for people.
	Message string
	// Metadata repeats every variable part of the message.
	Metadata map[string]string
	// Violations is all that is wrong with the fields of the request.
	Violations []Violation
	// RetryAfter is the pause that the server asks for, if it does.
	RetryAfter *time.Duration

	status *status.Status
}

func (e *Error) Error() string {
	label := e.Code.String()
	if e.Reason != "" {
		label += " (" + e.Reason + ")"
	}
	text := label + ": " + e.Message
	for _, violation := range e.Violations {
		text += "\n  " + violation.String()
	}
	return text
}

// Is reports whether the error is of a kind, such as ErrNotFound.
func (e *Error) Is(target error) bool {
	of, isKind := target.(kind)
	return isKind && e.Code == codes.Code(of)
}

// GRPCStatus returns the status as gRPC has it, so that status.Code and status.FromError understand the error.
func (e *Error) GRPCStatus() *status.Status { return e.status }

// ExecutionFailedError is an execution that ended without completing: data about the work, not the error of an RPC.
type ExecutionFailedError struct {
	ExecutionID string
	// State is FAILED, CANCELLED or TIMED_OUT.
	State flowkeepv1.Execution_State
	// Failure says why.
	Failure *flowkeepv1.Failure
}

func (e *ExecutionFailedError) Error() string {
	text := fmt.Sprintf("execution %s %s", e.ExecutionID, strings.TrimPrefix(e.State.String(), "STATE_"))
	code := e.Failure.GetCode()
	if code == "" {
		return text
	}
	if inner := e.Failure.GetDetails().GetFields()["code"].GetStringValue(); code == "STEP_FAILED" && inner != "" {
		code = inner
	}
	text += ": " + code
	if path := e.Failure.GetStepPath(); path != "" {
		text += " in step " + path
	}
	return text + ": " + e.Failure.GetMessage()
}

// PayloadError is a value that payloads cannot carry.
type PayloadError struct {
	// Path says where it stands, such as input.items[3].
	Path string
	// Description says what would be right.
	Description string
}

func (e *PayloadError) Error() string { return Violation{e.Path, e.Description}.String() }

// DefinitionError is a document that is no workflow definition.
type DefinitionError struct {
	// Violations is all that is wrong, with paths.
	Violations []Violation
}

func (e *DefinitionError) Error() string {
	lines := make([]string, len(e.Violations))
	for index, violation := range e.Violations {
		lines[index] = violation.String()
	}
	return strings.Join(lines, "\n")
}

// fromRPC returns our error for one that a call ended with, nil for nil, with the details that the server attached, as
// far as they can be read.
func fromRPC(err error) *Error {
	if err == nil {
		return nil
	}
	var ours *Error
	if errors.As(err, &ours) {
		return ours
	}
	found, isStatus := status.FromError(err)
	if !isStatus {
		found = status.FromContextError(err)
	}
	return fromStatus(found)
}

// fromMessage returns our error for one that came as a message, as if a call had ended with it.
func fromMessage(message *statuspb.Status) *Error { return fromStatus(status.FromProto(message)) }

func fromStatus(found *status.Status) *Error {
	ours := &Error{Code: found.Code(), Message: found.Message(), status: found}
	for _, detail := range found.Details() {
		switch detail := detail.(type) {
		case *errdetails.ErrorInfo:
			ours.Reason, ours.Metadata = detail.GetReason(), detail.GetMetadata()
		case *errdetails.BadRequest:
			for _, each := range detail.GetFieldViolations() {
				ours.Violations = append(ours.Violations, Violation{each.GetField(), each.GetDescription()})
			}
		case *errdetails.RetryInfo:
			pause := detail.GetRetryDelay().AsDuration()
			ours.RetryAfter = &pause
		}
	}
	return ours
}

// newError returns an error that is our own finding.
func newError(code codes.Code, message string) *Error { return fromStatus(status.New(code, message)) }

// moved returns an error whose texts say where a request stands among all, not among those that were sent again.
func (e *Error) moved(from, to string) *Error {
	if from == to {
		return e
	}
	there := *e
	there.Message = strings.Replace(e.Message, from, to, 1)
	there.Violations = nil
	for _, each := range e.Violations {
		there.Violations = append(there.Violations, Violation{strings.Replace(each.Field, from, to, 1), each.Description})
	}
	return &there
}
