"""Reads the settings for commands, and says what is wrong with them as people read it."""

from __future__ import annotations

import asyncio
import difflib
import re
from collections.abc import Coroutine, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer

from service.cli.connection import Connection, Format
from service.cli.refusal import refuse

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

    from service.config import Config

PREFIX = "FLOWKEEP_"

_BESIDE = ("FLOWKEEP_ENVIRONMENT", "FLOWKEEP_FAILPOINTS")
"""Variables that permit failing on purpose, and say where (persistence.failpoints)."""
_SERVICE_LINK = re.compile(r"FLOWKEEP_(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_\w+)?)?)")
_FORMS = {
    "bool_parsing": "must be true or false",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_parsing": "must be a number",
}
"""Errors of pydantic, as an operator reads them."""


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
        refuse(*map(_complaint, error.errors(include_url=False)))
    except SettingsError as error:
        refuse(str(error))


def refuse_unknown(environment: Mapping[str, str], of_commands: Iterable[str]) -> None:
    """End the command with a line for each variable that would be a setting if it were written right.

    `of_commands` are the variables that only commands read. What is empty is not set.
    """
    if not any(name.upper().startswith(PREFIX) for name in environment):
        return  # and nothing has to be loaded
    from service.config import Config

    known = [*(f"{PREFIX}{name.upper()}" for name in Config.model_fields), *of_commands, *_BESIDE]
    unknown = sorted(name for name, value in environment.items() if value and not _is_known(name.upper(), value, known))
    complaints = []
    for name in unknown:
        near = difflib.get_close_matches(
            name.upper().removeprefix(PREFIX), [each.removeprefix(PREFIX) for each in known], 1
        )
        hint = f"did you mean {PREFIX}{near[0]}?" if near else "`flowkeep config` shows those that there are"
        complaints.append(f"{name} is no setting: {hint}")
    if complaints:
        refuse(*complaints)


def _is_known(name: str, value: str, known: Sequence[str]) -> bool:
    if not name.startswith(PREFIX) or name in known or name.startswith(f"{PREFIX}TEST_"):
        return True
    # Kubernetes tells every container of the services beside it, and one may well be called flowkeep.
    return bool(_SERVICE_LINK.fullmatch(name)) and (not name.endswith("_PORT") or "://" in value or value.isdecimal())


def _complaint(error: ErrorDetails) -> str:
    """Return a line that names the variable and the form that it should have."""
    from service.config import Config

    name = str(error["loc"][0]) if error["loc"] else ""
    kind, said = error["type"], error["msg"].removeprefix("Value error, ").replace("Input should be", "must be", 1)
    text = _FORMS.get(kind, said)
    secret = "SecretStr" in str(Config.model_fields[name].annotation) if name in Config.model_fields else True
    given = "" if secret or not isinstance(error["input"], str | int | float) else f"={error['input']}"
    given = given if given.isprintable() else f"={given[1:]!r}"
    return f"{PREFIX}{name.upper()}{given}: {text}"


def output_of(context: typer.Context, given: Format | None) -> Format:
    """Return how to print: as the command was told, else as the whole program was."""
    root: Connection | None = context.find_root().obj
    return given or (root.output if root else Format.TEXT)


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
        refuse(str(error))


def run(main: Coroutine[Any, Any, int | None], *, abandon: bool = False) -> None:
    """Run a coroutine on the fast event loop; its number is the exit code.

    `abandon` leaves tasks that still run behind instead of waiting for them; then end the process.
    """
    import uvloop

    from service.cli.loop import run_through

    runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
    with told():
        code = run_through(runner, main)
    if not (abandon and asyncio.all_tasks(runner.get_loop())):
        runner.close()
    if code:
        raise typer.Exit(code)
