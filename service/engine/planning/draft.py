"""The next state of an execution in the making."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from msgspec.structs import replace

from persistence.model import ExecutionState, Step, StepCounts, StepKey, StepState
from service.engine.definition import Definition, OnError
from service.engine.failure import Failure
from service.engine.paths import place
from service.engine.planning.events import Event, EventBody
from service.engine.planning.state import State

_COUNTED = {
    StepState.RUNNING: "running",
    StepState.WAITING: "running",
    StepState.COMPLETED: "completed",
    StepState.COMPENSATED: "completed",
    StepState.FAILED: "failed",
    StepState.SKIPPED: "skipped",
    StepState.CANCELLED: "cancelled",
}


EVENT_BYTES = 512
"""What an event counts for beside what it carries: its row, the entry in the index, and that of its step."""

_MOST_BYTES = 2**62


class Draft:
    """Takes changes to a state one by one, counts along, and gives the state and events after them."""

    def __init__(self, definition: Definition, state: State, time: datetime) -> None:
        self.definition = definition
        self.state = state
        self.time = time
        self.counts = state.counts
        self.progress = state.progress
        self.steps: dict[str, Step] = dict(state.steps)
        self.touched: dict[StepKey, Step] = {}
        self.bytes = state.bytes
        self._bodies: list[tuple[EventBody, int, StepCounts]] = []

    @property
    def next_seq(self) -> int:
        """Number that the next recorded event gets."""
        return self.state.last_seq + len(self._bodies) + 1

    @property
    def pending(self) -> int:
        """How many steps have not left PENDING."""
        return self.counts.total - len(self.steps)

    @property
    def running(self) -> list[Step]:
        """The steps of which an attempt runs."""
        return [step for step in self.steps.values() if step.state is StepState.RUNNING]

    def change(self, **changes: Any) -> None:
        """Change fields of the execution."""
        self.state = replace(self.state, **changes)

    def put(self, step: Step) -> None:
        """Change a step, and counts and progress with it."""
        before = self.steps.get(step.path)
        self.steps[step.path] = self.touched[step.key] = step
        left = _COUNTED.get(before.state) if before else None
        entered = _COUNTED[step.state]
        if left == entered:
            return
        changes = {entered: getattr(self.counts, entered) + 1}
        if left:
            changes[left] = getattr(self.counts, left) - 1
        self.counts = replace(self.counts, **changes)
        if not self._is_ending_with(step):
            self.progress = max(self.progress, self._share_done())

    def _share_done(self) -> int:
        """Return the share of steps that have ended; 100 is kept for the moment at which the execution completes."""
        settled = self.counts.completed + self.counts.failed + self.counts.skipped
        return min(99, 100 * settled // max(1, self.counts.total))

    def _show_no_more_than(self, progress: int) -> None:
        self.progress = min(self.progress, progress)
        self._bodies = [(body, min(shown, progress), counts) for body, shown, counts in self._bodies]

    def _is_ending_with(self, step: Step) -> bool:
        """Whether the execution ends otherwise than by completing: what it had done by then is done, and no more."""
        if self.state.ending is not None:
            return True
        return (
            step.state is StepState.FAILED and self.definition.places[place(step.path)].on_error is not OnError.CONTINUE
        )

    def has_room(self, size: int) -> bool:
        """Whether the execution may write so many bytes more, and an event. Its ends are written in any case."""
        return self.bytes + size + EVENT_BYTES <= self.definition.max_bytes

    def charge(self, size: int) -> None:
        """Count what is written."""
        self.bytes = min(self.bytes + size, _MOST_BYTES)

    def record(self, body: EventBody) -> None:
        """Add an event that shows progress and counts as they are now."""
        self.charge(EVENT_BYTES)
        self._bodies.append((body, self.progress, self.counts))

    def finish(self, state: ExecutionState, failure: Failure | None, result: Any) -> None:
        """End the execution. Steps that never started count as cancelled, or as nothing when it completed."""
        if state is ExecutionState.COMPLETED:
            self.progress = 100
        elif self.pending == 0 and self.state.ending is None:
            # All steps are done, and not the result: it counts as one more.
            self._show_no_more_than(100 * self.counts.total // (self.counts.total + 1))
        self.counts = replace(self.counts, cancelled=self.counts.cancelled + self.pending)
        self.change(state=state, end_time=self.time, failure=failure, result=result, ending=None)

    def variables(self, *, attempt: int | None = None, ended: Step | None = None) -> dict[str, Any]:
        """Return what expressions see. `ended` is a step to show as it will be."""
        steps = dict(self.steps)
        if ended is not None:
            steps[ended.path] = ended
        seen: dict[str, Any] = {
            "input": self.state.input,
            "vars": self.state.vars,
            "steps": _Steps(steps),
            "execution": self.state.facts,
        }
        if attempt is not None:
            seen["attempt"] = attempt
        return seen

    def freeze(self) -> tuple[State, tuple[Event, ...]]:
        """Return the state and the numbered events."""
        base = self.state.last_seq
        last = base + len(self._bodies)
        events = tuple(
            Event(base + index, last, self.time, progress, counts, body)
            for index, (body, progress, counts) in enumerate(self._bodies, start=1)
        )
        state = replace(
            self.state,
            steps=self.steps,
            counts=self.counts,
            progress=self.progress,
            last_seq=last,
            bytes=self.bytes,
        )
        return state, events


class _Steps(Mapping[str, Any]):
    """What expressions see of steps, each made when it is asked for."""

    __slots__ = ("_steps",)

    def __init__(self, steps: Mapping[str, Step]) -> None:
        self._steps = steps

    def __getitem__(self, path: str) -> Mapping[str, Any]:
        step = self._steps[path]
        output = step.output if step.state is StepState.COMPLETED else None
        return {"state": step.state.value, "output": output, "error": Failure.told(step.failure)}

    def __contains__(self, path: object) -> bool:
        return path in self._steps

    def __iter__(self) -> Iterator[str]:
        return iter(self._steps)

    def __len__(self) -> int:
        return len(self._steps)
