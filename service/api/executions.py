"""Executions and their steps, domain to wire."""

from __future__ import annotations

from dataclasses import dataclass

from flowkeep.v1.execution_pb2 import Execution as ExecutionMessage
from flowkeep.v1.execution_pb2 import ExecutionPause
from flowkeep.v1.execution_service_pb2 import CancelResponse, ExecuteResponse
from persistence.model import (
    Execution,
    ExecutionDetail,
    ExecutionOutcome,
    ExecutionState,
    Json,
    Pause,
    Step,
    StepState,
)
from persistence.transition import Created
from service.api.breakpoints import put_breakpoints
from service.api.definitions import EncodedDefinitions
from service.api.encoded import Encoded, tag
from service.api.events import lineage_message, put_counts, usage_message
from service.api.failures import stored_failure
from service.api.steps import Sight, fill, outline, payloads, step_state
from service.api.times import put_span, put_time
from service.api.values import struct_bytes, value_bytes
from service.engine.definition import Definition
from service.engine.failure import OUTCOME_UNKNOWN, RESULT_DISCARDED
from service.engine.planning.assigned import gathering_variables
from service.engine.slices import in_slices
from service.engine.steps import first_steps

LARGEST_STEPS = 32 << 20
"""Bytes of steps with their payloads that one answer holds."""

SMALL_STEPS = 2 << 20
"""The same where the answer must not fail for being larger than the 4 MiB that gRPC clients take by default."""

STEPS_SHOWN = 1_000
"""Steps that the FULL view holds, and the answer of Cancel: those of all items may be tens of thousands."""

_INPUT, _VARS, _RESULT, _DEFINITION, _STEPS = (
    tag(ExecutionMessage, name) for name in ("input", "vars", "result", "definition", "steps")
)

_EXECUTED, _CREATED = tag(ExecuteResponse, "execution"), ExecuteResponse(created=True).SerializeToString()

_STATES = {state: ExecutionMessage.State.Value(f"STATE_{state.value}") for state in ExecutionState}

Receipt = CancelResponse.StepReceipt

_STOPS = {
    OUTCOME_UNKNOWN: Receipt.EFFECT_UNKNOWN,
    RESULT_DISCARDED: Receipt.EFFECT_COMPLETED,
}
"""What cancelling did to a running attempt, by what its step says of it."""


@dataclass(frozen=True, slots=True)
class EncodedDetail:
    """The FULL view of an execution, as of `last_seq`, and whether it has the payloads of all steps."""

    message: Encoded
    last_seq: int
    is_whole: bool


def execution_message(execution: Execution) -> ExecutionMessage:
    """Return the BASIC view of an execution."""
    # Field by field, and nothing for what is not there: the arguments of a message cost twice as much.
    message = ExecutionMessage()
    message.execution_id = str(execution.id)
    message.workflow_id = str(execution.workflow_id)
    message.workflow_name = execution.workflow_name
    message.revision = execution.revision
    message.state = _STATES[execution.state]
    message.progress_percent = execution.progress
    put_counts(message.step_counts, execution.counts)
    if "create_time" not in execution.unreadable:
        put_time(message.create_time, execution.create_time)
    if execution.start_time is not None:
        put_time(message.start_time, execution.start_time)
    if execution.end_time is not None:
        put_time(message.end_time, execution.end_time)
    if execution.deadline_time is not None:
        put_time(message.deadline_time, execution.deadline_time)
    if execution.scheduled_time is not None:
        put_time(message.scheduled_time, execution.scheduled_time)
    put_span(message.timeout, execution.timeout)
    message.owner = execution.owner
    message.correlation_id = execution.correlation_id
    message.priority = execution.priority
    message.request_id = execution.request_id
    message.last_seq = execution.last_seq
    message.written_bytes = execution.bytes
    message.run = execution.run
    if execution.pause is not None:
        put_pause(message.pause, execution.pause)
    if execution.lineage is not None:
        message.lineage.CopyFrom(lineage_message(execution.lineage))
    if execution.breakpoints is not None:
        put_breakpoints(message.breakpoints, execution.breakpoints.points)
    if execution.is_dry_run:
        message.dry_run = True
    if execution.usage is not None:
        message.usage.CopyFrom(usage_message(execution.usage))
    if execution.tags:
        message.tags.extend(execution.tags)
    if execution.labels:
        message.labels.update(execution.labels)
    if (failure := stored_failure(execution.failure, with_trace=False)) is not None:
        message.failure.CopyFrom(failure)
    if execution.unreadable:
        message.unreadable.extend(execution.unreadable)
    return message


def put_pause(message: ExecutionPause, pause: Pause) -> None:
    """Tell how an execution is paused."""
    message.paused_by, message.reason = pause.by, pause.reason
    put_time(message.pause_time, pause.time)
    message.hard, message.stop_deadline = pause.is_hard, pause.stops_deadline
    message.workflow_pause_id = pause.workflow_pause_id


