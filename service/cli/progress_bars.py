"""The progress of an execution as live bars on a terminal."""

from __future__ import annotations

import threading
import time
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from flowkeep.v1.event_pb2 import ExecutionEvent
from service.cli.progress import ENDED_STEPS, Progress, StepProgress
from service.cli.rendering import clean, plain, span_text, state_text

_BAR_WIDTH = 20
_REFRESHES_PER_SECOND = 10
# Lines of the terminal that are no steps: the head, the note of hidden steps, and a prompt.
_OTHER_LINES = 5
_SIGNS = {
    "COMPLETED": ("✔", "green"),
    "FAILED": ("✖", "bold red"),
    "SKIPPED": ("–", "dim"),
    "CANCELLED": ("■", "yellow"),
    "COMPENSATED": ("↩", "yellow"),
    "WAITING": ("◔", "cyan"),
}
