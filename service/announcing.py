"""Lets other processes know of the workers that are connected to this one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from uuid import UUID

from persistence.workers import ConnectedWorker, WorkerRepository
from service.api.workers import connected
from service.engine.workers.pool import Workers

ANNOUNCE_INTERVAL = 10.0
"""Seconds between looks at how workers are, which other processes show; they are told at once who comes and goes."""


async def announce(workers: Workers, repository: WorkerRepository, incarnation: Callable[[], UUID]) -> None:
    """Let other processes know of workers, until cancelled."""
    told: Sequence[ConnectedWorker] = ()
    while True:
        here = [connected(worker) for worker in workers.all if worker.link is not None]
        if here or told:
            await repository.announce_workers(incarnation(), here)
        told = here
        await workers.changed(ANNOUNCE_INTERVAL)
