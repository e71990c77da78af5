"""The workers that are connected to this process: what they have, what they run, and what is heard of them."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import structlog

from service.engine.handlers.model import Handler
from service.engine.waiting import flagged
from service.engine.watch import ShuttingDownError
from service.engine.wishes import NONE, Wishes
from service.engine.workers.lines import Line, Lines, Seat, serve
from service.engine.workers.model import (
    Answer,
    AttemptId,
    Drain,
    Link,
    Lost,
    Registration,
    Stop,
    StopReason,
)
from service.engine.workers.proof import Proof
from service.engine.workers.relay import LOOKS, Relay
from service.engine.workers.report import Report
from service.engine.workers.results import DISCARDED, REMEMBERED
from service.engine.workers.worker import Assignment, Relayed, Worker

log = structlog.get_logger(__name__)


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

    `came` is told of the org of a worker that may have what there was no worker for a moment ago.
    """

    def __init__(
        self, settings: WorkerSettings | None = None, now: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self.settings = settings or WorkerSettings()
        self.came: Callable[[str], None] = lambda org: None
        self._now = now
        self._is_draining = False
        self._workers: dict[tuple[str, str, str], Worker] = {}
        self._lines: dict[tuple[str, str], Lines] = {}
        self._changed = asyncio.Event()
        # Those that this process has given up: they may run still, as far as the store knows.
        self._lost: OrderedDict[AttemptId, None] = OrderedDict()
        self.proof = Proof()
        self.relay = Relay(self.settings.heartbeat_timeout, self._silent)
        self.results = self.relay.results

    # --- what there is

    def get(self, org: str, name: str, wishes: Wishes = NONE) -> Handler | None:
        """Return the handler that a worker of the org, one that meets wishes, can be given attempts of at this moment.

        Of several it is that of the one that came last.
        """
        lines = self._lines.get((org, name))
        worker = lines.newest(wishes) if lines is not None else None
        return worker.handlers[name] if worker is not None else None

    def names(self) -> Sequence[tuple[str, str]]:
        """Return all handlers that attempts can be given for, by org and name."""
        return [key for key, lines in self._lines.items() if lines.any.is_served]

    def serving(self, org: str, name: str) -> int:
        """Return how many workers of this process have a handler."""
        lines = self._lines.get((org, name))
        return sum(worker.is_available for worker in lines.any.workers) if lines is not None else 0

    def of(self, org: str) -> Sequence[Worker]:
        """Return the workers of an org whose streams stand."""
        return [worker for key, worker in self._workers.items() if key[0] == org and worker.link is not None]

    @property
    def all(self) -> Sequence[Worker]:
        """All workers, also those whose streams are broken."""
        return list(self._workers.values())

    # --- streams

    def unknown(self, registration: Registration) -> list[AttemptId]:
        """Return the attempts that a worker names, and can show that it was given, of which nothing is known here."""
        worker = self._workers.get(registration.key)
        known = worker.known if worker is not None else {}
        return [
            attempt
            for attempt in sorted(registration.attempts)
            if attempt not in known
            and attempt not in self._lost
            and not self.results.is_settled(registration.key, attempt)
            and self.proof.holds(registration, attempt)
        ]

    def attach(
        self,
        registration: Registration,
        handlers: Sequence[Handler],
        link: Link,
        held: Mapping[AttemptId, bytes] | None = None,
    ) -> tuple[Worker, list[AttemptId]]:
        """Connect a worker; returns it with the attempts that it named and that are no longer wanted.

        What it had been given and does not name never arrived, and is sent again. `held` are those of the `unknown`
        that run, which this process holds from now on, with what is known of each. Raises ShuttingDownError.
        """
        if self._is_draining:
            raise ShuttingDownError
        worker, had = self._workers.get(registration.key), list[Lines]()
        if worker is None:
            worker = self._workers[registration.key] = Worker(registration, link, self._now())
        else:
            had = self._take_out(worker)
            old, worker.link = worker.link, link
            if old is not None:
                old.end(StreamReplacedError())
            worker.registration, worker.is_draining, worker.silence = registration, False, 0
            worker.connect_time = worker.heard_time = self._now()
        unwanted = self._compare(worker, held or {})
        is_news, worker.handlers = False, {handler.name: handler for handler in handlers}
        for name in worker.handlers:
            key = registration.org, name
            lines = self._lines.setdefault(key, Lines(*key, self.serve))
            is_news = is_news or not any(each.is_available and each.is_like(worker) for each in lines.any.workers)
            lines.enter(worker)
        self._close_lines(had)
        self._changed.set()
        self.serve(worker)
        if is_news:
            self.came(registration.org)
        log.info("worker connected", org=registration.org, worker=worker.title, capacity=registration.capacity)
        return worker, unwanted

    def _compare(self, worker: Worker, held: Mapping[AttemptId, bytes]) -> list[AttemptId]:
        """Make of the attempts that the worker says it has, and those that it should have, one list."""
        named, unwanted = worker.registration.attempts, []
        for attempt in named:
            assignment = worker.assigned.get(attempt)
            is_settled = self.results.is_settled(worker.registration.key, attempt)
            if attempt in held and attempt not in worker.known:
                self._hold(worker, attempt, held[attempt])
            elif attempt in held:  # it has become known since
                self.relay.drop(worker, attempt)
            elif (assignment is None or assignment.is_discarded) and attempt not in worker.unsettled and not is_settled:
                unwanted.append(attempt)
        for attempt, assignment in list(worker.assigned.items()):
            if assignment.is_discarded:
                self._answer(worker, assignment, Lost("the worker was told to stop it while its stream was broken"))
            elif attempt not in named and assignment.command is not None:
                worker.tell(assignment.command)
            elif attempt not in named:
                self._answer(worker, assignment, Lost(f"worker {worker.title} knows nothing more of it"))
        for attempt in worker.relayed.keys() - named:
            self.answered(worker, attempt, Lost(f"worker {worker.title} knows nothing more of it"))
        return unwanted

    def _hold(self, worker: Worker, attempt: AttemptId, written: bytes) -> None:
        """Take note that a worker has come with an attempt that another process gave to it."""
        if (relayed := worker.relayed.get(attempt)) is not None:
            relayed.is_told = False  # it may not have heard that it is to stop
            return
        context = Report.decoded(written)
        if isinstance(context.answer, Lost):
            context.answer = None
        if (assignment := self.relay.awaited.pop(attempt, None)) is None:
            self.relay.hold(worker, attempt, context)
        else:
            assignment.heard = context
            self._rejoin(worker, assignment)
            self.relay.drop(worker, attempt)

    def _rejoin(self, worker: Worker, assignment: Assignment) -> None:
        worker.assigned[assignment.attempt] = assignment
        assignment.came(worker)

    def detach(self, worker: Worker, link: Link) -> None:
        """Take note that a stream has ended. What its worker runs is lost unless it comes back in time."""
        if worker.link is not link:
            return  # another one has taken its place
        worker.link, worker.silence = None, 0
        self._changed.set()
        self._give_up_lines(worker)
        if worker.is_idle:
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
        reason = f"worker {worker.title} was not heard of for {seconds:g} s"
        for assignment in list(worker.assigned.values()):
            self._answer(worker, assignment, Lost(reason))
        for attempt in worker.relayed:
            self._give_up(attempt)
        self.relay.lose(worker, reason)
        self._forget(worker)

    def _silent(self) -> list[Worker]:
        """Return workers that may be connected to other processes by now."""
        return [worker for worker in self.all if worker.link is None or worker.silence > LOOKS // 2]

    def _forget(self, worker: Worker) -> None:
        self._close_lines(self._take_out(worker))
        if self._workers.get(worker.registration.key) is worker:
            del self._workers[worker.registration.key]

    def _take_out(self, worker: Worker) -> list[Lines]:
        """Let a worker serve no line, and return those of its handlers: what waits there is not let go yet."""
        org = worker.registration.org
        found = (self._lines.get((org, declared.name)) for declared in worker.registration.handlers)
        left = [lines for lines in found if lines is not None]
        for lines in left:
            lines.leave(worker)
        return left

    def _close_lines(self, left: Sequence[Lines]) -> None:
        """Give up lines that a worker has left, and that nobody else serves."""
        for lines in left:
            for line in lines.all:
                line.give_up()
            if not lines.any.workers:
                del self._lines[lines.any.org, lines.any.handler]

    def _give_up_lines(self, worker: Worker) -> None:
        for line in self._lines_of(worker):
            line.give_up()

    def _lines_of(self, worker: Worker) -> list[Line]:
        org = worker.registration.org
        found = (self._lines.get((org, declared.name)) for declared in worker.registration.handlers)
        return [line for lines in found if lines is not None for line in lines.all if worker in line.workers]

    # --- attempts

    def queue_up(self, org: str, name: str, wishes: Wishes = NONE) -> Seat:
        """Return a seat in the line for a worker with a handler that meets wishes."""
        lines = self._lines.get((org, name))
        return (lines or Lines(org, name, self.serve)).queue_up(wishes)

    def serve(self, worker: Worker) -> None:
        """Give what room a worker has to those that have waited longest."""
        if worker.room > 0:
            serve(worker, self._lines_of(worker))

    def assign(self, worker: Worker, assignment: Assignment) -> None:
        """Give an attempt to a worker that has room for it."""
        worker.assigned[assignment.attempt] = assignment
        if (command := assignment.command) is not None:
            token = self.proof.of(worker.registration, assignment.attempt)
            assignment.command = replace(command, token=token)
            worker.tell(assignment.command)

    def take_up(self, assignment: Assignment) -> None:
        """Let an attempt go on that another process gave to a worker, which is here by now or will be heard of."""
        if (relayed := self.relay.take(assignment.attempt)) is None:
            self.relay.wait_for(assignment)
            return
        assignment.heard = relayed.context
        self._rejoin(relayed.worker, assignment)
        if relayed.context.answer is not None:
            self.answered(relayed.worker, assignment.attempt, relayed.context.answer)

    def leave(self, assignment: Assignment) -> None:
        """Give up an attempt whose execution this process drives no longer: it goes on, for whoever does."""
        worker, attempt = assignment.worker, assignment.attempt
        if worker is None or worker.assigned.get(attempt) is not assignment:
            return
        if assignment.is_discarded:
            assignment.stop(StopReason.STALE)
        else:
            del worker.assigned[attempt]
            self.relay.hold(worker, attempt, Report())

    def running(self, worker: Worker, attempt: AttemptId) -> Assignment | Relayed | None:
        """Return an attempt of which the worker tells how far it is; one that is not its own it is told to stop."""
        if (relayed := worker.relayed.get(attempt)) is not None:
            self.relay.said(relayed)
            return None if relayed.is_told else relayed
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
                self.results.refuse(assignment, DISCARDED)
            else:
                self.results.came(worker, assignment)
        elif (relayed := worker.relayed.get(attempt)) is not None:
            if relayed.context.answer is None:
                relayed.context.answer = answer
                self.relay.said(relayed)
                self.serve(worker)
        elif attempt not in worker.unsettled:
            self.results.came_again(worker, attempt)

    def _give_up(self, attempt: AttemptId) -> None:
        self._lost[attempt] = None
        if len(self._lost) > REMEMBERED:
            self._lost.popitem(last=False)

    def _answer(self, worker: Worker, assignment: Assignment, answer: Answer) -> None:
        worker.assigned.pop(assignment.attempt, None)
        if isinstance(answer, Lost):
            self._give_up(assignment.attempt)
        if not assignment.answer.done():
            assignment.answer.set_result(answer)
        self.serve(worker)
