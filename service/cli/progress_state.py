"""How an execution goes, as its events tell it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from flowkeep.v1.event_pb2 import ExecutionEvent, ExecutionFinished
from flowkeep.v1.execution_pb2 import Execution, StepCounts
from flowkeep.v1.execution_service_pb2 import StepOutput
from flowkeep.v1.workflow_pb2 import Step, WorkflowDefinition
from service.cli.failures import short_failure
from service.cli.tables import state_name, step_state_name

ENDED_STEPS = frozenset({"COMPLETED", "FAILED", "SKIPPED", "CANCELLED", "COMPENSATED"})


@dataclass(slots=True)
class StepProgress:
    """How one step goes. Times are seconds since 1970 by the server's clock; `percent` is None while not reported.

    `has_moved` says that another process than the one before runs the newest attempt.
    """

    path: str
    name: str
    handler: str = ""
    state: str = "PENDING"
    attempt: int = 0
    percent: int | None = None
    note: str = ""
    started: float | None = None
    ended: float | None = None
    wakes: float | None = None
    worker: str = ""
    has_moved: bool = False


class Progress:
    """How an execution goes, as far as its events tell. The steps stand in the order of the definition."""

    def __init__(self, definition: WorkflowDefinition, *, execution_id: str = "", title: str = "") -> None:
        self.execution_id = execution_id
        self.title = title or definition.name
        self.state = "PENDING"
        self.percent = 0
        self.counts = StepCounts(total=len(definition.steps))
        self.started: float | None = None
        self.ended: float | None = None
        self.finished: ExecutionFinished | None = None
        steps = [
            StepProgress(step.id, step.display_name or step.id, step.handler or "for_each") for step in definition.steps
        ]
        self._by_path = {step.path: step for step in steps}
        # With each step of the definition what runs in it: of items there may be ten thousands.
        self._groups: dict[str, list[StepProgress]] = {}
        for step in steps:
            self._groups.setdefault(_root(step.path), []).append(step)

    @property
    def steps(self) -> list[StepProgress]:
        """The steps in the order of the definition, behind each what runs in it, in the order in which it began."""
        return [step for group in tuple(self._groups.values()) for step in tuple(group)]

    @classmethod
    def of_execution(cls, execution: Execution) -> Progress:
        """Return how an execution went up to now; it must be in the view FULL. Go on from its `last_seq`."""
        progress = cls(outline(execution), execution_id=execution.execution_id, title=execution.workflow_name)
        progress.state = state_name(execution)
        progress.percent = execution.progress_percent
        progress.counts = execution.step_counts
        if execution.HasField("start_time"):
            progress.started = execution.start_time.ToNanoseconds() / 1e9
        for known in execution.steps:
            step = progress.step(known.path)
            step.state, step.attempt, step.worker = step_state_name(known.state), known.attempt, known.worker
            step.note = short_failure(known.failure) if known.HasField("failure") else known.skip_reason
            step.started = known.start_time.ToNanoseconds() / 1e9 if known.HasField("start_time") else None
            step.ended = known.end_time.ToNanoseconds() / 1e9 if known.HasField("end_time") else None
        return progress

    def step(self, path: str) -> StepProgress:
        """Return the step with a path. One that the definition does not list is put after its nearest relative."""
        step = self._by_path.get(path)
        if step is None:
            step = self._by_path[path] = StepProgress(path, path)
            self._groups.setdefault(_root(path), []).append(step)
        return step

    def apply(self, event: ExecutionEvent) -> None:
        """Take in an event. Kinds that are not known change nothing but the progress."""
        self.percent, self.counts = event.progress_percent, event.step_counts
        now = event.time.ToNanoseconds() / 1e9
        match event.WhichOneof("kind"):
            case "created":
                self.title = event.created.workflow_name or self.title
            case "started":
                self.state, self.started = "RUNNING", now
            case "reopened":
                self.state, self.ended, self.finished = "RUNNING", None, None
            case "paused":
                self.state = "PAUSED"
            case "resumed":
                self.state = "RUNNING"
            case "cancelling":
                self.state = "CANCELLING"
            case "finished":
                self.state = state_name(event.finished)
                self.ended, self.finished = now, event.finished
            case _:
                self._apply_to_step(event, now)

    def hear(self, output: StepOutput) -> None:
        """Take in what a running step says: its last line becomes the note."""
        step, lines = self.step(output.path), output.text.split("\n")
        if step.state == "RUNNING" and (said := [line for line in lines if line.strip()]):
            step.note = said[-1]

    def _apply_to_step(self, event: ExecutionEvent, now: float) -> None:
        match event.WhichOneof("kind"):
            case "step_started":
                step = self.step(event.step_started.path)
                step.handler = event.step_started.handler or step.handler
                step.state, step.attempt, step.note = "RUNNING", event.step_started.attempt, ""
                step.percent, step.wakes = None, None
                step.started = step.started or now
                step.has_moved = step.worker not in ("", event.step_started.worker)
                step.worker = event.step_started.worker
            case "step_progressed":
                step = self.step(event.step_progressed.path)
                step.percent, step.note = event.step_progressed.progress_percent, event.step_progressed.message
            case "step_waiting":
                waiting = event.step_waiting
                step = self.step(waiting.path)
                step.state, step.note, wait = "WAITING", waiting.wait.reason, waiting.wait
                if wait.HasField("breakpoint"):
                    return  # it has not begun
                step.started = step.started or now
                step.wakes = wait.wake_time.ToNanoseconds() / 1e9 if wait.HasField("wake_time") else None
            case "step_retrying":
                step = self.step(event.step_retrying.path)
                step.state, step.note = "WAITING", short_failure(event.step_retrying.failure)
                step.wakes = event.step_retrying.retry_time.ToNanoseconds() / 1e9
            case _:
                self._end_step(event, now)

    def _end_step(self, event: ExecutionEvent, now: float) -> None:
        match event.WhichOneof("kind"):
            case "step_completed":
                step, state, note = self.step(event.step_completed.path), "COMPLETED", ""
                step.attempt = event.step_completed.attempt
            case "step_failed":
                step, state = self.step(event.step_failed.path), "FAILED"
                step.attempt, note = event.step_failed.attempt, short_failure(event.step_failed.failure)
            case "step_skipped":
                step, state, note = self.step(event.step_skipped.path), "SKIPPED", event.step_skipped.reason
            case "step_cancelled":
                step, state = self.step(event.step_cancelled.path), "CANCELLED"
                note = short_failure(event.step_cancelled.failure) if event.step_cancelled.HasField("failure") else ""
            case _:
                return
        step.state, step.note, step.ended, step.wakes = state, note, now, None


def outline(execution: Execution) -> WorkflowDefinition:
    """Return the definition of an execution, as far as its progress needs one: it may be withheld or unreadable."""
    steps = [Step(id=step.path, display_name=step.display_name, handler=step.handler) for step in execution.steps]
    return WorkflowDefinition(name=execution.workflow_name, steps=steps)


def _root(path: str) -> str:
    return re.split(r"[\[.]", path, maxsplit=1)[0]
