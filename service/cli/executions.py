"""Commands about executions: execute, batch, get, steps, list, watch, events, replay, compare, cancel, retry."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from service.cli.arguments import SET_HELP, SET_STRING_HELP, IsDry, Mocks, RequestId, SkipWaits
from service.cli.explaining import explain, queue
from service.cli.retry import retry
from service.cli.session import Session, command

if TYPE_CHECKING:
    from flowkeep.requests import ExecuteOptions, ListOptions
    from flowkeep.v1.execution_pb2 import Execution
    from flowkeep.v1.execution_service_pb2 import ExecuteResponse, ListStepsRequest

# What works with messages is imported within the commands, so that the help need not wait for gRPC.

_PANEL = "Executions"
_LARGEST_PAGE = 200
_Id = Annotated[str, typer.Argument(help="Id of the execution, or its first 8 or more digits.", show_default=False)]
_AfterSeq = Annotated[int, typer.Option(min=0, help="Only the events after the one with this number.")]
_Strings = list[str] | None


def register(app: typer.Typer) -> None:
    """Add the commands to the app."""
    for name, function in (
        ("execute", execute),
        ("batch", batch),
        ("get", get),
        ("steps", steps),
        ("list", list_executions),
        ("watch", watch),
        ("events", events),
        ("replay", replay),
        ("compare", compare),
        ("explain", explain),
        ("queue", queue),
        ("cancel", cancel),
        ("retry", retry),
    ):
        command(app, name, panel=_PANEL)(function)


def _option(help: str, *names: str) -> Any:
    return typer.Option(*names, help=help, show_default=False)


async def execute(
    session: Session,
    workflow: Annotated[str, typer.Argument(help="Name or id of the workflow.", show_default=False)],
    input: Annotated[str | None, _option("Input: JSON, @FILE, or - for standard input.", "--input", "-i")] = None,
    set: Annotated[_Strings, _option(SET_HELP)] = None,
    set_string: Annotated[_Strings, _option(SET_STRING_HELP)] = None,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Show the progress until it ends.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the end, then show the execution.")] = False,
    revision: Annotated[int, typer.Option(min=0, help="Revision to run; 0 for the latest.")] = 0,
    request_id: RequestId = None,
    tag: Annotated[_Strings, _option("Tag to find it by. Repeatable.")] = None,
    label: Annotated[_Strings, _option("Label to find it by, KEY=VALUE. Repeatable.")] = None,
    priority: Annotated[int | None, _option("Priority, -100 to 100; higher goes first.")] = None,
    correlation_id: Annotated[str, _option("Id of what it belongs to, such as a CI run.")] = "",
    start_delay: Annotated[str | None, _option("Pause before the start, such as 30s or 2h.")] = None,
    timeout: Annotated[str | None, _option("How long it may take from its start, such as 10m.")] = None,
    dry_run: IsDry = False,
    mocks: Mocks = "",
    skip_waits: SkipWaits = False,
) -> int:
    """Start an execution and name it. Ends with 1 if it has failed; with --watch or --wait unless it completed."""
    from flowkeep.requests import execute_request
    from service.cli import following
    from service.cli.arguments import check_span, parse_pairs, read_input
    from service.cli.dry_runs import read_dry_run

    if input == mocks == "-":
        raise typer.BadParameter("standard input can be read once")
    options: ExecuteOptions = {
        "revision": revision,
        "request_id": request_id,
        "tags": tag or (),
        "labels": dict(parse_pairs(label or (), "--label")),
        "priority": priority,
        "correlation_id": correlation_id,
        "start_delay": check_span(start_delay, "--start-delay"),
        "timeout": check_span(timeout, "--timeout"),
        "dry_run": read_dry_run(mocks, is_dry=dry_run, skips_waits=skip_waits),
    }
    request = execute_request(workflow, read_input(input, set or (), set_string or ()), **options)
    with following.told_how_to_ask_again(session, request.request_id):
        started = await session.client.start(request)
    if not (watch or wait):
        return _show_started(session, started)
    following.name_started(session, started)
    if watch:
        return await following.follow(session, started.execution.execution_id)
    return await following.wait(session, started.execution)


async def batch(
    session: Session,
    file: Annotated[
        str, typer.Argument(help="Requests as JSON, one on a line; - for standard input.", show_default=False)
    ],
    workflow: Annotated[str, _option("Name or id of the workflow, for lines that name none.")] = "",
) -> int:
    """Start the executions that a file asks for, and name each. Ends with 1 if one was refused or has failed.

    A line is an object such as {"workflow": "hello", "input": {"name": "Ann"}, "request_id": "r-1"}; it may have
    revision, tags, labels, priority, correlation_id, start_delay and timeout, too. With request ids a file may be sent
    again: nothing is started twice.
    """
    from service.cli.batch import execute_all, read_requests

    return await execute_all(session, read_requests(file, workflow))


async def get(
    session: Session,
    execution_id: _Id,
    step: Annotated[str, _option("Show all of this step: input, output, attempts, failure, stack trace.")] = "",
    at: Annotated[
        int, typer.Option("--at", min=0, help="Show it as it was after this event of its history; 0 for now.")
    ] = 0,
    iteration: Annotated[
        int, typer.Option("--iteration", min=0, help="Show this whole run of the step; 0 for the newest.")
    ] = 0,
) -> None:
    """Show an execution with its steps, input and result, or one of its steps."""
    from service.cli.execution_ids import whole_id
    from service.cli.following import show_execution

    if iteration and not step:
        raise typer.BadParameter("is that of a step; name it with --step", param_hint="--iteration")
    if step and at:
        raise typer.BadParameter("shows the whole execution; leave --step out", param_hint="--at")
    execution_id = await whole_id(session.client, execution_id)
    if step:
        await _show_step(session, execution_id, step, iteration)
    else:
        show_execution(session, await session.client.get_execution(execution_id, at_seq=at))


async def steps(
    session: Session,
    execution_id: _Id,
    state: Annotated[_Strings, _option("Only in this state, such as FAILED. Repeatable: in one of them.")] = None,
    handler: Annotated[str, _option("Only those that run this handler.")] = "",
    full: Annotated[bool, typer.Option("--full", help="Show all of each: input, output, attempts, failure.")] = False,
    limit: Annotated[int, typer.Option(min=0, help="How many at most; 0 for all.")] = _LARGEST_PAGE,
    page_token: Annotated[str, _option("next_page_token of the list before.")] = "",
) -> None:
    """List the steps of an execution in the order of the definition, also where there are too many for `get`."""
    from flowkeep.requests import steps_request
    from flowkeep.v1.execution_pb2 import StepExecution, StepView
    from service.cli.arguments import parse_choice
    from service.cli.execution_ids import whole_id

    states = [name.removeprefix("STATE_") for name in StepExecution.State.keys()[1:]]
    request = steps_request(
        await whole_id(session.client, execution_id),
        states=[parse_choice(each, states, "--state") for each in state or ()],
        handler=handler,
        view=StepView.STEP_VIEW_FULL if full else StepView.STEP_VIEW_BASIC,
        page_token=page_token,
    )
    await _list_steps(session, request, limit)


async def list_executions(
    session: Session,
    workflow: Annotated[str, _option("Only of this workflow, by name or id.")] = "",
    state: Annotated[_Strings, _option("Only in this state, such as FAILED. Repeatable: in one of them.")] = None,
    owner: Annotated[str, _option("Only those that this subject started.")] = "",
    tag: Annotated[_Strings, _option("Only with this tag. Repeatable: with all of them.")] = None,
    label: Annotated[_Strings, _option("Only with this label, KEY=VALUE. Repeatable.")] = None,
    correlation_id: Annotated[str, _option("Only with this correlation id.")] = "",
    created_after: Annotated[str | None, _option("Only created since a time, or a span before now: 2h.")] = None,
    created_before: Annotated[str | None, _option("Only created before a time.")] = None,
    ended_after: Annotated[str | None, _option("Only ended since a time.")] = None,
    ended_before: Annotated[str | None, _option("Only ended before a time.")] = None,
    dry_run: Annotated[bool | None, _option("Only dry runs, or only what is none.", "--dry-run/--no-dry-run")] = None,
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
    options: ListOptions = {
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
        "dry_run": dry_run,
        "order": parse_choice(order, orders, "--order"),
    }
    await _list(session, options, limit, page_token, count=count)


async def watch(
    session: Session,
    execution_id: _Id,
    after_seq: _AfterSeq = 0,
) -> int:
    """Show the progress of an execution until it ends. Ends with 1 unless the execution completed."""
    from service.cli.execution_ids import whole_id
    from service.cli.following import follow

    return await follow(session, await whole_id(session.client, execution_id), after_seq)


async def events(
    session: Session,
    execution_id: _Id,
    after_seq: _AfterSeq = 0,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the execution has ended.")] = False,
) -> None:
    """Show the history of an execution, one event on a line."""
    from service.cli.execution_ids import whole_id
    from service.cli.following import show_history

    await show_history(session, await whole_id(session.client, execution_id), after_seq, to_the_end=follow)


async def replay(
    session: Session,
    execution_id: _Id,
    at: Annotated[int, typer.Option("--at", min=1, help="Begin after this event of its history.")] = 1,
    all: Annotated[bool, typer.Option("--all", help="Show every event from there on, and ask for nothing.")] = False,
) -> None:
    """Walk through the recorded history of an execution: on, back, to an event; nothing is run again.

    Shows each event with where the execution and its step stood, what the step was given and gave, and the variables.
    Takes commands from standard input, one on a line: n on, b back, a number for that event, s for all as it was then,
    h for the others.
    """
    from service.cli.execution_ids import whole_id
    from service.cli.replaying import walk, walk_through

    found = await whole_id(session.client, execution_id)
    await (walk_through if all else walk)(session, found, at)


async def compare(
    session: Session,
    execution_id: _Id,
    other: Annotated[str, typer.Argument(help="Id of the other execution, or its beginning.", show_default=False)],
) -> None:
    """Compare an execution with another one, of the same workflow or not: what differs first, then what is alike."""
    from service.cli.comparison_view import comparison_view
    from service.cli.execution_ids import whole_id
    from service.cli.json_form import json_form
    from service.cli.rendering import show, show_json

    ids = [await whole_id(session.client, each) for each in (execution_id, other)]
    found = await session.client.compare_executions(*ids)
    if session.json:
        show_json(json_form(found))
    else:
        show(comparison_view(found))


async def cancel(
    session: Session,
    execution_id: _Id,
    reason: Annotated[str, _option("Why, for the history.")] = "",
    request_id: RequestId = None,
) -> None:
    """Cancel an execution and show what was stopped."""
    from service.cli.execution_ids import whole_id
    from service.cli.json_form import json_form
    from service.cli.rendering import show, show_json
    from service.cli.tables import receipt_view

    found = await whole_id(session.client, execution_id)
    response = await session.client.cancel(found, reason, request_id=request_id)
    if session.json:
        show_json(json_form(response))
    else:
        show(receipt_view(response))


async def _list(session: Session, options: ListOptions, limit: int, page_token: str, *, count: bool) -> None:
    from service.cli.json_form import json_form
    from service.cli.rendering import show, show_json
    from service.cli.tables import executions_table

    found: list[Execution] = []
    total = 0
    while True:
        size = _page_size(limit, len(found))
        page = await session.client.list_page(page_size=size, page_token=page_token, count_total=count, **options)
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


async def _list_steps(session: Session, request: ListStepsRequest, limit: int) -> None:
    from flowkeep.v1.execution_pb2 import StepView
    from flowkeep.v1.execution_service_pb2 import ListStepsResponse
    from service.cli.json_form import json_form
    from service.cli.rendering import show, show_json
    from service.cli.step_view import step_view
    from service.cli.tables import steps_table

    whole = ListStepsResponse()
    while True:
        request.page_size = _page_size(limit, len(whole.steps))
        page = await session.client.steps_page(request)
        whole.ClearField("next_page_token")
        whole.MergeFrom(page)
        request.page_token = page.next_page_token
        if not page.next_page_token or (limit and len(whole.steps) >= limit):
            break
    if session.json:
        show_json(json_form(whole))
        return
    if request.view == StepView.STEP_VIEW_FULL:
        for step in whole.steps:
            show(step_view(request.execution_id, step, whole.unreadable, withheld=whole.definition_withheld), "")
    else:
        show(steps_table(whole.steps) if whole.steps else "No steps meet the filters.")
    if whole.next_page_token:
        show("There are more: --limit 0 lists all.")


def _page_size(limit: int, found: int) -> int:
    return min(limit - found, _LARGEST_PAGE) if limit else _LARGEST_PAGE


def _show_started(session: Session, started: ExecuteResponse) -> int:
    """Print what was started, and why it failed if it has already; return the exit code."""
    from service.cli.following import started_text
    from service.cli.json_form import json_form
    from service.cli.rendering import plain, show, show_json
    from service.cli.tables import ended_early, outcome_lines, state_name

    execution = started.execution
    code = 1 if ended_early(execution) else 0
    if session.json:
        show_json(json_form(execution) | {"created": started.created})
        return code
    show(
        plain(f"{started_text(started)}, {state_name(execution)}:"),
        execution.execution_id,
        *outcome_lines(execution),
    )
    if not execution.HasField("end_time"):
        show(plain(f"Follow it with: flowkeep watch {execution.execution_id}", "dim"))
    return code


async def _show_step(session: Session, execution_id: str, path: str, iteration: int) -> None:
    from flowkeep.errors import NotFoundError
    from flowkeep.requests import steps_request
    from service.cli.json_form import json_form
    from service.cli.rendering import show, show_json
    from service.cli.step_view import step_view

    try:
        found = await session.client.get_step(execution_id, path, iteration=iteration)
    except NotFoundError as error:
        if error.reason != "STEP_NOT_FOUND" or iteration:
            raise
        first = await session.client.steps_page(steps_request(execution_id))
        names = ", ".join(step.path for step in first.steps) + (", …" if first.next_page_token else "")
        raise typer.BadParameter(f"must be one of {names}, not {path!r}", param_hint="--step") from None
    if session.json:
        show_json(json_form(found.step))
    else:
        show(step_view(execution_id, found.step, found.unreadable, withheld=found.definition_withheld))
