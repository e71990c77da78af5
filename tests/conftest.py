"""Gives tests a real Postgres: one server per worker process, one migrated template, one copy of it per test."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest
import pytest_asyncio

from persistence.embedded import EmbeddedPostgres

# Nothing of these tests has to survive a crash; connections of several repositories have to fit.
SETTINGS = {
    "fsync": "off",
    "full_page_writes": "off",
    "shared_buffers": "64MB",
    "max_wal_size": "256MB",
    "max_connections": "200",
}
TEMPLATE = "flowkeep_template"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """On another Postgres run only what touches one: the rest was seen on the embedded one."""
    if not os.environ.get("FLOWKEEP_TEST_POSTGRES_BIN"):
        return
    left_out = [item for item in items if not _touches_postgres(item)]
    items[:] = [item for item in items if _touches_postgres(item)]
    config.hook.pytest_deselected(items=left_out)


def _touches_postgres(item: pytest.Item) -> bool:
    parameters = item.callspec.params if hasattr(item, "callspec") else {}
    return "database_dsn" in getattr(item, "fixturenames", ()) or parameters.get("store") == "postgres"


def _fastest_folder() -> str:
    """Memory, if there is plenty: a database is hundreds of files, which takes a second to copy on a slow disk."""
    memory = Path("/dev/shm")
    if memory.is_dir() and os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > 4 << 30:
        # The supervisor may have to keep a copy of the programs beside the data.
        return "/tmp" if os.statvfs(memory).f_flag & os.ST_NOEXEC else str(memory)
    return "/tmp"


@pytest.fixture(scope="session")
def postgres() -> Iterator[EmbeddedPostgres]:
    """A server of the binaries in FLOWKEEP_TEST_POSTGRES_BIN, or else of the embedded ones."""
    folder = Path(tempfile.mkdtemp(prefix="flowkeep-test-", dir=_fastest_folder()))
    folder.chmod(0o711)  # started by root, the server runs as another account, which has to pass
    binaries = os.environ.get("FLOWKEEP_TEST_POSTGRES_BIN")
    with EmbeddedPostgres(folder / "fk", settings=SETTINGS, binaries=Path(binaries) if binaries else None) as server:
        yield server
    shutil.rmtree(folder)


@pytest_asyncio.fixture(scope="session")
async def database_admin(postgres: EmbeddedPostgres) -> AsyncIterator[asyncpg.Connection]:
    """A connection that makes and drops databases; the migrated template exists."""
    from persistence.postgres import PostgresRepository, migrate  # unit tests need not load it

    admin = await asyncpg.connect(postgres.dsn("postgres"))
    await admin.execute(f"CREATE DATABASE {TEMPLATE}")
    await migrate(postgres.dsn(TEMPLATE))
    await (await PostgresRepository.open(postgres.dsn(TEMPLATE))).close()  # it makes partitions
    yield admin
    await admin.close()


@pytest_asyncio.fixture
async def database_dsn(postgres: EmbeddedPostgres, database_admin: asyncpg.Connection) -> AsyncIterator[str]:
    """The address of a migrated, empty database that belongs to the test alone."""
    name = f"test_{uuid4().hex}"
    await database_admin.execute(f"CREATE DATABASE {name} TEMPLATE {TEMPLATE} STRATEGY file_copy")
    yield postgres.dsn(name)
    await database_admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
