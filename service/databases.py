"""The database that a server works on: the embedded Postgres, which it starts, or another one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import structlog

from persistence.embedded import EmbeddedPostgres, default_root
from persistence.repository import Repository
from service.config import Config, ConfigError
from service.engine.tasks import TaskRegistry

log = structlog.get_logger(__name__)

REVIVAL_INTERVAL = 0.5
"""Seconds between looks at whether the embedded Postgres runs."""


def data_root(config: Config) -> Path:
    """Return the folder of the embedded Postgres. Raises ConfigError or EmbeddedPostgresError when there is none."""
    if config.data_dir is None:
        return default_root()
    try:
        return config.data_dir.expanduser()
    except RuntimeError:
        raise ConfigError(f"FLOWKEEP_DATA_DIR={config.data_dir}: there is no home folder of that name") from None


@dataclass(frozen=True, slots=True)
class Database:
    """Where the database is, and the embedded server if it is ours."""

    dsn: str
    embedded: EmbeddedPostgres | None = None


@contextmanager
def database(config: Config) -> Iterator[Database]:
    """Give the database inside; the embedded one is started before and stopped after.

    Call it in the main thread. Raises EmbeddedPostgresError.
    """
    if config.database_url is not None:
        yield Database(config.database_url.get_secret_value())
        return
    with EmbeddedPostgres(data_root(config)) as embedded:
        yield Database(embedded.dsn(), embedded)


@asynccontextmanager
async def keep_alive(place: Database) -> AsyncIterator[None]:
    """Start the embedded Postgres again inside, whenever it has gone."""
    tasks = TaskRegistry()
    if place.embedded is not None:
        embedded = place.embedded
        tasks.keep(lambda: _revive(embedded), "embedded Postgres")
    try:
        yield
    finally:
        await tasks.cancel_all()


async def _revive(embedded: EmbeddedPostgres) -> None:
    while True:
        await asyncio.sleep(REVIVAL_INTERVAL)
        if embedded.pid is None:
            log.error("the embedded Postgres has gone; starting it again")
            # In this thread, to whose life its own is bound; nothing else can be done meanwhile.
            embedded.stop()
            embedded.start()


@asynccontextmanager
async def open_repository(config: Config, dsn: str) -> AsyncIterator[Repository]:
    """Give a Postgres store with the schema that this program needs. Raises SchemaError, UnavailableError."""
    from persistence.postgres.migrate import migrate
    from persistence.postgres.repository import PostgresRepository
    from persistence.postgres.revisions import check_schema

    try:
        await (migrate(dsn) if config.migrate else check_schema(dsn))
    except ValueError as error:
        raise ConfigError(f"FLOWKEEP_DATABASE_URL is no postgresql:// URL: {error}") from None
    repository = await PostgresRepository.open(dsn, pool_size=config.database_pool)
    try:
        yield repository
    finally:
        await repository.close()
