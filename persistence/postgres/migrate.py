"""Brings the schema of a database to a revision, and tells which one it has."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from functools import cache, partial
from pathlib import Path

import asyncpg
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from asyncpg.connect_utils import SessionAttribute
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine
from sqlalchemy.pool import NullPool

from persistence import failpoints
from persistence.errors import SchemaError, UnavailableError
from persistence.postgres.connection import DRIVER_ERRORS, LOCK_NOT_AVAILABLE, translated, translating
from persistence.postgres.partitions import ensure_partitions

_log = logging.getLogger(__name__)

VERSION_TABLE = "schema_version"
_HEADS = f"SELECT version_num FROM {VERSION_TABLE}"  # noqa: S608 - a name of ours
_OLDEST = f"SELECT obj_description(to_regclass('{VERSION_TABLE}'), 'pg_class')"
_LOCK = 0x464C4F57534D4131  # "FLOWSMA1"
# Whoever comes after a change of a table that waits for a long reader, such as a backup, waits too. So it waits for a
# moment only, and lets them pass before the next try.
_LIMIT = "1s"
_PAUSE = 1.0
_TRIES = 30


def expected_revision() -> str:
    """Return the revision that this program works with."""
    head = _scripts().get_current_head()
    assert head is not None  # noqa: S101 - the package holds at least one revision
    return head


async def current_revision(dsn: str) -> str | None:
    """Return the revision of the database, None when it has none. Raises SchemaError, UnavailableError."""
    current, _ = await _standing(dsn)
    return current


async def check_schema(dsn: str) -> None:
    """Return when this program can work with the database's revision. Raises SchemaError, UnavailableError.

    That is the expected one, or a later one that says that older programs can: so that during a roll-out also those
    that are not replaced yet may start again.
    """
    current, oldest = await _standing(dsn)
    expected = expected_revision()
    if current != expected and not _can_work_with(current, oldest):
        raise SchemaError(f"the database is at schema revision {current or 'none'}, this program needs {expected}")


async def migrate(dsn: str, revision: str = "head") -> None:
    """Bring the database up or down to `revision` ("base" removes all); all or nothing, one process at a time.

    At the head it makes the monthly partitions too.

    Nothing is done for "head" at a later revision that says that this program can work with it. Raises SchemaError,
    having changed nothing, at any other revision that this program does not know, such as that of a newer program, or
    when there is no such revision; UnavailableError, also when others hold a table for about a minute.
    """

    def run(connection: Connection) -> None:
        current, known = _revision(connection), _known()
        if current is not None and current not in known:
            if revision == "head" and _can_work_with(current, _oldest(connection)):
                return
            raise SchemaError(
                f"the database is at schema revision {current}, which is unknown here: a newer program's?"
            )
        if revision not in ("head", "base", *known):
            raise SchemaError(f"there is no schema revision {revision}")
        if revision == "base" or (current is not None and revision in known and revision < current):
            command.downgrade(_config(connection), revision)
        else:
            command.upgrade(_config(connection), revision)
        _note_oldest(connection)

    for left in reversed(range(_TRIES)):
        try:
            async with _connected(dsn) as connection:
                await connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
                await connection.execute(text("SELECT set_config('lock_timeout', :limit, true)"), {"limit": _LIMIT})
                await connection.run_sync(run)
                await failpoints.reach("migrate.mid")
            break
        except UnavailableError as error:
            if not (left and _waited_for_a_table(error)):
                raise
            _log.warning("others hold a table that the schema's next revision changes; trying again")
        await asyncio.sleep(_PAUSE)
    if revision == "head":
        await _make_partitions(dsn)


def _waited_for_a_table(error: UnavailableError) -> bool:
    cause = error.__cause__
    return isinstance(cause, DBAPIError) and getattr(cause.orig, "sqlstate", None) == LOCK_NOT_AVAILABLE


async def _make_partitions(dsn: str) -> None:
    async with _session(dsn) as session:
        await ensure_partitions(session)


async def _standing(dsn: str) -> tuple[str | None, str | None]:
    """Return the revision of the database and the earliest one whose programs can work with it; None for what is not.

    Every start asks, and SQLAlchemy makes five questions of its own at each new connection.
    """
    async with _session(dsn) as session:
        oldest = await session.fetchval(_OLDEST)
        try:
            heads = await session.fetch(_HEADS)
        except asyncpg.UndefinedTableError:
            heads = []
    return _only([head[0] for head in heads]), oldest


@asynccontextmanager
async def _session(dsn: str) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    async with translating():
        session = await _connect(dsn)
        try:
            yield session
        finally:
            await session.close()


async def _connect(dsn: str) -> asyncpg.Connection[asyncpg.Record]:
    return await asyncpg.connect(dsn, timeout=10.0, target_session_attrs=SessionAttribute.read_write)


@asynccontextmanager
async def _connected(dsn: str) -> AsyncIterator[AsyncConnection]:
    """Give a connection in a transaction, of an engine of its own: migrations share nothing with the pool."""
    engine = create_async_engine("postgresql+asyncpg://", async_creator=partial(_connect, dsn), poolclass=NullPool)
    try:
        async with engine.begin() as connection:
            yield connection
    except DBAPIError as error:
        raise translated(error.orig.__cause__ or error.orig if error.orig else error) from error
    except DRIVER_ERRORS as error:
        raise translated(error) from error
    finally:
        await engine.dispose()


def _revision(connection: Connection) -> str | None:
    return _only(MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE}).get_current_heads())


def _only(heads: Sequence[str]) -> str | None:
    if len(heads) > 1:
        raise SchemaError(f"the database says in {VERSION_TABLE} that it is at several schema revisions: {heads}")
    return heads[0] if heads else None


def _can_work_with(current: str | None, oldest: str | None) -> bool:
    """Whether a database is at a later revision with which programs as old as this one can work."""
    return current is not None and current not in _known() and oldest in _known()


def _known() -> Collection[str]:
    return [script.revision for script in _scripts().walk_revisions()]


def _note_oldest(connection: Connection) -> None:
    """Leave the earliest revision whose programs can work with this one: `oldest` in its migration."""
    if (current := _revision(connection)) is not None:
        oldest = _scripts().get_revision(current).module.oldest
        if oldest != _oldest(connection):
            connection.execute(text(f"COMMENT ON TABLE {VERSION_TABLE} IS '{oldest}'"))


def _oldest(connection: Connection) -> str | None:
    found = connection.scalar(text(_OLDEST))
    return None if found is None else str(found)


@cache
def _scripts() -> ScriptDirectory:
    return ScriptDirectory.from_config(_config(None))


def _config(connection: Connection | None) -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).with_name("migrations")).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes.update(connection=connection, version_table=VERSION_TABLE)
    return config
