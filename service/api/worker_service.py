"""The servicer of WorkerService: a stream for each worker, and who is connected."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import datetime
from typing import Any, Protocol
from uuid import UUID

from flowkeep.v1 import worker_service_pb2 as pb
from flowkeep.v1.worker_service_pb2_grpc import WorkerServiceServicer
from persistence.workers import WorkerAttempt, WorkerRepository
from service.api.errors import invalid
from service.api.identity import current_identity
from service.api.worker_stream import WorkerStream
from service.api.workers import answer, attempt_id, connected, registered, registration, use, worker_messages
from service.engine.failure import INVALID_OUTPUT, Failure
from service.engine.slices import in_slices
from service.engine.tasks import TaskRegistry
from service.engine.violations import ValidationError, Violation
from service.engine.workers.known import KnownHandlers
from service.engine.workers.model import AttemptId, Failed, Registration
from service.engine.workers.pool import Workers
from service.engine.workers.worker import Worker


class Requests(Protocol):
    """What a worker says, one request after another; each with what breaks the rules of its fields."""

    def __aiter__(self) -> AsyncIterator[tuple[pb.WorkRequest, list[Violation]]]: ...


class WorkerServicer(WorkerServiceServicer):
    """Workers over gRPC."""

    def __init__(
        self,
        workers: Workers,
        known: KnownHandlers,
        repository: WorkerRepository,
        tasks: TaskRegistry,
        now: Callable[[], datetime],
        server: str,
        incarnation: Callable[[], UUID],
    ) -> None:
        self._workers = workers
        self._known = known
        self._repository = repository
        self._tasks = tasks
        self._now = now
        self._server = server
        self._incarnation = incarnation

    async def Work(self, requests: Any, context: Any) -> AsyncIterator[pb.WorkResponse]:
        first, _ = await anext(aiter(requests))
        if first.WhichOneof("message") != "register":
            raise invalid("register", "must be the first message of the stream: it says what the worker is and has")
        said = await in_slices(registration(first.register, current_identity.get()))
        handlers = await self._known.register(said, asyncio.get_running_loop().time())
        held = await self._held(said)
        stream, settings = WorkerStream(), self._workers.settings
        worker, unwanted = self._workers.attach(said, handlers, stream, held)
        listening = self._tasks.spawn(self._listen(requests, worker, stream), "worker stream")
        try:
            yield registered(settings.heartbeat_interval, settings.heartbeat_timeout, unwanted, self._server, said)
            async for response in stream:
                yield response
        finally:
            listening.cancel()
            self._workers.detach(worker, stream)

    async def ListWorkers(self, request: pb.ListWorkersRequest, context: Any) -> pb.ListWorkersResponse:
        org = current_identity.get().org
        here = {
            (worker.registration.subject, worker.registration.worker_id): worker for worker in self._workers.of(org)
        }
        others = await self._repository.list_workers(org)
        found = [(connected(worker, self._server), (*worker.assigned, *worker.relayed)) for worker in here.values()]
        found += [
            (each, ())
            for each in others
            if each.incarnation != self._incarnation() and (each.subject, each.worker_id) not in here
        ]
        wanted = [each for each in found if not request.handler or request.handler in each[0].handlers]
        wanted.sort(key=lambda each: (each[0].name, each[0].worker_id))
        return pb.ListWorkersResponse(workers=await in_slices(worker_messages(wanted)))

    async def _held(self, said: Registration) -> Mapping[AttemptId, bytes]:
        """Return the attempts that other servers gave to a worker, and that still run, with what is known of each."""
        named = self._workers.unknown(said)
        if not named:
            return {}
        rows = [(WorkerAttempt(said.org, *attempt), b"") for attempt in named]
        standings = await self._repository.hold_attempts(self._incarnation(), rows, take=True)
        return {attempt: each.report for attempt, each in zip(named, standings, strict=True) if each.is_held}

    async def _listen(self, requests: Requests, worker: Worker, stream: WorkerStream) -> None:
        """Take what a worker says until it has said all."""
        try:
            async for request, violations in requests:
                if worker.link is not stream:
                    return
                self._workers.heard(worker)
                self._take(request, violations, worker, stream)
                await stream.room()
        except Exception as error:
            stream.end(error)
        else:
            stream.end()

    def _take(self, request: pb.WorkRequest, violations: list[Violation], worker: Worker, stream: WorkerStream) -> None:
        kind = request.WhichOneof("message")
        if violations and kind not in ("completed", "failed"):
            raise ValidationError(violations)
        match kind:
            case "heartbeat":
                stream.live(self._now())
            case "progress":
                self._progress(request.progress, worker)
            case "completed" | "failed":
                self._answer(getattr(request, kind), kind, violations, worker)
            case "draining":
                self._workers.drain_worker(worker)
            case _:
                text = "a worker registers once in a stream" if kind == "register" else "a request says something"
                raise invalid(kind or "message", text)

    def _progress(self, message: pb.AttemptProgress, worker: Worker) -> None:
        assignment = self._workers.running(worker, attempt_id(message.attempt, "progress.attempt"))
        if assignment is None:
            return
        context = assignment.context
        use(context, message.usage, "progress")
        if message.output:
            context.emit(message.output)
        if message.HasField("progress_percent"):
            assignment.percent = message.progress_percent
        if message.HasField("progress_percent") or message.message:
            context.report(assignment.percent, message.message)

    def _answer(
        self,
        message: pb.AttemptCompleted | pb.AttemptFailed,
        kind: str,
        violations: list[Violation],
        worker: Worker,
    ) -> None:
        """Take a result. One that is not as it must be fails its attempt: the worker would send it again and again."""
        attempt = attempt_id(message.attempt, f"{kind}.attempt")
        is_running = attempt in worker.assigned or attempt in worker.relayed
        assignment = self._workers.running(worker, attempt) if is_running else None
        try:
            if violations:
                raise ValidationError(violations)
            if assignment is not None:
                use(assignment.context, message.usage, kind)
            given = answer(message)
        except ValidationError as error:
            first = error.violations[0]
            text = f"what the worker says of the attempt is not right: {first.field}: {first.description}"
            given = Failed(Failure(INVALID_OUTPUT, text))
        self._workers.answered(worker, attempt, given)
