"""The connection of a simulated process to the database, with all that can go wrong there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, NoReturn, TypeVar
from uuid import UUID

from persistence.bulks import Advanced, Bulk
from persistence.errors import UnavailableError
from persistence.model import Execution, ExecutionDetail, Posted, Scope, Workflow
from persistence.people import Acted
from persistence.postgres.commit.committer import Committer
from persistence.processes import News
from persistence.requests import Request
from persistence.transition import CommitResult, Created, NewExecution, Reopened, Reopening, Transition
from tests.simulation.database import Database, finished
from tests.simulation.loop import Process
from tests.simulation.writer import Writer

_Answer = TypeVar("_Answer")

COMMAND_TIMEOUT = 1.0
"""Seconds after which a process takes a silent store as away; in proportion to the lease."""

CREATION_TIMEOUT = 2.0
"""Seconds after which whoever waits for a creation is told that its fate is unknown; it may be kept later."""

MAX_QUEUE = 64
"""Creations that may wait."""

LONGEST_LATENCY = 0.3
"""Seconds that a message takes at most."""

SINGLE = {"flush", "register", "renew", "request_cancel", "post", "act"}
"""What is one statement, which needs nobody on the other side any more to be committed."""

LATEST = 3.0
"""Seconds after which the store may still carry out what somebody has given up."""

HELD = 5.0
"""Seconds for which an answer that puts something into somebody's hands is held up at most: longer than a lease."""

HOLDABLE = {"flush", "claim", "claim_one", "load"}

READS = {
    "get_execution",
    "get_detail",
    "read_events",
    "get_workflow",
    "get_task",
    "load",
    "undriven",
    "deliver",
    "find_request",
    "find_change",
    "find_asked",
    "get_steps",
    "list_item_steps",
    "list_executions",
    "count_executions",
    "find_for_bulk",
    "get_bulk",
    "ping",
}


@dataclass(frozen=True, slots=True)
class Weather:
    """How likely a call fails before it is carried out, and after, and how likely an answer is held up."""

    busy: float
    lost: float
    held: float


CLEAR = Weather(0.0, 0.0, 0.0)


