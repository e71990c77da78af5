"""Carries operations in bulk out: in this process those that nobody else has, step by step."""

from __future__ import annotations

import asyncio
from functools import partial
from uuid import UUID, uuid4

import structlog

from persistence import failpoints
from persistence.bulks import Advanced, Bulk, BulkAction, BulkOutcome, BulkResult, BulkState
from persistence.errors import (
    ExecutionFinishedError,
    ExecutionNotFoundError,
    ExecutionStateError,
    PersistenceError,
    RequestIdReusedError,
    RevisionNotFoundError,
    UnreadableError,
    WorkflowNotFoundError,
)
from persistence.gate import Gate
from persistence.repository import Repository
from service.engine.editing import StepNotRetriedError
from service.engine.retries import Retries, Retry
from service.engine.running.runner import Runner
from service.engine.running.wakeups import Wakeup
from service.engine.violations import ValidationError

log = structlog.get_logger(__name__)

STEP = 20
"""Executions that a step comes to: their rows are locked for as long as it takes, and they end together. With 100 the
p99 of others rises six times, with 20 two times, and with fewer no less (`tests/bench/bulk.py`).
"""

RETRIED = 10
"""Executions that are retried in a step, each in a commit of its own."""

STEPS_A_SECOND = 4
"""Steps of an operation that has a rate."""

REST = 3.0
"""Times as long as a step has taken nothing follows of any operation: they take a quarter of one connection."""

LONGEST_REST = 1.0
"""Seconds after which the next step follows, however long the last one has taken."""

CARRIED = 1_000
"""Operations that wait in a process for their turn; orgs have theirs, however many an org has started."""

TURN_WITHIN = 600.0
"""Seconds after which an operation that had no turn is taken anew."""

INTERVAL = 2.0
"""Seconds between looks for operations that nobody carries out."""

_REFUSALS = (
    ExecutionFinishedError,
    ExecutionStateError,
    RequestIdReusedError,
    RevisionNotFoundError,
    StepNotRetriedError,
    ValidationError,
    WorkflowNotFoundError,
)
"""What is as wrong for whoever asks again, and is told in words that its caller may know."""

_FORGOTTEN = 1_000
_FORGET_INTERVAL = 60.0


