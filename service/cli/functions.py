"""The command `flowkeep functions`: what can be said in expressions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import TYPE_CHECKING, Annotated

import typer

from service.cli import settings
from service.cli.connection import Format
from service.cli.serving import AsJson

if TYPE_CHECKING:
    from service.cli.columns import FittingTable
    from service.engine.expressions.functions import Function


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("functions", rich_help_panel="Workflows")(functions)


def functions(
    context: typer.Context,
    part: Annotated[str, typer.Argument(help="Only those that have this in their name.", show_default=False)] = "",
    output: AsJson = None,
) -> None:
    """Show every function, macro and operator of expressions, with an example of each."""
    from service.cli.rendering import show, show_json
    from service.engine.expressions import functions as table

    found = [entry for entry in table.functions() if part.lower() in entry.name.lower()]
    if settings.output_of(context, output) is Format.JSON:
        show_json({"functions": [entry._asdict() for entry in found]})
        return
    if not found:
        show(f'No function has "{part}" in its name.')
    for rows in tables(found):
        show(rows, "")


def tables(entries: Iterable[Function]) -> Iterator[FittingTable]:
    """Yield a table for each group of functions, with an example under each."""
    from rich.text import Text

    from service.cli.columns import FittingTable
    from service.cli.rendering import json_text

    for group, members in groupby(entries, lambda entry: entry.group):
        rows = FittingTable(group.upper(), "DESCRIPTION AND EXAMPLE", wraps="DESCRIPTION AND EXAMPLE")
        for entry in members:
            rows.add_row(Text(entry.form, "bold"), entry.description)
            rows.add_row("", Text(f"{entry.example}  gives {json_text(entry.result, indent=None)}", "dim"))
        yield rows
