"""Tasks of people: what a store keeps of them, and the rules by which people change them, which hold in every store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol
from uuid import UUID

import msgspec
from msgspec.structs import replace

from persistence.errors import (
    PersistenceError,
    TaskClaimedError,
    TaskEndedError,
    TaskNotAssignedError,
    TaskNotFoundError,
)
from persistence.model import Json, Message, MessageKind, Posted
from persistence.requests import Request

MOST_COMMENTS = 200
"""Comments that a task keeps; of more, the oldest go."""


class TaskState(StrEnum):
    """Where a task stands. The names are what the database holds."""

    OPEN = "OPEN"
    CLAIMED = "CLAIMED"
    COMPLETED = "COMPLETED"
    EXPIRED = "EXPIRED"
    CANCELLED = "CANCELLED"

    @property
    def is_end(self) -> bool:
        """Whether nothing follows this state."""
        return self in ENDED_TASKS


ENDED_TASKS = frozenset({TaskState.COMPLETED, TaskState.EXPIRED, TaskState.CANCELLED})


class Comment(msgspec.Struct, frozen=True):
    """What somebody said about a task."""

    author: str
    time: datetime
    text: str


class NewTask(msgspec.Struct, frozen=True):
    """A task that a transition or a creation makes for a step. It is for `assignees` and `groups`, or for everybody.

    `form` is a JSON Schema of the values to fill in. `waited`: the step waits for its end.
    """

    id: UUID
    path: str
    iteration: int
    title: str
    description: str
    form: Mapping[str, Json] | None
    outcomes: tuple[str, ...]
    assignees: tuple[str, ...]
    groups: tuple[str, ...]
    create_time: datetime
    due_time: datetime | None
    waited: bool
    workflow_name: str
    owner: str


class TaskChange(msgspec.Struct, frozen=True):
    """What a transition makes of a task that has not ended: an end, or with OPEN, that it is for others now."""

    id: UUID
    state: TaskState
    time: datetime
    outcome: str = ""
    assignees: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    due_time: datetime | None = None


class Task(msgspec.Struct, frozen=True):
    """A task as it is kept. `owner` started its execution. `version` rises with each change.

    In lists `description` is empty, and `form`, `values` and `comments` are not there.
    """

    id: UUID
    org: str
    execution_id: UUID
    path: str
    iteration: int
    workflow_name: str
    owner: str
    state: TaskState
    title: str
    outcomes: tuple[str, ...]
    create_time: datetime
    update_time: datetime
    waited: bool
    assignees: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    due_time: datetime | None = None
    escalated: bool = False
    claimed_by: str = ""
    claim_time: datetime | None = None
    end_time: datetime | None = None
    outcome: str = ""
    completed_by: str = ""
    version: int = 1
    description: str = ""
    form: Mapping[str, Json] | None = None
    values: Mapping[str, Json] | None = None
    comments: tuple[Comment, ...] = ()


@dataclass(frozen=True, slots=True)
class Person:
    """Who works on tasks. `sees_all`: also on those for others."""

    org: str
    subject: str
    groups: frozenset[str] = frozenset()
    sees_all: bool = False

    def is_meant(self, task: Task) -> bool:
        """Whether a task is for this person, by subject or group."""
        is_for_all = not task.assignees and not task.groups
        return is_for_all or self.subject in task.assignees or not self.groups.isdisjoint(task.groups)

    def sees(self, task: Task) -> bool:
        """Whether a task may be shown to this person."""
        is_involved = self.subject in (task.owner, task.claimed_by, task.completed_by)
        return task.org == self.org and (self.sees_all or is_involved or self.is_meant(task))

    def could_complete(self, task: Task) -> bool:
        """Whether a task is this person's own to do."""
        return not task.state.is_end and (task.claimed_by == self.subject if task.claimed_by else self.is_meant(task))


@dataclass(frozen=True, slots=True)
class Claim:
    """The person works on the task."""


@dataclass(frozen=True, slots=True)
class Release:
    """The person does so no more."""


@dataclass(frozen=True, slots=True)
class Delegate:
    """Another is to do it."""

    assignee: str
    comment: str = ""


@dataclass(frozen=True, slots=True)
class Remark:
    """The person has something to say."""

    text: str


@dataclass(frozen=True, slots=True)
class Complete:
    """The person has done it. Outcome and values were found right."""

    outcome: str
    values: Mapping[str, Json] | None = None
    comment: str = ""


Act = Claim | Release | Delegate | Remark | Complete


@dataclass(frozen=True, slots=True)
class TaskFilter:
    """Which tasks a list holds: all conditions must hold, an empty one always does. `mine`: what `could_complete`."""

    states: frozenset[TaskState] = frozenset()
    mine: bool = False
    group: str = ""
    execution_id: UUID | None = None
    ids: frozenset[UUID] = frozenset()

    def takes(self, task: Task, person: Person) -> bool:
        """Whether a list of this person holds the task."""
        return (
            person.sees(task)
            and (not self.states or task.state in self.states)
            and (not self.mine or person.could_complete(task))
            and self.group in ("", *task.groups)
            and self.execution_id in (None, task.execution_id)
            and (not self.ids or task.id in self.ids)
        )


@dataclass(frozen=True, slots=True)
class Acted:
    """A task after somebody acted on it, and what that has sent to its execution, None for nothing."""

    task: Task
    posted: Posted | None = None


