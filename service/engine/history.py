"""Executions as they were: put together from their histories."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from uuid import UUID

from msgspec.structs import replace

from persistence.errors import CursorAheadError
from persistence.model import Event, ExecutionDetail, Scope
from persistence.repository import ExecutionRepository
from service.engine.planning import events
from service.engine.planning.folding import Folding
from service.engine.planning.outline import outline
from service.engine.slices import Slicing
from service.engine.workflows import Workflows

MOST_HISTORY = 64 << 20
"""Bytes of events of which an execution is put together."""

_PAGE = 1_000
_COST, _BYTES_A_MICROSECOND = 60, 20
"""Microseconds that an event takes, and the bytes of it that take one more."""


class HistoryTooLargeError(Exception):
    """The events up to the one that was asked for are more than an execution is put together of."""

    def __init__(self, execution_id: UUID, at_seq: int) -> None:
        super().__init__(
            f"the history of execution {execution_id} up to event {at_seq} has more than {MOST_HISTORY:,} bytes;"
            " read its events"
        )
        self.execution_id = execution_id
        self.at_seq = at_seq


class History:
    """Shows executions as they were, over one repository. `decode` gives None for an event that cannot be read."""

    def __init__(
        self,
        repository: ExecutionRepository,
        workflows: Workflows,
        decode: Callable[[Event], events.Event | None],
    ) -> None:
        self._repository = repository
        self._workflows = workflows
        self._decode = decode

    async def at(
        self,
        scope: Scope,
        execution_id: UUID,
        seq: int,
        *,
        has_steps: bool,
        small: int,
        beyond: Callable[[], Awaitable[None]],
    ) -> ExecutionDetail:
        """Return the execution as it was after the event `seq`, with its steps if `has_steps`.

        Waits once for `beyond` before it goes on with more than `small` bytes of events. An event that cannot be read
        is left out and named. Raises ExecutionNotFoundError, CursorAheadError, CursorExpiredError,
        HistoryTooLargeError, and what `beyond` does.
        """
        now = await self._now(scope, execution_id, has_steps=has_steps)
        if seq > now.execution.last_seq:
            raise CursorAheadError(seq, now.execution.last_seq)
        definition = (await self._workflows.shown(now))[0] if has_steps else outline(now)
        folding = Folding(definition, now.execution, now.input, has_steps=has_steps)
        lost = [name for name in now.unreadable if name == "input" or name in now.execution.unreadable]
        slicing, size = Slicing(), 0
        async with aclosing(self._events(scope, execution_id, seq)) as stored_events:
            async for stored in stored_events:
                if size <= small < size + len(stored.body):
                    await beyond()
                size += len(stored.body)
                if size > MOST_HISTORY:
                    raise HistoryTooLargeError(execution_id, seq)
                # Of such an event the execution without its steps shows the counts, if nothing follows it.
                if not has_steps and stored.seq < seq and _is_of_a_step(stored.kind):
                    continue
                if (event := self._decode(stored)) is None:
                    lost.append(f"events.{stored.seq}")
                else:
                    folding.take(event)
                await slicing.spend(_COST + len(stored.body) // _BYTES_A_MICROSECOND)
        found = folding.detail
        return replace(found, execution=replace(found.execution, unreadable=tuple(lost)), unreadable=tuple(lost))

    async def _now(self, scope: Scope, execution_id: UUID, *, has_steps: bool) -> ExecutionDetail:
        if has_steps:
            return await self._repository.get_detail(scope, execution_id, most=0)
        execution = await self._repository.get_execution(scope, execution_id)
        return ExecutionDetail(execution, {}, None, (), unreadable=execution.unreadable)

    async def _events(self, scope: Scope, execution_id: UUID, last: int) -> AsyncGenerator[Event, None]:
        """Give the events up to `last`, which exists, page by page."""
        after = 0
        while after < last:
            page = await self._repository.read_events(scope, execution_id, after, _PAGE)
            for event in page:
                if event.seq <= last:
                    yield event
            after = page[-1].seq


def _is_of_a_step(kind: str) -> bool:
    return kind.startswith("step_") or kind == "variables_assigned"
