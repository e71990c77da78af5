"""Tasks of people, domain to wire and back."""

from __future__ import annotations

from uuid import UUID

from flowkeep.v1 import task_service_pb2 as pb
from flowkeep.v1.task_pb2 import Task as TaskMessage
from persistence.people import Comment, Person, Task, TaskFilter, TaskState
from service.api.claims import ALL_ASSIGNEES, Identity
from service.api.payloads import filled_struct
from service.api.times import timestamp
from service.engine.slices import Work


def person_of(caller: Identity) -> Person:
    """Return who a caller is to tasks."""
    return Person(caller.org, caller.subject, caller.groups, caller.may(ALL_ASSIGNEES))


def task_filter(message: pb.TaskFilter) -> TaskFilter:
    """Return which tasks a list is to hold."""
    return TaskFilter(
        frozenset(TaskState(TaskMessage.State.Name(each).removeprefix("STATE_")) for each in message.states),
        message.mine,
        message.group,
        UUID(message.execution_id) if message.execution_id else None,
    )


def whole_task(task: Task) -> Work[TaskMessage]:
    """Return the message of a task with all that lists leave out."""
    message = listed_task(task)
    message.description = task.description
    message.comments.extend(map(_comment, task.comments))
    for target, given in ((message.form, task.form), (message.values, task.values)):
        if given is not None:
            target.SetInParent()
            yield from filled_struct(target, given)
    return message


def listed_task(task: Task) -> TaskMessage:
    """Return the message of a task as lists have it."""
    return TaskMessage(
        task_id=str(task.id),
        state=TaskMessage.State.Value(f"STATE_{task.state.value}"),
        title=task.title,
        outcomes=task.outcomes,
        assignees=task.assignees,
        groups=task.groups,
        claimed_by=task.claimed_by,
        claim_time=timestamp(task.claim_time),
        create_time=timestamp(task.create_time),
        update_time=timestamp(task.update_time),
        due_time=timestamp(task.due_time),
        escalated=task.escalated,
        end_time=timestamp(task.end_time),
        outcome=task.outcome,
        completed_by=task.completed_by,
        execution_id=str(task.execution_id),
        step_path=task.path,
        workflow_name=task.workflow_name,
        execution_owner=task.owner,
        waited=task.waited,
        version=task.version,
    )


def _comment(comment: Comment) -> TaskMessage.Comment:
    return TaskMessage.Comment(author=comment.author, create_time=timestamp(comment.time), text=comment.text)
