"""Asking before something is lost."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before anything is lost.")]


def confirm(what: str, *, yes: bool) -> None:
    """Return when `yes` was given or a person at the terminal agrees to what is lost; else end the command.

    Raises BadParameter where there is no terminal: silence is no consent.
    """
    if yes:
        return
    if sys.stdin is None or not sys.stdin.isatty():
        raise typer.BadParameter(f"must be given where nobody can be asked. {what}", param_hint="--yes")
    typer.confirm(f"{what} Go on?", abort=True, err=True)
