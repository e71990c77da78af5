"""What an execution's events say of it, read without the planner."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from flowkeep.v1.event_pb2 import ExecutionEvent
from flowkeep.v1.execution_pb2 import Execution as ExecutionMessage
from persistence.model import Event, StepKey
from service.api.events import counts_message

_AFTER = {
    "step_started": "RUNNING",
    "step_progressed": "RUNNING",
    "step_waiting": "WAITING",
    "step_edited": "WAITING",
    "step_retrying": "WAITING",
    "step_completed": "COMPLETED",
    "step_failed": "FAILED",
    "step_skipped": "SKIPPED",
    "step_cancelled": "CANCELLED",
}
_RETRIABLE = ("FAILED", "CANCELLED", "TIMED_OUT")
ENDS = frozenset({"step_completed", "step_failed", "step_skipped", "step_cancelled"})


@dataclass(slots=True)
class Folded:
    """The state that follows from events; `problems` says where they contradict each other."""

    state: str = "NONE"
    has_started: bool = False
    steps: dict[StepKey, str] = field(default_factory=dict)
    attempts: dict[StepKey, int] = field(default_factory=dict)
    progress: int = 0
    counts: Any = None
    problems: list[str] = field(default_factory=list)


def opened(events: Sequence[Event]) -> list[ExecutionEvent]:
    """Return the events as messages."""
    return [ExecutionEvent.FromString(event.body) for event in events]


def fold(messages: Sequence[ExecutionEvent]) -> Folded:
    """Return what the events come to."""
    folded = Folded()
    for number, message in enumerate(messages, 1):
        kind = message.WhichOneof("kind") or ""
        if message.seq != number:
            folded.problems.append(f"I3: event {message.seq} stands at {number}")
        if folded.state in (("COMPLETED",) if kind == "reopened" else ("COMPLETED", *_RETRIABLE)):
            folded.problems.append(f"I4: event {number}, {kind}, comes after the end")
        if message.progress_percent < folded.progress:
            folded.problems.append(f"I3: event {number} goes back from {folded.progress} percent")
        folded.progress, folded.counts = message.progress_percent, message.step_counts
        if kind in _AFTER:
            _fold_step(folded, number, kind, getattr(message, kind))
        else:
            _fold_execution(folded, kind, message)
    if messages and messages[-1].seq != messages[-1].transition_seq:
        folded.problems.append("I3: the last transition is torn")
    return folded


def _fold_execution(folded: Folded, kind: str, message: ExecutionEvent) -> None:
    match kind:
        case "created":
            folded.state = "PENDING"
        case "started":
            folded.state, folded.has_started = "RUNNING", True
        case "cancelling":
            folded.state = "CANCELLING"
        case "paused":
            folded.state = "PAUSED"
        case "resumed":
            folded.state = "RUNNING" if folded.has_started else "PENDING"
        case "reopened":
            folded.state, folded.has_started = "RUNNING", True
        case "finished":
            folded.state = ExecutionMessage.State.Name(message.finished.state).removeprefix("STATE_")


def _fold_step(folded: Folded, number: int, kind: str, body: Any) -> None:
    path, key = body.path, (body.path, body.iteration)
    before = folded.steps.get(key, "PENDING")
    if before in ("COMPLETED", "FAILED", "SKIPPED", "CANCELLED"):
        which = "I7" if kind == "step_started" else "I6"
        folded.problems.append(f"{which}: event {number}, {kind}, comes after the end of step {path}")
    if kind == "step_started" and body.attempt <= folded.attempts.get(key, -1):  # 0 of one that asks people
        folded.problems.append(f"I7: event {number} starts attempt {body.attempt} of step {path} again")
    if kind == "step_started":
        folded.attempts[key] = body.attempt
    folded.steps[key] = _AFTER[kind]


def agrees(folded: Folded, row: Any) -> list[str]:
    """Return where a row of the memory store differs from what its events come to."""
    problems = []
    execution = row.execution
    if folded.state != execution.state.value:
        problems.append(f"I5: the row is {execution.state.value}, its events say {folded.state}")
    if folded.progress != execution.progress:
        problems.append(f"I5: the row is at {execution.progress} percent, its events say {folded.progress}")
    if folded.counts is not None and folded.counts != counts_message(execution.counts):
        problems.append("I5: the counts of the row are not those of its last event")
    for key, step in row.steps.items():
        if folded.steps.get(key) != step.state.value:
            problems.append(f"I5: step {key[0]} is {step.state.value}, its events say {folded.steps.get(key)}")
    if missing := folded.steps.keys() - row.steps.keys():
        problems.append(f"I5: steps {sorted(missing)} are in the events and not in the table")
    return problems


def given_by_hand(events: Sequence[Event]) -> set[StepKey]:
    """Return the iterations whose output was inherited, or put in the place of a call."""
    given = set[StepKey]()
    for message in opened(events):
        if message.inherited and message.HasField("step_completed"):
            given.add((message.step_completed.path, message.step_completed.iteration))
        elif message.HasField("reopened") and message.reopened.edit.HasField("output"):
            given.add((message.reopened.edit.path, message.reopened.edit.iteration))
    return given
