"""Lets other processes know of the workers that are connected to this one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from uuid import UUID

import structlog

from persistence.errors import PersistenceError
from persistence.workers import ConnectedWorker, WorkerRepository
from service.api.workers import connected
from service.engine.workers.pool import Workers

log = structlog.get_logger(__name__)

ANNOUNCE_INTERVAL = 10.0
"""Seconds between looks at how workers are, which other processes show; they are told at once who comes and goes."""

AGAIN = 1.0
"""Seconds until it is tried again when the database could not be reached."""


async def announce(workers: Workers, repository: WorkerRepository, incarnation: Callable[[], UUID]) -> None:
    """Let other processes know of workers, until cancelled."""
    told: Sequence[ConnectedWorker] = ()
    while True:
        here = [connected(worker) for worker in workers.all if worker.link is not None]
        if here or told:
            try:
                await repository.announce_workers(incarnation(), here)
            except PersistenceError as error:
                log.warning("workers not announced", error=str(error))
                await asyncio.sleep(AGAIN)
                continue
        told = here
        await workers.changed(ANNOUNCE_INTERVAL)
