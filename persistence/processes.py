"""What the processes of a store hold and tell each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from persistence.model import Execution


@dataclass(frozen=True, slots=True)
class Lease:
    """A lease that was just begun or renewed: when, by the store's clock, and whether other processes have one."""

    time: datetime
    has_others: bool


@dataclass(frozen=True, slots=True)
class Driving:
    """Who drives an execution, and how it stands among those that nobody drives; `time` is when, by the store's clock.

    `server` is empty where no process has it, or nothing is known of that one. `lease_until` is None where its lease
    was ended, or cannot be read. `before` counts those of its org that are claimed first, 0 unless it may be claimed.
    `servers` is how many processes hold a lease.
    """

    time: datetime
    server: str = ""
    lease_until: datetime | None = None
    before: int = 0
    servers: int = 0


@dataclass(frozen=True, slots=True)
class Queue:
    """Executions of a workflow that may be claimed, in the order of claims, each with how many of its org come first.

    `servers` is how many processes hold a lease. Not `is_whole`: more are there, or may be.
    """

    waiting: Sequence[tuple[Execution, int]]
    is_whole: bool
    servers: int


@dataclass(frozen=True, slots=True)
class News:
    """What another process did: to which executions (None: to any), whether some of them are to be claimed or have
    unseen messages."""

    executions: frozenset[UUID] | None
    has_work: bool = False
    has_mail: bool = False

    @property
    def is_empty(self) -> bool:
        """Whether it says nothing."""
        return self.executions == frozenset() and not (self.has_work or self.has_mail)
