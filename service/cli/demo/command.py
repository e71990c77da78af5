"""Command demo: the main job from start to end, on the embedded Postgres, with nothing to set up."""

from __future__ import annotations

import shlex
import shutil
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from service.cli import settings
from service.cli.connection import Connection
from service.cli.local import execute_and_show
from service.cli.serving import DataDir
from service.cli.session import Session, run_session

if TYPE_CHECKING:
    from service.config import Config

_HANDLERS = "service.cli.demo.handlers"
_LARGE_MEGABYTES = 50
_TARGET = "localhost:50051"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("demo", rich_help_panel="Server")(demo)


def demo(data_dir: DataDir = None) -> None:
    """Run a real workflow on a real Postgres, show it live, and tell how to look at what was kept."""
    config = settings.load(
        listen="127.0.0.1:0", data_dir=data_dir, handlers=[_HANDLERS], log_level="error", log_format="text"
    ).private()
    from persistence.embedded import EmbeddedPostgres
    from persistence.postgres.revisions import known_revisions
    from service import logs
    from service.databases import data_root

    logs.configure(config)
    with settings.told():
        # A folder of its own, so that a server that is running, and what it keeps, are left alone; and not one that a
        # release has left whose data cannot be read.
        root = config.data_dir or data_root(config) / f"demo-{known_revisions()[0]}"
        typer.echo(f"Starting Postgres in {root} …")
        with EmbeddedPostgres(root) as postgres:
            settings.run(_serve_and_execute(config, root, postgres.dsn(), postgres.psql_command("flowkeep")))


async def _serve_and_execute(config: Config, root: Path, dsn: str, psql: list[str]) -> int | None:
    from service.app import running_server
    from service.cli.demo.policy_server import policy_server
    from service.databases import open_repository

    payload = {"report_path": str(root / "packages.md"), "large_megabytes": _LARGE_MEGABYTES}
    async with (
        open_repository(config, dsn) as repository,
        running_server(config, repository, alone=True) as server,
    ):
        typer.echo(f"Serving on {server.target}.")
        with policy_server() as policy_url:
            function = partial(_execute, payload={**payload, "policy_url": policy_url}, root=root, psql=psql)
            return await run_session(function, Connection(target=server.target), {})


async def _execute(session: Session, payload: dict[str, object], root: Path, psql: list[str]) -> int:
    from service.cli.definitions import apply_files
    from service.cli.following import code
    from service.cli.rendering import show
    from service.cli.tables import execution_view
    from service.cli.workflows import action_of

    (applied,), _ = await apply_files(session.client, [str(Path(__file__).with_name("workflow.yaml"))])
    workflow = applied.workflow
    typer.echo(f"Workflow {workflow.name}, revision {workflow.revision}: {action_of(applied)}. Executing it:\n")
    finished = await execute_and_show(session, workflow.name, payload)
    (execution,) = (await session.client.list_page(workflow=workflow.name, page_size=1)).executions
    typer.echo("\nAs it is kept in the database:\n")
    show(execution_view(await session.client.get_execution(execution.execution_id)))
    typer.echo(_commands(execution.execution_id, root, psql))
    return code(finished)


def _commands(execution_id: str, root: Path, psql: list[str]) -> str:
    flowkeep = _program("flowkeep")
    python = _program("python")
    call = '{"execution_id": "' + execution_id + '"}'
    stub = (
        f'import asyncio, flowkeep; e = asyncio.run(flowkeep.Client("{_TARGET}").get_execution("{execution_id}")); '
        "print(flowkeep.Execution.State.Name(e.state), flowkeep.from_value(e.result))"
    )
    query = (
        "select path, state, attempt, end_time - start_time as took, left(output::text, 60) as output "  # noqa: S608  # shown, not run
        f"from steps where execution_id = '{execution_id}' order by start_time"
    )
    lines = (
        "",
        "It is all kept. Start the server on the same database:",
        f"  {flowkeep} serve --data-dir {shlex.quote(str(root))} --handlers {_HANDLERS}",
        "and in another terminal look at it with",
        f"  the CLI      {flowkeep} get {execution_id}",
        f"               {flowkeep} watch {execution_id}",
        f"  the stubs    {python} -c '{stub}'",
        f"  grpcurl      grpcurl -plaintext -d '{call}' {_TARGET} flowkeep.v1.ExecutionService/GetExecution",
        f"               grpcurl -plaintext -d '{call}' {_TARGET} flowkeep.v1.ExecutionService/WatchExecution",
        f'  psql         {shlex.join([_near(psql[0]), *psql[1:]])} -c "{query}"',
    )
    return "\n".join(lines)


def _program(name: str) -> str:
    """Return how to call a program of this environment: by its name where that finds it, else by its path."""
    here = str(Path(sys.executable).parent / name)
    return name if shutil.which(name) == here else _near(here)


def _near(path: str) -> str:
    """Return a path as short as it can be from the current folder."""
    try:
        return str(Path(path).relative_to(Path.cwd()))
    except ValueError:
        return path
