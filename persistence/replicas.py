"""The part of a store that processes share: their leases, and the news that they tell each other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol
from uuid import UUID

from persistence.model import Scope
from persistence.processes import Driving, Lease, News, Queue


class ReplicaRepository(Protocol):
    """Leases of replica processes."""

    async def register(self, incarnation: UUID, name: str, ttl: float) -> Lease:
        """Begin the lease of a process: `ttl` seconds from now by the store's clock. `name` is for people."""
        ...

    async def renew(self, incarnation: UUID, ttl: float, *, lapsed: bool = False) -> Lease | None:
        """Extend the lease to `ttl` seconds from now. None when it has ended: the process must begin another.

        With `lapsed` one that has run out is taken up again, unless it was retired: what others took over meanwhile
        stays theirs.
        """
        ...

    async def retire(self, incarnation: UUID) -> None:
        """End the lease and release all that the incarnation owns; the rest, as `release` says, is claimable too."""
        ...

    async def retire_others(self, incarnation: UUID) -> None:
        """End all other leases; only for the single owner of an embedded database, whose predecessors are dead."""
        ...

    async def disown(self, incarnation: UUID, execution_id: UUID, epoch: int) -> bool:
        """Release an execution as if its owner had died with it: claimable at once, with one death more.

        False when this incarnation does not own it at this epoch.
        """
        ...

    async def queue(self, scope: Scope, workflow_id: UUID, limit: int, most: int) -> Queue:
        """Return up to `limit` executions of a workflow that may be claimed, of the first `most` of the org.

        Raises QueueFullError when too much is read already.
        """
        ...

    async def who_drives(self, scope: Scope, execution_id: UUID, most: int) -> Driving:
        """Return which process has an execution, or how many, up to `most`, of its org are claimed before it.

        Raises ExecutionNotFoundError, and QueueFullError when too much is read already.
        """
        ...


class Signals(Protocol):
    """What processes tell each other."""

    async def listen(self, heard: Callable[[News], None]) -> None:
        """Give `heard` what other processes did, as hints, until cancelled.

        News may come late, twice or not at all: whoever listens also looks by himself from time to time. The first,
        as soon as it listens, says that anything may have happened. Raises UnavailableError when it cannot go on.
        """
        ...
