"""Workers of other teams as processes tell each other of them, and the handlers that they have registered."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Protocol
from uuid import UUID

FORGOTTEN = timedelta(days=30)
"""Time after which a handler is forgotten that no worker has registered since."""


@dataclass(frozen=True, slots=True)
class WorkerHandler:
    """A handler that workers of an org have. `seen_time` is when one registered it last, as the store says."""

    name: str
    description: str
    params_schema: Mapping[str, Any]
    effect: str
    version: str = ""
    seen_time: datetime | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class ConnectedWorker:
    """A worker that is connected to a process, whose `incarnation` and name, `server`, the store adds."""

    org: str
    subject: str
    worker_id: str
    name: str
    version: str
    handlers: Sequence[str]
    capacity: int
    running: int
    is_draining: bool
    connect_time: datetime
    heartbeat_time: datetime
    server: str = ""
    incarnation: UUID | None = field(default=None, compare=False)


class WorkerRepository(Protocol):
    """What processes know of each other's workers."""

    async def keep_worker_handlers(self, org: str, handlers: Sequence[WorkerHandler]) -> None:
        """Keep handlers of an org, in place of those of the same names, as seen now.

        Those of the org that nobody has registered for FORGOTTEN are removed.
        """
        ...

    async def find_worker_handlers(self, org: str, names: Collection[str]) -> Sequence[WorkerHandler]:
        """Return the handlers of an org with these names, as far as they are known, by name."""
        ...

    async def list_worker_handlers(self, org: str) -> Sequence[WorkerHandler]:
        """Return all handlers of an org that are known, by name."""
        ...

    async def announce_workers(self, incarnation: UUID, workers: Sequence[ConnectedWorker]) -> None:
        """Let all processes know that these are the workers that are connected to this one.

        Those of processes without a live lease are forgotten.
        """
        ...

    async def list_workers(self, org: str) -> Sequence[ConnectedWorker]:
        """Return the workers of an org that processes with a live lease have announced, by name and id."""
        ...