class Link:
    """The store as one process reaches it: `Repository`, over a network that is slow and breaks."""

    def __init__(self, database: Database, process: Process, weather: Weather, random: Random, slowness: float) -> None:
        self._database = database
        self._loop = database.loop
        self._random = random
        self._slowness = slowness
        self._coming: dict[UUID, int] = {}
        self._stranded: list[tuple[UUID, Execution]] = []
        self.process = process
        self.weather = weather
        self.is_cut = False
        self.ambush: tuple[str, Callable[[], None]] | None = None
        """What happens to the process as soon as the store has carried out a call of this name."""
        self.writer = Writer(self, database)
        self.committer = Committer(self.writer, self._announce, max_queue=MAX_QUEUE, unknown_timeout=CREATION_TIMEOUT)
        # When what waits was submitted, by its identity.
        self._decided: dict[int, float] = {}

    @property
    def is_broken(self) -> bool:
        """Whether nothing gets through."""
        return self.is_cut or self._database.is_away

    def latency(self) -> float:
        """Return how long a message takes: mostly short, now and then long."""
        draw = self._random.random()
        return (0.0002 + 0.003 * draw) * self._slowness if draw < 0.95 else LONGEST_LATENCY * (draw - 0.95) / 0.05

    async def call(self, name: str, act: Callable[[], _Answer], *, lost: bool = True) -> _Answer:
        """Let the store do something and return its answer. Raises what it raises, and UnavailableError.

        `lost`: a failure may come after it was done.
        """
        draw = self._random.random()
        if self.is_broken and draw < 0.5:  # refused at once
            await asyncio.sleep(self.latency())
            self._fail(name, "refused")
        if draw < self.weather.busy:
            await asyncio.sleep(self.latency())
            self._fail(name, "busy")
        answer: asyncio.Future[_Answer] = self._loop.create_future()
        is_lost = lost and self._random.random() < self.weather.lost
        is_held = bool(self.weather.held) and name in HOLDABLE and self._random.random() < self.weather.held
        held = HELD * self._random.random() if is_held else 0.0
        # What is on its way when the connection breaks may still be carried out, whenever the store gets to it.
        delay = LATEST * self._random.random() if is_lost and name in SINGLE else 0.0
        self._loop.call_world(self.latency() + delay, lambda: self._carry_out(name, act, answer, is_lost, held))
        try:
            async with asyncio.timeout(COMMAND_TIMEOUT + held):
                return await answer
        except TimeoutError:
            self._fail(name, "no answer")

    def _fail(self, name: str, why: str) -> NoReturn:
        if name not in READS:
            self._database.history.landed.append(f"{name}: {why}")
        self._database.history.note(self._loop.time(), self.process, name, why)
        raise UnavailableError(f"{name}: {why}")

    def _carry_out(
        self, name: str, act: Callable[[], Any], answer: asyncio.Future[Any], is_lost: bool, held: float
    ) -> None:
        # A caller that has gone has told the store to stop, which may come in time.
        if self.is_broken or (answer.done() and self._random.random() < 0.5):
            return
        try:
            result: Any = act()
        except Exception as error:
            result = error
        if self.ambush is not None and self.ambush[0] == name:
            self.ambush[1]()
        if is_lost:
            self._database.history.note(self._loop.time(), self.process, name, "answer lost")
            self._database.history.landed.append(f"{name}: answer lost")
            return
        self._loop.call_world(self.latency() + held, lambda: self._answer(answer, result))

    def _answer(self, answer: asyncio.Future[Any], result: Any) -> None:
        if answer.done() or self.is_broken:
            return
        if isinstance(result, Exception):
            answer.set_exception(result)
        else:
            answer.set_result(result)

    # --- Repository

    def __getattr__(self, name: str) -> Any:
        """Return a method of the store that is called over the network."""
        method = getattr(self._database.memory, name)

        async def call(*args: Any, **named: Any) -> Any:
            return await self.call(name, lambda: finished(method(*args, **named)))

        return call

    def create(self, new: NewExecution) -> asyncio.Future[Created]:
        """See Journal."""
        self._decided[id(new)] = self._loop.time()
        if new.alone_in is not None:
            return asyncio.ensure_future(self._create_alone(new))
        return self.committer.create(new)

    async def _create_alone(self, new: NewExecution) -> Created:
        """Make it in a transaction of its own, as what is to be alone."""
        return await self.call("create", lambda: self._database.create(self.process, new, self.decided(new)))

    def submit(self, transition: Transition) -> asyncio.Future[CommitResult]:
        """See Journal."""
        self._decided[id(transition)] = self._loop.time()
        return self.committer.submit(transition)

    def decided(self, written: NewExecution | Transition) -> float:
        """Return when something that waits was submitted."""
        return self._decided[id(written)]

    async def claim(self, *args: Any, **named: Any) -> Sequence[ExecutionDetail]:
        """See Journal."""
        return await self._take("claim", lambda: finished(self._database.memory.claim(*args, **named)))

    async def claim_one(self, incarnation: UUID, org: str, execution_id: UUID) -> ExecutionDetail | None:
        """See Journal."""

        def act() -> Sequence[ExecutionDetail]:
            found = finished(self._database.memory.claim_one(incarnation, org, execution_id))
            return [found] if found else []

        taken = await self._take("claim_one", act)
        return taken[0] if taken else None

    async def load(self, incarnation: UUID, execution_id: UUID) -> ExecutionDetail | None:
        """See Journal. What is loaded is driven from now on, neither given back any more nor returned by a claim."""
        self._stranded = [each for each in self._stranded if each[1].id != execution_id]
        found = await self.call("load", lambda: finished(self._database.memory.load(incarnation, execution_id)))
        if found is not None:
            self._coming.pop(execution_id, None)
            self._stranded = [each for each in self._stranded if each[1].id != execution_id]
        return found

    async def _take(self, name: str, act: Callable[[], Sequence[ExecutionDetail]]) -> Sequence[ExecutionDetail]:
        """Take executions; those of a call whose end is unknown are given back with the next."""
        taken: list[ExecutionDetail] = []

        def take() -> Sequence[ExecutionDetail]:
            for incarnation, execution in self._stranded:
                row = self._database.tables.executions.get(execution.id)
                if row is not None and row.execution.epoch == execution.epoch:
                    finished(self._database.memory.release(incarnation, [execution.id]))
            self._stranded.clear()
            taken.extend(act())
            self._coming.update((detail.execution.id, detail.execution.epoch) for detail in taken)
            self._database.taken(self.process, taken)
            return taken

        try:
            await self.call(name, take)
        except BaseException:
            came = [detail.execution for detail in taken if self._came(detail.execution)]
            self._stranded += [(each.incarnation, each) for each in came if each.incarnation]
            raise
        return [detail for detail in taken if self._came(detail.execution)]

    def _came(self, taken: Execution) -> bool:
        is_coming = self._coming.get(taken.id) == taken.epoch
        if is_coming:
            del self._coming[taken.id]
        return is_coming

    async def request_cancel(self, *args: Any) -> Posted:
        """See ExecutionRepository."""
        return await self._post("request_cancel", self._database.memory.request_cancel, *args)

    async def post(self, *args: Any) -> Posted:
        """See ExecutionRepository."""
        return await self._post("post", self._database.memory.post, *args)

    async def _post(self, name: str, write: Callable[..., Coroutine[Any, Any, Posted]], *args: Any) -> Posted:
        def post() -> Posted:
            posted: Posted = finished(write(*args))
            self._sent(posted)
            return posted

        posted = await self.call(name, post)
        self._announce_mail(posted.execution)
        return posted

    async def act(self, *args: Any) -> Acted:
        """See TaskRepository."""

        def post() -> Acted:
            acted: Acted = finished(self._database.memory.act(*args))
            if acted.posted is not None:
                self._sent(acted.posted)
            return acted

        acted = await self.call("act", post)
        if acted.posted is not None:
            self._announce_mail(acted.posted.execution)
        return acted

    def _sent(self, posted: Posted) -> None:
        if posted.message is not None:
            sent = self._database.history.messages
            key = posted.execution.id, posted.message.id, posted.execution.run
            sent.setdefault(key, self._loop.time())

    async def pause_workflow(self, *args: Any) -> Workflow:
        """See WorkflowRepository."""
        return await self._halt("pause_workflow", *args)

    async def resume_workflow(self, *args: Any) -> Workflow:
        """See WorkflowRepository."""
        return await self._halt("resume_workflow", *args)

    async def _halt(self, name: str, *args: Any) -> Workflow:
        method = getattr(self._database.memory, name)
        found: Workflow = await self.call(name, lambda: finished(method(*args)))
        self.announce(News(None, has_work=True, has_mail=True))
        return found

    async def reopen(self, scope: Scope, reopening: Reopening, request: Request | None = None) -> Reopened:
        """See ExecutionRepository."""

        def reopen() -> Reopened:
            return self._database.reopen(self.process, scope, reopening, request)

        reopened = await self.call("reopen", reopen)
        self.announce(News(frozenset({reopened.execution.id}), has_work=True))
        return reopened

    async def advance_bulk(self, bulk: Bulk, found: Sequence[UUID], *, is_last: bool) -> Advanced | None:
        """See BulkRepository."""
        tables, history = self._database.tables, self._database.history

        def advance() -> Advanced | None:
            step: Advanced | None = finished(self._database.memory.advance_bulk(bulk, found, is_last=is_last))
            for mail in step.mail if step is not None else ():
                self._sent(Posted(tables.executions[mail.execution_id].execution, mail.messages[0]))
                history.bulk_messages.setdefault((bulk.id, mail.execution_id), []).append(self._loop.time())
            return step

        step = await self.call("advance_bulk", advance)
        for mail in step.mail if step is not None else ():
            self._announce_mail(tables.executions[mail.execution_id].execution)
        return step

    def _announce_mail(self, row: Execution) -> None:
        self.announce(News(frozenset({row.id}), has_mail=True, has_work=row.incarnation is None))

    # --- Signals

    async def listen(self, heard: Callable[[News], None]) -> None:
        """See Signals."""
        await self.call("listen", lambda: None)
        listeners = self._database.listeners
        listeners[self] = heard
        heard(News(None, has_work=True, has_mail=True))
        try:
            while True:
                await asyncio.sleep(0.5)
                if self.is_broken:
                    raise UnavailableError("the listener lost its connection")
        finally:
            listeners.pop(self, None)

    def _announce(self, executions: Iterable[UUID], *, has_work: bool = False, has_mail: bool = False) -> None:
        self.announce(News(frozenset(executions), has_work, has_mail))

    def announce(self, news: News) -> None:
        """Tell the other processes, most of the time."""
        for link, heard in self._database.listeners.items():
            if link is not self and not (self.is_broken or link.is_broken) and self._random.random() < 0.9:
                self._loop.call_later(self.latency(), heard, news, context=link.process.context())
