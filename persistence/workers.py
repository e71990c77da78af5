"""Workers of other teams as processes tell each other of them, and the handlers that they have registered."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, NamedTuple, Protocol
from uuid import UUID

from persistence.model import StepState

FORGOTTEN = timedelta(days=30)
"""Time after which a handler is forgotten that no worker has registered since."""

FORGOTTEN_ATTEMPT = timedelta(hours=1)
"""Time after which is forgotten what a process held that does so no more, of attempts whose owners wait for seconds."""


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
    labels: Mapping[str, str] = field(default_factory=dict)


class AwaitedWorker(NamedTuple):
    """What executions wait for that nobody drives: a worker of an org with a handler, and with what it is to be.

    Those are what the engine calls its wishes. `Transition.awaits` has all three, in this order, with tabs between.
    """

    org: str
    handler: str
    wishes: str


class WorkerAttempt(NamedTuple):
    """An attempt that a worker was given."""

    org: str
    execution_id: UUID
    path: str
    iteration: int
    number: int


@dataclass(frozen=True, slots=True)
class Standing:
    """Where an attempt stands.

    `state` is that of its step, None where there is none, and `code` how the attempt failed, as far as is known.
    `is_newest`: its step has begun no later one. `is_held`: it is the one that runs, and held by the process that asks.
    `stop` is why its owner wants it to stop, and `report` what was kept of it when it was taken.
    """

    is_running: bool
    is_newest: bool = False
    is_held: bool = False
    state: StepState | None = None
    code: str = ""
    stop: str = ""
    report: bytes = b""


@dataclass(frozen=True, slots=True)
class Holding:
    """That a process holds an attempt for its worker. `is_live`: its lease runs."""

    incarnation: UUID
    report: bytes
    is_live: bool


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

    async def hold_attempts(
        self, incarnation: UUID, attempts: Sequence[tuple[WorkerAttempt, bytes]], *, take: bool
    ) -> Sequence[Standing]:
        """Hold those attempts that run, for workers of this process; return where each stands, in order.

        With each comes what its worker has said, empty for nothing new: what was kept before stays then. Those that
        another process holds are left to it, unless they are to be taken: their workers have come here.
        """
        ...

    async def drop_attempts(self, incarnation: UUID, attempts: Sequence[WorkerAttempt]) -> None:
        """Hold these no longer, and forget what nobody has held for FORGOTTEN_ATTEMPT."""
        ...

    async def find_attempts(self, stops: Mapping[WorkerAttempt, str]) -> Mapping[WorkerAttempt, Holding]:
        """Return who holds these attempts of executions that the caller drives, as far as anybody does.

        With each comes why it is to stop, empty when it is to go on, which its holder is told by `hold_attempts`.
        """
        ...

    async def keep_awaited_worker(self, awaited: AwaitedWorker) -> None:
        """Keep what executions wait for, as seen now.

        Those of the org that nothing waits for and that nobody has kept for FORGOTTEN are removed.
        """
        ...

    async def list_awaited_workers(self, handlers: Collection[tuple[str, str]]) -> Sequence[AwaitedWorker]:
        """Return what executions wait for, or did, of handlers, given by org and name; in order."""
        ...
