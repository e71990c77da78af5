"""Commands about operations in bulk: cancel, pause, resume, retry, terminate many; list, get, watch, stop, results."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Annotated, Any

import typer

from service.cli.arguments import RequestId
from service.cli.session import Command, Session, command

if TYPE_CHECKING:
    from flowkeep.bulk import BulkOptions
    from flowkeep.v1.bulk_pb2 import Bulk

# What works with messages is imported within the commands, so that the help need not wait for gRPC.

_PANEL = "Executions"
_Id = Annotated[str, typer.Argument(help="Id of the operation.", show_default=False)]
_Strings = list[str] | None
_OF_PAUSE, _OF_RETRY = ("hard", "stop_deadline"), ("timeout",)
_HELP = (
    "Cancel, pause, resume, retry or terminate many executions at once, in an operation that goes on by itself, also"
    " when you leave."
)
_ACTIONS = {
    "cancel": ("Cancel all executions that meet the filters.", _OF_PAUSE + _OF_RETRY),
    "pause": ("Let nothing of executions begin until they are resumed.", _OF_RETRY),
    "resume": ("Let paused executions go on.", _OF_PAUSE + _OF_RETRY),
    "terminate": ("End executions at once, without waiting for what runs.", _OF_PAUSE + _OF_RETRY),
    "retry": ("Let executions that failed or timed out go on from what failed.", _OF_PAUSE),
}
"""What each command does, and the options that are not its own."""


def _option(help: str, *names: str) -> Any:
    return typer.Option(*names, help=help, show_default=False)


def register(app: typer.Typer) -> None:
    """Add the commands to the app."""
    group = typer.Typer(no_args_is_help=True, help=_HELP)
    for action, (text, left_out) in _ACTIONS.items():
        command(group, action)(_acting(action, text, left_out))
    for name, function in (
        ("list", list_bulks),
        ("get", get),
        ("watch", watch),
        ("stop", stop),
        ("results", results),
    ):
        command(group, name)(function)
    app.add_typer(group, name="bulk", rich_help_panel=_PANEL)


def _acting(action: str, text: str, left_out: tuple[str, ...]) -> Command:
    """Return the command that starts one kind of operation, with the options that belong to it."""

    async def act(session: Session, **given: Any) -> int:
        return await _start(session, action, **given)

    act.__doc__ = text
    like = inspect.signature(_start, eval_str=True)
    wanted = [each for name, each in like.parameters.items() if name not in ("action", *left_out)]
    act.__signature__ = like.replace(parameters=wanted)  # type: ignore[attr-defined]
    act.__annotations__ = {each.name: each.annotation for each in wanted}
    return act


async def _start(
    session: Session,
    action: str,
    workflow: Annotated[str, _option("Only of this workflow, by name or id.")] = "",
    state: Annotated[_Strings, _option("Only in this state, such as RUNNING. Repeatable: in one of them.")] = None,
    owner: Annotated[str, _option("Only those that this subject started.")] = "",
    tag: Annotated[_Strings, _option("Only with this tag. Repeatable: with all of them.")] = None,
    label: Annotated[_Strings, _option("Only with this label, KEY=VALUE. Repeatable.")] = None,
    correlation_id: Annotated[str, _option("Only with this correlation id.")] = "",
    created_after: Annotated[str | None, _option("Only created since a time, or a span before now: 2h.")] = None,
    created_before: Annotated[str | None, _option("Only created before a time.")] = None,
    ended_after: Annotated[str | None, _option("Only ended since a time.")] = None,
    ended_before: Annotated[str | None, _option("Only ended before a time.")] = None,
    everything: Annotated[bool, _option("All executions that are in the states.", "--all")] = False,
    reason: Annotated[str, _option("Why, for the history of each.")] = "",
    hard: Annotated[bool, _option("Stop what runs, too; it is made again when resumed.", "--hard")] = False,
    stop_deadline: Annotated[bool, _option("Let the time of the pause not count.", "--stop-deadline")] = False,
    timeout: Annotated[str | None, _option("How long each new run may take, such as 10m.")] = None,
    limit: Annotated[int, typer.Option(min=0, help="Executions after which it ends; 0 for as many as may be.")] = 0,
    rate: Annotated[int, typer.Option(min=0, help="Executions a second at most; 0 for as many as fit.")] = 0,
    dry_run: Annotated[bool, _option("Only count them, and show the first.", "--dry-run")] = False,
    watch: Annotated[bool, _option("Show the progress until it ends.", "--watch", "-w")] = False,
    request_id: RequestId = None,
) -> int:
    from flowkeep.v1.execution_pb2 import Execution
    from service.cli.arguments import check_span, parse_choice, parse_pairs, parse_time

    states = [name.removeprefix("STATE_") for name in Execution.State.keys()[1:]]
    options: BulkOptions = {
        "workflow": workflow,
        "states": [parse_choice(each, states, "--state") for each in state or ()],
        "owner": owner,
        "tags": tag or (),
        "labels": dict(parse_pairs(label or (), "--label")),
        "correlation_id": correlation_id,
        "created_from": parse_time(created_after, "--created-after"),
        "created_before": parse_time(created_before, "--created-before"),
        "ended_from": parse_time(ended_after, "--ended-after"),
        "ended_before": parse_time(ended_before, "--ended-before"),
        "match_all": everything,
        "reason": reason,
        "hard": hard,
        "stop_deadline": stop_deadline,
        "timeout": check_span(timeout, "--timeout"),
        "limit": limit,
        "rate": rate,
    }
    if dry_run:
        await _preview(session, action, options)
        return 0
    bulk = await session.client.start_bulk(action, request_id=request_id, **options)
    if watch:
        return await _follow(session, bulk.bulk_id)
    _show(session, bulk)
    return 0


async def list_bulks(
    session: Session,
    state: Annotated[_Strings, _option("Only in this state, such as RUNNING. Repeatable: in one of them.")] = None,
    limit: Annotated[int, typer.Option(min=0, help="How many at most; 0 for all.")] = 50,
) -> None:
    """List operations in bulk, newest first. They are kept for 30 days after their end."""
    from flowkeep.v1.bulk_pb2 import Bulk
    from service.cli.arguments import parse_choice
    from service.cli.bulk_view import bulks_table
    from service.cli.json_form import json_form
    from service.cli.rendering import show, show_json

    names = [name.removeprefix("STATE_") for name in Bulk.State.keys()[1:]]
    states = [parse_choice(each, names, "--state") for each in state or ()]
    found: list[Bulk] = []
    async for bulk in session.client.list_bulks(states=states, page_size=min(limit, 200)):
        found.append(bulk)
        if len(found) == limit:
            break
    if session.json:
        show_json({"bulks": [json_form(bulk) for bulk in found]})
    else:
        show(bulks_table(found) if found else "There are no operations in bulk.")


async def get(session: Session, bulk_id: _Id) -> None:
    """Show an operation in bulk, and how far it has come."""
    _show(session, await session.client.get_bulk(bulk_id))


async def watch(session: Session, bulk_id: _Id) -> int:
    """Show the progress of an operation in bulk until it ends. Ends with 1 if an execution was refused."""
    return await _follow(session, bulk_id)


async def stop(session: Session, bulk_id: _Id) -> None:
    """Let an operation in bulk do nothing more; what it has done stays done."""
    _show(session, await session.client.stop_bulk(bulk_id))


async def results(
    session: Session,
    bulk_id: _Id,
    outcome: Annotated[_Strings, _option("Only these: DONE, REFUSED or NOT_FOUND. Repeatable.")] = None,
    limit: Annotated[int, typer.Option(min=0, help="How many at most; 0 for all.")] = 200,
) -> None:
    """List what came of each execution, in the order in which the operation came to them."""
    from flowkeep.v1.bulk_pb2 import BulkResult
    from service.cli.arguments import parse_choice
    from service.cli.bulk_view import results_table
    from service.cli.json_form import json_form
    from service.cli.rendering import show, show_json

    names = [name.removeprefix("OUTCOME_") for name in BulkResult.Outcome.keys()[1:]]
    outcomes = [parse_choice(each, names, "--outcome") for each in outcome or ()]
    found: list[BulkResult] = []
    async for result in session.client.list_bulk_results(bulk_id, outcomes=outcomes, page_size=min(limit, 200)):
        found.append(result)
        if len(found) == limit:
            break
    if session.json:
        show_json({"results": [json_form(result) for result in found]})
    else:
        show(results_table(found) if found else "There are no results.")


async def _preview(session: Session, action: str, options: BulkOptions) -> None:
    from service.cli.json_form import json_form
    from service.cli.rendering import plain, show, show_json
    from service.cli.tables import executions_table

    found = await session.client.preview_bulk(action, **options)
    if session.json:
        show_json(json_form(found))
        return
    number = f"{'at least ' if found.matched_at_least else ''}{found.matched_count}"
    show(plain(f"It would {action} {number} execution{'' if number == '1' else 's'}. Nothing was done."))
    if found.sample:
        show(executions_table(found.sample))


async def _follow(session: Session, bulk_id: str) -> int:
    from contextlib import aclosing

    from service.cli.bulk_view import progress_line
    from service.cli.json_form import json_form
    from service.cli.rendering import plain, show, show_json

    bulk: Bulk | None = None
    async with aclosing(session.client.watch_bulk(bulk_id)) as watch:
        async for bulk in watch:
            if session.json:
                show_json(json_form(bulk))
            else:
                show(plain(progress_line(bulk)))
    return 1 if bulk is not None and bulk.refused_count else 0


def _show(session: Session, bulk: Bulk) -> None:
    from service.cli.bulk_view import bulk_view
    from service.cli.json_form import json_form
    from service.cli.rendering import show, show_json

    if session.json:
        show_json(json_form(bulk))
    else:
        show(bulk_view(bulk))
