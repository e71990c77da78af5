"""The command about workers: which are connected, and what they run."""

from __future__ import annotations

from typing import Annotated

import typer

from service.cli.session import Session, command


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    command(app, "workers", panel="Server")(workers)


async def workers(
    session: Session,
    handler: Annotated[str, typer.Option(help="Only those that have this handler.", show_default=False)] = "",
) -> None:
    """List the workers that are connected, and the attempts that they run."""
    from service.cli.json_form import json_form
    from service.cli.rendering import show, show_json
    from service.cli.worker_view import attempts_table, workers_table

    found = await session.client.list_workers(handler)
    if session.json:
        show_json({"workers": [json_form(worker) for worker in found]})
    elif found:
        show(workers_table(found))
        if any(worker.attempts for worker in found):
            show("", attempts_table(found))
    else:
        show(f"No worker with the handler {handler} is connected." if handler else "No worker is connected.")
