"""Executions and their steps, domain to wire."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from google.protobuf.message import Message
from msgspec import structs

from flowkeep import payload
from flowkeep.v1.execution_pb2 import Execution as ExecutionMessage
from flowkeep.v1.execution_pb2 import FailedAttempt, StepExecution
from flowkeep.v1.execution_service_pb2 import CancelResponse
from persistence.model import Execution, ExecutionDetail, ExecutionState, Step, StepState
from service.api.definitions import definition_message
from service.api.encoded import Encoded, tag
from service.api.events import counts_message, wait_message
from service.api.failures import stored_failure
from service.api.times import duration, timestamp
from service.engine import definition as model
from service.engine.definition import Definition
from service.engine.failure import OUTCOME_UNKNOWN, RESULT_DISCARDED
from service.engine.slices import in_slices
from service.engine.state import variables
from service.engine.step_rules import CONDITION_IS_FALSE

LARGEST_STEPS = 32 << 20
"""Bytes of steps with their payloads that one answer holds."""

SMALL_STEPS = 2 << 20
"""The same where the answer must not fail for being larger than the 4 MiB that gRPC clients take by default."""

_INPUT, _VARS, _RESULT, _DEFINITION, _STEPS = (
    tag(ExecutionMessage, name) for name in ("input", "vars", "result", "definition", "steps")
)
_INPUT_OF_STEP, _OUTPUT, _ASSIGNED, _FAILURE, _FAILED_ATTEMPTS = (
    tag(StepExecution, name) for name in ("input", "output", "assigned", "failure", "failed_attempts")
)

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
    return ExecutionMessage(
        execution_id=str(execution.id),
        workflow_id=str(execution.workflow_id),
        workflow_name=execution.workflow_name,
        revision=execution.revision,
        state=_state(execution.state),
        progress_percent=execution.progress,
        step_counts=counts_message(execution.counts),
        create_time=None if "create_time" in execution.unreadable else timestamp(execution.create_time),
        start_time=timestamp(execution.start_time),
        end_time=timestamp(execution.end_time),
        deadline_time=timestamp(execution.deadline_time),
        scheduled_time=timestamp(execution.scheduled_time),
        timeout=duration(execution.timeout),
        owner=execution.owner,
        tags=execution.tags,
        labels=execution.labels,
        correlation_id=execution.correlation_id,
        priority=execution.priority,
        request_id=execution.request_id,
        last_seq=execution.last_seq,
        written_bytes=execution.bytes,
        failure=stored_failure(execution.failure, with_trace=False),
        unreadable=execution.unreadable,
    )


async def encoded_detail(
    detail: ExecutionDetail,
    definition: Definition,
    *,
    with_trace: bool,
    with_definition: bool,
    largest: int = LARGEST_STEPS,
    is_defined: bool = True,
) -> EncodedDetail:
    """Return the FULL view of an execution; stack traces only `with_trace`. Steps beyond `largest` bytes are bare.

    What stands in the definition is left out unless `with_definition`: for callers that may not read it.

    What cannot be shown is left out and named; not `is_defined`: the definition too.

    Others have their turn in between: no call waits while the payloads of hundreds of steps are unfolded.
    """
    execution, encoded, gaps = detail.execution, Encoded(), list(detail.unreadable)
    message = execution_message(execution)
    message.ClearField("unreadable")
    message.definition_withheld = not with_definition
    encoded.add(message)
    await _add_payloads(encoded, detail, gaps)
    if is_defined and with_definition:
        encoded.add_field(_DEFINITION, await in_slices(definition_message(definition.document)))
        await encoded.rest()
    elif not is_defined:
        gaps.append("definition")
    steps, begin, is_whole = {step.path: step for step in detail.steps}, encoded.size, not detail.omitted
    for spec in definition.steps:
        kept = steps.get(spec.id) or _untouched(spec, execution)
        if not with_definition:
            kept = _without_definition(kept)
        outline, filled = _outline(kept, spec, definition, with_trace=with_trace), None
        if encoded.size - begin <= largest and kept.path not in detail.omitted:
            filled = await _filled(kept, gaps, with_trace=with_trace)
        if filled is None or encoded.size - begin + filled.size > largest:
            outline.payloads_omitted, is_whole, largest = True, False, 0
            encoded.add_field(_STEPS, outline)
        else:
            filled.add(outline)
            encoded.add_field(_STEPS, filled)
        await encoded.rest()
    encoded.add(ExecutionMessage(unreadable=dict.fromkeys(gaps)))
    return EncodedDetail(encoded, execution.last_seq, is_whole)


def cancel_response(detail: ExecutionDetail, definition: Definition) -> CancelResponse:
    """Return the answer of Cancel."""
    message = execution_message(detail.execution)
    if not detail.execution.state.is_end:
        # The wish is kept, also where another process, which drives the execution, has yet to see it.
        message.state = ExecutionMessage.STATE_CANCELLING
    return CancelResponse(execution=message, steps=_receipts(detail, definition))


def _receipts(detail: ExecutionDetail, definition: Definition) -> list[Receipt]:
    """Return what cancelling did to each step, in the order of the definition."""
    steps = {step.path: step for step in detail.steps}
    shown = (steps.get(spec.id) or _untouched(spec, detail.execution) for spec in definition.steps)
    return [CancelResponse.StepReceipt(path=step.path, effect=_effect(step), state=_step_state(step)) for step in shown]


def _state(state: ExecutionState) -> ExecutionMessage.State.ValueType:
    return ExecutionMessage.State.Value(f"STATE_{state.value}")


def _step_state(step: Step) -> StepExecution.State.ValueType:
    return StepExecution.State.Value(f"STATE_{step.state.value}")


def _untouched(spec: model.Step, execution: Execution) -> Step:
    """Return a step that never left PENDING; when the execution has ended, it never will."""
    state = StepState.CANCELLED if execution.state.is_end else StepState.PENDING
    return Step(path=spec.id, handler=spec.handler, state=state)


def _outline(step: Step, spec: model.Step, definition: Definition, *, with_trace: bool) -> StepExecution:
    """Return all but the payloads."""
    failure = {**step.failure, "details": {}} if step.failure else None
    message = StepExecution(
        path=step.path,
        display_name=spec.display_name or spec.id,
        handler=step.handler,
        state=_step_state(step),
        attempt=step.attempt,
        max_attempts=spec.retry.max_attempts,
        failure=stored_failure(failure, with_trace=with_trace),
        start_time=timestamp(step.start_time),
        end_time=timestamp(step.end_time),
        wait=None if step.wait is None else wait_message(step.wait),
        progress_percent=step.progress,
        depends_on=definition.predecessors[spec.id],
        skip_reason=step.skip_reason,
        worker=step.worker,
    )
    if step.start_time is not None:
        until = step.end_time or datetime.now(UTC)
        message.duration.CopyFrom(duration(max(0.0, (until - step.start_time).total_seconds())))
    return message


def _without_definition(step: Step) -> Step:
    is_condition = step.skip_reason.startswith(CONDITION_IS_FALSE)
    return structs.replace(step, input=None, skip_reason=CONDITION_IS_FALSE if is_condition else step.skip_reason)


async def _filled(step: Step, gaps: list[str], *, with_trace: bool) -> Encoded:
    """Return the payloads of a step, and its failure with details, which completes the one of its outline."""
    place, encoded = f"steps.{step.path}", Encoded()
    if step.input is not None:
        _fill(encoded, _INPUT_OF_STEP, lambda: payload.to_struct(step.input), f"{place}.input", gaps)
        await encoded.rest()
    if step.state is StepState.COMPLETED:
        _fill(encoded, _OUTPUT, lambda: payload.to_value(step.output), f"{place}.output", gaps)
        await encoded.rest()
    if step.assigned:
        _fill(encoded, _ASSIGNED, lambda: payload.to_struct(step.assigned or {}), f"{place}.assigned", gaps)
    if (failure := stored_failure(step.failure, with_trace=with_trace)) is not None:
        encoded.add_field(_FAILURE, failure)
    for each in step.failed_attempts:
        await encoded.rest()
        encoded.add_field(_FAILED_ATTEMPTS, _failed_attempt(each, with_trace=with_trace))
    return encoded


async def _add_payloads(encoded: Encoded, detail: ExecutionDetail, gaps: list[str]) -> None:
    """Add input, variables and result."""
    _fill(encoded, _INPUT, lambda: payload.to_struct(detail.input), "input", gaps)
    held = Encoded()
    for name, value in variables(detail.steps).items():
        try:
            held.add(payload.to_struct({name: value}))
        except (ValueError, TypeError):
            gaps.append("vars")
        await held.rest()
    if "vars" not in gaps:
        encoded.add_field(_VARS, held)
    if detail.execution.state is ExecutionState.COMPLETED:
        _fill(encoded, _RESULT, lambda: payload.to_value(detail.result), "result", gaps)


def _fill(encoded: Encoded, tag: bytes, value: Callable[[], Message], name: str, gaps: list[str]) -> None:
    """Add a value; what was written by hand and no message can carry is left out, and named."""
    try:
        encoded.add_field(tag, value())
    except (ValueError, TypeError):
        gaps.append(name)


def _failed_attempt(stored: Mapping[str, Any], *, with_trace: bool) -> FailedAttempt:
    return FailedAttempt(
        attempt=stored.get("attempt", 0),
        start_time=_stored_time(stored.get("start_time")),
        end_time=_stored_time(stored.get("end_time")),
        failure=stored_failure(stored.get("failure"), with_trace=with_trace),
        worker=stored.get("worker", ""),
    )


def _stored_time(text: str | None) -> Any:
    return timestamp(datetime.fromisoformat(text)) if text else None


def _effect(step: Step) -> Receipt.Effect.ValueType:
    match step.state:
        case StepState.PENDING:
            return Receipt.EFFECT_NEVER_STARTED
        case StepState.RUNNING | StepState.WAITING:
            return Receipt.EFFECT_STOPPING
        case StepState.CANCELLED if step.start_time is None:
            return Receipt.EFFECT_NEVER_STARTED
        case StepState.CANCELLED if step.wait is not None:
            return Receipt.EFFECT_WAIT_REMOVED
        case StepState.CANCELLED:
            return _STOPS.get((step.failure or {}).get("code", ""), Receipt.EFFECT_STOPPED)
        case _:
            return Receipt.EFFECT_ALREADY_ENDED
