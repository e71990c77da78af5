"""Commands about executions: execute, get, list, watch, cancel."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING, Annotated, Any

import typer

from service.cli.connection import Session, command

if TYPE_CHECKING:
    from flowkeep.requests import ExecuteOptions, ExecutionFilters
    from flowkeep.v1.event_pb2 import ExecutionFinished
    from flowkeep.v1.execution_pb2 import Execution

# What works with messages is imported within the commands, so that the help need not wait for gRPC.

_PANEL = "Executions"
_LARGEST_PAGE = 200
_Id = Annotated[str, typer.Argument(help="Id of the execution.", show_default=False)]
_Strings = list[str] | None


def register(app: typer.Typer) -> None:
    """Add the commands to the app."""
    for name, function in (
        ("execute", execute),
        ("get", get),
        ("list", list_executions),
        ("watch", watch),
        ("cancel", cancel),
    ):
        command(app, name, panel=_PANEL)(function)


def _option(help: str, *names: str) -> Any:
    return typer.Option(*names, help=help, show_default=False)


async def execute(
    session: Session,
    workflow: Annotated[str, typer.Argument(help="Name or id of the workflow.", show_default=False)],
    input: Annotated[str | None, _option("Input: JSON, @FILE, or - for standard input.", "--input", "-i")] = None,
    set: Annotated[_Strings, _option("A field of the input, KEY=VALUE. VALUE is JSON or text. Repeatable.")] = None,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Show the progress until it ends.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the end, then show the execution.")] = False,
    revision: Annotated[int, typer.Option(min=0, help="Revision to run; 0 for the latest.")] = 0,
    request_id: Annotated[str | None, _option("Id of this request: the same id starts nothing twice.")] = None,
    tag: Annotated[_Strings, _option("Tag to find it by. Repeatable.")] = None,
    metadata: Annotated[_Strings, _option("Label to find it by, KEY=VALUE. Repeatable.")] = None,
    priority: Annotated[int | None, _option("Priority, -100 to 100; higher goes first.")] = None,
    correlation_id: Annotated[str, _option("Id of what it belongs to, such as a CI run.")] = "",
    start_delay: Annotated[str | None, _option("Pause before the start, such as 30s or 2h.")] = None,
    timeout: Annotated[str | None, _option("How long it may take from its start, such as 10m.")] = None,
) -> int:
    """Start an execution. With --watch or --wait it ends with 1 unless the execution completed."""
    from flowkeep.requests import execute_request
    from service.cli.arguments import check_span, parse_pairs, read_input

    options: ExecuteOptions = {
        "revision": revision,
        "request_id": request_id,
        "tags": tag or (),
        "metadata": dict(parse_pairs(metadata or (), "--metadata")),
        "priority": priority,
        "correlation_id": correlation_id,
        "start_delay": check_span(start_delay, "--start-delay"),
        "timeout": check_span(timeout, "--timeout"),
    }
    request = execute_request(workflow, read_input(input, set or ()), **options)
    started = await session.client.start(request)
    if watch:
        return await _follow(session, started.execution.execution_id)
    if wait:
        return await _wait(session, started.execution)
    _show_started(session, started.execution, created=started.created)
    return 0


async def get(session: Session, execution_id: _Id) -> None:
    """Show an execution with its steps, input and result."""
    _show_execution(session, await session.client.get_execution(execution_id))


async def list_executions(
    session: Session,
    workflow: Annotated[str, _option("Only of this workflow, by name or id.")] = "",
    state: Annotated[_Strings, _option("Only in this state, such as FAILED. Repeatable: in one of them.")] = None,
    triggered_by: Annotated[str, _option("Only those that this subject started.")] = "",
    tag: Annotated[_Strings, _option("Only with this tag. Repeatable: with all of them.")] = None,
    metadata: Annotated[_Strings, _option("Only with this label, KEY=VALUE. Repeatable.")] = None,
    correlation_id: Annotated[str, _option("Only with this correlation id.")] = "",
    created_after: Annotated[str | None, _option("Only created since a time, or a span before now: 2h.")] = None,
    created_before: Annotated[str | None, _option("Only created before a time.")] = None,
    ended_after: Annotated[str | None, _option("Only ended since a time.")] = None,
    ended_before: Annotated[str | None, _option("Only ended before a time.")] = None,
    order: Annotated[str, typer.Option(help="newest, longest or last-ended.")] = "newest",
    limit: Annotated[int, typer.Option(min=0, help="How many at most; 0 for all.")] = 50,
    page_token: Annotated[str, _option("next_page_token of the list before.")] = "",
    count: Annotated[bool, typer.Option("--count", help="Also count all that meet the filters.")] = False,
) -> None:
    """List executions, newest first."""
    from flowkeep.v1.execution_pb2 import Execution
    from flowkeep.v1.execution_service_pb2 import ListExecutionsRequest
    from service.cli.arguments import parse_choice, parse_pairs, parse_time

    states = [name.removeprefix("STATE_") for name in Execution.State.keys()[1:]]
    orders = [name.removeprefix("ORDER_") for name in ListExecutionsRequest.Order.keys()[1:]]
    filters: ExecutionFilters = {
        "workflow": workflow,
        "states": [parse_choice(each, states, "--state") for each in state or ()],
        "triggered_by": triggered_by,
        "tags": tag or (),
        "metadata": dict(parse_pairs(metadata or (), "--metadata")),
        "correlation_id": correlation_id,
        "created_from": parse_time(created_after, "--created-after"),
        "created_before": parse_time(created_before, "--created-before"),
        "ended_from": parse_time(ended_after, "--ended-after"),
        "ended_before": parse_time(ended_before, "--ended-before"),
        "order": parse_choice(order, orders, "--order"),
    }
    await _list(session, filters, limit, page_token, count=count)


async def watch(
    session: Session,
    execution_id: _Id,
    after_seq: Annotated[int, typer.Option(min=0, help="Only the events after this one.")] = 0,
) -> int:
    """Show the progress of an execution until it ends. Ends with 1 unless the execution completed."""
    return await _follow(session, execution_id, after_seq)


async def cancel(
    session: Session,
    execution_id: _Id,
    reason: Annotated[str, _option("Why, for the history.")] = "",
) -> None:
    """Cancel an execution and show what was stopped."""
    from service.cli.json_form import json_form
    from service.cli.rendering import show, show_json
    from service.cli.tables import receipt_view

    response = await session.client.cancel(execution_id, reason)
    if session.json:
        show_json(json_form(response))
    else:
        show(receipt_view(response))


async def _list(session: Session, filters: ExecutionFilters, limit: int, page_token: str, *, count: bool) -> None:
    from service.cli.json_form import json_form
    from service.cli.rendering import show, show_json
    from service.cli.tables import executions_table

    found: list[Execution] = []
    total = 0
    while True:
        size = min(limit - len(found), _LARGEST_PAGE) if limit else _LARGEST_PAGE
        page = await session.client.list_page(page_size=size, page_token=page_token, count_total=count, **filters)
        found += page.executions
        page_token, total, count = page.next_page_token, total or page.total_size, False
        if not page_token or (limit and len(found) >= limit):
            break
    if session.json:
        executions = [json_form(execution) for execution in found]
        show_json({"executions": executions, "next_page_token": page_token, "total_size": total})
        return
    show(executions_table(found) if found else "No executions meet the filters.")
    if total:
        show(f"{total if total <= 10_000 else 'more than 10000'} in all")
    if page_token:
        show("There are more: --limit 0 lists all.")


async def _follow(session: Session, execution_id: str, after_seq: int = 0) -> int:
    from service.cli.progress import news, show_progress
    from service.cli.progress_state import Progress

    execution = await session.client.get_execution(execution_id)
    progress = Progress(execution.definition, execution_id=execution_id)
    if after_seq:
        progress = Progress.of_execution(execution)
    try:
        async with aclosing(news(session.client.watch_responses(execution_id, after_seq))) as happenings:
            finished = await show_progress(happenings, progress, output=session.output)
    except asyncio.CancelledError:
        typer.echo(f"The execution goes on. See it again with: flowkeep watch {execution_id}", err=True)
        raise
    if finished is None:  # the events after the last one were asked for
        return _code(execution)
    if not session.json:
        show_outcome(finished)
    return _code(finished)


async def _wait(session: Session, execution: Execution) -> int:
    # By watching: one call that waits could not outlast a restart of the server, nor the longest deadline.
    async with aclosing(session.client.watch(execution.execution_id, max(0, execution.last_seq - 1))) as events:
        async for _ in events:
            pass
    ended = await session.client.get_execution(execution.execution_id)
    _show_execution(session, ended)
    return _code(ended)


def show_outcome(finished: ExecutionFinished) -> None:
    """Print what came of an execution: its result as JSON, or why it failed."""
    from flowkeep.payload import from_value
    from service.cli.failures import failure_text
    from service.cli.rendering import show
    from service.cli.tables import result_view

    if finished.HasField("failure"):
        show(failure_text(finished.failure))
    elif finished.HasField("result"):
        show(result_view(from_value(finished.result)))


def _show_started(session: Session, execution: Execution, *, created: bool) -> None:
    from service.cli.json_form import json_form
    from service.cli.rendering import plain, show, show_json
    from service.cli.tables import state_name

    if session.json:
        show_json(json_form(execution) | {"created": created})
        return
    what = "Started" if created else "This request had started"
    show(
        plain(f"{what} {execution.workflow_name} (revision {execution.revision}), {state_name(execution)}:"),
        execution.execution_id,
        plain(f"Follow it with: flowkeep watch {execution.execution_id}", "dim"),
    )


def _show_execution(session: Session, execution: Execution) -> None:
    from service.cli.json_form import json_form
    from service.cli.rendering import show, show_json
    from service.cli.tables import execution_view

    if session.json:
        show_json(json_form(execution))
    else:
        show(execution_view(execution))


def _code(ended: Execution | ExecutionFinished) -> int:
    from flowkeep.v1.execution_pb2 import Execution

    return 0 if ended.state == Execution.STATE_COMPLETED else 1
