"""The rows of what few transitions carry beside steps and events, by the names of PARTS."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias
from uuid import UUID

from persistence.people import NewTask, check_tasks
from persistence.postgres.commit import columns
from persistence.transition import NewExecution, Transition

Parts: TypeAlias = Mapping[str, Sequence[bytes]]

NONE: Parts = {}


def of_creation(new: NewExecution) -> Parts:
    """Return the rows of a creation. Raises PersistenceError for what cannot be written at once."""
    check_tasks(new.tasks, ())
    return {"tasks": _tasks(new.execution.org, new.execution.id, new.tasks)}


def of_transition(transition: Transition) -> Parts:
    """Return the rows of a transition; most have none."""
    org, execution_id = transition.org, transition.execution_id
    if not (transition.consumed or transition.letters or transition.tasks or transition.task_changes):
        return NONE
    return {
        "consumed": [
            columns.CONSUMED.encode(each, org_id=org, execution_id=execution_id) for each in transition.consumed
        ],
        "letters": [
            columns.MESSAGE.encode(each.message, org_id=org, execution_id=each.execution_id)
            for each in transition.letters
        ],
        "tasks": _tasks(org, execution_id, transition.tasks),
        "task_changes": [columns.TASK_CHANGE.encode(each, org_id=org) for each in transition.task_changes],
    }


def task_ids(transition: Transition) -> list[UUID]:
    """Return the ids of the tasks that a transition makes or changes."""
    return [*(task.id for task in transition.tasks), *(change.id for change in transition.task_changes)]


def _tasks(org: str, execution_id: UUID, tasks: Sequence[NewTask]) -> list[bytes]:
    return [columns.TASK.encode(each, org_id=org, execution_id=execution_id) for each in tasks]
