"""The command that lets an execution go on after its end."""

from __future__ import annotations

from typing import Annotated

import typer

from service.cli.arguments import RequestId
from service.cli.session import Session

# What works with messages is imported within the command, so that the help need not wait for gRPC.


async def retry(
    session: Session,
    execution_id: Annotated[
        str, typer.Argument(help="Id of the execution, or its first 8 or more digits.", show_default=False)
    ],
    step: Annotated[
        str, typer.Option(help="Path of a step that is called with another input.", show_default=False)
    ] = "",
    input: Annotated[
        str | None,
        typer.Option("--input", "-i", help="That input: JSON, @FILE, or - for standard input.", show_default=False),
    ] = None,
    skip: Annotated[str, typer.Option(help="Path of a step that is not run again.", show_default=False)] = "",
    gives: Annotated[
        str | None,
        typer.Option(help="What that step gives: JSON, @FILE, or - for standard input.", show_default=False),
    ] = None,
    timeout: Annotated[
        str | None, typer.Option(help="How long the new run may take from now on, such as 10m.", show_default=False)
    ] = None,
    reason: Annotated[str, typer.Option(help="Why, for the history.", show_default=False)] = "",
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Show the progress until it ends.")] = False,
    request_id: RequestId = None,
) -> int:
    """Let an execution that failed, timed out or was cancelled go on from there; what is done stays.

    With --watch it ends with 1 unless the execution completed.
    """
    from service.cli.arguments import check_span, read_input, read_json
    from service.cli.execution_ids import whole_id
    from service.cli.following import follow, show_execution

    if bool(step) != (input is not None):
        raise typer.BadParameter("is that of a step; give both --step and --input", param_hint="--input")
    if gives is not None and not skip:
        raise typer.BadParameter("is that of a step; name it with --skip", param_hint="--gives")
    if step and skip:
        raise typer.BadParameter("excludes --step: one step of a run may differ", param_hint="--skip")
    execution = await session.client.retry(
        await whole_id(session.client, execution_id),
        reason,
        timeout=check_span(timeout, "--timeout"),
        edit=(step, read_input(input) or {}) if step else None,
        skip=(skip, None if gives is None else read_json(gives, "--gives")) if skip else None,
        request_id=request_id,
    )
    if watch:
        return await follow(session, execution.execution_id)
    show_execution(session, execution)
    return 0
