"""Command run: executes a workflow in memory, without any database."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, aclosing, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from service.cli import settings, streams
from service.cli.arguments import SET_HELP, SET_STRING_HELP, IsDry, Mocks, SkipWaits, read_input
from service.cli.connection import Connection, Format
from service.cli.refusal import refuse
from service.cli.serving import AsJson, Handlers
from service.cli.session import Session, run_session, tell

if TYPE_CHECKING:
    from flowkeep.v1.dry_run_pb2 import DryRun
    from flowkeep.v1.event_pb2 import ExecutionFinished
    from flowkeep.v1.execution_pb2 import Execution
    from service.config import Config

_Read = TypeVar("_Read")

LONGEST_BLOCK = 3600.0
"""Seconds that a handler may hold up the event loop, in which the server and its client live."""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("run", rich_help_panel="Server")(run)


def run(
    context: typer.Context,
    file: Annotated[str, typer.Argument(help="Definition in YAML or JSON; - for standard input.", show_default=False)],
    input: Annotated[
        str | None, typer.Option("--input", "-i", help="Input: JSON, @FILE, or - for standard input.")
    ] = None,
    set: Annotated[list[str] | None, typer.Option(help=SET_HELP)] = None,
    set_string: Annotated[list[str] | None, typer.Option(help=SET_STRING_HELP)] = None,
    dry_run: IsDry = False,
    mocks: Mocks = "",
    skip_waits: SkipWaits = False,
    handlers: Handlers = None,
    output: AsJson = None,
) -> None:
    """Execute a workflow in memory, with the same rules and handlers as the server. Nothing is kept."""
    from service.cli.dry_runs import read_dry_run

    if (file, input, mocks).count("-") > 1:
        raise typer.BadParameter("standard input can be read once")
    shown = settings.output_of(context, output)
    payload = _read(partial(read_input, input, set or (), set_string or ()), shown)
    dry = _read(partial(read_dry_run, mocks, is_dry=dry_run, skips_waits=skip_waits), shown)
    streams.keep_output()
    with _own_socket() as listen:
        config = settings.load(listen=listen, handlers=handlers or None, log_level="error", log_format="text").private()
        settings.run(_run(config, file, payload, dry, shown))


def _read(read: Callable[[], _Read], output: Format) -> _Read:
    from flowkeep.errors import PayloadError

    try:
        return read()
    except PayloadError as error:
        raise typer.Exit(tell(error, Connection(output=output))) from None


@contextmanager
def _own_socket() -> Iterator[str]:
    """Give the address of a socket that only this process knows, in a folder that only this user may enter."""
    from service.addresses import LONGEST_SOCKET_PATH, socket_address

    try:
        made = tempfile.TemporaryDirectory(prefix="flowkeep-")
    except OSError as error:
        refuse(f"no folder for temporary files, which TMPDIR names: {error.strerror}")
    with made as folder, ExitStack() as stack:
        way = folder
        if len(os.fsencode(f"{folder}/run.sock")) > LONGEST_SOCKET_PATH:
            if Path("/proc/self/fd").is_dir():  # a short way to wherever TMPDIR lies
                opened = os.open(folder, os.O_DIRECTORY)
                stack.callback(os.close, opened)
                way = f"/proc/self/fd/{opened}"
            else:
                way = stack.enter_context(tempfile.TemporaryDirectory(prefix="flowkeep-", dir="/tmp"))
        yield socket_address(f"{way}/run.sock")


async def _run(
    config: Config, file: str, payload: dict[str, Any] | None, dry_run: DryRun | None, output: Format
) -> int | None:
    from persistence.memory import MemoryRepository
    from service import logs
    from service.app import running_server

    logs.configure(config)
    async with running_server(config, MemoryRepository(), alone=True) as server:
        # In one event loop with the handlers: it answers as soon as they let it.
        connection = Connection(target=server.target, output=output, timeout=LONGEST_BLOCK)
        return await run_session(partial(_execute, file=file, payload=payload, dry_run=dry_run), connection, {})


async def _execute(session: Session, file: str, payload: dict[str, Any] | None, dry_run: DryRun | None) -> int:
    from service.cli.definitions import apply_files
    from service.cli.following import code, show_outcome
    from service.cli.reading import TextError
    from service.cli.workflows import show_warnings

    applied, cautions = await apply_files(session.client, [file])
    show_warnings(cautions)
    if len(applied) != 1:
        raise TextError(f"{file} must hold one definition, not {len(applied)}")
    finished = await execute_and_show(session, applied[0].workflow.name, payload, dry_run)
    if finished is not None and finished.HasField("failure"):
        (execution,) = (await session.client.list_page(page_size=1)).executions
        _show_failure(session, await session.client.get_execution(execution.execution_id))
    elif finished is not None and not session.json:
        show_outcome(finished)
    if not session.json:
        typer.echo("Executed in memory: nothing was kept.", file=streams.output())
    return code(finished)


def _show_failure(session: Session, execution: Execution) -> None:
    """Print why the execution did not complete, with the details and the stack trace, which no event has."""
    from service.cli.failures import cause, failure_lines
    from service.cli.json_form import json_form
    from service.cli.rendering import is_screen, json_text, open_console, show

    failure = cause(execution)
    if session.json:
        typer.echo(json_text({"failure": json_form(failure)}, indent=None), err=True)
        return
    # Where events stand as lines, the last of them have said what the first line says.
    head, *more = failure_lines(failure)
    show(*([head] if is_screen(open_console()) else []), *more)


async def execute_and_show(
    session: Session, workflow: str, payload: dict[str, Any] | None, dry_run: DryRun | None = None
) -> ExecutionFinished | None:
    """Execute a workflow, perhaps as a dry run, and show its progress live to the end; return how it finished."""
    from service.cli.progress import news, show_progress
    from service.cli.progress_state import Progress

    started = await session.client.execute(workflow, payload, dry_run=dry_run)
    definition = (await session.client.get_workflow(workflow)).definition
    progress = Progress(definition, execution_id=started.execution_id)
    async with aclosing(news(session.client.watch_responses(started.execution_id))) as happenings:
        return await show_progress(happenings, progress, output=session.output)
