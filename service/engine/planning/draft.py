"""The next state of an execution in the making."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from immutables import Map
from msgspec.structs import replace

from persistence.model import ExecutionState, Step, StepCounts, StepKey, StepState
from persistence.people import NewTask, TaskChange, TaskState
from persistence.signals import Signal
from persistence.usage import Usage
from service.engine import paths
from service.engine.definition import PREVIOUS, Definition, OnError, Repeat
from service.engine.failure import Failure
from service.engine.planning.course import Course
from service.engine.planning.events import Event, EventBody, StepCompleted, StepFailed
from service.engine.planning.heap import Heap
from service.engine.planning.scopes import outwards
from service.engine.planning.state import State, awaited_task
from service.engine.planning.variables import SeenSteps, StepsOfItem

COUNTED = {
    StepState.RUNNING: "running",
    StepState.WAITING: "running",
    StepState.COMPLETED: "completed",
    StepState.COMPENSATED: "completed",
    StepState.FAILED: "failed",
    StepState.SKIPPED: "skipped",
    StepState.CANCELLED: "cancelled",
}
"""What of `StepCounts` a step in each state counts for."""

EVENT_BYTES = 512
"""What an event counts for beside what it carries: its row, the entry in the index, and that of its step."""

_MOST_BYTES = 2**62


class Draft(Course):
    """Takes changes to a state one by one, counts along, and gives the state and events after them."""

    offered: tuple[Signal, ...] = ()
    """Kept signals that the step takes whose end is recorded next."""
    gives_up = False
    """Whether a step is done with waiting for signals because its time is over."""
    _untold: Usage | None = None

    def __init__(self, definition: Definition, state: State, time: datetime) -> None:
        super().__init__(definition, state, time)
        self.counts = state.counts
        self.progress = self._shown = state.progress
        self.touched: dict[StepKey, Step] = {}
        self.bytes = state.bytes
        self.usage = state.usage
        self.tasks: dict[UUID, NewTask] = {}
        """Tasks of people that are made."""
        self.task_changes: dict[UUID, TaskChange] = {}
        """What becomes of tasks that were made before."""
        self.signals = state.signals
        self._bodies: list[tuple[EventBody, int, StepCounts]] = []

    @property
    def next_seq(self) -> int:
        """Number that the next recorded event gets."""
        return self.state.last_seq + len(self._bodies) + 1

    @property
    def pending(self) -> int:
        """How many steps have not left PENDING."""
        return self.counts.total - len(self.steps)

    def change(self, **changes: Any) -> None:
        """Change fields of the execution."""
        self.state = replace(self.state, **changes)

    def put(self, step: Step) -> None:
        """Change a step, and counts and progress with it."""
        before = self.steps.get(step.path)
        self.touched[step.key] = step
        self.follow(before, step)
        if before is not None and before.wait is not None and step.state.is_end:
            self._let_go_of_task(before, step)
        left = COUNTED.get(before.state) if before else None
        entered = COUNTED[step.state]
        if left == entered:
            return
        changes = {entered: getattr(self.counts, entered) + 1}
        if left:
            changes[left] = getattr(self.counts, left) - 1
        self.counts = replace(self.counts, **changes)
        if entered != "running" and not self._is_ending_with(step):
            self.progress = max(self.progress, self._share_done())

    def _let_go_of_task(self, before: Step, step: Step) -> None:
        """End the task that a step no longer waits for, if any; one that nobody has seen yet is not made at all."""
        if (task_id := awaited_task(before)) is not None and self.tasks.pop(task_id, None) is None:
            state = TaskState.CANCELLED if step.state is StepState.CANCELLED else TaskState.EXPIRED
            outcome = step.output["outcome"] if step.state is StepState.COMPLETED else ""
            self.task_changes[task_id] = TaskChange(task_id, state, self.time, outcome)

    def add_steps(self, number: int) -> None:
        """Count steps that are known to come."""
        self.counts = replace(self.counts, total=self.counts.total + number)

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
        spec = self.definition.root.by_id.get(step.path)
        return step.state is StepState.FAILED and spec is not None and spec.on_error is not OnError.CONTINUE

    def has_room(self, size: int) -> bool:
        """Whether the execution may write so many bytes more, and an event. Its ends are written in any case."""
        return self.bytes + size + EVENT_BYTES <= self.definition.max_bytes

    def charge(self, size: int) -> None:
        """Count what is written."""
        self.bytes += size

    def use(self, step: Step, usage: Usage) -> Step:
        """Count what an attempt of the step used that has ended, and return the step with it; its end is to tell it."""
        self.usage, self._untold = usage.plus(self.usage), usage
        return replace(step, usage=usage.plus(step.usage))

    def told_usage(self) -> Usage | None:
        """Return what the attempt used whose end is being recorded; it is told once."""
        usage, self._untold = self._untold, None
        return usage

    def record(self, body: EventBody) -> None:
        """Add an event that shows progress and counts as they are now."""
        self.bytes += EVENT_BYTES
        if self.offered and isinstance(body, StepCompleted | StepFailed):
            body = replace(body, signals=tuple(signal.id for signal in self.offered))
            self.signals = tuple(signal for signal in self.signals if signal not in self.offered)
            self.offered = ()
        self._bodies.append((body, self.progress, self.counts))

    def finish(self, state: ExecutionState, failure: Failure | None, result: Any) -> None:
        """End the execution. Steps that never started count as cancelled, those behind a failed one of an item too."""
        if state is ExecutionState.COMPLETED:
            self.progress = 100
        elif self.state.ending is None:
            # All steps are done, and not the result: it counts as one more, unless more was shown while it was put off.
            self._show_no_more_than(max(self._shown, 100 * self.counts.total // (self.counts.total + 1)))
        self.counts = replace(self.counts, cancelled=self.counts.cancelled + self.pending)
        self.ready, self.timers, self.blocks = Heap(), Heap(), Map()
        self.sweeps, self.inherited = (), Map()
        self.change(state=state, end_time=self.time, failure=failure, result=result, ending=None, pause=None)

    def variables(self, scope: str, *, attempt: int | None = None, ended: Step | None = None) -> dict[str, Any]:
        """Return what expressions see in a scope. `ended` is a step to show as it will be."""
        steps = self.steps if ended is None else self.steps.set(ended.path, ended)
        seen: dict[str, Any] = {
            "input": self.state.input,
            "vars": self.state.vars,
            "steps": SeenSteps(self.definition, scope, steps),
            "execution": self.state.facts,
        }
        if scope:
            seen |= self._of_items(scope, steps)
        if attempt is not None:
            seen["attempt"] = attempt
        return seen

    def _of_items(self, scope: str, steps: Map[str, Step]) -> dict[str, Any]:
        """Return what expressions see of the items that a scope lies in: of those of one name, the innermost."""
        seen: dict[str, Any] = {}
        for around in outwards(scope):
            path, index = paths.owner(around) if around else ("", 0)
            action = self.definition.places[paths.place(path)].action if path else None
            if not isinstance(action, Repeat):
                break
            if action.item_name not in seen:
                seen[action.item_name] = self.steps[path].input["items"][index]
                seen[action.index_name] = index
            if action.until is not None and PREVIOUS not in seen:
                seen[PREVIOUS] = StepsOfItem(action.body, paths.item(path, index - 1), steps) if index else {}
        return seen

    def freeze(self) -> tuple[State, tuple[Event, ...]]:
        """Return the state and the numbered events."""
        if self.timers.first is not None:
            self.forget_timers()
        if self.ready.first is not None:
            self.forget_ready()
        base = self.state.last_seq
        last = base + len(self._bodies)
        events = [
            Event(base + index, last, self.time, progress, counts, body)
            for index, (body, progress, counts) in enumerate(self._bodies, start=1)
        ]
        state = replace(
            self.state,
            steps=self.steps,
            counts=self.counts,
            progress=self.progress,
            last_seq=last,
            bytes=min(self.bytes, _MOST_BYTES),
            usage=self.usage,
            signals=self.signals,
            time=self.time if events else self.state.time,
            sweeps=self.sweeps,
            inherited=self.inherited,
            stopping=self.stopping,
            earlier=self.earlier,
            open=self.open,
            running=self.running,
            awaited=self.awaited,
            listening=self.listening,
            ready=self.ready,
            timers=self.timers,
            blocks=self.blocks,
            repeats=self.repeats,
        )
        return state, tuple(events)
