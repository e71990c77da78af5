"""Finds out where executions stand that this process may own without driving them."""

from __future__ import annotations

import asyncio
import math
from collections import Counter, OrderedDict
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Protocol
from uuid import UUID

import structlog

from persistence.errors import PersistenceError, UnavailableError
from persistence.model import ExecutionDetail
from service.engine.failure import Failure
from service.engine.running.context import Context
from service.engine.running.ownership import Look

log = structlog.get_logger(__name__)

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0
"""Seconds before an execution that was in trouble a moment ago is taken up again; each time twice as long."""

CALM = 30.0
"""Seconds without trouble after which an execution is taken up at once again."""


class Pauses:
    """How long executions are left alone before they are taken up again: the longer, the more often in a row."""

    def __init__(self) -> None:
        # The pause after the last trouble of each, and when that ends; who was in trouble last comes last.
        self._last: OrderedDict[UUID, tuple[float, float]] = OrderedDict()

    def after(self, execution_id: UUID, now: float) -> float:
        """Return the seconds to wait after a trouble `now`, none at the first one in a while."""
        before, end = self._last.pop(execution_id, (0.0, -math.inf))
        pause = 0.0 if now - end >= CALM else min(max(FIRST_PAUSE, 2 * before), LONGEST_PAUSE)
        self._last[execution_id] = (pause, now + pause)
        while now - next(iter(self._last.values()))[1] >= CALM:
            self._last.popitem(last=False)
        return pause


class Taker(Protocol):
    """What executions that were found are handed to."""

    def looking(self) -> AbstractContextManager[Look]:
        """Give the moment before the store is asked for executions; to be left when what it gave is taken up."""
        ...

    async def adopt(self, detail: ExecutionDetail, look: Look, verdict: Failure | None = None) -> None:
        """Go on with an execution from what was recorded, or end it by a verdict.

        `look` is the moment before the store was asked for it.
        """
        ...

    async def condemn(self, execution_id: UUID, failure: Failure) -> None:
        """End an execution as failed, whatever its rows hold."""
        ...


class Recovery:
    """Finds executions whose creation or a write of theirs did not end well, and hands over those that are ours."""

    def __init__(self, context: Context, taker: Taker) -> None:
        self._context = context
        self._taker = taker
        # By how many: one that ends may just have given the execution to the next.
        self._under_way: Counter[UUID] = Counter()
        self._pauses = Pauses()

    @property
    def under_way(self) -> frozenset[UUID]:
        """Executions that are being looked for."""
        return frozenset(self._under_way)

    def look_for(
        self,
        execution_id: UUID,
        attempts: Sequence[asyncio.Task[None]] = (),
        verdict: Failure | None = None,
        *,
        is_hopeless: bool = False,
    ) -> None:
        """Drive an execution if it exists and this process owns it, or end it by a verdict.

        Not before the attempts, which were told to stop, have ended. `is_hopeless`: its rows do not even let it end as
        others do.
        """
        if self._context.ownership.is_stopping:
            return
        self._under_way[execution_id] += 1
        self._context.tasks.spawn(
            self._reconcile(execution_id, attempts, verdict, is_hopeless), f"reconcile {execution_id}"
        )

    async def _reconcile(
        self, execution_id: UUID, attempts: Sequence[asyncio.Task[None]], verdict: Failure | None, is_hopeless: bool
    ) -> None:
        try:
            if attempts:
                await asyncio.wait(attempts, timeout=self._context.settings.cancel_grace)
            await asyncio.sleep(self._pauses.after(execution_id, asyncio.get_running_loop().time()))
            if verdict is not None and is_hopeless:
                await self._taker.condemn(execution_id, verdict)
                return
            pause = 0.05
            while not await self._take_up(execution_id, verdict):
                await asyncio.sleep(pause * (0.5 + self._context.draw()))
                pause = min(2 * pause, 1.0)
        except PersistenceError as error:  # a sweep finds it again
            log.warning("execution not taken up yet", execution_id=str(execution_id), error=str(error))
        finally:
            self._under_way[execution_id] -= 1
            if not self._under_way[execution_id]:
                del self._under_way[execution_id]

    async def _take_up(self, execution_id: UUID, verdict: Failure | None) -> bool:
        """Hand the execution over if it is still ours; return whether the store has answered."""
        with self._taker.looking() as look:
            try:
                detail = await self._context.journal.load(self._context.ownership.incarnation, execution_id)
            except UnavailableError:
                return False
            if detail is not None:
                await self._taker.adopt(detail, look, verdict)
            return True
