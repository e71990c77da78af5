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
from service.cli.definitions import UnsoundError
from service.cli.streams import output

FILE_WIDTH = 1_000_000
"""No table is as wide: in a file or for another program nothing is cut, wrapped or left out."""

_STYLES = {
    "COMPLETED": "green",
    "FAILED": "bold red",
    "TIMED_OUT": "bold red",
    "CANCELLED": "yellow",
    "CANCELLING": "yellow",
    "COMPENSATING": "yellow",
    "PAUSED": "magenta",
    "WAITING": "cyan",
    "RUNNING": "blue",
    "SKIPPED": "dim",
    "COMPENSATED": "yellow",
    "PENDING": "dim",
}

# Texts from elsewhere must not move the cursor, change colours, break lines or turn the direction of what stands beside
# them: C0 and C1 controls but tab and newline, the marks of bidirectional text, the separators of lines.
_TURNING = (0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))
_HARMFUL = [*(code for code in (*range(32), *range(127, 160)) if chr(code) not in "\t\n"), *_TURNING, 0x2028, 0x2029]
_CONTROLS = dict.fromkeys(_HARMFUL, "�")
_JSON_ESCAPES = {code: f"\\u{code:04x}" for code in _HARMFUL if code > 31}


def open_console(*, stderr: bool = False) -> Console:
    """Return a console on standard output or error; tables are not cut when that is no terminal."""
    console = Console(file=None if stderr else output(), stderr=stderr, highlight=False, soft_wrap=False)
    # Not by what the console takes for a terminal: FORCE_COLOR asks for colours in a pipe, not for narrow tables.
    if not console.file.isatty():
        console.width = FILE_WIDTH
    return console


def is_screen(console: Console) -> bool:
    """Whether what stands on the console can be redrawn."""
    is_pipe = console.file is output() and not output().isatty()
    return console.is_terminal and not console.is_dumb_terminal and not is_pipe


def show(*renderables: RenderableType) -> None:
    """Print to standard output."""
    console = open_console()
    for renderable in renderables:
        for part in renderable.renderables if isinstance(renderable, Group) else [renderable]:
            # A terminal breaks long lines by itself; a break that we put in would be copied with the text.
            console.print(part, soft_wrap=True)


def show_json(value: Any, *, line: bool = False) -> None:
    """Print JSON to standard output: indented, or on one line."""
    # Text that the stream cannot encode goes out as \u escapes.
    ascii_only = (output().encoding or "ascii").lower().replace("-", "") != "utf8"
    print(json_text(value, ascii_only=ascii_only, indent=None if line else 2), file=output(), flush=True)


def json_text(value: Any, *, indent: int | None = 2, ascii_only: bool = False) -> str:
    """Return a value as JSON in which characters that could deceive a terminal are escaped."""
    return json.dumps(value, ensure_ascii=ascii_only, indent=indent).translate(_JSON_ESCAPES)


def clean(text: str) -> str:
    """Return text from elsewhere without the characters that could deceive a terminal."""
    return text.translate(_CONTROLS)


def one_line(text: str) -> str:
    """Return text on one line: line breaks and tabs become spaces."""
    return text.translate({9: " ", 10: " "})


def plain(text: str, style: str = "") -> Text:
    """Return text from elsewhere for printing: cleaned, and without a meaning of square brackets."""
    return Text(clean(text), style)


def state_text(state: str) -> Text:
    """Return a state in its colour."""
    return Text(state, _STYLES.get(state, ""))


def time_text(stamp: Timestamp) -> str:
    """Return a time in UTC, to the second, as options take it; empty for the zero time."""
    if not stamp.seconds:
        return ""
    return f"{moment(stamp).replace(tzinfo=None, microsecond=0).isoformat()}Z"


def moment(stamp: Timestamp) -> datetime:
    """Return a time as a datetime in UTC: the zone of everything that is shown, as of the texts of the service."""
    return stamp.ToDatetime(UTC)


def span_text(seconds: float) -> str:
    """Return a span of time as people read it: `0.42s`, `12.3s`, `4m07s`, `3h05m`, `2d04h`."""
    if seconds < 60:
        return f"{seconds:.2f}s" if seconds < 10 else f"{seconds:.1f}s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}m{rest:02}s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02}m" if hours < 24 else f"{hours // 24}d{hours % 24:02}h"


def payload_text(name: str, value: Any) -> Text:
    """Return an input, an output or a result with its name, as indented JSON."""
    return Text.assemble((f"{name}: ", "bold"), json_text(value))


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
