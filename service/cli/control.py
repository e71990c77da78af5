"""Commands that hold executions, change them, let them go on, and end them at once: pause, set-vars, debug, …"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from service.cli.arguments import SET_HELP, IsDry, Mocks, RequestId, SkipWaits, breakpoints
from service.cli.session import Session, command

if TYPE_CHECKING:
    from flowkeep.v1.execution_pb2 import Execution

_PANEL = "Executions"
_Id = Annotated[str, typer.Argument(help="Id of the execution, or its first 8 or more digits.", show_default=False)]


def register(app: typer.Typer) -> None:
    """Add the commands to the app."""
    for name, function in (
        ("pause", pause),
        ("resume", resume),
        ("terminate", terminate),
        ("set-vars", set_vars),
        ("debug", debug),
    ):
        command(app, name, panel=_PANEL)(function)


def _option(help: str, *names: str) -> Any:
    return typer.Option(*names, help=help, show_default=False)


_Reason = Annotated[str, _option("Why, for the history.")]


async def pause(
    session: Session,
    execution_id: _Id,
    reason: _Reason = "",
    hard: Annotated[bool, _option("Stop what runs, too; it is made again when resumed.", "--hard")] = False,
    stop_deadline: Annotated[bool, _option("Let the time of the pause not count.", "--stop-deadline")] = False,
    request_id: RequestId = None,
) -> None:
    """Let nothing of an execution begin until it is resumed."""
    found = await _found(session, execution_id)
    paused = await session.client.pause(found, reason, hard=hard, stop_deadline=stop_deadline, request_id=request_id)
    _show(session, paused)


async def resume(session: Session, execution_id: _Id, reason: _Reason = "", request_id: RequestId = None) -> None:
    """Let a paused execution go on."""
    _show(session, await session.client.resume(await _found(session, execution_id), reason, request_id=request_id))


async def terminate(session: Session, execution_id: _Id, reason: _Reason = "", request_id: RequestId = None) -> None:
    """End an execution at once, without waiting for what runs."""
    _show(session, await session.client.terminate(await _found(session, execution_id), reason, request_id=request_id))


async def set_vars(
    session: Session,
    execution_id: _Id,
    values: Annotated[
        list[str],
        typer.Argument(
            help="What to set, such as total=12 or name=text; a value that is not JSON is text.",
            metavar="NAME=VALUE...",
            show_default=False,
        ),
    ],
    request_id: RequestId = None,
) -> None:
    """Set variables of an execution that is paused: what is evaluated from then on sees them."""
    from service.cli.arguments import read_values

    given = read_values(values, "NAME=VALUE")
    found = await _found(session, execution_id)
    _show(session, await session.client.edit_variables(found, given, request_id=request_id))


async def debug(
    session: Session,
    workflow: Annotated[str, typer.Argument(help="Name or id of the workflow to execute.", show_default=False)] = "",
    execution: Annotated[str, _option("Id of an execution to debug instead, or its beginning.")] = "",
    input: Annotated[str | None, _option("Input: JSON, @FILE, or - for standard input.", "--input", "-i")] = None,
    set: Annotated[list[str] | None, _option(SET_HELP)] = None,
    breakpoint: Annotated[
        list[str] | None,
        _option("Hold it before this step, such as 'ship' or 'ship if params.amount > 100'. Repeatable.", "--break"),
    ] = None,
    dry_run: IsDry = False,
    mocks: Mocks = "",
    skip_waits: SkipWaits = False,
) -> int:
    """Execute a workflow step by step: it is held before steps, shows what each is called with, and lets you change it.

    Without --break it is held before its first step. Takes commands from standard input, one on a line: n on to the
    next step, c on to the next breakpoint, i INPUT to change the input, set NAME=VALUE a variable, h for the others.
    """
    from service.cli.arguments import read_input
    from service.cli.debugging import debug as debugged
    from service.cli.debugging import start
    from service.cli.dry_runs import read_dry_run

    if bool(workflow) == bool(execution):
        raise typer.BadParameter("give a workflow, or an execution by --execution")
    if execution and dry_run:
        raise typer.BadParameter("is for what is executed now; leave --execution out", param_hint="--dry-run")
    if mocks == "-":
        raise typer.BadParameter("must be a file: commands come from standard input", param_hint="--mocks")
    dry = read_dry_run(mocks, is_dry=dry_run, skips_waits=skip_waits)
    points = breakpoints(breakpoint or ())
    if execution:
        return await debugged(session, await _found(session, execution), points, is_new=False)
    execution_id = await start(session, workflow, read_input(input, set or (), ()), points, dry)
    return await debugged(session, execution_id, points, is_new=True)


async def _found(session: Session, execution_id: str) -> str:
    from service.cli.execution_ids import whole_id

    return await whole_id(session.client, execution_id)


def _show(session: Session, execution: Execution) -> None:
    from service.cli.json_form import json_form
    from service.cli.rendering import show, show_json
    from service.cli.tables import execution_view

    if session.json:
        show_json(json_form(execution))
    else:
        show(execution_view(execution))
