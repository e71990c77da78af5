"""Finds what makes it impossible to drive an execution, and says how it ends then."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from persistence.journal import End
from persistence.model import (
    Event,
    Execution,
    ExecutionDetail,
    ExecutionState,
    Step,
    StepCounts,
    StepState,
    Wait,
    WaitKind,
)
from persistence.transition import Closing
from service.engine import paths
from service.engine.definition import Definition, Repeat
from service.engine.failure import CANCELLED, UNREADABLE_RECORD, Failure
from service.engine.planning import events
from service.engine.planning.draft import COUNTED
from service.engine.planning.reopened import finding_earlier
from service.engine.planning.state import finding_newest
from service.engine.slices import Work, in_one_go

SHOWN = 10

_LOOK = 3  # microseconds for a step
_TASK_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def unreadable(names: Sequence[str]) -> Failure:
    """Return the failure of an execution of which these cannot be read."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    message = f"what is recorded of it cannot be read: {', '.join(names[:SHOWN])}{more}"
    return Failure(UNREADABLE_RECORD, message, details={"unreadable": list(names[:SHOWN])})


def contradictions(definition: Definition, detail: ExecutionDetail) -> Sequence[str]:
    """Return what of the records contradicts the definition or itself, as names; an execution like that never ends."""
    return in_one_go(contradicting(definition, detail))


def contradicting(definition: Definition, detail: ExecutionDetail) -> Work[Sequence[str]]:
    """Do what `contradictions` does, in pieces: an execution may have ten thousands of steps."""
    steps = yield from finding_newest(detail.steps)
    earlier = yield from finding_earlier(definition, steps, detail.execution.reopened_seq)
    counted, last_seq, of_steps = Counter[str](), 1, list[str]()
    for step in detail.steps:
        last_seq = max(last_seq, step.end_seq or 1)
        of_steps += _of_step(definition, step)
        if steps[step.path] is step:
            if step.state in COUNTED and step.path not in earlier:
                counted[COUNTED[step.state]] += 1
            of_steps += _of_items(definition, step, steps)
        yield _LOOK
    return [*_of_execution(definition, detail.execution, counted, last_seq), *of_steps]


def _of_execution(
    definition: Definition, execution: Execution, counted: Mapping[str, int], last_seq: int
) -> Iterator[str]:
    if execution.state is ExecutionState.RUNNING and execution.start_time is None:
        yield "start_time"
    if execution.state is ExecutionState.RUNNING and execution.deadline_time is None:
        yield "deadline_time"
    if execution.state is ExecutionState.CANCELLING and execution.ending is None:
        yield "ending"
    if (execution.state is ExecutionState.PAUSED) != (execution.pause is not None):
        yield "pause"
    # Items that are known add steps to those of the definition.
    total = execution.counts.total if len(definition.blocks) > 1 else len(definition.root.steps)
    if execution.counts != StepCounts(total=total, **counted):
        yield "step_counts"
    if execution.last_seq < last_seq:
        yield "last_seq"


def _of_step(definition: Definition, step: Step) -> Iterator[str]:
    if definition.find(step.path) is None:
        yield f"steps.{step.path}"
    if step.state is StepState.WAITING and (step.wait is None or _is_endless(step.wait)):
        yield f"steps.{step.path}.wait"
    if step.state.is_end and step.end_seq is None:
        yield f"steps.{step.path}.end_seq"


def _of_items(definition: Definition, step: Step, steps: Mapping[str, Step]) -> Iterator[str]:
    """What the step has of items it cannot lack, and an item that is in work is one of a step that is."""
    spec = definition.find(step.path)
    if step.state.is_end or spec is None:
        return
    if isinstance(spec.action, Repeat) and _items(step) is None:
        yield f"steps.{step.path}.input"
    if (step.is_fixed or step.waits_for(WaitKind.TASK)) and not isinstance(step.input, Mapping):
        yield f"steps.{step.path}.input"
    scope, _ = paths.split(step.path)
    if scope:
        path, index = paths.owner(scope)
        around = steps.get(path)
        if around is None or around.state.is_end or index >= len(_items(around) or ()):
            yield f"steps.{step.path}"


def _items(step: Step) -> Sequence[Any] | None:
    items = step.input.get("items") if isinstance(step.input, Mapping) else None
    return items if isinstance(items, list) else None


def _is_endless(wait: Wait) -> bool:
    """Return whether nothing would ever end it."""
    if wait.kind is WaitKind.TASK:
        return not _TASK_ID.fullmatch(wait.task)
    return wait.kind in (WaitKind.TIMER, WaitKind.RETRY) and wait.wake_time is None


def ending(failure: Failure, encode: Callable[[events.Event], Event]) -> End:
    """Return how `condemn` of the journal ends an execution that fails so."""

    def end(closing: Closing) -> tuple[Mapping[str, Any], Event]:
        shown = failure
        if closing.state is ExecutionState.CANCELLED:
            shown = Failure(CANCELLED, f"cancelled; it could not have gone on: {failure.message}", failure.details)
        finished = events.Finished(closing.state, None, shown)
        last = events.Event(closing.seq, closing.seq, closing.time, closing.progress, closing.counts, finished)
        return shown.to_json(), encode(last)

    return end
