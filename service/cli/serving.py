"""Commands of the server itself: serve, migrate, config, doctor."""

from __future__ import annotations

import gc
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from service.cli import memory, settings, streams
from service.cli.asking import Yes, confirm
from service.cli.connection import Format

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Mapping

    from service.config import Config
    from service.databases import Database

_PANEL = "Server"

Listen = Annotated[str | None, typer.Option(help="Address to serve on: host:port, or unix:/path.", show_default=False)]
Handlers = Annotated[
    list[str] | None, typer.Option("--handlers", help="Module or file with your @handler functions; repeatable.")
]


def _folder(text: str) -> Path:
    if not text.strip():
        raise typer.BadParameter("must name a folder; . is the current one")
    return Path(text)


DataDir = Annotated[
    Path | None,
    typer.Option(help="Folder of the embedded Postgres.", parser=_folder, metavar="FOLDER", show_default=False),
]
AsJson = Annotated[Format | None, typer.Option("--output", "-o", help="Text for people, or JSON.", show_default=False)]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for name, function in (("serve", serve), ("migrate", migrate), ("config", show_config), ("doctor", doctor)):
        app.command(name, rich_help_panel=_PANEL)(function)


def serve(
    listen: Listen = None,
    handlers: Handlers = None,
    data_dir: DataDir = None,
    processes: Annotated[
        int | None, typer.Option(help="Server processes; best one per core. Default: 1.", show_default=False)
    ] = None,
) -> None:
    """Serve, with the embedded Postgres unless FLOWKEEP_DATABASE_URL names another one."""
    config = settings.load(listen=listen, handlers=handlers or None, data_dir=data_dir, processes=processes)
    from service.databases import database

    with settings.told():
        prepare(config)
        config.check()
        if config.processes > 1:
            from service.listening import reserved

            with reserved(config.listeners) as targets, database(config) as place:
                settings.run(_keep(config, place, targets))
        else:
            with database(config) as place:
                settings.run(_serve(config, place), abandon=True)
    leave()


def prepare(config: Config) -> None:
    """Make this process one that serves. Raises FailpointError."""
    from persistence import failpoints
    from service import logs

    logs.configure(config)
    failpoints.arm(os.environ)
    # What is loaded by now stays: collecting it again and again would cost a fifth of the work of a step.
    gc.freeze()
    memory.collect_rarely()


def leave(code: int = 0) -> None:
    """End the process although handlers still run: their steps were given back and start again elsewhere."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


async def _serve(config: Config, place: Database) -> None:
    from service.app import running_server
    from service.databases import keep_alive, open_repository

    stopped = _stopped()
    async with (
        keep_alive(place),
        open_repository(config, place.dsn) as repository,
        running_server(config, repository, alone=config.is_embedded) as server,
    ):
        _tell(config, server.target, server.health_target)
        await stopped.wait()
    typer.echo("Stopped.")


async def _keep(config: Config, place: Database, targets: Mapping[str, str]) -> None:
    from service.cli.processes import keep_processes

    await keep_processes(config, place, targets, lambda: _tell(config, *targets.values()), _stopped())
    typer.echo("Stopped.")


def _stopped() -> asyncio.Event:
    """Return what is set when this process is asked to stop."""
    import asyncio
    import signal

    stopped = asyncio.Event()

    def stop() -> None:
        if stopped.is_set():
            os._exit(1)  # asked twice: at once, and what is left is rescued at the next start
        stopped.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop)
    return stopped


def _tell(config: Config, target: str, health: str = "") -> None:
    """Say on standard output that the server serves."""
    typer.echo(f"Flowkeep serves on {target}; stop it with Ctrl-C.")
    typer.echo(f"  database  {_where(config)}")
    typer.echo(f"  callers   {'known by their tokens' if config.has_identity_provider else 'all the same developer'}")
    if health:
        typer.echo(f"  health    alone, without TLS, on {health}")
    if config.processes > 1:
        typer.echo(f"  processes {config.processes}")


def _where(config: Config) -> str:
    from service.databases import data_root

    return f"embedded in {data_root(config)}" if config.is_embedded else "FLOWKEEP_DATABASE_URL"


def migrate(
    to: Annotated[str, typer.Option(help="Revision to go to, up or down; `base` empties the database.")] = "head",
    yes: Yes = False,
    data_dir: DataDir = None,
) -> None:
    """Bring the schema of the database to a revision."""
    config = settings.load(data_dir=data_dir)
    from service.databases import database

    with settings.told(), database(config) as place:
        settings.run(_migrate(place.dsn, to, yes=yes))
    typer.echo(f"The schema is at {to}.")


async def _migrate(dsn: str, to: str, *, yes: bool) -> None:
    from persistence.postgres.migrate import migrate
    from persistence.postgres.revisions import check_readable, current_revision

    current = await current_revision(dsn)
    check_readable(current)
    if to == "base":
        confirm("This removes every table and all that is kept in them.", yes=yes)
    elif current is not None and to < current:
        confirm(f"This removes what revisions after {to} added to the tables, and what is kept there.", yes=yes)
    await migrate(dsn, to)


def show_config(context: typer.Context, output: AsJson = None) -> None:
    """Show every setting: its value, where it comes from, and what it means."""
    config = settings.load()
    rows = [_setting(config, name) for name in type(config).model_fields]
    if settings.output_of(context, output) is Format.JSON:
        typer.echo(json.dumps(rows, indent=2))
        return
    from service.cli.columns import FittingTable
    from service.cli.rendering import plain, show

    table = FittingTable("SETTING", "VALUE", "MEANING", leave_out=("MEANING",), wraps="MEANING")
    for row in rows:
        value = str(row["value"]) if row["value"] is not None else "-"
        table.add_row(row["name"], plain(f"{value} (set)" if row["set"] else value), row["description"])
    show(table)


def _setting(config: Config, name: str) -> dict[str, Any]:
    field, value = type(config).model_fields[name], getattr(config, name)
    if not isinstance(value, bool | int | float | str | list | None):
        value = str(value)  # a path, or a secret, which shows as stars
    return {
        "name": f"FLOWKEEP_{name.upper()}",
        "value": value,
        "default": field.get_default(call_default_factory=True),
        "set": name in config.model_fields_set,
        "description": field.description,
    }


def doctor(context: typer.Context, data_dir: DataDir = None, output: AsJson = None) -> None:
    """Check what the server needs: settings, database, schema, clock, handlers."""
    config = settings.load(data_dir=data_dir)
    from service.cli.checkup import Finding, examine

    streams.keep_output()  # what handlers print as they are loaded is none of it
    findings = examine(config)
    if settings.output_of(context, output) is Format.JSON:
        typer.echo(json.dumps([finding.as_json() for finding in findings], indent=2), file=streams.output())
    else:
        for finding in findings:
            typer.echo(finding.line, file=streams.output())
    if any(finding.verdict is Finding.Verdict.FAIL for finding in findings):
        raise typer.Exit(1)
