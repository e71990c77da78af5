"""Tasks of people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from uuid import UUID

from msgspec.structs import replace

from persistence.errors import TaskNotFoundError
from persistence.memory import invariants
from persistence.memory.json import copied, text
from persistence.memory.tables import Tables
from persistence.model import Posted
from persistence.people import (
    Act,
    Acted,
    Complete,
    NewTask,
    Person,
    Task,
    TaskChange,
    TaskFilter,
    TaskState,
    acted,
    changed,
    completion,
    new_task,
)
from persistence.requests import Request


class MemoryTasks:
    """Implements TaskRepository."""

    _tables: Tables

    async def get_task(self, person: Person, task_id: UUID) -> Task:
        """See TaskRepository."""
        task = self._tables.tasks.get(task_id)
        if task is None or not person.sees(task):
            raise TaskNotFoundError(task_id)
        return _fresh(task)

    async def list_tasks(self, person: Person, where: TaskFilter, after: UUID | None, limit: int) -> Sequence[Task]:
        """See TaskRepository."""
        found = [task for task in self._tables.tasks.values() if where.takes(task, person)]
        found.sort(key=lambda task: task.id, reverse=True)
        rest = [task for task in found if after is None or task.id < after]
        return [replace(task, description="", form=None, values=None, comments=()) for task in rest[:limit]]

    async def task_versions(self, person: Person, where: TaskFilter, limit: int) -> Mapping[UUID, int]:
        """See TaskRepository."""
        return {task.id: task.version for task in await self.list_tasks(person, where, None, limit)}

    async def act(self, person: Person, task_id: UUID, act: Act, request: Request | None = None) -> Acted:
        """See TaskRepository."""
        tables, now = self._tables, self._tables.now()
        is_known = tables.known(person.org, request) is not None
        task = tables.tasks.get(task_id)
        if task is None or task.org != person.org:
            raise TaskNotFoundError(task_id)
        if is_known:
            return Acted(_fresh(task))
        after = acted(task, person, act, now)
        _check(after)
        tables.tasks[task_id] = _fresh(after)
        tables.keep(person.org, request, execution_id=task.execution_id)
        if isinstance(act, Complete) and task.waited:
            return Acted(_fresh(after), _told(tables, after, act, now))
        return Acted(_fresh(after))


def keep(
    tables: Tables, org: str, execution_id: UUID, made: Sequence[NewTask], changes: Sequence[TaskChange] = ()
) -> None:
    """Keep what a creation or a transition makes of tasks. Raises PersistenceError when they cannot be kept."""
    fresh = [new_task(each, org, execution_id) for each in made]
    for task in fresh:
        _check(task)
    tables.tasks.update((task.id, _fresh(task)) for task in fresh)
    for change in changes:
        before = tables.tasks.get(change.id)
        if before is not None and before.org == org:
            tables.tasks[change.id] = changed(before, change)


def cancel(tables: Tables, execution_id: UUID, now: datetime) -> None:
    """End the tasks that an execution waits for, which has ended."""
    for task in list(tables.tasks.values()):
        if task.execution_id == execution_id and task.waited:
            tables.tasks[task.id] = changed(task, TaskChange(task.id, TaskState.CANCELLED, now))


def remove(tables: Tables, execution_id: UUID) -> None:
    """Remove the tasks of an execution that is removed."""
    for task_id in [task.id for task in tables.tasks.values() if task.execution_id == execution_id]:
        del tables.tasks[task_id]


def _told(tables: Tables, task: Task, act: Complete, now: datetime) -> Posted | None:
    """Tell the execution of a task that it was completed; None when there is none that could wait for it."""
    row = tables.executions.get(task.execution_id)
    if row is None or row.execution.state.is_end:
        return None
    before, message = row.execution, completion(task, act, now)
    invariants.check_message(message)
    tables.send(before.org, before.id, message)
    wake_time = before.wake_time and min(before.wake_time, now)
    row.execution = replace(before, mail=before.mail + 1, wake_time=wake_time)
    return Posted(row.fresh(), message)


def _check(task: Task) -> None:
    invariants.check_text(task.title, task.claimed_by, task.completed_by, *task.assignees, *task.groups)
    invariants.check_text(task.outcome, *task.outcomes, limit=64)
    invariants.check_text(task.path, limit=1024)
    text(task.description)
    for comment in task.comments:
        text(comment.text)


def _fresh(task: Task) -> Task:
    """Return the task, sharing nothing that can be changed."""
    return replace(task, form=copied(task.form), values=copied(task.values))
