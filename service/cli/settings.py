"""Reads the settings for commands, and says what is wrong with them as people read it."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer

from service.cli.connection import Connection, Output

if TYPE_CHECKING:
    from service.config import Config

USAGE = 2


def load(**given: Any) -> Config:
    """Return the settings of the environment, with what the command line gave in place of theirs.

    Ends the command with one line per setting that is wrong.
    """
    from pydantic import ValidationError
    from pydantic_settings import SettingsError

    from service.config import Config

    try:
        return Config(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        for each in error.errors():
            name = "_".join(str(part) for part in each["loc"][:1]).upper()
            typer.echo(f"FLOWKEEP_{name}: {each['msg']}", err=True)
        raise typer.Exit(USAGE) from None
    except SettingsError as error:
        typer.echo(f"flowkeep: {error}", err=True)
        raise typer.Exit(USAGE) from None


def output_of(context: typer.Context, given: Output | None) -> Output:
    """Return how to print: as the command was told, else as the whole program was."""
    root: Connection | None = context.find_root().obj
    return given or (root.output if root else Output.TEXT)


def expected_errors() -> tuple[type[Exception], ...]:
    """Return what an operator can mend."""
    from persistence.errors import PersistenceError
    from service.config import ConfigError
    from service.engine.handlers.model import HandlerLoadError

    return ConfigError, PersistenceError, HandlerLoadError


@contextmanager
def told() -> Iterator[None]:
    """End the command with a line that says what went wrong, for everything an operator can mend."""
    try:
        yield
    except expected_errors() as error:
        typer.echo(f"flowkeep: {error}", err=True)
        raise typer.Exit(USAGE) from None


def run(main: Coroutine[Any, Any, int | None], *, abandon: bool = False) -> None:
    """Run a coroutine on the fast event loop; its number is the exit code.

    `abandon` leaves tasks that still run behind instead of waiting for them; then end the process.
    """
    import uvloop

    runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
    with told():
        code = runner.run(main)
    if not (abandon and asyncio.all_tasks(runner.get_loop())):
        runner.close()
    if code:
        raise typer.Exit(code)