def executed(execution: ExecutionMessage | Encoded, created: Created) -> bytes:
    """Return the serialized answer of Execute that has this view of the execution."""
    response = Encoded()
    response.add_field(_EXECUTED, execution)
    if created.created:
        response.add(_CREATED)
    return response.serialized()


def encoded_outcome(outcome: ExecutionOutcome) -> Encoded:
    """Return the BASIC view of an execution with its result."""
    encoded, gaps = Encoded(), list(outcome.execution.unreadable)
    message = execution_message(outcome.execution)
    _add_result(encoded, outcome.execution, outcome.result, gaps)
    message.unreadable[:] = gaps
    encoded.add(message)
    return encoded


async def encoded_detail(
    detail: ExecutionDetail,
    definition: Definition,
    sight: Sight,
    definitions: EncodedDefinitions,
    *,
    largest: int = LARGEST_STEPS,
    is_defined: bool = True,
) -> EncodedDetail:
    """Return the FULL view of an execution, as far as the caller may see it. Steps beyond `largest` bytes are bare.

    What cannot be shown is left out and named; not `is_defined`: the definition too.

    Others have their turn in between: no call waits while the payloads of hundreds of steps are unfolded.
    """
    execution, encoded, gaps = detail.execution, Encoded(), list(detail.unreadable)
    message = execution_message(execution)
    message.ClearField("unreadable")
    message.definition_withheld = not sight.definition
    encoded.add(message)
    await _add_payloads(encoded, detail, gaps)
    if is_defined and sight.definition:
        encoded.add_field(_DEFINITION, await definitions.of(execution, definition))
        await encoded.rest()
    elif not is_defined:
        gaps.append("definition")
    steps = await in_slices(first_steps(definition, detail, STEPS_SHOWN + 1))
    begin, is_whole = encoded.size, not detail.omitted and len(steps) <= STEPS_SHOWN
    for step, record in steps[:STEPS_SHOWN]:
        bare, filled = outline(record, step, definition, sight, detail.time, execution.lineage), None
        if encoded.size - begin <= largest and record.key not in detail.omitted:
            filled = await payloads(record, sight, gaps)
        if filled is None or encoded.size - begin + filled.size > largest:
            bare.payloads_omitted, is_whole, largest = True, False, 0
            encoded.add_field(_STEPS, bare)
        else:
            filled.add(bare)
            encoded.add_field(_STEPS, filled)
        await encoded.rest()
    encoded.add(ExecutionMessage(unreadable=dict.fromkeys(gaps), steps_omitted=len(steps) > STEPS_SHOWN))
    return EncodedDetail(encoded, execution.last_seq, is_whole)


async def cancel_response(detail: ExecutionDetail, definition: Definition) -> CancelResponse:
    """Return the answer of Cancel."""
    steps = await in_slices(first_steps(definition, detail, STEPS_SHOWN + 1))
    message = execution_message(detail.execution)
    if not detail.execution.state.is_end:
        # The wish is kept, also where another process, which drives the execution, has yet to see it.
        message.state = ExecutionMessage.STATE_CANCELLING
    receipts = (
        Receipt(path=record.path, iteration=record.iteration, effect=_effect(record), state=step_state(record))
        for _, record in steps[:STEPS_SHOWN]
    )
    return CancelResponse(execution=message, steps=receipts, steps_omitted=len(steps) > STEPS_SHOWN)


async def _add_payloads(encoded: Encoded, detail: ExecutionDetail, gaps: list[str]) -> None:
    """Add input, variables and result."""
    fill(encoded, _INPUT, lambda: struct_bytes(detail.input), "input", gaps)
    held = Encoded()
    for name, value in (await in_slices(gathering_variables(detail))).items():
        try:
            held.add(struct_bytes({name: value}))
        except (ValueError, TypeError):
            gaps.append("vars")
        await held.rest()
    if "vars" not in gaps:
        encoded.add_field(_VARS, held)
    _add_result(encoded, detail.execution, detail.result, gaps)


def _add_result(encoded: Encoded, execution: Execution, result: Json, gaps: list[str]) -> None:
    if execution.state is ExecutionState.COMPLETED and "result" not in gaps:
        fill(encoded, _RESULT, lambda: value_bytes(result), "result", gaps)


def _effect(step: Step) -> Receipt.Effect.ValueType:
    match step.state:
        case StepState.PENDING:
            return Receipt.EFFECT_NEVER_STARTED
        case StepState.RUNNING | StepState.WAITING:
            return Receipt.EFFECT_STOPPING
        case StepState.CANCELLED if step.wait is not None:
            return Receipt.EFFECT_WAIT_REMOVED
        case StepState.CANCELLED if step.start_time is None:
            return Receipt.EFFECT_NEVER_STARTED
        case StepState.CANCELLED:
            return _STOPS.get((step.failure or {}).get("code", ""), Receipt.EFFECT_STOPPED)
        case _:
            return Receipt.EFFECT_ALREADY_ENDED
