"""Events, from the bytes that are stored to the domain."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from google.protobuf.message import DecodeError
from google.protobuf.timestamp_pb2 import Timestamp

from flowkeep import payload
from flowkeep.v1 import event_pb2 as pb
from flowkeep.v1.execution_pb2 import Execution as ExecutionMessage
from flowkeep.v1.execution_pb2 import Failure as FailureMessage
from flowkeep.v1.execution_pb2 import Lineage as LineageMessage
from flowkeep.v1.execution_pb2 import StepCounts as StepCountsMessage
from flowkeep.v1.execution_pb2 import Wait as WaitMessage
from persistence.breakpoints import Halt
from persistence.lineage import Lineage
from persistence.model import Edit, ExecutionState, StepCounts, Wait, WaitKind
from persistence.model import Event as StoredEvent
from persistence.signals import Signal
from persistence.usage import Usage
from service.api.breakpoints import read_breakpoints
from service.engine.failure import Failure
from service.engine.payload import size
from service.engine.planning import events
from service.engine.wishes import Wishes


def decode(stored: StoredEvent) -> events.Event | None:
    """Return an event of the store; None for one of which nobody can tell what happened."""
    try:
        message = pb.ExecutionEvent.FromString(stored.body)
        kind = str(message.WhichOneof("kind"))
        if message.seq != stored.seq or kind not in _BODIES:
            return None
        return events.Event(
            message.seq,
            message.transition_seq,
            _time(message.time),
            message.progress_percent,
            _counts(message.step_counts),
            _BODIES[kind](getattr(message, kind)),
            message.inherited,
        )
    except (DecodeError, ValueError, OverflowError):  # written by hand
        return None


def _counts(told: StepCountsMessage) -> StepCounts:
    return StepCounts(told.total, told.completed, told.failed, told.skipped, told.running, told.cancelled)


def _created(told: pb.ExecutionCreated) -> events.Created:
    scheduled = _optional(told, "scheduled_time")
    lineage = _lineage(told.lineage) if told.HasField("lineage") else None
    facts = told.workflow_id, told.workflow_name, told.revision, told.owner
    return events.Created(*facts, scheduled, lineage, told.dry_run)


def _lineage(told: LineageMessage) -> Lineage:
    source = UUID(told.source_execution_id)
    return Lineage(source, told.source_seq, told.source_step_path, told.source_step_iteration)


def _started(told: pb.ExecutionStarted) -> events.Started:
    return events.Started(_time(told.deadline_time))


def _step_started(told: pb.StepStarted) -> events.StepStarted:
    given = payload.from_struct(told.input)
    facts = told.path, told.handler, told.attempt, told.worker
    return events.StepStarted(*facts, given, told.iteration, told.mocked)


def _progressed(told: pb.StepProgressed) -> events.StepProgressed:
    return events.StepProgressed(told.path, told.attempt, told.progress_percent, told.message, told.iteration)


def _waiting(told: pb.StepWaiting) -> events.StepWaiting:
    output = payload.from_value(told.output) if told.HasField("output") else None
    given = payload.from_struct(told.input) if told.HasField("input") else None
    return events.StepWaiting(told.path, _wait(told.wait), told.iteration, output, _usage(told), given)


def _edited(told: pb.StepEdited) -> events.StepEdited:
    return events.StepEdited(told.path, told.edited_by, payload.from_struct(told.input), told.iteration)


def _breakpoints(told: pb.BreakpointsSet) -> events.BreakpointsSet:
    return events.BreakpointsSet(told.set_by, read_breakpoints(told.breakpoints))


def _retrying(told: pb.StepRetrying) -> events.StepRetrying:
    failure, retry_time = _failure(told.failure), _time(told.retry_time)
    usage = _usage(told)
    return events.StepRetrying(told.path, told.attempt, failure, retry_time, told.failures, told.iteration, usage)


def _completed(told: pb.StepCompleted) -> events.StepCompleted:
    output = payload.from_value(told.output)
    usage, signals = _usage(told), _signals(told)
    return events.StepCompleted(told.path, told.attempt, output, told.iteration, usage, signals, told.mocked)


def _failed(told: pb.StepFailed) -> events.StepFailed:
    return events.StepFailed(
        told.path,
        told.attempt,
        _failure(told.failure),
        told.failures,
        told.attempt_failed,
        told.iteration,
        _usage(told),
        _signals(told),
        told.mocked,
    )


def _skipped(told: pb.StepSkipped) -> events.StepSkipped:
    return events.StepSkipped(told.path, told.reason, told.iteration)


def _cancelled(told: pb.StepCancelled) -> events.StepCancelled:
    failure = _failure(told.failure) if told.HasField("failure") else None
    return events.StepCancelled(told.path, told.attempt, failure, told.iteration, _usage(told))


def _assigned(told: pb.VariablesAssigned) -> events.VariablesAssigned:
    return events.VariablesAssigned(told.path, payload.from_struct(told.vars), told.iteration, told.edited_by)


def _signal(told: pb.SignalReceived) -> events.SignalReceived:
    given = payload.from_struct(told.payload)
    signal = Signal(UUID(told.signal_id), told.name, given, told.sender, _time(told.send_time), size(given))
    return events.SignalReceived(signal)


def _signals(told: pb.StepCompleted | pb.StepFailed) -> tuple[UUID, ...]:
    return tuple(map(UUID, told.signal_ids))


def _cancelling(told: pb.ExecutionCancelling) -> events.Cancelling:
    return events.Cancelling(told.cancelled_by, told.reason, told.terminated, told.bulk_id)


def _paused(told: pb.ExecutionPaused) -> events.Paused:
    return events.Paused(
        told.paused_by,
        told.reason,
        told.hard,
        told.stop_deadline,
        told.step_path,
        told.bulk_id,
        told.workflow_pause_id,
    )


def _resumed(told: pb.ExecutionResumed) -> events.Resumed:
    halt = Halt.NEXT if told.step_over else Halt.STEP if told.run_to else Halt.NONE
    deadline = _optional(told, "deadline_time")
    of = told.bulk_id, told.workflow_pause_id
    return events.Resumed(told.resumed_by, told.reason, deadline, halt, told.run_to, *of)


def _finished(told: pb.ExecutionFinished) -> events.Finished:
    state = ExecutionState(ExecutionMessage.State.Name(told.state).removeprefix("STATE_"))
    if told.HasField("failure"):
        return events.Finished(state, None, _failure(told.failure))
    return events.Finished(state, payload.from_value(told.result), None)


def _reopened(told: pb.ExecutionReopened) -> events.Reopened:
    edit = _edit(told.edit) if told.HasField("edit") else None
    deadline = _optional(told, "deadline_time")
    return events.Reopened(told.run, told.reopened_by, told.reason, deadline, edit, told.bulk_id)


def _edit(told: pb.StepEdit) -> Edit:
    if told.WhichOneof("edit") == "input":
        return Edit(told.path, told.iteration, payload.from_struct(told.input))
    return Edit(told.path, told.iteration, payload.from_value(told.output), is_skipped=True)


def _wait(told: WaitMessage) -> Wait:
    kind = WaitKind(str(told.WhichOneof("kind")).upper())
    start_time, wake_time = _time(told.start_time), _optional(told, "wake_time")
    return Wait(
        kind,
        start_time,
        wake_time,
        told.reason,
        told.retry.attempt,
        told.slot.resource,
        told.worker.handler,
        told.task.task_id,
        told.task.escalated,
        Wishes(tuple(sorted(told.worker.labels.items())), tuple(told.worker.versions)).text,
        tuple(told.signal.names),
        told.signal.every,
        told.breakpoint.edited,
    )


def _failure(told: FailureMessage) -> Failure:
    details = payload.from_struct(told.details)
    return Failure(told.code, told.message, details, told.step_path, told.step_iteration, told.retryable)


def _usage(told: Any) -> Usage | None:
    if not told.HasField("usage"):
        return None
    usage = Usage(told.usage.input_tokens, told.usage.output_tokens, told.usage.cost_micros)
    if min(usage.input_tokens, usage.output_tokens, usage.cost_micros) < 0:
        raise ValueError("less than nothing was used")
    return usage


def _optional(told: Any, field: str) -> datetime | None:
    return _time(getattr(told, field)) if told.HasField(field) else None


def _time(stamp: Timestamp) -> datetime:
    return stamp.ToDatetime(tzinfo=UTC)


_BODIES: dict[str, Any] = {
    "created": _created,
    "started": _started,
    "step_started": _step_started,
    "step_progressed": _progressed,
    "step_waiting": _waiting,
    "step_retrying": _retrying,
    "step_completed": _completed,
    "step_failed": _failed,
    "step_skipped": _skipped,
    "step_cancelled": _cancelled,
    "variables_assigned": _assigned,
    "signal_received": _signal,
    "cancelling": _cancelling,
    "paused": _paused,
    "breakpoints_set": _breakpoints,
    "step_edited": _edited,
    "resumed": _resumed,
    "finished": _finished,
    "reopened": _reopened,
}
