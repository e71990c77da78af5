"""Showing how an execution goes, from its events: bars on a terminal, lines elsewhere, JSON for programs."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Iterator
from contextlib import aclosing, contextmanager
from typing import Protocol

from rich.console import Console

from flowkeep.v1.event_pb2 import ExecutionEvent, ExecutionFinished
from flowkeep.v1.execution_service_pb2 import StepOutput, WatchExecutionResponse
from service.cli.connection import Format
from service.cli.json_form import json_form
from service.cli.progress_bars import Bars
from service.cli.progress_lines import Lines
from service.cli.progress_state import Progress
from service.cli.rendering import is_screen, open_console, show_json


class View(Protocol):
    """A way to show progress."""

    def show(self, event: ExecutionEvent, progress: Progress) -> None:
        """Show an event, which `progress` has already taken in."""

    def show_output(self, output: StepOutput, progress: Progress) -> None:
        """Show what a running step says, which `progress` has already taken in."""


async def news(responses: AsyncGenerator[WatchExecutionResponse, None]) -> AsyncGenerator[ExecutionEvent | StepOutput]:
    """Yield the events and the step outputs of a watch one by one."""
    async with aclosing(responses):
        async for response in responses:
            if response.HasField("output"):
                yield response.output
            for event in response.events.events:
                yield event


async def show_progress(
    happenings: AsyncIterable[ExecutionEvent | StepOutput],
    progress: Progress,
    *,
    output: Format = Format.TEXT,
    console: Console | None = None,
) -> ExecutionFinished | None:
    """Show the events and step outputs of an execution as they come; return how it finished, None if it did not.

    On a terminal a bar for each step, elsewhere a line for each event; with JSON one object a line, the event with the
    id of the execution. Whatever the iteration raises goes through, after the display is closed.
    """
    with _view(progress, output, console) as view:
        async for happening in happenings:
            if isinstance(happening, StepOutput):
                progress.hear(happening)
                view.show_output(happening, progress)
            else:
                progress.apply(happening)
                view.show(happening, progress)
    return progress.finished


@contextmanager
def _view(progress: Progress, output: Format, console: Console | None) -> Iterator[View]:
    if output is Format.JSON:
        yield _JsonLines()
        return
    console = console or open_console()
    if not is_screen(console):
        yield Lines(console)
        return
    with Bars(console, progress) as bars:
        yield bars


class _JsonLines:
    """A JSON object on a line for each event."""

    def show(self, event: ExecutionEvent, progress: Progress) -> None:
        show_json({"execution_id": progress.execution_id} | json_form(event), line=True)

    def show_output(self, output: StepOutput, progress: Progress) -> None:
        show_json({"execution_id": progress.execution_id, "output": json_form(output)}, line=True)
