"""Values for tests, valid unless a test says otherwise."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from uuid import UUID

from msgspec.structs import replace

from persistence.errors import PersistenceError
from persistence.model import (
    Ending,
    Event,
    Execution,
    ExecutionDetail,
    ExecutionState,
    Scope,
    Step,
    StepCounts,
    StepState,
    Wait,
    WaitKind,
    Workflow,
)
from persistence.repository import Repository
from persistence.transition import CommitResult, Created, NewExecution, Transition
from service.engine.ids import uuid7
from tests.patience import PATIENCE

ORG = "acme"
OWNER = "ann"
SCOPE = Scope(ORG)
FOREIGN_ORG = Scope("globex")
FOREIGN_OWNER = Scope(ORG, "bob")
CANCELLED = Ending(ExecutionState.CANCELLED, {"code": "CANCELLED", "message": "enough"})
# Not a whole second: stores keep microseconds.
MOMENT = datetime(2031, 2, 3, 4, 5, 6, 789_012, tzinfo=UTC)

BEYOND = datetime.max.replace(tzinfo=timezone(timedelta(hours=-5)))
BEFORE = datetime.min.replace(tzinfo=timezone(timedelta(hours=5)))
"""Moments that have a date where they are, and none in UTC."""


def now() -> datetime:
    """The time now, give or take nothing: tests and stores are on one machine."""
    return datetime.now(UTC)


def in_seconds(seconds: float) -> datetime:
    """The time in so many seconds."""
    return now() + timedelta(seconds=seconds)


def document(name: str = "research", **more: Any) -> dict[str, Any]:
    """A definition as the service keeps it."""
    return {"name": name, "steps": [{"id": "fetch", "handler": "call_api"}], **more}


def events(base_seq: int, count: int = 1, *, size: int = 10) -> tuple[Event, ...]:
    """So many events of one transition behind `base_seq`, with bodies of `size` bytes that no text could be."""
    last = base_seq + count
    return tuple(
        Event(seq, last, "step_completed", MOMENT + timedelta(microseconds=last), bytes([seq % 256]) * size)
        for seq in range(base_seq + 1, last + 1)
    )


def step(path: str = "fetch", state: StepState = StepState.RUNNING, **changes: Any) -> Step:
    """A step in its first attempt, or after it."""
    before = Step(path=path, handler="call_api", state=state, attempt=1, start_time=MOMENT, attempt_time=MOMENT)
    if state is StepState.WAITING:
        before = replace(before, wait=Wait(WaitKind.TIMER, MOMENT, MOMENT))
    if state.is_end:
        before = replace(before, end_time=MOMENT, end_seq=2)
    return replace(before, **changes)


def execution(workflow: Workflow, incarnation: UUID | None = None, **changes: Any) -> Execution:
    """An execution: RUNNING when somebody owns it, else PENDING and claimable; or as `changes` say."""
    row = Execution(
        id=uuid7(),
        org=workflow.org,
        owner=OWNER,
        workflow_id=workflow.id,
        workflow_name=workflow.name,
        revision=workflow.revision,
        state=ExecutionState.RUNNING if incarnation else ExecutionState.PENDING,
        create_time=now(),
        timeout=3600.0,
        counts=StepCounts(total=3),
        incarnation=incarnation,
        wake_time=None if incarnation else in_seconds(-1),
        last_seq=1,
    )
    row = replace(row, **changes)
    if row.state is ExecutionState.CANCELLING:
        return replace(row, ending=CANCELLED)
    if row.state.is_end:
        return replace(row, incarnation=None, wake_time=None, end_time=row.end_time or now())
    return row


def new(row: Execution, **changes: Any) -> NewExecution:
    """What creates this row, with as many events as it says."""
    content_hash = hashlib.sha256(b"first").digest()
    return replace(NewExecution(row, {"topic": "whales"}, content_hash, (), events(0, row.last_seq)), **changes)


def transition(row: Execution, count: int = 1, **changes: Any) -> Transition:
    """A transition that fits the row, with so many events."""
    before = Transition(
        org=row.org,
        execution_id=row.id,
        incarnation=row.incarnation or uuid7(),
        epoch=row.epoch,
        base_seq=row.last_seq,
        state=ExecutionState.RUNNING,
        counts=row.counts,
        progress=row.progress,
        events=events(row.last_seq, count),
        start_time=row.start_time,
        deadline_time=row.deadline_time,
    )
    return replace(before, **changes)


def ending(row: Execution, state: ExecutionState = ExecutionState.COMPLETED, **changes: Any) -> Transition:
    """A transition that ends the execution."""
    return transition(row, **{"state": state, "end_time": now(), **changes})


def parking(row: Execution, wake_time: datetime | None, **changes: Any) -> Transition:
    """A transition that gives the execution up."""
    return transition(row, release=True, wake_time=wake_time, **changes)


def seen(row: Execution, mail: int = 1) -> dict[str, Any]:
    """What a transition says that has seen so many binding messages, the cancel of the row among them."""
    return {"consumed": (row.id,), "mail_seen": mail}


def after(row: Execution, written: Transition) -> Execution:
    """The row as the next transition in flight sees it."""
    return replace(row, last_seq=written.last_seq, state=written.state, counts=written.counts)


def chain(row: Execution, length: int) -> list[Transition]:
    """Transitions of which each follows the one before it."""
    chained: list[Transition] = []
    for _ in range(length):
        chained.append(transition(row))
        row = after(row, chained[-1])
    return chained


def ids(found: Sequence[Execution] | Sequence[ExecutionDetail] | Sequence[Workflow]) -> list[UUID]:
    """The ids, in order."""
    return [each.execution.id if isinstance(each, ExecutionDetail) else each.id for each in found]


async def outcome(pending: Awaitable[Any]) -> Any:
    """The answer, or the error in its place."""
    try:
        return await pending
    except PersistenceError as error:
        return error


async def until(condition: Callable[[], Awaitable[Any]], timeout: float = PATIENCE) -> Any:
    """The first true answer of the condition, asked again and again."""
    async with asyncio.timeout(timeout):
        while not (answer := await condition()):  # noqa: ASYNC110 - the clock of the store gives no signal
            await asyncio.sleep(0.01)
        return answer


@dataclass(frozen=True)
class Keeper:
    """Puts executions of one workflow into a store."""

    repository: Repository
    workflow: Workflow
    incarnation: UUID

    async def put(self, **changes: Any) -> Execution:
        """Keep an execution that the process owns."""
        return await self._put(execution(self.workflow, **{"incarnation": self.incarnation, **changes}))

    async def put_free(self, **changes: Any) -> Execution:
        """Keep an execution that nobody owns."""
        return await self._put(execution(self.workflow, None, **changes))

    async def put_ended(self, state: ExecutionState = ExecutionState.COMPLETED, **changes: Any) -> Execution:
        """Keep an execution that has ended."""
        return await self.put(state=state, **changes)

    async def commit(self, written: Transition) -> Execution:
        """Write a transition, which must succeed, and return the row after it."""
        assert await self.repository.submit(written) is CommitResult.COMMITTED
        return await self.repository.get_execution(Scope(written.org), written.execution_id)

    async def read(self, row: Execution) -> ExecutionDetail:
        """The execution as it is now."""
        return await self.repository.get_detail(Scope(row.org), row.id)

    async def _put(self, row: Execution) -> Execution:
        created: Created = await self.repository.create(new(row))
        assert created.created
        return created.execution
