"""Gives tests a real Postgres: one server per worker process, one migrated template, one copy of it per test."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from datetime import date
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import asyncpg
import pytest
import pytest_asyncio
import structlog
from hypothesis import HealthCheck, settings

from persistence.embedded import EmbeddedPostgres
from tests.folders import new_folder
from tests.patience import PATIENCE

if TYPE_CHECKING:
    from tests.kept import Kept

# Some tests start Postgres while gRPC is busy in their process: its fork handlers can crash the child before its exec.
# Read when gRPC begins, so before any other conftest can import it.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"

# Nothing of these tests has to survive a crash; connections of several repositories have to fit.
SETTINGS = {
    "fsync": "off",
    "full_page_writes": "off",
    "shared_buffers": "64MB",
    "max_wal_size": "256MB",
    "max_connections": "200",
}
TEMPLATE = "flowkeep_template"
SERVED = {
    "test_cancel",
    "test_execution_course",
    "test_get_list",
    "test_people",
    "test_replicas",
    "test_restart",
    "test_takeovers",
    "test_user_notifications",
    "test_watch_api",
    "test_workers",
}
"""Tests of servers that run on another Postgres, too, for its plans of claims, lists, events and inboxes."""
DAY = "TESTS_OF_DAY"
"""The variable of the environment that names the day of a run, also where that ends on the next."""

# A machine may be busy: how long an example takes, or its drawing, says nothing. The examples are the same each time,
# unless others are asked for, so that a test judges a change by what it changes.
settings.register_profile(
    "unhurried",
    settings(),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize=os.environ.get("FLOWKEEP_TEST_EXAMPLES") != "new",
)
settings.load_profile("unhurried")

# The loop stands still while a line is written: rich takes seconds for a traceback on a busy machine, with variables.
structlog.configure(
    processors=[
        *structlog.get_config()["processors"][:-1],
        structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback),
    ]
)

NewDatabase = Callable[[str], AbstractAsyncContextManager[str]]


# Where a machine forbids it, each of the hundreds of processes that tests start compiles every module again.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# Workers that chose tests by another day than others would end the run.
os.environ.setdefault(DAY, date.today().isoformat())

# What is started in the background of a script may be deaf to interrupts, and its children inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """On another Postgres run only what is about the store: the rest was seen on the embedded one."""
    if not os.environ.get("FLOWKEEP_TEST_POSTGRES_BIN"):
        return
    left_out = [item for item in items if not _is_about_postgres(item)]
    items[:] = [item for item in items if _is_about_postgres(item)]
    config.hook.pytest_deselected(items=left_out)


def pytest_collection_finish() -> None:
    """Keep what thousands of tests are made of out of every later collection of garbage, which some tests ask for."""
    gc.collect()
    gc.freeze()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show what tests of attacks have measured."""
    for report in terminalreporter.getreports(""):
        figures = [str(value) for name, value in getattr(report, "user_properties", ()) if name == "figure"]
        if report.when == "teardown" and figures:
            terminalreporter.write_line(f"{report.nodeid.rpartition('/')[2]}: {'; '.join(figures)}")


def _is_about_postgres(item: pytest.Item) -> bool:
    """Whether it is about the store. What only meets one by way of a server is about the server, but for `SERVED`."""
    parameters = item.callspec.params if hasattr(item, "callspec") else {}
    if parameters.get("store") == "postgres":
        return True
    names = set(getattr(item, "fixturenames", ()))
    if "database_admin" not in names:
        return False
    looks_behind = "admin" in names or "database_dsn" in signature(getattr(item, "function", dict)).parameters
    return "serve" not in names or looks_behind or item.path.stem in SERVED


@pytest.fixture(scope="session")
def postgres() -> Iterator[EmbeddedPostgres]:
    """A server of the binaries in FLOWKEEP_TEST_POSTGRES_BIN, or else of the embedded ones."""
    named = os.environ.get("FLOWKEEP_TEST_POSTGRES_BIN")
    binaries = Path(named) if named else None
    with (
        new_folder() as folder,
        EmbeddedPostgres(folder / "fk", settings=SETTINGS, binaries=binaries) as server,
    ):
        yield server


@pytest_asyncio.fixture(scope="session")
async def database_admin(postgres: EmbeddedPostgres) -> AsyncIterator[asyncpg.Connection]:
    """A connection that makes and drops databases; the migrated template exists."""
    from persistence.postgres import PostgresRepository, migrate, partitions  # unit tests need not load it
    from tests.remembered import remember_types

    remember_types()
    # Each new connection plans each statement, which costs by partitions; these are written to in one month alone.
    partitions._BEHIND = partitions._AHEAD = 0
    admin = await asyncpg.connect(postgres.dsn("postgres"))
    await admin.execute(f"CREATE DATABASE {TEMPLATE}")
    await migrate(postgres.dsn(TEMPLATE))
    await (await PostgresRepository.open(postgres.dsn(TEMPLATE))).close()  # it makes partitions
    yield admin
    await admin.close()


@pytest.fixture
def new_database(postgres: EmbeddedPostgres, database_admin: asyncpg.Connection) -> NewDatabase:
    """Makes databases that belong to the test alone; inside, their address. What is given stands behind their name."""

    @asynccontextmanager
    async def made(how: str) -> AsyncIterator[str]:
        name = f"test_{uuid4().hex}"
        await _when_free(database_admin, f"CREATE DATABASE {name} {how}")
        yield postgres.dsn(name)
        await _when_free(database_admin, f"DROP DATABASE {name} WITH (FORCE)")

    return made


async def _when_free(admin: asyncpg.Connection, statement: str) -> None:
    """Execute what needs a database that nobody uses; Postgres waits 5 s for those that it has told to go."""
    async with asyncio.timeout(PATIENCE):
        while True:
            with suppress(asyncpg.ObjectInUseError):
                await admin.execute(statement)
                return


@pytest_asyncio.fixture
async def database_dsn(new_database: NewDatabase) -> AsyncIterator[str]:
    """The address of a migrated, empty database."""
    async with new_database(f"TEMPLATE {TEMPLATE} STRATEGY file_copy") as dsn:
        yield dsn


@pytest_asyncio.fixture(scope="session")
async def kept_for_all(postgres: EmbeddedPostgres, database_admin: asyncpg.Connection) -> AsyncIterator[Kept]:
    """What `kept` gives each test."""
    from tests.kept import Kept  # unit tests need not load it

    kept = Kept(postgres, database_admin, TEMPLATE)
    yield kept
    await kept.end()


@pytest_asyncio.fixture
async def kept(kept_for_all: Kept) -> AsyncIterator[Kept]:
    """A migrated, empty database with connections that other tests have used, for what does not look behind a store."""
    await kept_for_all.begin()
    yield kept_for_all
    await kept_for_all.empty()


@pytest_asyncio.fixture
async def admin(database_dsn: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection that looks behind servers and stores, changes what they keep, or stands in their way."""
    connection = await asyncpg.connect(database_dsn)
    yield connection
    await connection.close()
