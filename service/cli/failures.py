"""Failures as people read them: the cause first, and once."""

from __future__ import annotations

import shlex

from rich.console import RenderableType
from rich.text import Text

from flowkeep.payload import from_struct
from flowkeep.v1.execution_pb2 import Execution, Failure
from service.cli.columns import Prose
from service.cli.rendering import clean, json_text, plain

WITHHELD = "Its stack trace is shown to callers with the permission executions.debug only."


def cause_code(failure: Failure) -> str:
    """Return what went wrong: of an execution that failed by a step, the code of that step's failure."""
    named = from_struct(failure.details).get("code")
    return named if failure.code == "STEP_FAILED" and isinstance(named, str) and named else failure.code


def cause(execution: Execution) -> Failure:
    """Return why an execution in the view FULL did not complete: the failure of its step where one is to blame."""
    failure = execution.failure
    for step in execution.steps:
        if step.path == failure.step_path and step.HasField("failure") and step.failure.code == cause_code(failure):
            found = Failure()
            found.CopyFrom(step.failure)
            found.step_path = step.path
            return found
    return failure


def short_failure(failure: Failure) -> str:
    """Return the code and message of a failure."""
    code = cause_code(failure)
    return f"{code}: {failure.message}" if failure.message else code


def failure_text(failure: Failure) -> Prose:
    """Return a failure in a line; those of its message stay below each other."""
    return Prose(_text(failure))


def _text(failure: Failure) -> Text:
    if failure.code == "CANCELLED" and failure.message:
        return Text(clean(failure.message[0].upper() + failure.message[1:]), "yellow")
    text = Text("Failed", "bold red")
    if failure.step_path:
        text.append(f" in {clean(failure.step_path)}", "bold")
    message = clean(short_failure(failure)).replace("\n", "\n  ")
    return text.append(f": {message}", "default")


def failure_lines(failure: Failure) -> list[RenderableType]:
    """Return a failure with its details and its stack trace, or that the trace is withheld."""
    lines: list[RenderableType] = [failure_text(failure)]
    details = from_struct(failure.details)
    if failure.code == "STEP_FAILED":
        details.pop("code", None)  # it is said already
    if details:
        lines.append(Text(json_text(details), "dim"))
    if failure.stack_trace:
        lines.append(plain(failure.stack_trace.rstrip(), "dim"))
    elif failure.stack_trace_withheld:
        lines.append(Prose(Text(WITHHELD, "dim")))
    return lines


def more_of(execution_id: str, path: str) -> Text:
    """Return how to see all of a step."""
    return plain(f"More: flowkeep get {execution_id} --step {shlex.quote(path)}", "dim")
