"""Planted bugs (FAULTS M1 to M40): each must turn its oracle red, or the oracle is broken."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any
from uuid import NAMESPACE_DNS, UUID, uuid5

from msgspec import structs

from persistence.bulks import Bulk
from persistence.errors import UnavailableError
from persistence.memory import MemoryRepository, journal
from persistence.memory.bulks import MemoryBulks
from persistence.memory.tables import ExecutionRow
from persistence.model import (
    Execution,
    ExecutionDetail,
    Mail,
    Message,
    Posted,
    Scope,
    Step,
    StepState,
)
from persistence.postgres.commit.committer import Committer
from persistence.transition import CommitResult, Created, NewExecution, Transition
from service.engine.clock import StoreClock
from service.engine.definition import Definition
from service.engine.executions import Executions
from service.engine.planning import reopened, restoring
from service.engine.planning.end_rules import EndRules
from service.engine.planning.heap import Heap
from service.engine.planning.pause_rules import PauseRules
from service.engine.planning.planner import _Planning
from service.engine.planning.signal_rules import SignalRules
from service.engine.planning.state import State
from service.engine.requests import StartRequest
from service.engine.running import driver, harmless
from service.engine.running.inbox import Inbox
from service.engine.running.run import Run
from service.engine.running.runner import Runner
from service.engine.running.tenure import Tenure
from service.engine.slices import Work
from service.engine.watch import WatchHub
from tests.simulation import replica
from tests.simulation.link import Link
from tests.simulation.replica import Replica


@dataclass(frozen=True, slots=True)
class Mutant:
    """A bug to plant, and the ids of the invariants of which one must catch it."""

    bug: str
    oracles: tuple[str, ...]
    planted: Callable[[], AbstractContextManager[None]]


MUTANTS: dict[str, Mutant] = {}


def _mutant(name: str, bug: str, *oracles: str) -> Callable[[Callable[[ExitStack], None]], None]:
    def register(plant: Callable[[ExitStack], None]) -> None:
        @contextmanager
        def planted() -> Iterator[None]:
            with ExitStack() as stack:
                plant(stack)
                yield

        MUTANTS[name] = Mutant(bug, tuple(f"{oracle}:" for oracle in oracles), planted)

    return register


def _replace(stack: ExitStack, target: Any, name: str, value: Any) -> Any:
    """Put another value in the place of an attribute until the stack ends, and return the one before."""
    before = target.__dict__[name]
    setattr(target, name, value)
    stack.callback(setattr, target, name, before)
    return before


@_mutant("M1", "a write is not conditional on the owner and its epoch", "I9")
def _no_epoch(stack: ExitStack) -> None:
    def is_fenced(row: Execution, transition: Transition) -> bool:
        ours = structs.replace(row, incarnation=transition.incarnation, epoch=transition.epoch)
        return before(ours, transition)  # type: ignore[no-any-return]

    before = _replace(stack, journal, "is_fenced", is_fenced)


@_mutant("M2", "a rescue takes by id what an earlier look found, with the epoch of that look", "I6", "I7", "I9")
def _rescue_by_id(stack: ExitStack) -> None:
    async def claim(self: Link, incarnation: UUID, limit: int, **_: Any) -> Sequence[ExecutionDetail]:
        memory, tables = self._database.memory, self._database.tables

        def look() -> list[Execution]:
            rows = [row.execution for row in tables.executions.values()]
            return [row for row in rows if not row.state.is_end and _claimable(memory, row)]

        found = await self.call("claim", look)

        def take() -> list[ExecutionDetail]:
            if not tables.is_live(incarnation):
                return []
            return [take_one(each) for each in found[:limit]]

        def take_one(seen: Execution) -> ExecutionDetail:
            row = tables.executions[seen.id]
            row.execution = structs.replace(row.execution, epoch=seen.epoch)
            return memory._taken(row, incarnation)

        return await self._take("claim", take)

    _replace(stack, Link, "claim", claim)


def _claimable(memory: MemoryRepository, execution: Execution) -> bool:
    return memory._is_claimable(execution, memory._tables.now())


@_mutant("M4", "Execute is acknowledged before the commit", "I1")
def _early_acknowledgement(stack: ExitStack) -> None:
    def create(self: Committer, new: NewExecution) -> asyncio.Future[Created]:
        before(self, new).add_done_callback(lambda kept: kept.cancelled() or kept.exception())
        answer: asyncio.Future[Created] = asyncio.get_running_loop().create_future()
        answer.set_result(Created.anew(new, new.execution))
        return answer

    before = _replace(stack, Committer, "create", create)


@_mutant("M5", "a creation whose commit is unknown counts as failed and is made again", "I2")
def _unknown_is_failed(stack: ExitStack) -> None:
    async def execute(self: Executions, scope: Scope, owner: str, order: StartRequest) -> Created:
        try:
            return await before(self, scope, owner, order)  # type: ignore[no-any-return]
        except UnavailableError:
            return await before(self, scope, owner, structs.replace(order, request_id=""))  # type: ignore[no-any-return]

    before = _replace(stack, Executions, "execute", execute)


@_mutant("M6", "a watcher neither polls nor reads again after the listener was away", "I19")
def _no_poll(stack: ExitStack) -> None:
    never = replica.CONFIG.model_copy(update={"watch_poll": 1e6, "watch_bookmark": 1e6})
    _replace(stack, replica, "CONFIG", never)
    _replace(stack, WatchHub, "wake_all", lambda self: None)


@_mutant("M7", "events are numbered by one counter for all executions", "I11")
def _global_cursor(stack: ExitStack) -> None:
    counter = itertools.count(1)

    def numbered(row: ExecutionRow, count: int) -> None:
        fresh = [dataclasses.replace(event, seq=next(counter)) for event in row.events[len(row.events) - count :]]
        if fresh:
            ends = [dataclasses.replace(event, transition_seq=fresh[-1].seq) for event in fresh]
            row.events[len(row.events) - count :] = ends

    def new_row(new: NewExecution) -> ExecutionRow:
        row: ExecutionRow = new_before(new)
        numbered(row, len(row.events))
        return row

    def submit(self: journal.MemoryJournal, transition: Transition) -> CommitResult:
        result: CommitResult = submit_before(self, transition)
        if result is CommitResult.COMMITTED:
            numbered(self._tables.executions[transition.execution_id], len(transition.events))
        return result

    new_before = _replace(stack, journal, "_new_row", new_row)
    submit_before = _replace(stack, journal.MemoryJournal, "_submit", submit)


@_mutant("M8", "events are given to watchers before the commit", "I11")
def _early_events(stack: ExitStack) -> None:
    def transition(self: Run, *args: Any, **named: Any) -> Transition:
        made: Transition = before(self, *args, **named)
        self.context.hub.publish(self.id, made.events)
        return made

    before = _replace(stack, Run, "_transition", transition)


@_mutant("M9", "who loses an execution or a fenced write goes on as if it had not", "ST10", "ST3", "I8")
def _loser_goes_on(stack: ExitStack) -> None:
    def committed(
        self: Run, plan: Any, transition: Transition, again: Any, future: asyncio.Future[CommitResult]
    ) -> None:
        if not future.cancelled() and future.exception() is None and future.result() is CommitResult.FENCED:
            future = asyncio.get_running_loop().create_future()
            future.set_result(CommitResult.COMMITTED)
        before(self, plan, transition, again, future)

    async def reclaim(self: Tenure) -> None:
        """Drop nothing."""

    before = _replace(stack, Run, "_committed", committed)
    _replace(stack, Tenure, "reclaim", reclaim)


@_mutant("M10", "the incarnation is the name of the host", "I9", "I19", "I6", "I8")
def _incarnation_is_host(stack: ExitStack) -> None:
    def new_incarnation(self: Replica) -> UUID:
        return uuid5(NAMESPACE_DNS, self.process.name.split(".")[0])

    _replace(stack, Replica, "new_incarnation", new_incarnation)


@_mutant("M12", "messages are not delivered", "CA2", "CA3")
def _dropped_cancel(stack: ExitStack) -> None:
    async def hand_in(self: Runner, posted: Posted) -> None:
        """Drop it."""

    async def deliver(self: MemoryRepository, incarnation: UUID, taken: object = ()) -> Sequence[Mail]:
        return []

    _replace(stack, journal.MemoryJournal, "deliver", deliver)
    _replace(stack, Runner, "hand_in", hand_in)


@_mutant("M15", "timers go by the clock of the replica", "I14")
def _own_clock(stack: ExitStack) -> None:
    _replace(stack, StoreClock, "learn", lambda self, moment, sent: None)


@_mutant("M16", "a step with an effect outside begins before the commit of its start", "ST12", "ST3", "I8")
def _early_effect(stack: ExitStack) -> None:
    _replace(stack, harmless, "_is_harmless", lambda *known: True)


@_mutant("M17", "an end passes a message that binds", "I21", "CA2")
def _end_passes_mail(stack: ExitStack) -> None:
    def is_fenced(row: Execution, transition: Transition) -> bool:
        return before(structs.replace(row, mail=0), transition)  # type: ignore[no-any-return]

    before = _replace(stack, journal, "is_fenced", is_fenced)


@_mutant("M18", "a message is consumed before what it asks for is done, and lost on the way", "CA2", "CA3", "CA4")
def _lost_message(stack: ExitStack) -> None:
    def receive(self: _Planning, message: Message, *, settles: bool) -> None:
        """Do nothing."""

    _replace(stack, _Planning, "receive", receive)


@_mutant("M27", "what ends an execution is decided before all that was sent to it is read", "I19")
def _unread(stack: ExitStack) -> None:
    def take(self: Inbox, messages: Iterable[Message]) -> list[Message]:
        fresh: list[Message] = before(self, messages)
        self.unread.clear()
        return fresh

    before = _replace(stack, Inbox, "take", take)


@_mutant("M26", "what a message begins at a takeover is taken for cut off", "ST6")
def _message_cut_off(stack: ExitStack) -> None:
    def take_over(self: EndRules, *handlers: frozenset[str]) -> None:
        self.draft.inherited = self.draft.open
        before(self, *handlers)

    before = _replace(stack, EndRules, "take_over", take_over)


@_mutant("M28", "a signal is taken twice", "ST14")
def _taken_twice(stack: ExitStack) -> None:
    def take(self: SignalRules, *found: Any, **how: Any) -> None:
        kept = self.draft.signals
        before(self, *found, **how)
        self.draft.signals = kept

    before = _replace(stack, SignalRules, "_take", take)


@_mutant("M29", "a pause forgets the timers", "CA5")
def _forgotten_timers(stack: ExitStack) -> None:
    def pause(self: PauseRules, message: Message) -> None:
        before(self, message)
        self.draft.timers = Heap()

    before = _replace(stack, PauseRules, "pause", pause)


@_mutant("M33", "an edit is lost by failover", "CA7")
def _lost_edit(stack: ExitStack) -> None:
    def restored(definition: Definition, detail: ExecutionDetail, worker: str) -> Work[State]:
        state = yield from before(definition, detail, worker)
        lost = {path: structs.replace(step, is_fixed=False) for path, step in state.open.items()}
        opened = state.open.update(lost)
        return structs.replace(state, steps=state.steps.update(lost), open=opened, inherited=opened)

    before = restoring.restoring
    for module in (restoring, driver):
        _replace(stack, module, "restoring", restored)


@_mutant("M39", "a variable that was set by hand is lost by failover", "CA10")
def _lost_variable(stack: ExitStack) -> None:
    def restored(definition: Definition, detail: ExecutionDetail, worker: str) -> Work[State]:
        return before(definition, structs.replace(detail, edited={}), worker)

    before = restoring.restoring
    for module in (restoring, driver):
        _replace(stack, module, "restoring", restored)


@_mutant("M40", "a start by a signal looks only in its own process for one that goes on", "ST15")
def _started_beside(stack: ExitStack) -> None:
    def create(self: journal.MemoryJournal, new: NewExecution) -> Created:
        return before(self, structs.replace(new, alone_in=None))  # type: ignore[no-any-return]

    before = _replace(stack, journal.MemoryJournal, "_create", create)


@_mutant("M34", "a retry runs again what has completed", "RE1")
def _done_again(stack: ExitStack) -> None:
    def is_undone(self: reopened._Reopening, step: Step) -> bool:
        return step.state is StepState.COMPLETED or before(self, step)

    before = _replace(stack, reopened._Reopening, "_is_undone", is_undone)


@_mutant("M35", "whoever goes on with a retry does not know what was edited", "RE2")
def _lost_edit_of_retry(stack: ExitStack) -> None:
    def restored(definition: Definition, detail: ExecutionDetail, worker: str) -> Work[State]:
        return before(definition, structs.replace(detail, edit=None), worker)

    before = restoring.restoring
    for module in (restoring, driver):
        _replace(stack, module, "restoring", restored)


@_mutant("M32", "a dry run calls a handler that sends, after failover", "DR1")
def _lost_mocks(stack: ExitStack) -> None:
    def restored(definition: Definition, detail: ExecutionDetail, worker: str) -> Work[State]:
        state = yield from before(definition, detail, worker)
        return structs.replace(state, dry_run=None)

    before = restoring.restoring
    for module in (restoring, driver):
        _replace(stack, module, "restoring", restored)


@_mutant("M30", "a fork shares a payload with its original", "RE4")
def _shared_payload(stack: ExitStack) -> None:
    def create(self: journal.MemoryJournal, new: NewExecution) -> Created:
        created: Created = before(self, new)
        if new.execution.lineage is not None:
            rows = self._tables.executions
            rows[created.execution.id].input = rows[new.execution.lineage.source].input
        return created

    before = _replace(stack, journal.MemoryJournal, "_create", create)


@_mutant("M36", "whoever takes an operation in bulk over begins it anew", "CA8")
def _begun_anew(stack: ExitStack) -> None:
    async def take(self: MemoryBulks, *how: Any) -> Sequence[Bulk]:
        taken: Sequence[Bulk] = await before(self, *how)
        for bulk in taken:
            row = self._tables.bulks[bulk.id]
            row.bulk = dataclasses.replace(row.bulk, cursor=UUID(int=(1 << 128) - 1))
        return [self._tables.bulks[bulk.id].bulk for bulk in taken]

    before = _replace(stack, MemoryBulks, "take_bulks", take)


@_mutant("M38", "a creation does not look at the pause of its workflow", "CA9")
def _not_held_back(stack: ExitStack) -> None:
    def create(self: journal.MemoryJournal, new: NewExecution) -> Created:
        workflow = self._tables.workflows[new.execution.workflow_id]
        pause, workflow.pause = workflow.pause, None
        try:
            created: Created = before(self, new)
        finally:
            workflow.pause = pause
        return created

    before = _replace(stack, journal.MemoryJournal, "_create", create)


@_mutant("M19", "a message that is delivered again happens again", "I21")
def _seen_twice(stack: ExitStack) -> None:
    _replace(stack, Inbox, "take", lambda self, messages: list(messages))
