"""Executions as they were: put together from their histories."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from uuid import UUID

from msgspec.structs import replace

from persistence.errors import CursorAheadError
from persistence.model import Event, ExecutionDetail, Scope
from persistence.repository import ExecutionRepository
from service.engine import payload
from service.engine.definition import Definition
from service.engine.planning import events
from service.engine.planning.folding import Folding
from service.engine.planning.outline import outline, outlining
from service.engine.slices import Slicing, in_slices
from service.engine.workflows import Workflows

MOST_HISTORY = 32 << 20
"""Bytes of events of which an execution is put together, counted as below: it is done within the time of an answer."""

_PAGE = 1_000
_EVENT, _VALUE = 800, 40
"""Bytes that an event counts for beyond those that it has, and so does each value in its payload: by what they take."""
_BYTES_A_MICROSECOND = 32


_TELLING_USAGE = frozenset({"step_waiting", "step_retrying", "step_completed", "step_failed", "step_cancelled"})


class HistoryTooLargeError(Exception):
    """The events up to the one that was asked for are more than an execution is put together of."""

    def __init__(self, execution_id: UUID, at_seq: int) -> None:
        super().__init__(
            f"the history of execution {execution_id} up to event {at_seq} counts for more than {MOST_HISTORY:,} bytes;"
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
        now, definition = await (self._now if has_steps else self._without_steps)(scope, execution_id)
        if seq > now.execution.last_seq:
            raise CursorAheadError(seq, now.execution.last_seq)
        folding = Folding(definition, now.execution, now.input, dry_run=now.dry_run, has_steps=has_steps)
        lost = [name for name in now.unreadable if name == "input" or name in now.execution.unreadable]
        uses = now.execution.usage is not None  # where there is none now, there was none before
        slicing, size, left, time = Slicing(), 0, MOST_HISTORY, now.execution.create_time
        if seq * _EVENT > left:
            raise HistoryTooLargeError(execution_id, seq)
        async with aclosing(self._events(scope, execution_id, seq)) as stored_events:
            async for stored in stored_events:
                if size <= small < size + len(stored.body):
                    await beyond()
                size, time = size + len(stored.body), stored.time
                counted = _EVENT + len(stored.body)
                # Of such an event the execution without its steps shows the counts, if nothing follows it, and usage.
                is_shown = has_steps or stored.seq == seq or not _is_of_a_step(stored.kind)
                is_shown = is_shown or (uses and stored.kind in _TELLING_USAGE)
                if is_shown and (event := self._decode(stored)) is not None:
                    folding.take(event)
                    counted += _VALUE * _values(event.body)
                elif is_shown:
                    lost.append(f"events.{stored.seq}")
                if (left := left - counted) < 0:
                    raise HistoryTooLargeError(execution_id, seq)
                if is_shown:
                    await slicing.spend(counted // _BYTES_A_MICROSECOND)
        found = folding.detail
        execution = replace(found.execution, unreadable=tuple(lost))
        return replace(found, execution=execution, unreadable=tuple(lost), time=time)

    async def _now(self, scope: Scope, execution_id: UUID) -> tuple[ExecutionDetail, Definition]:
        """Return the execution with its input, and what it runs; what it has of steps does not matter."""
        now = await self._repository.get_detail(scope, execution_id, most=0, first=1)
        if (definition := await self._workflows.find(now.execution)) is None:
            now = await self._repository.get_detail(scope, execution_id, most=0)
            definition = await in_slices(outlining(now))
        return now, definition

    async def _without_steps(self, scope: Scope, execution_id: UUID) -> tuple[ExecutionDetail, Definition]:
        execution = await self._repository.get_execution(scope, execution_id)
        bare = ExecutionDetail(execution, {}, None, (), unreadable=execution.unreadable)
        return bare, outline(bare)

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


def _values(body: events.EventBody) -> int:
    """Return of how many values the payload of an event is made."""
    match body:
        case events.StepStarted(input=held) | events.VariablesAssigned(vars=held) | events.Finished(result=held):
            return payload.values(held)
        case events.StepCompleted(output=held) | events.StepWaiting(output=held):
            return payload.values(held)
        case events.SignalReceived(signal=signal):
            return payload.values(signal.payload)
        case events.StepRetrying(failure=failure) | events.StepFailed(failure=failure):
            return payload.values(failure.details)
    return 0
