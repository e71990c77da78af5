"""What executions cost: seconds of the processor, by process, and bytes on disk."""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import dataclass

import asyncpg
import psutil

from tests.e2e.process import ServerProcess

_SIZE = """
SELECT sum(pg_total_relation_size(c.oid)) FROM pg_class c
WHERE c.relkind = 'r' AND c.relnamespace = 'public'::regnamespace"""


@dataclass(frozen=True, slots=True)
class Cost:
    """Seconds of the processor that the server, its Postgres and this process, its client, have used."""

    server: float
    postgres: float
    client: float

    def __sub__(self, before: Cost) -> Cost:
        return Cost(self.server - before.server, self.postgres - before.postgres, self.client - before.client)


class Meter:
    """Reads what a server and those around it have used."""

    def __init__(self, server: ServerProcess) -> None:
        self._server = psutil.Process(server.pid)
        self._dsn = server.dsn
        (self._postmaster,) = (each for each in self._server.children() if _is_postgres(each))

    def cost(self) -> Cost:
        """Return what has been used so far."""
        postgres = _seconds(self._postmaster) + sum(map(_seconds, self._postmaster.children()))
        ended = self._postmaster.cpu_times()
        return Cost(_seconds(self._server), postgres + ended.children_user + ended.children_system, _seconds(_OWN))

    async def of(self, work: Awaitable[float]) -> tuple[float, Cost]:
        """Return what the work gives, and what it used."""
        before = self.cost()
        result = await work
        return result, self.cost() - before

    async def bytes_kept(self) -> int:
        """Return how large the tables are, with their indexes."""
        connection = await asyncpg.connect(self._dsn)
        try:
            return int(await connection.fetchval(_SIZE))
        finally:
            await connection.close()


_OWN = psutil.Process()


def _seconds(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
    except psutil.NoSuchProcess:  # a backend that has ended since it was listed counts with those that did before
        return 0.0
    return float(times.user + times.system)


def _is_postgres(process: psutil.Process) -> bool:
    return process.name() == "postgres"
