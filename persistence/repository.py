"""The contract of a store. Memory and Postgres implement it, and one conformance suite holds both to it.

Every method may raise `UnavailableError`, and plain `PersistenceError` for values that contradict themselves or that
Postgres cannot hold (NUL, half of a surrogate pair, texts longer than their column); then nothing is written. Nothing
outside a caller's `Scope` is ever seen or told apart from what does not exist.

What a store holds and nobody can read, such as a time that was written by hand, fails no call: the value that it is
part of names it as `unreadable`, and the others of a claim or a list are as they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol
from uuid import UUID

from persistence.breakpoints import WorkflowBreakpoints
from persistence.bulks import BulkRepository
from persistence.journal import Journal
from persistence.listing import ExecutionFilter, ExecutionOrder, PageKey, StepFilter, StepPlace, WorkflowFilter
from persistence.model import (
    Applied,
    Event,
    Execution,
    ExecutionDetail,
    ExecutionOutcome,
    ExecutionSteps,
    Posted,
    Scope,
    Workflow,
)
from persistence.pauses import WorkflowPausing
from persistence.people import TaskRepository
from persistence.posting import Posting
from persistence.replicas import ReplicaRepository, Signals
from persistence.requests import Asked, Request
from persistence.transition import (
    Reopened,
    Reopening,
)
from persistence.user_notifications import UserNotificationRepository
from persistence.workers import WorkerRepository

SECRET_BYTES = 32
"""Bytes of a secret of a store."""


class WorkflowRepository(Protocol):
    """Definitions and their revisions.

    A change with a `request` is made once: the id is kept in its transaction, until `forget` removes it, unless it
    was kept before. Then nothing is written: the same method and content hash answer what the first call answered,
    whatever has happened since (WorkflowNotFoundError when that was reaped); others raise RequestIdReusedError. Of
    equal calls at once the later ones wait for the first. A change that is refused leaves its request id free.
    """

    async def create_workflow(
        self, org: str, workflow_id: UUID, document: Mapping[str, Any], created_by: str, request: Request | None = None
    ) -> Workflow:
        """Keep revision 1 of a workflow named `document["name"]` and return it.

        Raises NameTakenError when a workflow of the org, not deleted, has the name.
        """
        ...

    async def get_workflow(self, scope: Scope, reference: str, revision: int = 0) -> Workflow:
        """Return a revision of a workflow by id (the canonical text of a UUID) or name; revision 0 is the latest.

        Raises WorkflowNotFoundError, RevisionNotFoundError. Deleted workflows are not found, except by id while
        executions of them are left.
        """
        ...

    async def list_workflows(
        self, scope: Scope, where: WorkflowFilter, after: UUID | None, limit: int
    ) -> Sequence[Workflow]:
        """Return up to `limit` workflows at their latest revision, newest id first, with ids below `after`."""
        ...

    async def update_workflow(
        self,
        scope: Scope,
        reference: str,
        document: Mapping[str, Any],
        etag: str,
        updated_by: str,
        request: Request | None = None,
    ) -> Workflow:
        """Make `document` the next revision and return it. An empty etag is not compared.

        Raises WorkflowNotFoundError, EtagMismatchError. Of two calls with the same etag one succeeds.
        """
        ...

    async def apply_workflows(
        self,
        org: str,
        documents: Sequence[tuple[UUID, Mapping[str, Any]]],
        applied_by: str,
        request: Request | None = None,
        *,
        dry_run: bool = False,
    ) -> Sequence[Applied]:
        """Make the workflow named in each document be as it says, all or none, and return them in order.

        A name that is not in use gets a workflow with the id beside the document, and revision 1. Where the latest
        revision is equal as JSON (order of keys and `1` or `1.0` make no difference) nothing is written; else the
        document is the next revision. Calls at once that share names come one after the other, never in a circle. With
        `dry_run` it returns what would be, and writes nothing; then there is no request. PersistenceError when two
        documents have one name.
        """
        ...

    async def delete_workflow(
        self,
        scope: Scope,
        reference: str,
        etag: str,
        force: bool,
        deleted_by: str,
        request: Request | None = None,
    ) -> UUID:
        """Hide the workflow, free its name and return its id; `reap` removes what it leaves.

        With `force` every execution of it that has not ended is asked to cancel in the same transaction; without,
        such executions raise WorkflowInUseError. Raises WorkflowNotFoundError, EtagMismatchError too.
        """
        ...

    async def pause_workflow(
        self, scope: Scope, reference: str, asked: WorkflowPausing, request: Request | None = None
    ) -> Workflow:
        """Pause a workflow and return it: what has not started of it is held back, and what `create` makes of it.

        What its owner is about to start that one may start, and nobody else. With `pauses_running` what runs, or is
        about to, is sent the message PAUSE. All in one transaction: what is created at the same time either is there
        before it, or is held back. A pause that stands keeps its id, its subject and its reason. Of the request holds
        what is said above, but that the answer is the workflow as it is now. Raises WorkflowNotFoundError.
        """
        ...

    async def resume_workflow(
        self, scope: Scope, reference: str, by: str, reason: str, request: Request | None = None
    ) -> Workflow:
        """Resume a workflow and return it: what was held back may start, and what its pause has paused is sent RESUME.

        One that is not paused is left as it is. Else as `pause_workflow`.
        """
        ...

    async def set_workflow_breakpoints(
        self, scope: Scope, reference: str, asked: WorkflowBreakpoints, request: Request | None = None
    ) -> Workflow:
        """Let the next executions of a workflow be held, `asked.left` of them, and return it; without points none.

        Its time is that of the store. Else as `pause_workflow`.
        """
        ...

    async def find_change(self, org: str, request: Request) -> Sequence[Applied] | None:
        """Return what the create, update or apply with this request answered; None when the org never used its id.

        Raises RequestIdReusedError, WorkflowNotFoundError.
        """
        ...

    async def reap(self, limit: int) -> int:
        """Remove up to `limit` ended executions of deleted workflows, and such workflows when none is left.

        Returns how many executions were removed. Callable at any time by any number of replicas.
        """
        ...

    async def forget(self, limit: int) -> int:
        """Remove request ids that need not be remembered (REMEMBERED) any more, and return how many.

        Each call looks at about the next `limit` of those that are old, and after the last of them begins again with
        the oldest. Callable at any time by any number of replicas.
        """
        ...


class ExecutionRepository(Protocol):
    """Executions as callers see them."""

    async def get_execution(self, scope: Scope, execution_id: UUID) -> Execution:
        """Return the row. Raises ExecutionNotFoundError."""
        ...

    async def get_outcome(self, scope: Scope, execution_id: UUID) -> ExecutionOutcome:
        """Return the row and the result, consistent with each other. Raises ExecutionNotFoundError."""
        ...

    async def get_detail(
        self, scope: Scope, execution_id: UUID, most: int = 32 << 20, first: int | None = None
    ) -> ExecutionDetail:
        """Return the execution with payloads and steps, consistent with each other.

        With `first` only so many steps, by their places and newest iteration, and, unless `most` is 0, those that
        assigned variables.
        The payloads of steps are read in the order of the definition up to about `most` characters; the steps that are
        left have none, nor details of their failure, and are named as `omitted`. Raises ExecutionNotFoundError, and
        QueueFullError when as much is read at this moment as may be; with `most` 0 and `first` it does not.
        """
        ...

    async def get_steps(
        self, scope: Scope, execution_id: UUID, paths: Sequence[str], most: int, iteration: int = 0
    ) -> ExecutionSteps:
        """Return the steps of an execution with these paths, in their order, each in this iteration, 0 for its newest.

        A path without such a row has none. Payloads are read in this order up to about `most` characters, as
        `get_detail` reads them. Raises what that does.
        """
        ...

    async def list_item_steps(
        self, scope: Scope, execution_id: UUID, where: StepFilter, after: StepPlace | None, limit: int
    ) -> Sequence[tuple[StepPlace, str]]:
        """Return places and paths of up to `limit` steps of items, by their places, beginning behind `after`.

        Each counts in its newest iteration. Raises ExecutionNotFoundError.
        """
        ...

    async def list_forks(self, scope: Scope, execution_id: UUID, limit: int) -> Sequence[Execution]:
        """Return the rows of up to `limit` executions that were made from this one, newest first.

        Also of one that is not there any more, or never was.
        """
        ...

    async def list_executions(
        self, scope: Scope, where: ExecutionFilter, order: ExecutionOrder, after: PageKey | None, limit: int
    ) -> Sequence[Execution]:
        """Return up to `limit` rows in `order`, beginning behind `after`. Raises QueueFullError, as all lists do.

        LONGEST (by end minus start, in seconds; an execution that never started counts from its creation) and
        LAST_ENDED hold only executions that have ended.
        """
        ...

    async def count_executions(self, scope: Scope, where: ExecutionFilter, order: ExecutionOrder, limit: int) -> int:
        """Return how many rows `list_executions` would give over all pages, counting no further than `limit`."""
        ...

    async def read_events(self, scope: Scope, execution_id: UUID, after_seq: int, limit: int) -> Sequence[Event]:
        """Return the next events after `after_seq` in order, without gaps, ending at the end of a transition.

        At most `limit` events and 256 KiB of bodies, unless one transition alone is longer: it is never torn. Empty
        when there is none yet. Raises ExecutionNotFoundError, CursorAheadError, CursorExpiredError.
        """
        ...

    async def request_cancel(
        self, scope: Scope, execution_id: UUID, by: str, reason: str, request: Request | None = None
    ) -> Posted:
        """Send the message CANCEL and return it with the row after it; one that stands or was seen is left as it is.

        It binds, as Transition says. An execution without owner becomes claimable at once. On one that is CANCELLED it
        changes nothing and returns the row; on another end it raises ExecutionFinishedError. Raises
        ExecutionNotFoundError.

        With a `request` that was kept before it changes nothing and returns the row, in whatever state it is;
        RequestIdReusedError when that was of another method or content. What is refused leaves the request id free.
        """
        ...

    async def post(self, scope: Scope, execution_id: UUID, posting: Posting, request: Request | None = None) -> Posted:
        """Send a message and return it with the row after it; without one where `admits` says that it is not sent.

        It is judged by `admits` in the order of commits: of two that exclude each other one is refused. It binds as its
        kind does. An execution without owner becomes claimable at once. Raises what `admits` and
        `check_room` raise and ExecutionNotFoundError; of the `request` holds what `request_cancel` says.
        """
        ...

    async def find_asked(self, org: str, request: Request) -> Asked | None:
        """Return what was asked under this request id, by any method; None when the org never used it.

        Also of what has been removed meanwhile. Raises RequestIdReusedError when it was used for something else.
        """
        ...

    async def reopen(self, scope: Scope, reopening: Reopening, request: Request | None = None) -> Reopened:
        """Let an execution go on after its end, as Reopening says, and return the row after it.

        Of several calls for one end the first in the order of commits wins; ExecutionStateError for all others, and
        wherever else it does not stand at that end. Messages that it was sent before and has not seen are gone, but for
        signals. Its epoch rises, and no death of an earlier run counts. Raises ExecutionNotFoundError, and
        WorkflowNotFoundError when the workflow is deleted; of the `request` holds what `request_cancel` says.
        """
        ...


class Repository(
    WorkflowRepository,
    ExecutionRepository,
    Journal,
    ReplicaRepository,
    Signals,
    UserNotificationRepository,
    TaskRepository,
    WorkerRepository,
    BulkRepository,
    Protocol,
):
    """All of a store."""

    async def secret(self, name: str) -> bytes:
        """Return random bytes that all processes of the store have under a name; the first that asks makes them."""
        ...

    async def ping(self) -> None:
        """Return when the store answers and, as far as is known, writes; else raises UnavailableError within 2 s."""
        ...

    def leases_apart(self) -> AbstractAsyncContextManager[ReplicaRepository] | None:
        """Return the leases over a connection of their own, to be entered and used in any one thread.

        None when they cannot be had apart: then they live and die with the event loop of this process.
        """
        ...

    async def close(self) -> None:
        """Finish what was submitted and let go of all connections."""
        ...
