"""What every command prints alike: JSON, errors, states, times."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from typing import Any

import grpc
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from rich.console import Console, Group, RenderableType
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
from service.cli.connection import Connection, Output

# Wide enough that nothing is cut when the output goes to a file or another program.
_FILE_WIDTH = 240

_STYLES = {
    "COMPLETED": "green",
    "FAILED": "bold red",
    "TIMED_OUT": "bold red",
    "CANCELLED": "yellow",
    "CANCELLING": "yellow",
    "PAUSED": "magenta",
    "WAITING": "cyan",
    "RUNNING": "blue",
    "SKIPPED": "dim",
    "COMPENSATED": "yellow",
    "PENDING": "dim",
}

# Texts from elsewhere must not move the cursor or change colours: C0 and C1 controls but tab and newline.
_CONTROLS = {code: "�" for code in (*range(32), *range(127, 160)) if chr(code) not in "\t\n"}


def open_console(*, stderr: bool = False) -> Console:
    """Return a console on standard output or error; tables are not cut when that is no terminal."""
    console = Console(stderr=stderr, highlight=False, soft_wrap=False)
    if not console.is_terminal:
        console.width = _FILE_WIDTH
    return console


def show(*renderables: RenderableType) -> None:
    """Print to standard output."""
    console = open_console()
    for renderable in renderables:
        for part in renderable.renderables if isinstance(renderable, Group) else [renderable]:
            # A terminal breaks long lines by itself; a break that we put in would be copied with the text.
            console.print(part, soft_wrap=isinstance(part, str | Text))


def show_json(value: Any, *, line: bool = False) -> None:
    """Print JSON to standard output: indented, or on one line."""
    # Text that the stream cannot encode goes out as \u escapes.
    ascii_only = (sys.stdout.encoding or "ascii").lower().replace("-", "") != "utf8"
    print(json.dumps(value, ensure_ascii=ascii_only, indent=None if line else 2), flush=True)


def clean(text: str) -> str:
    """Return text from elsewhere without control characters, which could deceive a terminal."""
    return text.translate(_CONTROLS)


def plain(text: str, style: str = "") -> Text:
    """Return text from elsewhere for printing: cleaned, and without a meaning of square brackets."""
    return Text(clean(text), style)


def state_text(state: str) -> Text:
    """Return a state in its colour."""
    return Text(state, _STYLES.get(state, ""))


def time_text(stamp: Timestamp) -> str:
    """Return a time in the local time zone, to the second; empty for the zero time."""
    if not stamp.seconds:
        return ""
    return moment(stamp).strftime("%Y-%m-%d %H:%M:%S")


def moment(stamp: Timestamp) -> datetime:
    """Return a time as a local datetime."""
    return stamp.ToDatetime(UTC).astimezone()


def span_text(seconds: float) -> str:
    """Return a span of time as people read it: `0.42s`, `12.3s`, `4m07s`, `3h05m`, `2d04h`."""
    if seconds < 60:
        return f"{seconds:.2f}s" if seconds < 10 else f"{seconds:.1f}s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}m{rest:02}s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02}m" if hours < 24 else f"{hours // 24}d{hours % 24:02}h"


def duration_seconds(duration: Duration) -> float:
    """Return a duration in seconds."""
    return duration.seconds + duration.nanos / 1e9


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
    if connection.output is Output.JSON:
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
    form["violations"] = [{"field": field, "description": text} for field, text in _violations(error)]
    return form


def error_lines(error: Exception, target: str) -> list[Text]:
    """Return an error as people read it: what is wrong, and a line for each violation."""
    lines = [Text.assemble(("Error: ", "bold red"), clean(_headline(error, target)))]
    for field, description in _violations(error):
        text = Text("  ")
        if field:
            text.append(clean(field), "bold").append(": ")
        lines.append(text.append(clean(description)))
    return lines


def _headline(error: Exception, target: str) -> str:
    match error:
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