class TaskRepository(Protocol):
    """Tasks as people see them. What a person does not see raises TaskNotFoundError."""

    async def get_task(self, person: Person, task_id: UUID) -> Task:
        """Return the task, whole. Raises TaskNotFoundError."""
        ...

    async def list_tasks(self, person: Person, where: TaskFilter, after: UUID | None, limit: int) -> Sequence[Task]:
        """Return up to `limit` tasks as lists have them, newest id first, with ids below `after`."""
        ...

    async def task_versions(self, person: Person, where: TaskFilter, limit: int) -> Mapping[UUID, int]:
        """Return ids and versions of the newest tasks that `list_tasks` would give, up to `limit`, newest first."""
        ...

    async def act(self, person: Person, task_id: UUID, act: Act, request: Request | None = None) -> Acted:
        """Let a person act on a task, as `acted` says, and return it after that, whole.

        Of two that act at once one comes first. To complete one that its execution waits for sends that the message
        TASK_COMPLETED in the same transaction. It binds, as Transition says. An execution without owner becomes
        claimable at once. With a `request` that was kept before it changes nothing; RequestIdReusedError when that was
        of another method or content. What is refused leaves the request id free. Raises TaskNotFoundError,
        TaskEndedError, TaskClaimedError, TaskNotAssignedError.
        """
        ...


def new_task(new: NewTask, org: str, execution_id: UUID) -> Task:
    """Return a task that was just made."""
    return Task(
        id=new.id,
        org=org,
        execution_id=execution_id,
        path=new.path,
        iteration=new.iteration,
        workflow_name=new.workflow_name,
        owner=new.owner,
        state=TaskState.OPEN,
        title=new.title,
        outcomes=new.outcomes,
        create_time=new.create_time,
        update_time=new.create_time,
        waited=new.waited,
        assignees=new.assignees,
        groups=new.groups,
        due_time=new.due_time,
        description=new.description,
        form=new.form,
    )


def changed(task: Task, change: TaskChange) -> Task:
    """Return a task after what a transition makes of it; one that has ended stays as it is."""
    if task.state.is_end:
        return task
    after = replace(task, state=change.state, update_time=change.time, version=task.version + 1)
    if change.state.is_end:
        return replace(after, end_time=change.time, outcome=change.outcome)
    return replace(
        after,
        assignees=change.assignees,
        groups=change.groups,
        due_time=change.due_time,
        claimed_by="",
        claim_time=None,
        escalated=True,
    )


def acted(task: Task, person: Person, act: Act, now: datetime) -> Task:
    """Return a task after a person acted on it; the same one where that changes nothing.

    Raises TaskNotFoundError, TaskEndedError, TaskClaimedError, TaskNotAssignedError.
    """
    if not person.sees(task):
        raise TaskNotFoundError(task.id)
    is_claimer = bool(task.claimed_by) and task.claimed_by == person.subject
    if not (isinstance(act, Remark) or is_claimer or person.sees_all or person.is_meant(task)):
        raise TaskNotAssignedError(task.id)
    if task.state.is_end:
        raise TaskEndedError(task.id, task.state, task.completed_by)
    may_pass = is_claimer or isinstance(act, Remark) or (person.sees_all and isinstance(act, Release | Delegate))
    if task.claimed_by and not may_pass:
        raise TaskClaimedError(task.id, task.claimed_by)
    after = _after(task, person, act, now)
    return task if after is task else replace(after, update_time=now, version=task.version + 1)


def _after(task: Task, person: Person, act: Act, now: datetime) -> Task:
    match act:
        case Claim():
            if task.claimed_by:
                return task
            return replace(task, state=TaskState.CLAIMED, claimed_by=person.subject, claim_time=now)
        case Release():
            if not task.claimed_by:
                return task
            return replace(task, state=TaskState.OPEN, claimed_by="", claim_time=None)
        case Delegate():
            said = _with_comment(task, person, act.comment, now)
            others = {"assignees": (act.assignee,), "groups": ()}
            return replace(said, state=TaskState.OPEN, claimed_by="", claim_time=None, **others)
        case Remark():
            return _with_comment(task, person, act.text, now)
        case Complete():
            return replace(
                _with_comment(task, person, act.comment, now),
                state=TaskState.COMPLETED,
                outcome=act.outcome,
                values=act.values,
                completed_by=person.subject,
                end_time=now,
            )


def _with_comment(task: Task, person: Person, text: str, now: datetime) -> Task:
    if not text:
        return task
    return replace(task, comments=(*task.comments, Comment(person.subject, now, text))[-MOST_COMMENTS:])


def completion(task: Task, act: Complete, now: datetime) -> Message:
    """Return what the execution of a task is told when somebody has completed it; it has the id of the task."""
    body = {
        "path": task.path,
        "iteration": task.iteration,
        "outcome": act.outcome,
        "values": {} if act.values is None else act.values,
        "comment": act.comment,
    }
    return Message(task.id, MessageKind.TASK_COMPLETED, now, task.completed_by, body)


def check_tasks(tasks: Sequence[NewTask], changes: Sequence[TaskChange]) -> None:
    """Raises PersistenceError unless what is made and changed at once are different tasks."""
    ids = [*(task.id for task in tasks), *(change.id for change in changes)]
    if len(set(ids)) != len(ids):
        raise PersistenceError("refused: a transition makes or changes a task once")
    if any(change.state not in (TaskState.OPEN, TaskState.EXPIRED, TaskState.CANCELLED) for change in changes):
        raise PersistenceError("refused: only people claim and complete tasks")
