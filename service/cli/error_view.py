"""Errors as people read them, as JSON, and as exit codes."""

from __future__ import annotations

import json
import sys
from typing import Any

import grpc
from rich.text import Text

from flowkeep.errors import (
    DefinitionError,
    ExecutionFailedError,
    FlowkeepError,
    InvalidArgumentError,
    NotFoundError,
    PayloadError,
    UnavailableError,
)
from service.cli.connection import Connection, Format
from service.cli.definitions import UnsoundError
from service.cli.rendering import clean, open_console, plain, span_text


def exit_code(error: Exception) -> int:
    """Return the exit code of a command that ended with an error."""
    match error:
        case ExecutionFailedError():
            return 1
        case InvalidArgumentError() | DefinitionError() | PayloadError():
            return 2
        case NotFoundError():
            return 3
        case UnavailableError():
            return 4
        case FlowkeepError() if error.code is grpc.StatusCode.DEADLINE_EXCEEDED:
            return 4
        case _:
            return 5


def show_error(error: Exception, connection: Connection) -> None:
    """Print an error to standard error: as people read it, or as JSON."""
    if connection.output is Format.JSON:
        print(json.dumps({"error": error_form(error)}), file=sys.stderr)
        return
    console = open_console(stderr=True)
    for line in error_lines(error, connection.target):
        console.print(line, soft_wrap=True)


def error_form(error: Exception) -> dict[str, Any]:
    """Return an error as JSON."""
    form: dict[str, Any] = {"code": _code(error), "message": str(error)}
    if isinstance(error, FlowkeepError):
        form |= {"reason": error.reason, "message": error.message, "metadata": error.metadata}
        form |= {} if error.retry_after is None else {"retry_after": error.retry_after}
    if isinstance(error, UnsoundError):
        form["violations"] = [each._asdict() for each in error.findings]
    else:
        form["violations"] = [{"field": field, "description": text} for field, text in _violations(error)]
    return form


def error_lines(error: Exception, target: str) -> list[Text]:
    """Return an error as people read it: what is wrong, and a line for each violation."""
    lines = [Text.assemble(("Error: ", "bold red"), clean(_headline(error, target)))]
    if isinstance(error, UnsoundError):
        return [*lines, *(plain(str(each)) for each in error.findings)]
    for field, description in _violations(error):
        text = Text("  ")
        if field:
            text.append(clean(field), "bold").append(": ")
        lines.append(text.append(clean(description)))
    return lines


def _headline(error: Exception, target: str) -> str:
    match error:
        case UnsoundError():
            return "nothing was done, since this is wrong:"
        case DefinitionError():
            return "this is no workflow definition"
        case FlowkeepError(reason="") if error.code is grpc.StatusCode.UNAVAILABLE:
            return f"no server answers at {target}. `flowkeep serve` starts one. ({error.message})"
        case FlowkeepError() if error.code is grpc.StatusCode.DEADLINE_EXCEEDED:
            return f"the server at {target} did not answer in time"
        case FlowkeepError() if error.violations and error.message.startswith(str(error.violations[0])):
            return "the request is not valid"  # the message only says again what the lines below say
        case FlowkeepError():
            reason = f" ({error.reason})" if error.reason else ""
            pause = "" if error.retry_after is None else f". Try again in {span_text(error.retry_after)}"
            return f"{error.message or error.code.name}{reason}{pause}"
        case _:
            return str(error)


def _code(error: Exception) -> str:
    match error:
        case FlowkeepError():
            return error.code.name
        case ExecutionFailedError():
            return error.failure.code or "EXECUTION_FAILED"
        case _:
            return grpc.StatusCode.INVALID_ARGUMENT.name


def _violations(error: Exception) -> list[tuple[str, str]]:
    if isinstance(error, FlowkeepError | DefinitionError):
        return [(field, description) for field, description in error.violations]
    return []
