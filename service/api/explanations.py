"""Explanations why executions do not move, domain to wire."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from flowkeep.v1 import explanation_pb2 as pb
from flowkeep.v1.execution_pb2 import Execution as ExecutionMessage
from service.api.events import wait_message
from service.api.executions import execution_message
from service.api.identity import current_identity
from service.api.paging import fitting, page_limit
from service.api.permissions import READ_TASKS
from service.api.steps import step_state
from service.api.tasks import person_of
from service.api.times import timestamp
from service.engine.explaining import Explaining, Explanation
from service.engine.obstacles import Kind, Obstacle, failure_code


class ExplainCalls:
    """The part of ExecutionServicer that explains executions."""

    _explaining: Explaining

    async def ExplainExecution(self, request: pb.ExplainExecutionRequest, context: Any) -> pb.ExplainExecutionResponse:
        caller = current_identity.get()
        person = person_of(caller) if caller.may(READ_TASKS) else None
        return _response(await self._explaining.explain(caller.scope, UUID(request.execution_id), person))

    async def ExplainQueue(self, request: pb.ExplainQueueRequest, context: Any) -> pb.ExplainQueueResponse:
        limit = page_limit(request.page_size)
        found = await self._explaining.queues.explain(current_identity.get().scope, request.workflow, limit)
        queued = fitting(
            pb.QueuedExecution(execution=execution_message(each), obstacles=map(_message, obstacles))
            for each, obstacles in found.executions
        )
        return pb.ExplainQueueResponse(
            executions=queued,
            executions_omitted=not found.is_whole or len(queued) < len(found.executions),
            obstacles=map(_message, found.obstacles),
        )


def _response(found: Explanation) -> pb.ExplainExecutionResponse:
    steps = [
        pb.StepExplanation(
            path=step.path,
            state=step_state(step),
            iteration=step.iteration,
            attempt=step.attempt,
            obstacles=map(_message, obstacles),
        )
        for step, obstacles in found.steps
    ]
    return pb.ExplainExecutionResponse(
        execution=execution_message(found.execution),
        obstacles=map(_message, found.obstacles),
        steps=steps,
        steps_omitted=not found.is_whole,
    )


def _message(obstacle: Obstacle) -> pb.Obstacle:
    message = pb.Obstacle(
        sentence=obstacle.sentence, start_time=timestamp(obstacle.start), end_time=timestamp(obstacle.end)
    )
    target = getattr(message, obstacle.kind)
    target.SetInParent()
    _fill(target, obstacle)
    return message


def _fill(target: Any, obstacle: Obstacle) -> None:
    """Set what belongs to the kind of an obstacle."""
    wait, step = None if obstacle.wait is None else wait_message(obstacle.wait), obstacle.step
    match obstacle.kind:
        case Kind.ENDED | Kind.ENDING:
            if obstacle.state is not None:
                target.state = ExecutionMessage.State.Value(f"STATE_{obstacle.state}")
            if obstacle.kind is Kind.ENDING:
                target.steps_in_work = obstacle.count
        case Kind.PAUSED if obstacle.pause is not None:
            target.paused_by, target.reason = obstacle.pause.by, obstacle.pause.reason
            target.hard, target.end_put_off = obstacle.pause.is_hard, obstacle.is_put_off
            target.workflow_pause_id = obstacle.pause.workflow_pause_id
        case Kind.WORKFLOW_PAUSED if (workflow := obstacle.workflow) is not None and workflow.pause is not None:
            target.workflow, target.pause_id = workflow.name, str(workflow.pause.id)
            target.paused_by, target.reason = workflow.pause.by, workflow.pause.reason
        case Kind.QUEUE:
            target.before, target.deaths = obstacle.count, obstacle.deaths
        case Kind.SERVERS if (room := obstacle.room) is not None:
            target.servers, target.asked_server, target.driven = obstacle.count, room.server, room.driven
            target.has_room, target.has_room_for_org = room.has_room, room.has_room_for_org
        case Kind.DRIVEN | Kind.STOPPED:
            target.server = obstacle.server
        case Kind.PREDECESSORS:
            target.count = obstacle.count
            target.paths.extend(obstacle.paths)
        case Kind.RUNNING_ATTEMPT if step is not None:
            target.attempt, target.worker, target.progress_percent = step.attempt, step.worker, step.progress
            target.told_to_stop = obstacle.is_told_to_stop
        case Kind.RETRY if wait is not None and step is not None:
            target.attempt, target.failure_code = wait.retry.attempt, failure_code(step)
        case Kind.SLOT if wait is not None:
            target.resource, target.other_holders = wait.slot.resource, obstacle.count
            for execution_id, path in obstacle.holders:
                target.holders.add(execution_id=str(execution_id), path=path)
        case Kind.WORKER if wait is not None:
            target.wait.CopyFrom(wait.worker)
            target.workers, target.fitting_workers = obstacle.count, obstacle.fitting
        case Kind.TASK if wait is not None:
            target.wait.CopyFrom(wait.task)
            if (task := obstacle.task) is not None:
                target.title, target.claimed_by = task.title, task.claimed_by
                target.assignees.extend(task.assignees)
                target.groups.extend(task.groups)
        case Kind.SIGNAL if wait is not None:
            target.CopyFrom(wait.signal)
