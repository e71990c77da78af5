"""Workers, wire to domain and back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from uuid import UUID

from flowkeep.payload import from_struct
from flowkeep.v1 import worker_service_pb2 as pb
from flowkeep.v1.execution_pb2 import Usage as UsageMessage
from flowkeep.v1.handler_pb2 import Handler as HandlerMessage
from persistence.workers import ConnectedWorker
from service.api.claims import Identity
from service.api.times import duration, seconds, timestamp
from service.engine import payload
from service.engine.failure import MAX_MESSAGE, Failure, storable
from service.engine.handlers.failures import MAX_STACK_TRACE, kept
from service.engine.handlers.model import Effect, StepContext
from service.engine.slices import Work
from service.engine.violations import ValidationError, Violation
from service.engine.workers.model import (
    Assign,
    AttemptId,
    Command,
    Completed,
    Declared,
    Drain,
    Failed,
    Registration,
    Settle,
    Stop,
)
from service.engine.workers.report import Report
from service.engine.workers.worker import Worker

MAX_AMOUNT = 10**12
MAX_DESCRIPTION = 16_384

MOST_ATTEMPTS_OF_ONE = 100
MOST_ATTEMPTS = 10_000
"""Attempts that are listed of a worker, and in one answer."""

_BYTES_A_MICROSECOND = 4

_EFFECTS = {
    HandlerMessage.EFFECT_UNSPECIFIED: Effect.IDEMPOTENT,
    HandlerMessage.EFFECT_NONE: Effect.NONE,
    HandlerMessage.EFFECT_IDEMPOTENT: Effect.IDEMPOTENT,
    HandlerMessage.EFFECT_EXTERNAL: Effect.EXTERNAL,
}


def registration(message: pb.Register, caller: Identity) -> Work[Registration]:
    """Return what a worker says that it is. Raises ValidationError, by fields such as `register.handlers[2].name`."""
    found: list[Violation] = []
    handlers, names = [], set[str]()
    for index, each in enumerate(message.handlers):
        field = f"register.handlers[{index}]"
        yield each.ByteSize() // _BYTES_A_MICROSECOND
        handlers.append(_declared(each, field, found))
        if each.name in names:
            found.append(Violation(f"{field}.name", f"there are two handlers named {each.name!r}"))
        names.add(each.name)
    found += payload.check(dict(message.labels), "register.labels")
    found += payload.check(message.version, "register.version")
    attempts = dict[AttemptId, bytes]()
    for index, attempt in enumerate(message.attempts):
        try:
            attempts[attempt_id(attempt, f"register.attempts[{index}]")] = attempt.token
        except ValidationError as error:
            found += error.violations
    if found:
        raise ValidationError(found)
    return Registration(
        caller.org,
        caller.subject,
        message.worker_id,
        message.name,
        message.version,
        message.capacity,
        tuple(handlers),
        frozenset(attempts),
        attempts,
        labels=dict(message.labels),
    )


def _declared(message: HandlerMessage, field: str, found: list[Violation]) -> Declared:
    name, effect = message.name, _EFFECTS.get(message.effect)
    if not 0 < len(name) <= 128 or not name.isprintable() or name != name.strip():
        text = "must have 1 to 128 printable characters and neither begin nor end with a space"
        found.append(Violation(f"{field}.name", text))
    found += payload.check(message.description, f"{field}.description")
    if len(message.description) > MAX_DESCRIPTION:
        found.append(Violation(f"{field}.description", f"must have at most {MAX_DESCRIPTION:,} characters"))
    if effect is None:
        found.append(Violation(f"{field}.effect", "is no effect that this server knows"))
    schema = from_struct(message.params_schema) if message.HasField("params_schema") else {}
    found += payload.check(schema, f"{field}.params_schema")
    if schema.get("type", "object") != "object":
        found.append(Violation(f"{field}.params_schema.type", 'must be "object": params are an object'))
    return Declared(name, message.description, {"type": "object", **schema}, effect or Effect.IDEMPOTENT)


def attempt_id(message: pb.Attempt, field: str) -> AttemptId:
    """Return which attempt is meant. Raises ValidationError."""
    try:
        execution_id = UUID(message.execution_id)
    except ValueError:
        raise ValidationError([Violation(f"{field}.execution_id", "must be the id of an execution, a UUID")]) from None
    return AttemptId(execution_id, message.step_path, message.iteration, message.attempt)


def use(context: StepContext | Report, usage: UsageMessage, field: str) -> None:
    """Count what an attempt has used up. Raises ValidationError."""
    for name in ("input_tokens", "output_tokens", "cost_micros"):
        if not 0 <= getattr(usage, name) <= MAX_AMOUNT:
            raise ValidationError([Violation(f"{field}.usage.{name}", f"must be from 0 to {MAX_AMOUNT:,}")])
    context.add_usage(input_tokens=usage.input_tokens, output_tokens=usage.output_tokens, cost_micros=usage.cost_micros)


def answer(message: pb.AttemptCompleted | pb.AttemptFailed) -> Completed | Failed:
    """Return what a worker says has become of an attempt. Raises ValidationError."""
    if isinstance(message, pb.AttemptCompleted):
        return Completed(message.output)
    details = payload.decode(message.details) if message.details else {}
    if not isinstance(details, dict):
        raise ValidationError([Violation("failed.details", "must be an object as JSON")])
    failure = Failure(
        message.code,
        storable(message.message, MAX_MESSAGE),
        kept(details),
        retryable=message.retryable,
        stack_trace=storable(message.stack_trace[-MAX_STACK_TRACE:], MAX_STACK_TRACE),
    )
    return Failed(failure, seconds(message.retry_after) if message.HasField("retry_after") else None)


def attempt_message(attempt: AttemptId, token: bytes = b"") -> pb.Attempt:
    """Return the message that names an attempt."""
    return pb.Attempt(
        execution_id=str(attempt.execution_id),
        step_path=attempt.path,
        iteration=attempt.iteration,
        attempt=attempt.number,
        token=token,
    )


def response(command: Command) -> pb.WorkResponse:
    """Return what a worker is told."""
    match command:
        case Assign():
            return pb.WorkResponse(
                assignment=pb.Assignment(
                    attempt=attempt_message(command.attempt, command.token),
                    handler=command.handler,
                    params=command.params,
                    workflow=command.workflow,
                    owner=command.owner,
                    idempotency_token=command.idempotency_token,
                    deadline_time=timestamp(command.deadline_time),
                    timeout=duration(command.timeout),
                )
            )
        case Stop(attempt, reason):
            kind = pb.AttemptCancelled.Reason.Value(f"REASON_{reason.value}")
            return pb.WorkResponse(cancelled=pb.AttemptCancelled(attempt=attempt_message(attempt), reason=kind))
        case Settle(attempt, is_recorded, message):
            settled = pb.AttemptSettled(attempt=attempt_message(attempt), is_recorded=is_recorded, message=message)
            return pb.WorkResponse(settled=settled)
        case Drain(grace):
            return pb.WorkResponse(draining=pb.ServerDraining(grace=duration(grace)))


def registered(
    interval: float, timeout: float, unwanted: Iterable[AttemptId], server: str, said: Registration
) -> pb.WorkResponse:
    """Return the answer to a registration."""
    return pb.WorkResponse(
        registered=pb.Registered(
            heartbeat_interval=duration(interval),
            heartbeat_timeout=duration(timeout),
            unwanted=[attempt_message(attempt, said.tokens.get(attempt, b"")) for attempt in unwanted],
            server=server,
            org=said.org,
        )
    )


def heartbeat(time: datetime) -> pb.WorkResponse:
    """Return the answer to a heartbeat."""
    return pb.WorkResponse(heartbeat=pb.HeartbeatAnswer(time=timestamp(time)))


def worker_message(worker: ConnectedWorker, attempts: Sequence[AttemptId] = ()) -> pb.Worker:
    """Return the message of a worker, with the attempts that it runs if they are known."""
    return pb.Worker(
        worker_id=worker.worker_id,
        name=worker.name,
        version=worker.version,
        handlers=worker.handlers,
        capacity=worker.capacity,
        attempts=map(attempt_message, attempts),
        connect_time=timestamp(worker.connect_time),
        heartbeat_time=timestamp(worker.heartbeat_time),
        subject=worker.subject,
        server=worker.server,
        is_draining=worker.is_draining,
        running=worker.running,
        labels=worker.labels,
    )


def worker_messages(workers: Iterable[tuple[ConnectedWorker, Sequence[AttemptId]]]) -> Work[list[pb.Worker]]:
    """Return the messages of many workers, with as many of the attempts that they run as one answer may have."""
    made, left = [], MOST_ATTEMPTS
    for worker, attempts in workers:
        shown = attempts[: min(MOST_ATTEMPTS_OF_ONE, left)]
        left -= len(shown)
        made.append(worker_message(worker, shown))
        yield 20 + len(worker.handlers) + 5 * len(shown)
    return made


def connected(worker: Worker, server: str = "") -> ConnectedWorker:
    """Return what others are told of a worker of this process."""
    said = worker.registration
    return ConnectedWorker(
        said.org,
        said.subject,
        said.worker_id,
        said.name,
        said.version,
        sorted(declared.name for declared in said.handlers),
        said.capacity,
        worker.running,
        worker.is_draining,
        worker.connect_time,
        worker.heard_time,
        server,
        labels=dict(said.labels),
    )
