"""What callers do with operations in bulk: start, look at, watch and stop them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from persistence.bulks import Bulk, BulkAction, BulkState, NewBulk
from persistence.listing import ExecutionFilter, ExecutionOrder
from persistence.model import Execution, ExecutionState, Scope
from persistence.repository import Repository
from persistence.requests import Method
from service.engine.bulk.carrier import Carrier
from service.engine.ids import uuid7
from service.engine.requests import asked
from service.engine.slices import in_slices
from service.engine.violations import ValidationError, Violation
from service.engine.watch import Pace, ShuttingDownError, WatchHub

MOST = 100_000
"""Executions that an operation comes to at most."""

COUNTED = 10_000
"""So many are counted exactly of those that meet a filter; one more says that there are more."""

SAMPLE = 10
"""Executions that are shown of those that meet a filter."""

_S = ExecutionState
_POSSIBLE: Mapping[BulkAction, tuple[ExecutionState, ...]] = {
    BulkAction.CANCEL: (_S.PENDING, _S.RUNNING, _S.PAUSED),
    BulkAction.PAUSE: (_S.PENDING, _S.RUNNING),
    BulkAction.RESUME: (_S.PAUSED,),
    BulkAction.TERMINATE: (_S.PENDING, _S.RUNNING, _S.PAUSED, _S.CANCELLING),
    BulkAction.RETRY: (_S.FAILED, _S.TIMED_OUT, _S.CANCELLED),
}
_LEFT_OUT = {BulkAction.RETRY: _S.CANCELLED}
"""What was cancelled is retried only where the filter says so."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a caller asks for. `asked` is the filter in its words; `match_all`: it may have no condition but states."""

    action: BulkAction
    filter: ExecutionFilter
    asked: Mapping[str, Any]
    options: Mapping[str, Any] = field(default_factory=dict)
    reason: str = ""
    limit: int = 0
    rate: int = 0
    match_all: bool = False

    def checked(self) -> Wanted:
        """Return it with the states that are meant, and its limit. Raises ValidationError."""
        given, possible, wrong = self.filter.states, _POSSIBLE[self.action], []
        if impossible := [state.value for state in given if state not in possible]:
            names = ", ".join(state.value for state in possible)
            text = f"{self.action.value} can be asked of {names}, not of {', '.join(impossible)}"
            wrong.append(Violation("filter.states", text))
        if not self.match_all and replace(self.filter, states=()) == ExecutionFilter():
            wrong.append(Violation("filter", "must have a condition beside the states, unless match_all is set"))
        if wrong:
            raise ValidationError(wrong)
        states = given or [state for state in possible if state is not _LEFT_OUT.get(self.action)]
        return replace(self, filter=replace(self.filter, states=tuple(states)), limit=self.limit or MOST)


@dataclass(frozen=True, slots=True)
class Matched:
    """How many executions meet a filter, `at_least` when not all were counted, and the first of them."""

    count: int
    at_least: bool
    sample: Sequence[Execution] = ()


class Bulks:
    """Keeps operations, which `Carrier` carries out in some process."""

    def __init__(
        self,
        repository: Repository,
        hub: WatchHub,
        pace: Pace,
        carrier: Carrier,
        now: Callable[[], datetime],
        new_id: Callable[[datetime], UUID] = uuid7,
    ) -> None:
        self._repository = repository
        self._hub = hub
        self._pace = pace
        self._carrier = carrier
        self._now = now
        self._new_id = new_id

    async def preview(self, scope: Scope, wanted: Wanted) -> Matched:
        """Tell which executions meet the filter now, and do nothing. Raises ValidationError, QueueFullError."""
        wanted = wanted.checked()
        matched = await self._count(scope, wanted)
        order, most = ExecutionOrder.NEWEST, min(SAMPLE, wanted.limit)
        sample = await self._repository.list_executions(scope, wanted.filter, order, None, most)
        return replace(matched, sample=sample)

    async def start(self, scope: Scope, by: str, wanted: Wanted, request_id: str = "") -> Bulk:
        """Keep an operation and return it; one that the request id started before is returned as it is now.

        Raises ValidationError, TooManyBulksError, QueueFullError, RequestIdReusedError, BulkNotFoundError.
        """
        wanted = wanted.checked()
        content: dict[str, Any] = {
            "action": wanted.action,
            "filter": wanted.asked,
            "options": wanted.options,
            "reason": wanted.reason,
            "limit": wanted.limit,
            "rate": wanted.rate,
        }
        request = await in_slices(asked(Method.START_BULK, request_id, by, **content))
        matched = await self._count(scope, wanted)
        new = NewBulk(
            id=self._new_id(self._now()),
            scope=scope,
            created_by=by,
            action=wanted.action,
            options=wanted.options,
            reason=wanted.reason,
            filter=wanted.filter,
            asked=wanted.asked,
            limit=wanted.limit,
            rate=wanted.rate,
            matched=matched.count,
            matched_more=matched.at_least,
        )
        bulk = await self._repository.start_bulk(new, request)
        self._carrier.poke()
        return bulk

    async def stop(self, scope: Scope, bulk_id: UUID, by: str) -> Bulk:
        """Let an operation do nothing more, and return it. Raises BulkNotFoundError."""
        bulk = await self._repository.stop_bulk(scope, bulk_id, by)
        self._hub.wake([bulk_id])
        return bulk

    async def watch(self, scope: Scope, bulk_id: UUID) -> AsyncGenerator[Bulk, None]:
        """Give an operation as it is, and again when it has come on or nothing was said for long; ends after its end.

        Raises BulkNotFoundError, ShuttingDownError.
        """
        clock = asyncio.get_running_loop().time
        told: Bulk | None = None
        spoken = 0.0
        # Subscribe first, then read: what is committed in between wakes the subscription.
        with self._hub.subscribe(bulk_id) as subscription:
            while told is None or told.state is BulkState.RUNNING:
                bulk = await self._repository.get_bulk(scope, bulk_id)
                if told is None or bulk != told or clock() - spoken >= self._pace.bookmark:
                    told, spoken = bulk, clock()
                    yield bulk
                    continue
                if self._hub.is_closed:
                    raise ShuttingDownError
                await subscription.wait(0, self._pace.poll)

    async def _count(self, scope: Scope, wanted: Wanted) -> Matched:
        most = min(wanted.limit, COUNTED) + 1
        found = await self._repository.count_executions(scope, wanted.filter, ExecutionOrder.NEWEST, most)
        # What lies beyond the limit does not matter to the operation.
        return Matched(min(found, wanted.limit), found == most and wanted.limit > COUNTED)
