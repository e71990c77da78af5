"""An execution at one event of its recorded history, as the events up to that one tell it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from flowkeep.payload import from_struct, from_value
from flowkeep.v1.event_pb2 import ExecutionEvent
from flowkeep.v1.execution_pb2 import Execution
from service.cli.failures import failure_lines
from service.cli.json_form import json_form
from service.cli.progress_lines import history_line
from service.cli.progress_state import Progress, outline
from service.cli.rendering import payload_text, state_text


class Moment:
    """An execution up to an event: its progress, its variables, and the newest event with what its step was given."""

    def __init__(self, execution: Execution) -> None:
        self.progress = Progress(outline(execution), execution_id=execution.execution_id, title=execution.workflow_name)
        self.event = ExecutionEvent()
        self.vars: dict[str, Any] = {}
        self._inputs: dict[str, Any] = {}

    @property
    def path(self) -> str:
        """The path of the step that the event is of, empty for one of the execution."""
        kind = self.event.WhichOneof("kind")
        return getattr(getattr(self.event, kind), "path", "") if kind else ""

    @property
    def input(self) -> Any:
        """What the newest attempt of the step was given; None where there is none, or it is withheld."""
        return self._inputs.get(self.path)

    def apply(self, event: ExecutionEvent) -> None:
        """Go on to an event, the one after the newest."""
        self.event = event
        self.progress.apply(event)
        if event.HasField("step_started"):
            started = event.step_started
            self._inputs[started.path] = from_struct(started.input) if started.HasField("input") else None
        elif event.HasField("variables_assigned"):
            self.vars |= from_struct(event.variables_assigned.vars)

    def view(self) -> Group:
        """Return the moment for people: what happened, where the execution and the step stand, and the payloads."""
        parts: list[RenderableType] = [history_line(self.event, self.progress), self._standing()]
        if self.input is not None:
            parts.append(payload_text("Input", self.input))
        kind = self.event.WhichOneof("kind")
        body = getattr(self.event, kind) if kind else None
        for name in ("output", "result"):
            if _has(body, name):
                parts.append(payload_text(name.capitalize(), from_value(getattr(body, name))))
        if body is not None and _has(body, "failure"):
            parts += failure_lines(body.failure)
        if self.vars:
            parts.append(payload_text("Variables", self.vars))
        return Group(*parts)

    def as_json(self) -> dict[str, Any]:
        """Return the moment for programs: the event with its payloads, and how all stood after it."""
        step = self.progress.step(self.path) if self.path else None
        return {
            "execution_id": self.progress.execution_id,
            "state": self.progress.state,
            "event": json_form(self.event),
            "step": {"path": step.path, "state": step.state, "attempt": step.attempt, "input": self.input}
            if step
            else None,
            "vars": self.vars,
        }

    def _standing(self) -> Text:
        counts = self.progress.counts
        text = Text("      ").append_text(state_text(self.progress.state))
        text.append(f", {self.progress.percent} %, {counts.completed} of {counts.total} steps completed", "dim")
        if self.path:
            step = self.progress.step(self.path)
            text.append(f"; {step.path} is ", "dim").append_text(state_text(step.state))
        return text


def moment_at(execution: Execution, events: Sequence[ExecutionEvent], number: int) -> Moment:
    """Return the moment after the first `number` of the events, of which there must be one."""
    moment = Moment(execution)
    for event in events[:number]:
        moment.apply(event)
    return moment


def _has(body: Any, name: str) -> bool:
    return body is not None and name in body.DESCRIPTOR.fields_by_name and body.HasField(name)
