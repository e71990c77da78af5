"""Tasks of people as they read them."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Group, RenderableType
from rich.text import Text

from flowkeep.definition import short_name
from flowkeep.payload import from_struct
from flowkeep.v1.task_pb2 import Task
from service.cli.columns import Facts, FittingTable, Prose
from service.cli.rendering import clean, one_line, payload_text, plain, time_text


def tasks_table(tasks: Iterable[Task]) -> FittingTable:
    """Return tasks as rows."""
    table = FittingTable(
        "ID", "STATE", "TITLE", "FOR", "DUE", "WORKFLOW", leave_out=("WORKFLOW", "DUE", "FOR", "STATE"), wraps="TITLE"
    )
    for task in tasks:
        table.add_row(
            task.task_id,
            plain(_state(task)),
            plain(task.title, "bold"),
            plain(_whose(task)),
            time_text(task.due_time),
            plain(task.workflow_name),
        )
    return table


def task_line(task: Task) -> Prose:
    """Return how a task stands, in a line."""
    said = plain(f"{task.task_id}  {time_text(task.update_time)}  ", "dim")
    said.append(_state(task).lower()).append("  ").append(one_line(clean(task.title)), "bold")
    return Prose(said.append(f"  {one_line(clean(task.outcome or _whose(task)))}", "dim"))


def gone_line(task_id: str) -> Prose:
    """Return that a task is none of those that are watched any more."""
    return Prose(plain(f"{task_id}  gone", "dim"))


def task_view(task: Task) -> Group:
    """Return a task with everything that is known of it."""
    parts: list[RenderableType] = [
        Facts(
            ("Task", plain(task.task_id, "bold")),
            ("Title", plain(task.title, "bold")),
            ("State", plain(_state(task))),
            ("For", plain(_whose(task))),
            ("Claimed by", plain(task.claimed_by)),
            ("Created", time_text(task.create_time)),
            ("Due", plain(time_text(task.due_time) + (", escalated" if task.escalated else ""))),
            ("Ended", time_text(task.end_time)),
            ("Outcome", plain(task.outcome)),
            ("Completed by", plain(task.completed_by)),
            ("Workflow", plain(task.workflow_name)),
            ("Execution", plain(task.execution_id)),
            ("Step", plain(task.step_path)),
        )
    ]
    if task.description:
        parts += [Text(), Prose(Text(clean(task.description)))]
    for name, given in (("Form", task.form), ("Values", task.values)):
        if given.fields:
            parts += [Text(), payload_text(name, from_struct(given))]
    for comment in task.comments:
        said = Text.assemble((f"{clean(comment.author)}, {time_text(comment.create_time)}: ", "dim"))
        parts += [Prose(said.append(clean(comment.text)))]
    if not task.HasField("end_time"):
        values = " --set NAME=VALUE" if task.form.fields else ""
        choice = "|".join(map(clean, task.outcomes))
        parts += [Text(), plain(f"Complete it with: flowkeep tasks complete {task.task_id} {choice}{values}", "dim")]
    return Group(*parts)


def _state(task: Task) -> str:
    return short_name(Task.State.DESCRIPTOR, task.state)


def _whose(task: Task) -> str:
    if task.claimed_by:
        return task.claimed_by
    return ", ".join((*task.assignees, *(f"group {each}" for each in task.groups))) or "everybody"
