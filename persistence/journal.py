"""What drives executions asks of a store."""

from __future__ import annotations

from asyncio import Future
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol, TypeAlias
from uuid import UUID

from persistence.model import Event, Execution, ExecutionDetail, Mail, Wanted
from persistence.transition import (
    Closing,
    CommitResult,
    Created,
    NewExecution,
    Transition,
)

End = Callable[[Closing], tuple[Mapping[str, Any], Event]]

MessageKey: TypeAlias = tuple[UUID, UUID]
"""Id of an execution, and of a message to it."""

MAIL_AT_ONCE = 1_000
"""Messages after which a store may leave the others to another call."""


class Journal(Protocol):
    """The engine's side: what drives executions, fenced by incarnation and epoch."""

    def create(self, new: NewExecution) -> Future[Created]:
        """Keep a new execution; the future resolves after the commit.

        With a request id that the org used before it writes nothing: the same content hash answers the first
        execution as it is now (ExecutionNotFoundError when it was reaped since, with the id remembered), another raises
        RequestIdReusedError. Raises WorkflowNotFoundError when the workflow was deleted, or has a later revision and
        the execution is to be of the latest, BreakpointsMetError when it does not take up the breakpoints that the
        workflow has for it, which counts it in the same commit, and QueueFullError at once, before there is a future;
        nothing is written then.

        Of several that are to be alone (`alone_in`) the first in the order of commits is kept, and no other while it
        goes on: then nothing is written, its request id neither, and the answer is the newest that goes on, as it is
        now.
        """
        ...

    def submit(self, transition: Transition) -> Future[CommitResult]:
        """Write a transition; the future resolves after the commit, or when its fate is known.

        UNKNOWN too when it could not be written for some seconds in which others were.

        Transitions of one execution are written in the order of their submission; after one that is not COMMITTED
        those behind it are FENCED. PersistenceError when one contradicts itself or changes a step that has ended,
        other than from COMPLETED to COMPENSATED; it harms no other execution.
        """
        ...

    async def claim(
        self,
        incarnation: UUID,
        limit: int,
        suspects: int = 0,
        without: Collection[str] = (),
        handlers: Collection[str] = (),
    ) -> Sequence[ExecutionDetail]:
        """Take up to `limit` executions and return them as taken, epoch raised, with their unseen messages.

        Claimable are those that have not ended and nobody owns, from their wake_time on (by the store's clock) or when
        they await one of the `handlers`, and those whose owner has no live lease: for these one more death is counted.
        Higher priority first, then orgs in turn, then the earlier wake_time; of more than 1,000 that await a handler
        any may come first. Of executions that come to SUSPECT_DEATHS or more at most `suspects` are taken, beside the
        others. Of the orgs `without` nothing is taken that nobody owns. Without a live lease nothing is taken. What
        could not be read in time may be left out for a while, so that the others are taken.

        This and what else gives an execution to be driven reads no inputs of steps: they are UNREAD. Payloads are read
        of open steps and then of the first ones, up to about LOADED_AT_ONCE characters; the steps that are left are
        `omitted`, with output and variables UNREAD, and `load_payloads` has them.
        """
        ...

    async def claim_one(self, incarnation: UUID, org: str, execution_id: UUID) -> ExecutionDetail | None:
        """Take this execution if nobody owns it, whatever its wake_time, and return it as taken; else None."""
        ...

    async def load(self, incarnation: UUID, execution_id: UUID) -> ExecutionDetail | None:
        """Return the execution, with its unseen messages, if this incarnation owns it, without taking it; else None.

        The caller drives it from now on: a claim of this process that took it and is not answered yet leaves it out.
        """
        ...

    async def load_payloads(self, detail: ExecutionDetail, wanted: Wanted) -> ExecutionDetail:
        """Return what was taken or loaded, with what is wanted of it beside what it has.

        A step that is no longer there stays as it is.
        """
        ...

    async def undriven(self, incarnation: UUID, driven: Sequence[UUID]) -> Sequence[UUID]:
        """Return what this incarnation owns and is not among `driven`, oldest first."""
        ...

    async def deliver(self, incarnation: UUID, taken: Collection[MessageKey] = ()) -> Sequence[Mail]:
        """Return the unseen messages of what this incarnation owns beside those `taken`, oldest execution first.

        What is parked and has some becomes claimable at once, and its messages are returned as well, this once. There
        may be more when MAIL_AT_ONCE or more come.
        """
        ...

    async def find_request(self, org: str, request_id: str, content_hashes: Collection[bytes]) -> Execution | None:
        """Return the execution that a request id started, as it is now; None when the org never used the id.

        Raises RequestIdReusedError when its content has none of the hashes, ExecutionNotFoundError when it was removed.
        """
        ...

    async def condemn(self, incarnation: UUID, execution_id: UUID, end: End) -> Event | None:
        """End an execution that this incarnation owns, whatever its rows hold, and return its last event; else None.

        For what can neither be read nor go on: nothing of its rows is read but what `end` is given, and steps that are
        open are cancelled, as are tasks that it waits for. It ends as FAILED, or as CANCELLED when that was asked for.
        `end` returns the failure and the last event.
        """
        ...

    async def next_wake_time(self) -> datetime | None:
        """Return the earliest wake_time of executions that nobody owns, None when there is none."""
        ...

    async def release(self, incarnation: UUID, execution_ids: Sequence[UUID] | None = None) -> int:
        """Give up these executions, or all of the incarnation; they are claimable at once. Returns how many.

        Waits for nobody: what another transaction holds at this moment stays with the incarnation.
        """
        ...
