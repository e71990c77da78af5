"""What a kind of fault is: what it prepares, what it does to a cluster, and what it writes down."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from tests.faults.harness.cluster import Cluster, Replica
from tests.faults.harness.database import Postgres
from tests.faults.harness.programs import Program, programs
from tests.faults.harness.records import Landing

WATCHERS = 20
PROGRAMS = 16


class VoidError(Exception):
    """The fault cannot be made here; the text says why."""


@dataclass
class Scene:
    """What a fault works on, and where it writes down what it hit."""

    cluster: Cluster
    draw: random.Random
    until: float
    """When the faults end, by the clock of the event loop."""
    landings: list[Landing] = field(default_factory=list)

    @property
    def is_over(self) -> bool:
        """Whether no more fault is to begin."""
        return asyncio.get_running_loop().time() >= self.until

    async def pause(self, shortest: float, longest: float) -> None:
        """Let a while pass, but not beyond the end."""
        left = self.until - asyncio.get_running_loop().time()
        await asyncio.sleep(max(0.0, min(self.draw.uniform(shortest, longest), left)))

    def victim(self) -> Replica:
        """Return a replica that runs."""
        return self.draw.choice([replica for replica in self.cluster.replicas if replica.is_up])

    async def land(self, kind: str, victim: Replica | None = None) -> int:
        """Write down that a fault hits now, and what is in flight there; returns its number."""
        in_flight = await self.cluster.owned(victim)
        name = victim.name if victim else "postgres"
        self.landings.append(Landing(kind, datetime.now(UTC), name, tuple(in_flight)))
        return len(self.landings) - 1

    def accepting(self) -> None:
        """Write down that Postgres takes connections again."""
        last = self.landings[-1]
        self.landings[-1] = replace(last, accepting=datetime.now(UTC))

    def over(self, number: int = -1) -> None:
        """Write down that a fault which lasted is over, the last one or that of a number."""
        self.landings[number] = replace(self.landings[number], until=datetime.now(UTC))


class Kind(Protocol):
    """One kind of fault."""

    name: str
    meaning: str
    settings: Mapping[str, str]
    follows: bool
    """Whether the proxies have to understand Postgres."""
    shields_clients: bool
    keeps_ownership: bool

    watchers: int
    """How many clients watch what goes on."""
    is_steered: bool
    """Whether some clients pause, retry, fork, signal, debug and act in bulk."""

    def make_postgres(self, folder: Path) -> Postgres:
        """Return a Postgres for the run, with its data in the folder or elsewhere; call it after `prepare`."""
        ...

    async def prepare(self) -> Mapping[str, str]:
        """Make what the replicas need, and return more settings. Raises VoidError."""
        ...

    def workload(self, draw: random.Random, url: str) -> list[Program]:
        """Return the programs of a run, whose calls go to an address."""
        ...

    def beside(self, cluster: Cluster) -> AbstractAsyncContextManager[None]:
        """Run inside what the programs need beside the replicas."""
        ...

    async def run(self, scene: Scene) -> None:
        """Make faults until the scene is over, and heal them all, also when cancelled."""
        ...

    async def clean_up(self) -> None:
        """Take away what `prepare` made."""
        ...

    def notes(self, cluster: Cluster) -> Mapping[str, object]:
        """Return what is worth telling beside the verdict."""
        ...

    def seen(self) -> Mapping[str, Any]:
        """Return what belongs in the record of a run and only this kind has seen, by the fields of a record."""
        ...


class Plain:
    """What most kinds have in common: nothing to prepare."""

    name = ""
    meaning = ""
    settings: Mapping[str, str] = {}
    follows = False
    shields_clients = True
    keeps_ownership = False
    watchers = WATCHERS
    is_steered = True

    def make_postgres(self, folder: Path) -> Postgres:
        """See Kind."""
        return Postgres(folder)

    async def prepare(self) -> Mapping[str, str]:
        """See Kind."""
        return {}

    def workload(self, draw: random.Random, url: str) -> list[Program]:
        """See Kind."""
        return programs(draw, PROGRAMS, url)

    def beside(self, cluster: Cluster) -> AbstractAsyncContextManager[None]:
        """See Kind."""
        return nullcontext()

    async def clean_up(self) -> None:
        """See Kind."""

    def notes(self, cluster: Cluster) -> Mapping[str, object]:
        """See Kind."""
        return {}

    def seen(self) -> Mapping[str, Any]:
        """See Kind."""
        return {}