class Carrier:
    """Takes operations and makes their steps, one at a time in a process.

    A step is one commit, in which the store looks whether the operation is still this process's. So whoever takes it
    over goes on where it stands, and a step whose answer was lost is not made again: the operation is taken anew.
    """

    def __init__(self, repository: Repository, runner: Runner, retries: Retries) -> None:
        self._repository = repository
        self._runner = runner
        self._retries = retries
        self._wakeup = Wakeup()
        self._carried: dict[UUID, asyncio.Task[None]] = {}
        self._resting: set[UUID] = set()
        self._turn = Gate(1, TURN_WITHIN)

    def poke(self) -> None:
        """Let it look for operations now."""
        self._wakeup.poke()

    async def keep(self) -> None:
        """Carry operations out until cancelled."""
        while True:
            try:
                await self._take()
            except PersistenceError as error:
                log.warning("operations in bulk not taken", error=str(error))
            await self._wakeup.wait(INTERVAL)

    async def tend(self) -> None:
        """Remove operations that are old enough, until cancelled."""
        while True:
            try:
                removed = await self._repository.forget_bulks(_FORGOTTEN)
            except PersistenceError as error:
                removed = 0
                log.warning("old operations in bulk not removed", error=str(error))
            if not removed:
                await asyncio.sleep(_FORGET_INTERVAL)

    async def _take(self) -> None:
        runner, room = self._runner, CARRIED - len(self._carried) + len(self._resting)
        if room <= 0 or not runner.ownership.may_take:
            return
        for bulk in await self._repository.take_bulks(runner.incarnation, list(self._carried), room):
            task = runner.tasks.spawn(self._carry(bulk), f"bulk {bulk.id}")
            self._carried[bulk.id] = task
            task.add_done_callback(partial(self._ended, bulk.id))

    def _ended(self, bulk_id: UUID, _: object) -> None:
        self._carried.pop(bulk_id, None)
        self._wakeup.poke()

    async def _carry(self, bulk: Bulk) -> None:
        """Make steps of an operation until it has ended, or is not this process's any more."""
        clock = asyncio.get_running_loop().time
        while True:
            begun = clock()
            try:
                async with self._turn.place(bulk.scope.org):
                    step_begun = clock()
                    after = await self._step(bulk)
                    await asyncio.sleep(min(REST * (clock() - step_begun), LONGEST_REST))
            except Exception as error:
                # It is not known what was done: the next look takes the operation as it stands by then.
                fault = None if isinstance(error, PersistenceError) else error
                log.warning(
                    "step of an operation in bulk failed", bulk_id=str(bulk.id), error=str(error), exc_info=fault
                )
                await self._rest(bulk, INTERVAL)
                return
            if after is None or after.state is not BulkState.RUNNING:
                return
            if bulk.rate:
                due = begun + (after.seen - bulk.seen) / bulk.rate
                await self._rest(bulk, max(0.0, due - clock()))
            bulk = after

    async def _rest(self, bulk: Bulk, seconds: float) -> None:
        """Let others have the place of an operation for a while."""
        self._resting.add(bulk.id)
        try:
            await asyncio.sleep(seconds)
        finally:
            self._resting.discard(bulk.id)

    async def _step(self, bulk: Bulk) -> Bulk | None:
        """Make one step, and return the operation after it; None when it is not this process's any more."""
        is_retry = bulk.action is BulkAction.RETRY
        most = min(bulk.left, RETRIED if is_retry else STEP)
        if bulk.rate:
            most = min(most, max(1, bulk.rate // STEPS_A_SECOND))
        after = await (self._retry(bulk, most) if is_retry else self._send(bulk, most))
        self._runner.context.hub.wake([bulk.id])
        return after

    async def _send(self, bulk: Bulk, most: int) -> Bulk | None:
        found = await self._repository.find_for_bulk(bulk, most)
        await failpoints.reach("bulk.before_step")
        step: Advanced | None = await self._repository.advance_bulk(bulk, found, is_last=len(found) < most)
        await failpoints.reach("bulk.after_step_before_delivery")
        if step is None:
            return None
        await self._runner.hand_in_all(step.mail, step.unowned)
        return step.bulk

    async def _retry(self, bulk: Bulk, most: int) -> Bulk | None:
        """Retry some executions. What a process has begun and not recorded, whoever follows it asks again."""
        is_last, reserved = False, bulk
        if not bulk.under_way:
            found = await self._repository.find_for_bulk(bulk, most)
            is_last = len(found) < most
            begun = await self._repository.reserve_bulk(bulk, found)
            if begun is None:
                return None
            reserved = begun
        await failpoints.reach("bulk.before_step")
        results = [await self._retried(reserved, each) for each in reserved.under_way]
        await failpoints.reach("bulk.after_step_before_delivery")
        return await self._repository.record_bulk(reserved, results, is_last=is_last)

    async def _retried(self, bulk: Bulk, execution_id: UUID) -> BulkResult:
        """Retry an execution, under a request id by which it is retried once, whoever asks again.

        Raises PersistenceError where that may pass.
        """
        timeout = bulk.options.get("timeout")
        states = bulk.filter.states
        retry = Retry(bulk.reason, float(timeout) if timeout else None, bulk_id=str(bulk.id), states=states)
        request_id = f"bulk:{bulk.id}:{execution_id}"
        try:
            await self._retries.retry(bulk.scope, execution_id, bulk.created_by, retry, request_id)
        except ExecutionNotFoundError:
            return BulkResult(execution_id, BulkOutcome.NOT_FOUND)
        except _REFUSALS as error:
            return BulkResult(execution_id, BulkOutcome.REFUSED, str(error))
        except UnreadableError as error:  # why it cannot be read repeats what stands in the definition
            return BulkResult(execution_id, BulkOutcome.REFUSED, str(error).removesuffix(f": {error.why}"))
        except PersistenceError:
            raise
        except Exception as error:
            error_id = str(uuid4())
            log.error("retry of an operation in bulk failed", bulk_id=str(bulk.id), error_id=error_id, exc_info=error)
            told = f"the server made a mistake; its log has it under error_id {error_id}"
            return BulkResult(execution_id, BulkOutcome.REFUSED, told)
        return BulkResult(execution_id, BulkOutcome.DONE)
