"""Commands that make a new execution of another one: rerun, fork."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from service.cli.arguments import SET_HELP, SET_STRING_HELP, RequestId
from service.cli.session import Session, command

if TYPE_CHECKING:
    from flowkeep.requests import ForkOptions
    from flowkeep.v1.execution_service_pb2 import ForkExecutionResponse

# What works with messages is imported within the commands, so that the help need not wait for gRPC.

_PANEL = "Executions"
_Strings = list[str] | None
_Id = Annotated[str, typer.Argument(help="Id of the execution, or its first 8 or more digits.", show_default=False)]


def register(app: typer.Typer) -> None:
    """Add the commands to the app."""
    command(app, "rerun", panel=_PANEL)(rerun)
    command(app, "fork", panel=_PANEL)(fork)


def _option(help: str, *names: str) -> Any:
    return typer.Option(*names, help=help, show_default=False)


_Input = Annotated[str | None, _option("Another input: JSON, @FILE, or - for standard input.", "--input", "-i")]
_Set = Annotated[_Strings, _option(SET_HELP)]
_SetString = Annotated[_Strings, _option(SET_STRING_HELP)]
_Revision = Annotated[str, _option("Revision to run: a number, or latest. Default: the same.")]
_Check = Annotated[bool, typer.Option("--check", help="Only say what does not fit; ends with 1 if something does not.")]
_Watch = Annotated[bool, typer.Option("--watch", "-w", help="Show the progress until it ends.")]


async def rerun(
    session: Session,
    execution_id: _Id,
    input: _Input = None,
    set: _Set = None,
    set_string: _SetString = None,
    revision: _Revision = "",
    check: _Check = False,
    watch: _Watch = False,
    request_id: RequestId = None,
) -> int:
    """Make a new execution with the input of another one, from the beginning. The other one stays as it is.

    With --watch it ends with 1 unless the new execution completed.
    """
    from service.cli.arguments import read_input

    given: ForkOptions = {"input": read_input(input, set or (), set_string or ()), "revision": _revision(revision)}
    return await _fork(session, execution_id, given, check=check, watch=watch, request_id=request_id)


async def fork(
    session: Session,
    execution_id: _Id,
    step: Annotated[str, _option("Step to begin from; what lies before is copied and does not run.", "--from")],
    iteration: Annotated[int, typer.Option(min=0, help="Whole run of that step; 0 for the newest.")] = 0,
    input: _Input = None,
    set: _Set = None,
    set_string: _SetString = None,
    var: Annotated[_Strings, _option("Variable as it stands there, NAME=JSON. Repeatable.")] = None,
    gives: Annotated[_Strings, _option("What a step before gives instead, STEP=JSON. Repeatable.")] = None,
    revision: _Revision = "",
    check: _Check = False,
    watch: _Watch = False,
    request_id: RequestId = None,
) -> int:
    """Make a new execution of another one from a step on. The other one stays as it is.

    With --watch it ends with 1 unless the new execution completed.
    """
    from service.cli.arguments import parse_pairs, read_input, read_json

    given: ForkOptions = {
        "step": step,
        "iteration": iteration,
        "input": read_input(input, set or (), set_string or ()),
        "vars": {key: read_json(value, "--var") for key, value in parse_pairs(var or (), "--var")},
        "outputs": {key: read_json(value, "--gives") for key, value in parse_pairs(gives or (), "--gives")},
        "revision": _revision(revision),
    }
    return await _fork(session, execution_id, given, check=check, watch=watch, request_id=request_id)


async def _fork(
    session: Session, execution_id: str, given: ForkOptions, *, check: bool, watch: bool, request_id: RequestId
) -> int:
    from flowkeep.requests import request_text
    from service.cli import following
    from service.cli.execution_ids import whole_id

    asked = request_text(request_id)
    source = await whole_id(session.client, execution_id)
    with following.told_how_to_ask_again(session, asked):
        forked = await session.client.fork(source, validate_only=check, request_id=asked, **given)
    if check:
        return _show_checks(session, forked)
    if watch:
        following.name_forked(session, forked.execution, source, created=forked.created)
        return await following.follow(session, forked.execution.execution_id)
    following.show_execution(session, forked.execution)
    return 0


def _revision(text: str) -> int | None:
    if text in ("", "same"):
        return None
    if text == "latest":
        return 0
    if text.isascii() and text.isdigit() and 0 < int(text) < 1 << 31:
        return int(text)
    raise typer.BadParameter("must be a number from 1, latest, or same", param_hint="--revision")


def _show_checks(session: Session, forked: ForkExecutionResponse) -> int:
    from service.cli.json_form import json_form
    from service.cli.rendering import plain, show, show_json

    if session.json:
        show_json(json_form(forked))
    elif not forked.checks:
        show(plain("All of it fits."))
    for each in () if session.json else forked.checks:
        show(plain(f"{each.path}: {each.message}" if each.path else each.message))
    return 1 if forked.checks else 0
