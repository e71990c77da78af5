"""Attempts whose worker hangs on another process than the one that drives their execution.

It comes to that when a server dies, stops, or loses an execution: the worker goes on, connects to any server, and names
what it runs, with the token that it was given with it. There are two sides, and a process may be both:

    the holder                                     the owner of the execution
    has the worker; keeps a row for the attempt,   waits in `Workers.rejoin`, in place of a handler;
    with what the worker says of it                reads the row, and gives what the worker gave
    tells the worker what became of the result,    writes why the attempt is to stop
    as the row of the step tells

Where both are one process the worker just has its attempt again, and the row goes. A row of a process whose lease is
over counts for nothing unless the result stands in it. While no attempt is away from its execution, nothing is read.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from uuid import UUID

import structlog

from persistence.errors import PersistenceError
from persistence.model import StepState
from persistence.workers import Holding, Standing, WorkerAttempt, WorkerRepository
from service.engine.failure import INTERRUPTED, OUTCOME_UNKNOWN, STEP_TIMEOUT, WORKER_LOST
from service.engine.waiting import flagged
from service.engine.workers.model import Answer, AttemptId, Lost, Settle, StopReason
from service.engine.workers.report import Report
from service.engine.workers.results import STALE, STEP_CANCELLED, Results
from service.engine.workers.worker import Assignment, Relayed, Worker

log = structlog.get_logger(__name__)

AGAIN = 1.0
"""Seconds until it is tried again when the database could not be reached."""

PULSE = 1.0
"""Seconds between looks at what is away."""

LOOKS = 30
"""Looks at the silence of workers within the time after which one is lost. It is counted in looks, so that no worker is
lost for the time in which this process itself stood still."""

_UNHEARD = frozenset({INTERRUPTED, OUTCOME_UNKNOWN, STEP_TIMEOUT, WORKER_LOST})
"""How an attempt fails of which no worker has said so."""


class Relay:
    """Holds attempts for owners elsewhere, and hears of those whose workers are elsewhere, or gone.

    `silent` gives workers that have not been heard of for a while.
    """

    def __init__(self, timeout: float, silent: Callable[[], Collection[Worker]]) -> None:
        self._timeout = timeout
        self.results = Results(self.hold)
        self._silent = silent
        self._held: dict[AttemptId, Relayed] = {}
        self._held_by: UUID | None = None
        self._dropped: list[WorkerAttempt] = []
        self._told = asyncio.Event()
        self.awaited: dict[AttemptId, Assignment] = {}
        """Attempts of executions that this process drives, without a worker here."""

    # --- the holder

    def hold(self, worker: Worker, attempt: AttemptId, context: Report) -> None:
        """Hold an attempt for whoever drives its execution, or will."""
        self._held[attempt] = worker.relayed[attempt] = Relayed(worker, attempt, context)
        self._told.set()

    def said(self, relayed: Relayed) -> None:
        """Take note of something that the worker has said of an attempt: at once if that is its result."""
        relayed.is_news = True
        if relayed.context.answer is not None:
            self._told.set()

    def lose(self, worker: Worker, reason: str) -> None:
        """Let owners know that nothing more will be heard of a worker."""
        for relayed in worker.relayed.values():
            if relayed.context.answer is None:
                relayed.context.answer = Lost(reason)
                self.said(relayed)

    def take(self, attempt: AttemptId) -> Relayed | None:
        """Return an attempt that is held here, for its owner, who is this process; its row is of no more use."""
        relayed = self._held.get(attempt)
        if relayed is None or isinstance(relayed.context.answer, Lost):
            return None
        self.drop(relayed.worker, attempt)
        return relayed

    def drop(self, worker: Worker, attempt: AttemptId) -> None:
        """Hold an attempt of a worker no longer."""
        self._forget(worker, attempt)
        self._dropped.append(WorkerAttempt(worker.registration.org, *attempt))
        self._told.set()

    def _forget(self, worker: Worker, attempt: AttemptId) -> None:
        worker.relayed.pop(attempt, None)
        if (relayed := self._held.get(attempt)) is not None and relayed.worker is worker:
            del self._held[attempt]

    # --- the owner

    def wait_for(self, assignment: Assignment) -> None:
        """Look for whoever has the worker of an attempt."""
        self.awaited[assignment.attempt] = assignment
        self._told.set()

    def wait_no_longer(self, assignment: Assignment) -> None:
        """Look no longer for the worker of an attempt."""
        if self.awaited.get(assignment.attempt) is assignment:
            del self.awaited[assignment.attempt]

    def tell(self) -> None:
        """Take note that an attempt is to stop whose worker may be elsewhere."""
        self._told.set()

    # --- what both do

    async def keep(self, repository: WorkerRepository, incarnation: Callable[[], UUID]) -> None:
        """Tell and hear of attempts until cancelled."""
        loop, interval = asyncio.get_running_loop(), self._timeout / LOOKS
        due = loop.time() + interval
        while True:
            await flagged(self._told, min(PULSE, max(0.0, due - loop.time())))
            is_look = loop.time() >= due
            if is_look:
                due = loop.time() + interval
            try:
                await self.turn(repository, incarnation(), is_look=is_look)
            except PersistenceError as error:
                log.warning("attempts of workers elsewhere not looked at", error=str(error))
                await asyncio.sleep(AGAIN)

    async def turn(self, repository: WorkerRepository, incarnation: UUID, *, is_look: bool = True) -> None:
        """Tell and hear of attempts once; `is_look`: as often as silence is counted. Raises PersistenceError."""
        await self._tell_owners(repository, incarnation)
        await self._hear(repository, incarnation, is_look=is_look)
        dropped, self._dropped = [row for row in self._dropped if AttemptId(*row[1:]) not in self._held], []
        if dropped:
            try:
                await repository.drop_attempts(incarnation, dropped)
            except PersistenceError:
                self._dropped += dropped
                raise

    async def _tell_owners(self, repository: WorkerRepository, incarnation: UUID) -> None:
        given = list(self._held.values())
        if not given:
            return
        rows = [(_row(each.worker, each.attempt), each.context.encoded() if each.is_news else b"") for each in given]
        for each in given:
            each.is_news = False
        try:
            if self._held_by not in (None, incarnation):
                # What this process held under another incarnation is its own, unless its worker may be elsewhere.
                here = [row for row, each in zip(rows, given, strict=True) if each.worker.link is not None]
                await repository.hold_attempts(incarnation, here, take=True)
            standings = await repository.hold_attempts(incarnation, rows, take=False)
        except PersistenceError:
            for each in given:
                each.is_news = True
            raise
        self._held_by = incarnation
        for relayed, standing in zip(given, standings, strict=True):
            if self._held.get(relayed.attempt) is relayed:
                self._stands(relayed, standing)

    def _stands(self, relayed: Relayed, standing: Standing) -> None:
        worker, attempt, answer = relayed.worker, relayed.attempt, relayed.context.answer
        if standing.is_held:
            if standing.stop:
                relayed.stop(StopReason(standing.stop))
        elif standing.is_running:
            self._forget(worker, attempt)  # its worker has gone to another process
        elif answer is None:
            reason = _reason(standing)
            relayed.stop(reason)
            if reason is StopReason.STALE:
                self.drop(worker, attempt)
        else:
            self.drop(worker, attempt)
            if not isinstance(answer, Lost):
                self.results.settle(worker, _settled(attempt, standing))

    async def _hear(self, repository: WorkerRepository, incarnation: UUID, *, is_look: bool) -> None:
        away = {
            assignment.attempt: (worker, assignment)
            for worker in self._silent()
            for assignment in worker.assigned.values()
            if not assignment.is_discarded
        }
        awaited = dict(self.awaited)
        wanted = {_of(each): each.reason.value if each.reason else "" for each in awaited.values()}
        wanted |= {_of(assignment): "" for _, assignment in away.values()}
        if not wanted:
            return
        found = await repository.find_attempts(wanted)
        for attempt, assignment in awaited.items():
            if self.awaited.get(attempt) is assignment:
                self._heard(assignment, found.get(_of(assignment)), is_look=is_look)
        for attempt, (worker, assignment) in away.items():
            holding = found.get(_of(assignment))
            if holding is None or holding.incarnation == incarnation or worker.assigned.get(attempt) is not assignment:
                continue
            if holding.is_live or Report.decoded(holding.report).answer is not None:
                del worker.assigned[attempt]  # it has gone to another process
                assignment.worker = None
                self.awaited[attempt] = assignment
                self._heard(assignment, holding, is_look=False)

    def _heard(self, assignment: Assignment, holding: Holding | None, *, is_look: bool) -> None:
        """Take what the holder of an attempt says of it, or count that nobody holds it."""
        report = Report.decoded(holding.report) if holding is not None else Report()
        if holding is None or not (holding.is_live or report.answer is not None):
            assignment.silence += is_look
            if assignment.silence > LOOKS:
                text = f"no worker was heard of that runs it for {self._timeout:g} s"
                self._end(assignment, Lost(text, is_cut_off=not assignment.has_come))
            return
        assignment.silence, assignment.has_come = 0, True
        before, assignment.heard = assignment.heard, report
        if report.progress != before.progress:
            assignment.context.report(*report.progress)
        if report.answer is not None:
            inputs, outputs, cost = report.usage
            assignment.context.add_usage(input_tokens=inputs, output_tokens=outputs, cost_micros=cost)
            self._end(assignment, report.answer)

    def _end(self, assignment: Assignment, answer: Answer) -> None:
        self.awaited.pop(assignment.attempt, None)
        if not assignment.answer.done():
            assignment.answer.set_result(answer)


def _row(worker: Worker, attempt: AttemptId) -> WorkerAttempt:
    return WorkerAttempt(worker.registration.org, *attempt)


def _of(assignment: Assignment) -> WorkerAttempt:
    return WorkerAttempt(assignment.context.org, *assignment.attempt)


def _reason(standing: Standing) -> StopReason:
    """Return why an attempt is to stop that is no longer the one that runs."""
    if standing.state is StepState.CANCELLED:
        return StopReason.CANCELLED
    return StopReason.TIMEOUT if standing.code == STEP_TIMEOUT else StopReason.STALE


def _settled(attempt: AttemptId, standing: Standing) -> Settle:
    """Return what became of the result of an attempt whose step has gone on: by it, or past it."""
    if standing.state is StepState.CANCELLED:
        return Settle(attempt, is_recorded=False, message=STEP_CANCELLED)
    has_completed = standing.state is StepState.COMPLETED and standing.is_newest
    if has_completed or (standing.code and standing.code not in _UNHEARD):
        return Settle(attempt, is_recorded=True)
    return Settle(attempt, is_recorded=False, message=STALE)
