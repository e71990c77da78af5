"""Steps, domain to wire."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from msgspec import structs

from flowkeep.v1.execution_pb2 import FailedAttempt, StepExecution
from persistence.lineage import Lineage
from persistence.model import Step, StepState
from service.api.encoded import Encoded, tag
from service.api.events import usage_message, wait_message
from service.api.failures import stored_failure
from service.api.paging import LARGEST_PAGE_BYTES
from service.api.times import duration, timestamp
from service.api.values import struct_bytes, value_bytes
from service.engine.definition import Call, Definition, StepSpec
from service.engine.paths import split
from service.engine.planning.reasons import CONDITION_IS_FALSE
from service.engine.planning.scopes import block_of
from service.engine.steps import StepPage

_INPUT, _OUTPUT, _ASSIGNED, _FAILURE, _FAILED_ATTEMPTS = (
    tag(StepExecution, name) for name in ("input", "output", "assigned", "failure", "failed_attempts")
)


@dataclass(frozen=True, slots=True)
class Sight:
    """What a caller may see of executions: stack traces, and what stands in the definition."""

    traces: bool
    definition: bool

    def of(self, record: Step) -> Step:
        """Return what is recorded of a step, without what repeats a definition that the caller may not see."""
        if self.definition:
            return record
        is_condition = record.skip_reason.startswith(CONDITION_IS_FALSE)
        reason = CONDITION_IS_FALSE if is_condition else record.skip_reason
        return structs.replace(record, input=None, skip_reason=reason)


def step_state(record: Step) -> StepExecution.State.ValueType:
    """Return the state of a step."""
    return StepExecution.State.Value(f"STATE_{record.state.value}")


def outline(
    record: Step,
    step: StepSpec,
    definition: Definition,
    sight: Sight,
    then: datetime | None = None,
    lineage: Lineage | None = None,
) -> StepExecution:
    """Return the BASIC view of a step of an execution with this lineage, as it is now or was `then`."""
    record = sight.of(record)
    failure = {**record.failure, "details": {}} if record.failure else None
    message = StepExecution(
        path=record.path,
        iteration=record.iteration,
        display_name=step.display_name or step.id,
        handler=record.handler,
        state=step_state(record),
        attempt=record.attempt,
        max_attempts=step.retry.max_attempts if isinstance(step.action, Call) else 0,
        failure=stored_failure(failure, with_trace=sight.traces),
        start_time=timestamp(record.start_time),
        end_time=timestamp(record.end_time),
        wait=None if record.wait is None else wait_message(record.wait),
        progress_percent=record.progress,
        depends_on=block_of(definition, split(record.path)[0]).predecessors[step.id],
        skip_reason=record.skip_reason,
        worker=record.worker,
        usage=usage_message(record.usage),
        inherited=lineage is not None and 0 < (record.end_seq or 0) <= lineage.inherited,
        mocked=record.is_mocked,
    )
    if record.start_time is not None:
        until = record.end_time or then or datetime.now(UTC)
        message.duration.CopyFrom(duration(max(0.0, (until - record.start_time).total_seconds())))
    return message


async def payloads(record: Step, sight: Sight, gaps: list[str]) -> Encoded:
    """Return the payloads of a step, and its failure with details, which completes the one of its outline."""
    record, place, encoded = sight.of(record), f"steps.{record.path}", Encoded()
    if record.input is not None:
        fill(encoded, _INPUT, lambda: struct_bytes(record.input), f"{place}.input", gaps)
        await encoded.rest()
    if record.state is StepState.COMPLETED:
        fill(encoded, _OUTPUT, lambda: value_bytes(record.output), f"{place}.output", gaps)
        await encoded.rest()
    if record.assigned:
        fill(encoded, _ASSIGNED, lambda: struct_bytes(record.assigned or {}), f"{place}.assigned", gaps)
    if (failure := stored_failure(record.failure, with_trace=sight.traces)) is not None:
        encoded.add_field(_FAILURE, failure)
    for each in record.failed_attempts:
        await encoded.rest()
        encoded.add_field(_FAILED_ATTEMPTS, _failed_attempt(each, record.iteration, with_trace=sight.traces))
    return encoded


async def add_steps(
    encoded: Encoded, field: bytes, page: StepPage, sight: Sight, *, is_full: bool
) -> tuple[str, Sequence[str]]:
    """Add to a message as many steps of a page as it holds, one at least.

    Returns the path behind which the next page begins, and what of the added steps cannot be read. A step whose
    payloads were not read for their size comes first on the next page; there it is without.
    """
    gaps, last = list[str](), ""
    for step, record in page.steps:
        content, missing = Encoded(), list[str]()
        message = outline(record, step, page.definition, sight, lineage=page.lineage)
        message.payloads_omitted = is_full and record.key in page.omitted
        if is_full and not message.payloads_omitted:
            content = await payloads(record, sight, missing)
        content.add(message)
        if last and (message.payloads_omitted or encoded.size + content.size > LARGEST_PAGE_BYTES):
            return last, _once(gaps)
        encoded.add_field(field, content)
        await encoded.rest()
        place, last = f"steps.{record.path}", record.path
        gaps += (name for name in page.unreadable if name == "steps" or name.rpartition(".")[0] == place)
        gaps += missing
    return page.following, _once(gaps)


def _once(names: Sequence[str]) -> Sequence[str]:
    return list(dict.fromkeys(names))


def fill(encoded: Encoded, tag: bytes, value: Callable[[], bytes], name: str, gaps: list[str]) -> None:
    """Add a value; what was written by hand and no message can carry is left out, and named among the gaps."""
    try:
        encoded.add_field(tag, value())
    except (ValueError, TypeError):
        gaps.append(name)


def _failed_attempt(stored: Mapping[str, Any], iteration: int, *, with_trace: bool) -> FailedAttempt:
    return FailedAttempt(
        iteration=iteration,
        attempt=stored.get("attempt", 0),
        start_time=_stored_time(stored.get("start_time")),
        end_time=_stored_time(stored.get("end_time")),
        failure=stored_failure(stored.get("failure"), with_trace=with_trace),
        worker=stored.get("worker", ""),
    )


def _stored_time(text: str | None) -> Any:
    return timestamp(datetime.fromisoformat(text)) if text else None
