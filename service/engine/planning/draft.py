"""The next state of an execution in the making."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from immutables import Map
from msgspec.structs import replace

from persistence.model import ExecutionState, Step, StepCounts, StepKey, StepState
from service.engine.definition import Definition, OnError
from service.engine.failure import Failure
from service.engine.paths import place
from service.engine.planning.events import Event, EventBody
from service.engine.planning.heap import Heap
from service.engine.planning.state import OPEN, Place, State, is_due
from service.engine.planning.variables import SeenSteps

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
        self.steps, self.open = state.steps, state.open
        self.ready, self.met, self.timers = state.ready, state.met, state.timers
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
    def in_work(self) -> list[Step]:
        """The steps that run or wait, in the order of the definition."""
        return sorted(self.open.values(), key=lambda step: self.place(step.path))

    def place(self, path: str) -> Place:
        """Return where a step stands in the order of the definition."""
        return (self.definition.positions[path],)

    def free(self, path: str) -> None:
        """Let a step be ready to begin."""
        self.ready = self.ready.push((self.place(path), path))

    def meet(self, path: str) -> None:
        """Count that one more has ended of those that a step waits for, and free it by the last."""
        met = self.met.get(path, 0) + 1
        if met < len(self.definition.root.predecessors[path]):
            self.met = self.met.set(path, met)
            return
        if met > 1:
            self.met = self.met.delete(path)
        self.free(path)

    def due(self) -> Step | None:
        """Return the step whose time has come first, or None."""
        self._forget_timers()
        if not self.timers or self.timers.least[0] > self.time:
            return None
        return self.open[self.timers.least[2]]

    def _forget_timers(self) -> None:
        """Forget timers of steps that have gone on, down to the first one of a step that has not."""
        while self.timers and not is_due(self.timers.least, self.open):
            self.timers = self.timers.pop()

    def change(self, **changes: Any) -> None:
        """Change fields of the execution."""
        self.state = replace(self.state, **changes)

    def put(self, step: Step) -> None:
        """Change a step, and counts and progress with it."""
        before = self.steps.get(step.path)
        self.steps = self.steps.set(step.path, step)
        self.touched[step.key] = step
        if step.state in OPEN:
            self.open = self.open.set(step.path, step)
            waited = before.wait if before else None
            if step.wait is not None and step.wait.wake_time is not None and step.wait != waited:
                self.timers = self.timers.push((step.wait.wake_time, self.place(step.path), step.path))
        elif step.path in self.open:
            self.open = self.open.delete(step.path)
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
        self.forget_ready()
        self.change(state=state, end_time=self.time, failure=failure, result=result, ending=None)

    def forget_ready(self) -> None:
        """Let no other step begin."""
        self.ready, self.met = Heap(), Map()

    def variables(self, *, attempt: int | None = None, ended: Step | None = None) -> dict[str, Any]:
        """Return what expressions see. `ended` is a step to show as it will be."""
        steps = self.steps if ended is None else self.steps.set(ended.path, ended)
        seen: dict[str, Any] = {
            "input": self.state.input,
            "vars": self.state.vars,
            "steps": SeenSteps(self.definition.root.by_id, steps),
            "execution": self.state.facts,
        }
        if attempt is not None:
            seen["attempt"] = attempt
        return seen

    def freeze(self) -> tuple[State, tuple[Event, ...]]:
        """Return the state and the numbered events."""
        self._forget_timers()
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
            open=self.open,
            ready=self.ready,
            met=self.met,
            timers=self.timers,
        )
        return state, events
