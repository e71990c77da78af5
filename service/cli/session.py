"""Commands that work on a server: an open client for each, and how what the server refuses ends it."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from functools import wraps
from typing import TYPE_CHECKING, Annotated, Any

import typer

from service.cli.connection import Connection, Format

if TYPE_CHECKING:
    from flowkeep.client import Client

_PANEL = "Connection and output"


@dataclass(frozen=True, slots=True)
class Session:
    """What a command works with: an open client, and how to print."""

    client: Client
    output: Format

    @property
    def json(self) -> bool:
        """Whether to print JSON, and nothing else, to standard output."""
        return self.output is Format.JSON


Command = Callable[..., Coroutine[Any, Any, int | None]]
"""A command: an async function of a Session and its own options that may return an exit code."""


def command(app: typer.Typer, name: str | None = None, *, panel: str | None = None) -> Callable[[Command], Command]:
    """Add an async function to an app as a command that works on a server.

    The function's first parameter is the Session; the command has the global options too, so that they may be written
    at the end of a line. Errors are printed as people read them, and become exit codes.
    """

    def add(function: Command) -> Command:
        app.command(name, rich_help_panel=panel)(_with_connection(function))
        return function

    return add


def _with_connection(function: Command) -> Callable[..., None]:
    @wraps(function)
    def run(
        context: typer.Context,
        target: str | None,
        token: str | None,
        tls: bool,
        output: Format | None,
        **arguments: Any,
    ) -> None:
        given: Connection = context.find_root().obj or Connection()
        connection = replace(
            given,
            target=given.target if target is None else target,
            token=given.token if token is None else token,
            tls=tls or given.tls,
            output=output or given.output,
        )
        code = asyncio.run(run_session(function, connection, arguments))
        if code:
            raise typer.Exit(code)

    # Typer reads the options of a command from its signature.
    own = list(inspect.signature(function, eval_str=True).parameters.values())[1:]
    extra = inspect.signature(_global_options, eval_str=True).parameters.values()
    parameters = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in (*extra, *own)]
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # what inspect.signature reads
    run.__annotations__ = {each.name: each.annotation for each in parameters}
    return run


def _global_options(
    context: typer.Context,
    # Without environment variables, which would win over an option that stands before the command.
    target: Annotated[str | None, typer.Option(help="Address of the server.", rich_help_panel=_PANEL)] = None,
    token: Annotated[str | None, typer.Option(help="Bearer token.", rich_help_panel=_PANEL)] = None,
    tls: Annotated[bool, typer.Option("--tls", help="Encrypt the connection.", rich_help_panel=_PANEL)] = False,
    output: Annotated[
        Format | None, typer.Option("--output", "-o", help="Text for people, or JSON.", rich_help_panel=_PANEL)
    ] = None,
) -> None:
    """The signature of the global options; never called."""


async def run_session(function: Command, connection: Connection, arguments: dict[str, Any]) -> int | None:
    """Run a command on the server of a connection; what the server refuses is shown and becomes the exit code."""
    from flowkeep.client import Client
    from flowkeep.errors import DefinitionError, ExecutionFailedError, FlowkeepError, PayloadError

    try:
        client = Client(
            connection.target, token=connection.token or None, tls=connection.credentials(), timeout=connection.timeout
        )
    except ValueError as error:  # of the target or the token
        raise typer.BadParameter(str(error)) from None
    try:
        async with client:
            return await function(Session(client, connection.output), **arguments)
    except (FlowkeepError, ExecutionFailedError, DefinitionError, PayloadError) as error:
        return tell(error, connection)


def tell(error: Exception, connection: Connection) -> int:
    """Show what a command ends with, and return the exit code."""
    from service.cli.error_view import exit_code, show_error

    told = _explained(error, connection)
    show_error(told, connection)
    return exit_code(told)


def _explained(error: Exception, connection: Connection) -> Exception:
    """Return an error that says what is wrong with TLS where that is why no server was reached, else the error."""
    from flowkeep.errors import UnavailableError

    if not isinstance(error, UnavailableError) or error.reason:
        return error
    from service.cli.handshake import trouble

    found = trouble(connection)
    return UnavailableError(error.code, "TLS", found) if found else error
