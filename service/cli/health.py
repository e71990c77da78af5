"""Command health: whether a server serves, for probes of containers and for scripts."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Annotated

import typer

from service.cli import settings
from service.cli.connection import Connection, Format
from service.cli.serving import AsJson
from service.cli.session import tell

_PATIENCE = 4.0
_EVERY = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}  # noqa: S104 - where a server listens, and how it is reached


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("health", rich_help_panel="Server")(health)


def health(
    context: typer.Context,
    target: Annotated[
        str | None,
        typer.Option(help="Address of the server; default: FLOWKEEP_HEALTH_LISTEN, else as of every command."),
    ] = None,
    service: Annotated[str, typer.Option(help="One service of the server; default: all.")] = "",
    output: AsJson = None,
) -> None:
    """Ask a server whether it serves. Ends with 0 when it does, 1 when it does not, 4 when there is no server."""
    given: Connection = context.find_root().obj or Connection()
    source = context.find_root().get_parameter_source("target")
    connection = replace(given, target=given.target if target is None else target)
    if target is None and (source is None or source.name == "DEFAULT") and (alone := _served_alone()):
        connection = Connection(alone)
    form = settings.output_of(context, output)
    status = asyncio.run(_status(replace(connection, output=form), service))
    typer.echo(json.dumps({"status": status}) if form is Format.JSON else status)
    if status != "SERVING":
        raise typer.Exit(1)


def _served_alone() -> str:
    """Return where the settings say that health is served alone, empty where they do not."""
    host, _, port = settings.load().health_listen.rpartition(":")
    return f"{_EVERY.get(host, host)}:{port}" if host and port != "0" else ""


async def _status(connection: Connection, service: str) -> str:
    import grpc
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    from flowkeep.channel import checked_target, open_channel
    from flowkeep.errors import NotFoundError, from_rpc_error

    try:
        target = checked_target(connection.target)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    async with open_channel(target, connection.credentials(), ()) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        request = health_pb2.HealthCheckRequest(service=service)
        try:
            answer = await stub.Check(request, timeout=_PATIENCE)
        except grpc.aio.AioRpcError as failure:
            told = from_rpc_error(failure)
            if isinstance(told, NotFoundError):
                told = NotFoundError(told.code, told.reason, f'the server has no service "{service}"')
            raise typer.Exit(tell(told, connection)) from None
    return str(health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status))
