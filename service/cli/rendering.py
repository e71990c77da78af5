"""What every command prints alike: JSON, states, times."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from rich.console import Console, Group, RenderableType
from rich.text import Text

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
