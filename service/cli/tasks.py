"""Commands about tasks of people: list, watch, show, claim, release, complete, delegate, comment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from service.cli.arguments import SET_HELP, SET_STRING_HELP, RequestId
from service.cli.session import Session, command

if TYPE_CHECKING:
    from flowkeep.tasks import TaskFilters
    from flowkeep.v1.task_pb2 import Task

# What works with messages is imported within the commands, so that the help need not wait for gRPC.

_PANEL = "People"
_Id = Annotated[str, typer.Argument(help="Id of the task.", show_default=False)]
_Strings = list[str] | None


def _option(help: str, *names: str) -> Any:
    return typer.Option(*names, help=help, show_default=False)


_Mine = Annotated[bool, typer.Option("--mine", help="Only those that you could complete.")]
_State = Annotated[_Strings, _option("Only in this state, such as OPEN. Repeatable: in one of them.")]
_Everything = Annotated[bool, typer.Option("--all", help="Also those that have ended.")]
_Group = Annotated[str, _option("Only those for this group.")]
_Execution = Annotated[str, _option("Only those of this execution, by its id or first 8 or more digits.")]
_Comment = Annotated[str, _option("What there is to say about it.", "--comment", "-m")]


def register(app: typer.Typer) -> None:
    """Add the commands to the app."""
    group = typer.Typer(no_args_is_help=True, help="Work on tasks that workflows have for people, such as approvals.")
    for name, function in (
        ("list", list_tasks),
        ("watch", watch),
        ("show", show_task),
        ("claim", claim),
        ("release", release),
        ("complete", complete),
        ("delegate", delegate),
        ("comment", comment_on),
    ):
        command(group, name)(function)
    app.add_typer(group, name="tasks", rich_help_panel=_PANEL)


async def list_tasks(
    session: Session,
    mine: _Mine = False,
    state: _State = None,
    everything: _Everything = False,
    group: _Group = "",
    execution: _Execution = "",
    limit: Annotated[int, typer.Option(min=0, help="How many at most; 0 for all.")] = 50,
) -> None:
    """List tasks, newest first: without --all or --state those that have not ended."""
    from service.cli.json_form import json_form
    from service.cli.rendering import show, show_json
    from service.cli.task_view import tasks_table

    filters = await _filters(session, state or (), execution, mine=mine, group=group, everything=everything)
    found: list[Task] = []
    async for task in session.client.list_tasks(page_size=min(limit, 200), **filters):
        found.append(task)
        if len(found) == limit:
            break
    if session.json:
        show_json({"tasks": [json_form(task) for task in found]})
    else:
        show(tasks_table(found) if found else "No tasks meet the filters.")


async def watch(
    session: Session,
    mine: _Mine = False,
    state: _State = None,
    everything: _Everything = False,
    group: _Group = "",
    execution: _Execution = "",
) -> None:
    """Show tasks as `list` does, newest last, then each as it comes, changes or goes, until interrupted.

    With JSON, one a line: a task, or what has gone as `gone_task_id`.
    """
    from contextlib import aclosing

    from service.cli.json_form import json_form
    from service.cli.rendering import show, show_json
    from service.cli.task_view import gone_line, task_line

    filters = await _filters(session, state or (), execution, mine=mine, group=group, everything=everything)
    seen: dict[str, int] = {}
    async with aclosing(session.client.watch_tasks(**filters)) as responses:
        async for response in responses:
            # After a break all of them come again: what is shown already is known by its version.
            news = [task for task in reversed(response.tasks) if seen.get(task.task_id) != task.version]
            for task in news:
                seen[task.task_id] = task.version
                if session.json:
                    show_json(json_form(task), line=True)
                else:
                    show(task_line(task))
            for task_id in response.gone_task_ids:
                seen.pop(task_id, None)
                if session.json:
                    show_json({"gone_task_id": task_id}, line=True)
                else:
                    show(gone_line(task_id))


async def _filters(
    session: Session, state: Sequence[str], execution: str, *, mine: bool, group: str, everything: bool
) -> TaskFilters:
    from flowkeep.v1.task_pb2 import Task
    from service.cli.arguments import parse_choice
    from service.cli.execution_ids import whole_id

    names = [name.removeprefix("STATE_") for name in Task.State.keys()[1:]]
    states = [parse_choice(each, names, "--state") for each in state]
    filters: TaskFilters = {"mine": mine, "group": group, "states": states}
    if not states and not everything:
        filters["states"] = ["OPEN", "CLAIMED"]
    if execution:
        filters["execution_id"] = await whole_id(session.client, execution)
    return filters


async def show_task(session: Session, task_id: _Id) -> None:
    """Show a task with its form, and how to complete it."""
    _show(session, await session.client.get_task(task_id))


async def claim(session: Session, task_id: _Id, request_id: RequestId = None) -> None:
    """Take a task, so that nobody else works on it."""
    _show(session, await session.client.claim_task(task_id, request_id=request_id))


async def release(session: Session, task_id: _Id, request_id: RequestId = None) -> None:
    """Give a claimed task back."""
    _show(session, await session.client.release_task(task_id, request_id=request_id))


async def complete(
    session: Session,
    task_id: _Id,
    outcome: Annotated[
        str, typer.Argument(help="One of its outcomes; may be left out when there is one.", show_default=False)
    ] = "",
    values: Annotated[str | None, _option("What to fill in: JSON, @FILE, or - for standard input.", "--values")] = None,
    set: Annotated[_Strings, _option(SET_HELP)] = None,
    set_string: Annotated[_Strings, _option(SET_STRING_HELP)] = None,
    comment: _Comment = "",
    request_id: RequestId = None,
) -> None:
    """End a task with an outcome, and what its form asks for."""
    from service.cli.arguments import read_input

    given = read_input(values, set or (), set_string or ())
    task = await session.client.complete_task(task_id, outcome, given, comment=comment, request_id=request_id)
    _show(session, task)


async def delegate(
    session: Session,
    task_id: _Id,
    assignee: Annotated[str, typer.Argument(help="Subject that the task is for from now on.", show_default=False)],
    comment: _Comment = "",
    request_id: RequestId = None,
) -> None:
    """Hand a task to somebody else."""
    _show(session, await session.client.delegate_task(task_id, assignee, comment=comment, request_id=request_id))


async def comment_on(
    session: Session,
    task_id: _Id,
    text: Annotated[str, typer.Argument(help="What there is to say.", show_default=False)],
    request_id: RequestId = None,
) -> None:
    """Add a comment to a task."""
    _show(session, await session.client.comment_task(task_id, text, request_id=request_id))


def _show(session: Session, task: Task) -> None:
    from service.cli.json_form import json_form
    from service.cli.rendering import show, show_json
    from service.cli.task_view import task_view

    if session.json:
        show_json(json_form(task))
    else:
        show(task_view(task))
