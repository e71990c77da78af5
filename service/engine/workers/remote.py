"""Makes handlers that hand each attempt to a worker, and give what the worker answers."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from functools import partial
from typing import Any

from service.engine import payload
from service.engine.failure import CANCELLED, INVALID_OUTPUT
from service.engine.handlers.attempt import CURRENT
from service.engine.handlers.model import Handler, HandlerError, StepContext
from service.engine.schema import Schema
from service.engine.schema_weight import Scale
from service.engine.slices import Work
from service.engine.violations import ValidationError
from service.engine.wishes import NONE
from service.engine.workers.lines import CURRENT_SEAT
from service.engine.workers.model import (
    Assign,
    AttemptId,
    Completed,
    Declared,
    Failed,
    Lost,
    NoWorkerError,
    StopReason,
    WorkerFailureError,
    WorkerLostError,
)
from service.engine.workers.pool import Workers
from service.engine.workers.worker import Assignment, Worker


class RemoteHandlers:
    """The handlers that workers have."""

    def __init__(self, workers: Workers) -> None:
        self._workers = workers

    def made(self, org: str, declared: Declared) -> Work[Handler]:
        """Return the handler of an org. Raises SchemaError when its schema is none, or too dear to check."""
        known = self._workers.get(org, declared.name)
        if known is not None and _is_same(known, declared):
            return known
        scale = Scale(declared.params_schema, is_bounded=True)
        yield from scale.weigh()
        schema = Schema(declared.params_schema, scale)
        yield scale.compile_cost
        handler = Handler(
            name=declared.name,
            run=partial(self._run, org, declared.name),
            description=declared.description,
            params_schema=declared.params_schema,
            effect=declared.effect,
            queue_up=partial(self._workers.queue_up, org, declared.name),
        )
        vars(handler)["_schema"] = schema
        return handler

    async def _run(self, org: str, name: str, params: Mapping[str, Any], context: StepContext) -> Any:
        """Return what a worker gives. Raises WorkerFailureError, WorkerLostError, NoWorkerError, HandlerError."""
        worker = await self._worker(org, name)
        command = _command(name, params, context)
        assignment = Assignment(command.attempt, context, worker, command)
        self._workers.assign(worker, assignment)
        return await _outcome(self._workers, assignment)

    async def _worker(self, org: str, name: str) -> Worker:
        """Return a worker with room: the one that was kept for the attempt, or the next, if that has gone since."""
        seat = CURRENT_SEAT.get(None)
        if seat is not None and not seat.is_closed and (worker := seat.take()) is not None:
            return worker
        wishes = NONE if seat is None else seat.line.wishes
        while True:
            with self._workers.queue_up(org, name, wishes) as another:
                await another.granted(math.inf)
                if another.worker is None:
                    raise NoWorkerError(name)
                if (worker := another.take()) is not None:
                    return worker


async def rejoin(workers: Workers, org: str, params: Mapping[str, Any], context: StepContext) -> Any:
    """Return what a worker gives that another process gave the attempt to, once it comes back, here or elsewhere.

    Raises WorkerFailureError, WorkerLostError, HandlerError.
    """
    assignment = Assignment(_attempt_id(context), context, None, None)
    workers.take_up(assignment)
    return await _outcome(workers, assignment)


async def _outcome(workers: Workers, assignment: Assignment) -> Any:
    """Return what the worker of an attempt gives.

    An attempt that is told to stop gets a while to do so. One that this process must leave goes on without it.
    """
    try:
        await asyncio.wait((assignment.answer,))
    except asyncio.CancelledError:
        reason = _reason()
        if reason is StopReason.STALE:
            workers.leave(assignment)
        else:
            assignment.stop(reason)
            workers.relay.tell()
            await asyncio.wait((assignment.answer,), timeout=workers.settings.stop_patience)
        raise
    finally:
        workers.relay.wait_no_longer(assignment)
    return _given(assignment)


def _is_same(handler: Handler, declared: Declared) -> bool:
    return (handler.description, handler.effect) == (declared.description, declared.effect) and (
        handler.params_schema == declared.params_schema
    )


def _reason() -> StopReason:
    attempt = CURRENT.get(None)
    if attempt is None or attempt.is_abandoned:
        return StopReason.STALE
    return StopReason.TIMEOUT if attempt.has_expired else StopReason.CANCELLED


def _attempt_id(context: StepContext) -> AttemptId:
    return AttemptId(context.execution_id, context.step_path, context.iteration, context.attempt)


def _command(name: str, params: Mapping[str, Any], context: StepContext) -> Assign:
    return Assign(
        _attempt_id(context),
        name,
        payload.encode(params),
        context.workflow,
        context.owner,
        context.idempotency_token,
        context.deadline,
        context.timeout,
    )


def _given(assignment: Assignment) -> Any:
    match assignment.answer.result():
        case Completed(output):
            return _output(output)
        case Failed(failure, retry_after):
            if failure.code == CANCELLED:  # untold: the worker stops, say
                title = assignment.worker.title if assignment.worker is not None else "that had it"
                raise WorkerLostError(f"worker {title} gave the attempt back")
            raise WorkerFailureError(failure, retry_after)
        case Lost(reason, is_cut_off):
            raise WorkerLostError(reason, is_cut_off=is_cut_off)


def _output(written: bytes) -> Any:
    if not written:
        return None
    try:
        return payload.decode(written)
    except ValidationError as error:
        text = f"what the worker gave as output {error}"
        raise HandlerError(INVALID_OUTPUT, text, retryable=False) from None
