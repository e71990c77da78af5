"""The command that sends signals: signal."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from service.cli.arguments import SET_HELP, SET_STRING_HELP, RequestId
from service.cli.session import Session, command

_Strings = list[str] | None


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    command(app, "signal", panel="Executions")(signal)


def _option(help: str, *names: str) -> Any:
    return typer.Option(*names, help=help, show_default=False)


async def signal(
    session: Session,
    execution_id: Annotated[
        str,
        typer.Argument(
            help="Id of the execution, or its first 8 or more digits; - with --workflow.", show_default=False
        ),
    ],
    name: Annotated[str, typer.Argument(help="Name of the signal.", show_default=False)],
    input: Annotated[
        str | None, _option("What it carries: JSON, @FILE, or - for standard input.", "--input", "-i")
    ] = None,
    set: Annotated[_Strings, _option(SET_HELP)] = None,
    set_string: Annotated[_Strings, _option(SET_STRING_HELP)] = None,
    workflow: Annotated[str, _option("Workflow of the execution, in the place of its id.")] = "",
    correlation_id: Annotated[str, _option("Correlation id of the execution, with --workflow.")] = "",
    start: Annotated[
        bool, _option("Start an execution with the signal where none with the correlation id goes on.", "--start")
    ] = False,
    start_input: Annotated[
        str | None, _option("Input of the execution that --start starts: JSON, @FILE, or - for standard input.")
    ] = None,
    request_id: RequestId = None,
) -> None:
    """Send an execution a signal, for which one of its steps waits or will.

    With --start, --workflow and --correlation-id an execution is started with it where none goes on.
    """
    from service.cli.arguments import read_input
    from service.cli.execution_ids import whole_id
    from service.cli.json_form import json_form
    from service.cli.rendering import show, show_json

    is_named = execution_id != "-"
    if is_named == bool(workflow or correlation_id) or bool(workflow) != bool(correlation_id):
        raise typer.BadParameter("give an id, or - with --workflow and --correlation-id", param_hint="EXECUTION_ID")
    payload = read_input(input, set or (), set_string or ())
    if is_named and start:
        raise typer.BadParameter("goes with --workflow and --correlation-id, not with an id", param_hint="--start")
    if start_input is not None and not start:
        raise typer.BadParameter("goes with --start", param_hint="--start-input")
    if start:
        given = None if start_input is None else read_input(start_input, (), ())
        started = await session.client.signal_with_start(
            workflow, correlation_id, name, payload, input=given, request_id=request_id
        )
        if session.json:
            show_json(json_form(started))
        else:
            kept = f"signal {started.signal_id} is kept for execution {started.execution.execution_id}"
            show(f"{kept}, which it started" if started.started else kept)
        return
    response = await session.client.signal(
        await whole_id(session.client, execution_id) if is_named else "",
        name,
        payload,
        workflow=workflow,
        correlation_id=correlation_id,
        request_id=request_id,
    )
    if session.json:
        show_json(json_form(response))
    else:
        show(f"signal {response.signal_id} is kept for execution {response.execution.execution_id}")
