"""What is said against a command that was called wrongly: a line each, or JSON; the command ends with 2."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from typing import NoReturn

import typer
from typer.exceptions import TyperException

USAGE = 2
"""Exit code for a wrong argument, definition or setting."""

_JSON = re.compile(r"(?:^|\0)(?:--output(?:=|\0)|-o\0?)json(?:\0|$)")

_SAID_BY_PYDANTIC = {  # which typer asks
    ": Value error, ": ": ",
    ": Input should be": ": must be",
    "must be a valid boolean, unable to interpret input": "must be true or false",
    "must be a valid integer, unable to parse string as an integer": "must be a whole number",
    "must be a valid number, unable to parse string as a number": "must be a number",
}


def refuse(*problems: str) -> NoReturn:
    """End the command with what is wrong with its arguments or with the settings."""
    _say(problems)
    raise typer.Exit(USAGE)


def refuse_call(error: TyperException) -> int:
    """Say what is wrong with a command line, and return the exit code."""
    text = " ".join(error.format_message().split())
    for said, meant in _SAID_BY_PYDANTIC.items():
        text = text.replace(said, meant)
    context = getattr(error, "ctx", None)
    if not text:  # nothing was given, and the help stands there
        return error.exit_code
    # What is said of a value tells what would be right; of a name that is unknown or missing the help does.
    if context and type(error) is not typer.BadParameter:
        text += f"{'' if text.endswith(('.', '?')) else '.'} See {context.command_path} {context.help_option_names[-1]}"
    _say([text])
    return error.exit_code


def _say(problems: Sequence[str]) -> None:
    from service.cli.rendering import clean

    if _asks_for_json(sys.argv[1:]):
        error = {"code": "INVALID_ARGUMENT", "message": "\n".join(problems), "violations": []}
        print(json.dumps({"error": error}), file=sys.stderr)
        return
    for problem in problems:
        typer.echo(f"{typer.style('Error:', typer.colors.RED, bold=True)} {clean(problem)}", err=True)


def _asks_for_json(arguments: Sequence[str]) -> bool:
    """Whether a command line asks for JSON, found in its text: one that is wrong was not read to its end."""
    return bool(_JSON.search("\0".join(arguments)))
