"""The workers that are connected to this process: what they have, what they run, and what is heard of them."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

import structlog

from persistence.model import Step, StepState
from service.engine.handlers.model import Handler
from service.engine.waiting import flagged
from service.engine.watch import ShuttingDownError
from service.engine.workers.lines import Line, Seat, serve
from service.engine.workers.model import (
    Answer,
    AttemptId,
    Drain,
    Link,
    Lost,
    Registration,
    Settle,
    Stop,
    StopReason,
)
from service.engine.workers.worker import Assignment, Worker

log = structlog.get_logger(__name__)

LOOKS = 30
"""Looks at the silence of workers within the time after which one is lost. It is counted in looks, so that no worker is
lost for the time in which this process itself stood still."""

REMEMBERED = 20_000
"""Settled attempts of which is known what was said of them, for workers that did not hear it."""

STALE = "STALE_ATTEMPT: the attempt is not, or no longer, the worker's to run; another one may have run"
DISCARDED = "the attempt was told to stop before its result came; it is discarded"
STEP_CANCELLED = "the step was cancelled; the result is discarded"


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """After how many seconds of silence a worker is lost, and how long one may take to stop an attempt."""

    heartbeat_timeout: float = 30.0
    stop_patience: float = 6.0

    @property
    def heartbeat_interval(self) -> float:
        """How often workers have to say something: two of three words may be late."""
        return self.heartbeat_timeout / 3


class StreamReplacedError(Exception):
    """The worker has opened another stream."""


class WorkerSilentError(Exception):
    """The worker has said nothing for too long."""


class Workers:
    """All workers of this process.

    `came` is told of the handlers of an org that there are workers for and were none a moment ago.
    """

    def __init__(
        self, settings: WorkerSettings | None = None, now: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self.settings = settings or WorkerSettings()
        self.came: Callable[[str, Collection[str]], None] = lambda org, names: None
        self._now = now
        self._is_draining = False
        self._workers: dict[tuple[str, str, str], Worker] = {}
        self._lines: dict[tuple[str, str], Line] = {}
        self._handlers: dict[tuple[str, str], Handler] = {}
        # Results on their way to the store, by execution.
        self._unsettled: dict[UUID, dict[AttemptId, Assignment]] = {}
        self._changed = asyncio.Event()
        self._settled: OrderedDict[tuple[tuple[str, str, str], AttemptId], Settle] = OrderedDict()

    # --- what there is

    def get(self, org: str, name: str) -> Handler | None:
        """Return the handler of this name that a worker of the org can be given attempts of at this moment."""
        line = self._lines.get((org, name))
        return self._handlers[org, name] if line is not None and line.is_served else None

    def names(self) -> Sequence[tuple[str, str]]:
        """Return all handlers that attempts can be given for, by org and name."""
        return [key for key, line in self._lines.items() if line.is_served]

    def serving(self, org: str, name: str) -> int:
        """Return how many workers of this process have a handler."""
        line = self._lines.get((org, name))
        return sum(worker.is_available for worker in line.workers) if line is not None else 0

    def of(self, org: str) -> Sequence[Worker]:
        """Return the workers of an org whose streams stand."""
        return [worker for key, worker in self._workers.items() if key[0] == org and worker.link is not None]

    @property
    def all(self) -> Sequence[Worker]:
        """All workers, also those whose streams are broken."""
        return list(self._workers.values())

    # --- streams

    def attach(
        self, registration: Registration, handlers: Sequence[Handler], link: Link
    ) -> tuple[Worker, list[AttemptId]]:
        """Connect a worker; returns it with the attempts that it named and that are no longer wanted.

        What it had been given and does not name never arrived, and is sent again. Raises ShuttingDownError.
        """
        if self._is_draining:
            raise ShuttingDownError
        worker = self._workers.get(registration.key)
        before = {key for key, line in self._lines.items() if line.is_served}
        if worker is None:
            worker = self._workers[registration.key] = Worker(registration, link, self._now())
        else:
            self._leave(worker)
            old, worker.link = worker.link, link
            if old is not None:
                old.end(StreamReplacedError())
            worker.registration, worker.is_draining, worker.silence = registration, False, 0
            worker.connect_time = worker.heard_time = self._now()
        unwanted = self._compare(worker)
        for handler in handlers:
            key = registration.org, handler.name
            self._handlers[key] = handler
            line = self._lines.setdefault(key, Line(*key, self.serve))
            line.workers[worker] = None
        self._changed.set()
        self.serve(worker)
        if fresh := [
            name for org, name in self._lines.keys() - before if org == registration.org and self.get(org, name)
        ]:
            self.came(registration.org, fresh)
        log.info("worker connected", org=registration.org, worker=worker.title, capacity=registration.capacity)
        return worker, unwanted

    def _compare(self, worker: Worker) -> list[AttemptId]:
        """Make of the attempts that the worker says it has, and those that it should have, one list."""
        named, unwanted = worker.registration.attempts, []
        for attempt in named:
            assignment = worker.assigned.get(attempt)
            is_settled = (worker.registration.key, attempt) in self._settled
            if (assignment is None or assignment.is_discarded) and attempt not in worker.unsettled and not is_settled:
                unwanted.append(attempt)
        for attempt, assignment in list(worker.assigned.items()):
            if assignment.is_discarded:
                self._answer(worker, assignment, Lost("the worker was told to stop it while its stream was broken"))
            elif attempt not in named:
                worker.tell(assignment.command)
        return unwanted

    def detach(self, worker: Worker, link: Link) -> None:
        """Take note that a stream has ended. What its worker runs is lost unless it comes back in time."""
        if worker.link is not link:
            return  # another one has taken its place
        worker.link, worker.silence = None, 0
        self._changed.set()
        self._give_up_lines(worker)
        if not worker.assigned and not worker.unsettled:
            self._forget(worker)

    def heard(self, worker: Worker) -> None:
        """Take note that a worker lives."""
        worker.silence, worker.heard_time = 0, self._now()

    def drain_worker(self, worker: Worker) -> None:
        """Give a worker no more attempts."""
        worker.is_draining = True
        self._changed.set()
        self._give_up_lines(worker)

    def drain(self, grace: float) -> None:
        """Give nobody any more attempts, and tell all workers that the server stops."""
        self._is_draining = True
        for worker in self.all:
            self.drain_worker(worker)
            if worker.link is not None:
                worker.link.tell(Drain(grace))

    def close(self) -> None:
        """End all streams."""
        self._is_draining = True
        for worker in self.all:
            if worker.link is not None:
                worker.link.end(ShuttingDownError())

    async def changed(self, timeout: float) -> None:
        """Return when a worker has come, gone or begun to drain, or after so many seconds."""
        await flagged(self._changed, timeout)

    async def keep(self) -> None:
        """Look for workers that say nothing until cancelled."""
        while True:
            await asyncio.sleep(self.settings.heartbeat_timeout / LOOKS)
            self.look()

    def look(self) -> None:
        """Count the silence of all workers, and let go of those that are lost."""
        for worker in self.all:
            worker.silence += 1
            if worker.silence > LOOKS:
                self._lose(worker)

    def _lose(self, worker: Worker) -> None:
        seconds = self.settings.heartbeat_timeout
        log.warning("worker lost", org=worker.registration.org, worker=worker.title, attempts=len(worker.assigned))
        link, worker.link = worker.link, None
        if link is not None:
            link.end(WorkerSilentError(f"nothing was heard for {seconds:g} s"))
        self._give_up_lines(worker)
        for assignment in list(worker.assigned.values()):
            self._answer(worker, assignment, Lost(f"worker {worker.title} was not heard of for {seconds:g} s"))
        self._forget(worker)

    def _forget(self, worker: Worker) -> None:
        self._leave(worker)
        if self._workers.get(worker.registration.key) is worker:
            del self._workers[worker.registration.key]

    def _leave(self, worker: Worker) -> None:
        for declared in worker.registration.handlers:
            key = worker.registration.org, declared.name
            if (line := self._lines.get(key)) is not None:
                line.workers.pop(worker, None)
                line.give_up()
                if not line.workers:
                    del self._lines[key], self._handlers[key]

    def _give_up_lines(self, worker: Worker) -> None:
        for line in self._lines_of(worker):
            line.give_up()

    def _lines_of(self, worker: Worker) -> list[Line]:
        org = worker.registration.org
        keys = ((org, declared.name) for declared in worker.registration.handlers)
        return [line for key in keys if (line := self._lines.get(key)) is not None]

    # --- attempts

    def queue_up(self, org: str, name: str) -> Seat:
        """Return a seat in the line for a worker with a handler."""
        line = self._lines.get((org, name))
        return (line or Line(org, name, self.serve)).queue_up()

    def serve(self, worker: Worker) -> None:
        """Give what room a worker has to those that have waited longest."""
        if worker.room > 0:
            serve(worker, self._lines_of(worker))

    def assign(self, worker: Worker, assignment: Assignment) -> None:
        """Give an attempt to a worker that has room for it."""
        worker.assigned[assignment.attempt] = assignment
        worker.tell(assignment.command)

    def running(self, worker: Worker, attempt: AttemptId) -> Assignment | None:
        """Return an attempt of which the worker tells how far it is; one that is not its own it is told to stop."""
        assignment = worker.assigned.get(attempt)
        if assignment is None and attempt not in worker.unsettled and worker.link is not None:
            worker.link.tell(Stop(attempt, StopReason.STALE))
        return None if assignment is None or assignment.is_discarded else assignment

    def answered(self, worker: Worker, attempt: AttemptId, answer: Answer) -> None:
        """Take the result of an attempt; it is settled once it is in the store. A stale one is refused."""
        assignment = worker.assigned.get(attempt)
        if assignment is not None:
            is_discarded = assignment.is_discarded
            self._answer(worker, assignment, answer)
            if is_discarded:
                self._settle(worker, attempt, is_recorded=False, message=DISCARDED)
            else:
                worker.unsettled[attempt] = assignment
                self._unsettled.setdefault(attempt.execution_id, {})[attempt] = assignment
        elif attempt not in worker.unsettled and worker.link is not None:
            known = self._settled.get((worker.registration.key, attempt))
            worker.link.tell(known or Settle(attempt, is_recorded=False, message=STALE))

    def _answer(self, worker: Worker, assignment: Assignment, answer: Answer) -> None:
        worker.assigned.pop(assignment.attempt, None)
        if not assignment.answer.done():
            assignment.answer.set_result(answer)
        self.serve(worker)

    # --- what became of results

    def recorded(self, execution_id: UUID, steps: Iterable[Step]) -> None:
        """Take note that these steps of an execution are in the store: the attempts that they are past are settled."""
        waiting = self._unsettled.get(execution_id)
        if not waiting:
            return
        written: Mapping[str, Step] = {step.path: step for step in steps}
        for attempt, assignment in list(waiting.items()):
            step = written.get(attempt.path)
            if step is None or _is_running(step, attempt):
                continue
            if step.state is StepState.CANCELLED:
                self._settle(assignment.worker, attempt, is_recorded=False, message=STEP_CANCELLED)
            elif assignment.is_discarded:
                self._settle(assignment.worker, attempt, is_recorded=False, message=DISCARDED)
            else:
                self._settle(assignment.worker, attempt, is_recorded=True)

    def dropped(self, execution_id: UUID) -> None:
        """Take note that this process drives an execution no longer: what is not in the store of it never will be."""
        for attempt, assignment in list(self._unsettled.get(execution_id, {}).items()):
            self._settle(assignment.worker, attempt, is_recorded=False, message=STALE)

    def _settle(self, worker: Worker, attempt: AttemptId, *, is_recorded: bool, message: str = "") -> None:
        worker.unsettled.pop(attempt, None)
        waiting = self._unsettled.get(attempt.execution_id, {})
        waiting.pop(attempt, None)
        if not waiting:
            self._unsettled.pop(attempt.execution_id, None)
        said = Settle(attempt, is_recorded, message)
        self._settled[worker.registration.key, attempt] = said
        if len(self._settled) > REMEMBERED:
            self._settled.popitem(last=False)
        if worker.link is not None:
            worker.link.tell(said)


def _is_running(step: Step, attempt: AttemptId) -> bool:
    current = step.iteration, step.attempt
    return step.state is StepState.RUNNING and current == (attempt.iteration, attempt.number)
