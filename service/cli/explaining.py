"""Commands that say why executions do not move: explain, queue."""

from __future__ import annotations

from typing import Annotated

import typer

from service.cli.session import Session

# What works with messages is imported within the commands, so that the help need not wait for gRPC.


async def explain(
    session: Session,
    execution_id: Annotated[
        str, typer.Argument(help="Id of the execution, or its first 8 or more digits.", show_default=False)
    ],
) -> None:
    """Explain why an execution and each of its open steps do not move."""
    from service.cli.execution_ids import whole_id
    from service.cli.explanation_view import explanation_view
    from service.cli.json_form import json_form
    from service.cli.rendering import show, show_json

    found = await session.client.explain_execution(await whole_id(session.client, execution_id))
    if session.json:
        show_json(json_form(found))
    else:
        show(explanation_view(found))


async def queue(
    session: Session,
    workflow: Annotated[str, typer.Argument(help="Name or id of the workflow.", show_default=False)],
    limit: Annotated[int, typer.Option("--limit", min=1, max=200, help="Executions to show.")] = 50,
) -> None:
    """Explain why executions of a workflow wait for a server with room."""
    from service.cli.explanation_view import queue_view
    from service.cli.json_form import json_form
    from service.cli.rendering import show, show_json

    found = await session.client.explain_queue(workflow, page_size=limit)
    if session.json:
        show_json(json_form(found))
    else:
        show(queue_view(found))
