"""Operations in bulk: one action on many executions. What a store keeps of them, and its contract for them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Protocol
from uuid import UUID, uuid5

import msgspec

from persistence.errors import ExecutionFinishedError, ExecutionStateError, RequestIdReusedError
from persistence.listing import ExecutionFilter
from persistence.model import Json, Mail, MessageKind, Scope
from persistence.posting import Standing, admits_cancel, admits_kind
from persistence.requests import Request

KEPT_FOR = timedelta(days=30)
"""For so long an operation and its results are kept after its end, and with it the answer to its request id."""

TAKEN_FOR = timedelta(days=7)
"""For so long after it was stopped an operation is taken, to record what was under way."""

MOST_RUNNING = 10
"""Operations of an org that run at a time."""

LONGEST_REASON = 1_024
"""Characters."""


class BulkAction(StrEnum):
    """What is done with each execution. The names are what the database holds."""

    CANCEL = "CANCEL"
    PAUSE = "PAUSE"
    RESUME = "RESUME"
    TERMINATE = "TERMINATE"
    RETRY = "RETRY"


class BulkState(StrEnum):
    """Where an operation stands. The names are what the database holds."""

    RUNNING = "RUNNING"
    COMPLETED = "COMPLETED"
    STOPPED = "STOPPED"


class BulkOutcome(StrEnum):
    """What came of one execution. The names are what the database holds."""

    DONE = "DONE"
    REFUSED = "REFUSED"
    NOT_FOUND = "NOT_FOUND"


@dataclass(frozen=True, slots=True)
class NewBulk:
    """An operation that is to be started by the subject `created_by`, on what `scope` sees.

    `options` belong to the action, and `asked` is the filter in the words of the caller, for whoever reads the
    operation. It goes through `limit` executions at most, `rate` a second, 0 for as many as fit. `matched` were counted
    at its start, or more if `matched_more`.
    """

    id: UUID
    scope: Scope
    created_by: str
    action: BulkAction
    options: Mapping[str, Json]
    reason: str
    filter: ExecutionFilter
    asked: Mapping[str, Any]
    limit: int
    rate: int
    matched: int
    matched_more: bool


@dataclass(frozen=True, slots=True)
class Bulk(NewBulk):
    """An operation. It comes next to the executions that meet the filter and have ids below `cursor`.

    Of those `under_way` it is not known yet what came of them.
    The process `incarnation` carries it out under `epoch`, which rises at each change of that process.
    """

    state: BulkState
    create_time: datetime
    end_time: datetime | None
    stopped_by: str
    cursor: UUID
    counts: Mapping[BulkOutcome, int]
    under_way: tuple[UUID, ...]
    incarnation: UUID | None
    epoch: int

    @property
    def seen(self) -> int:
        """How many executions it has come to."""
        return sum(self.counts.values())

    @property
    def left(self) -> int:
        """How many more it may come to."""
        return max(0, self.limit - self.seen)


@dataclass(frozen=True, slots=True)
class BulkResult:
    """What came of one execution; `reason` says why it was refused."""

    execution_id: UUID
    outcome: BulkOutcome
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Advanced:
    """An operation after a step of it, with the messages that it sent, and how many are for what nobody drives."""

    bulk: Bulk
    mail: Sequence[Mail] = ()
    unowned: int = 0


class BulkRepository(Protocol):
    """Operations in bulk. A scope sees those that its owner started, and without an owner those of the org.

    An operation goes through executions by falling ids, and each step of it is one commit: the messages, what came of
    each execution, and how far it has come. So a crash loses nothing, and nothing is done twice. Its row is locked
    before any execution.
    """

    async def start_bulk(self, new: NewBulk, request: Request | None = None) -> Bulk:
        """Keep an operation, which nobody carries out yet. Its first execution is the newest of the org at this moment.

        With a `request` that was kept before it returns the operation of that, as it is now; also when the request is
        forgotten, and the operation, which may have run for long, is not. Raises TooManyBulksError
        when MOST_RUNNING of the org run, RequestIdReusedError, BulkNotFoundError when that operation is forgotten.
        """
        ...

    async def get_bulk(self, scope: Scope, bulk_id: UUID) -> Bulk:
        """Return an operation. Raises BulkNotFoundError."""
        ...

    async def list_bulks(
        self, scope: Scope, states: Sequence[BulkState], after: UUID | None, limit: int
    ) -> Sequence[Bulk]:
        """Return up to `limit` operations in one of the states, if any are given, newest id first, below `after`."""
        ...

    async def list_bulk_results(
        self, scope: Scope, bulk_id: UUID, outcomes: Sequence[BulkOutcome], after: int, limit: int
    ) -> Sequence[tuple[int, BulkResult]]:
        """Return up to `limit` results with their numbers, in order, behind number `after`. Raises BulkNotFoundError.

        They are numbered from 1, in the order in which the operation came to the executions.
        """
        ...

    async def stop_bulk(self, scope: Scope, bulk_id: UUID, by: str) -> Bulk:
        """Let an operation that runs do nothing more, and return it. Raises BulkNotFoundError."""
        ...

    async def take_bulks(self, incarnation: UUID, driven: Sequence[UUID], limit: int) -> Sequence[Bulk]:
        """Take up to `limit` operations that run, oldest first, epoch raised.

        Those are free that nobody carries out, whose process has no live lease, or that are of this incarnation; never
        those `driven`. One that was stopped less than TAKEN_FOR ago while executions were `under_way` is taken, too,
        to record what came of these. Without a live lease nothing is taken.
        """
        ...

    async def find_for_bulk(self, bulk: Bulk, limit: int) -> Sequence[UUID]:
        """Return up to `limit` executions that the operation comes to next, in order. Raises QueueFullError."""
        ...

    async def advance_bulk(self, bulk: Bulk, found: Sequence[UUID], *, is_last: bool) -> Advanced | None:
        """Send the message of the operation to what was found, and keep what came of each.

        Each is judged as it is by then. With the last one, or at its limit, the operation is COMPLETED. None, and
        nothing is done, unless it runs and is carried out by this process, from this cursor.
        """
        ...

    async def reserve_bulk(self, bulk: Bulk, found: Sequence[UUID]) -> Bulk | None:
        """Keep to which executions an operation comes now, and return it; None as `advance_bulk`.

        None also while others are `under_way`, which whoever takes it has to record first.
        For what is done to them outside of this store, until `record_bulk`: whoever takes it over does that again.
        """
        ...

    async def record_bulk(self, bulk: Bulk, results: Sequence[BulkResult], *, is_last: bool) -> Bulk | None:
        """Keep what came of executions to which the operation came outside of this store; else as `advance_bulk`.

        Of one that was stopped meanwhile the results are kept, too.
        """
        ...

    async def forget_bulks(self, limit: int) -> int:
        """Remove operations that have ended longer than KEPT_FOR ago, with about `limit` results at most.

        Returns how much was removed. Callable at any time by any number of replicas.
        """
        ...


def message_id(bulk: NewBulk, execution_id: UUID) -> UUID:
    """Return the id of the message that an operation sends an execution: sent again, it arrives once."""
    return execution_id if bulk.action is BulkAction.CANCEL else uuid5(bulk.id, execution_id.hex)


def message_body(bulk: NewBulk) -> Mapping[str, Json]:
    """Return what stands in the messages of an operation: why, how, and which operation it is."""
    return {"reason": bulk.reason, **bulk.options, "bulk_id": str(bulk.id)}


def same(bulk: Bulk, new: NewBulk, request: Request) -> Bulk:
    """Return an operation that a request has started which is forgotten.

    Raises RequestIdReusedError when it does not do what is asked for now.
    """
    for name in ("created_by", "action", "options", "reason", "asked", "limit", "rate"):
        if getattr(bulk, name) != getattr(new, name):
            raise RequestIdReusedError(request.id)
    return bulk


def judged(bulk: NewBulk, execution: Standing | None, execution_id: UUID, unseen: Iterable[str]) -> Judged:
    """Return what comes of an execution, None for one that is not there; and whether it is sent the message."""
    if execution is None:
        return Judged(BulkResult(execution_id, BulkOutcome.NOT_FOUND), False)
    kind = MessageKind(bulk.action.value)
    try:
        is_cancel = kind is MessageKind.CANCEL
        sends = admits_cancel(execution, unseen) if is_cancel else admits_kind(execution, unseen, kind)
    except (ExecutionFinishedError, ExecutionStateError) as error:
        return Judged(BulkResult(execution_id, BulkOutcome.REFUSED, str(error)), False)
    if sends and bulk.filter.states and execution.state not in bulk.filter.states:
        reason = f"execution {execution_id} no longer is what the operation asked for: it is {execution.state}"
        return Judged(BulkResult(execution_id, BulkOutcome.REFUSED, reason), False)
    return Judged(BulkResult(execution_id, BulkOutcome.DONE), sends)


class Judged(msgspec.Struct, frozen=True):
    """What comes of an execution, and whether it is sent a message."""

    result: BulkResult
    sends: bool
