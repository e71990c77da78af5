"""Changes the schema of a database, by Alembic."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine
from sqlalchemy.pool import NullPool

from persistence import failpoints
from persistence.errors import SchemaError, UnavailableError
from persistence.postgres.connection import DRIVER_ERRORS, LOCK_NOT_AVAILABLE, translated
from persistence.postgres.revisions import (
    OLDEST,
    VERSION_TABLE,
    VERSIONS,
    can_work_with,
    check_readable,
    connect,
    known_revisions,
    only,
)

_log = logging.getLogger(__name__)

_LOCK = 0x464C4F57534D4131  # "FLOWSMA1"
# Whoever comes after a change of a table that waits for a long reader, such as a backup, waits too. So it waits for a
# moment only, and lets them pass before the next try.
_LIMIT = "1s"
_PAUSE = 1.0
_TRIES = 30


async def revise(dsn: str, revision: str) -> None:
    """Do what `migrate` does, but for the partitions."""

    def run(connection: Connection) -> None:
        current, known = _revision(connection), known_revisions()
        check_readable(current)
        if current is not None and current not in known:
            if revision == "head" and can_work_with(current, _oldest(connection)):
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


def _waited_for_a_table(error: UnavailableError) -> bool:
    cause = error.__cause__
    return isinstance(cause, DBAPIError) and getattr(cause.orig, "sqlstate", None) == LOCK_NOT_AVAILABLE


@asynccontextmanager
async def _connected(dsn: str) -> AsyncIterator[AsyncConnection]:
    """Give a connection in a transaction, of an engine of its own: migrations share nothing with the pool."""
    engine = create_async_engine("postgresql+asyncpg://", async_creator=partial(connect, dsn), poolclass=NullPool)
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
    return only(MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE}).get_current_heads())


def _note_oldest(connection: Connection) -> None:
    """Leave the earliest revision whose programs can work with this one: `oldest` in its migration."""
    if (current := _revision(connection)) is not None:
        oldest = _scripts().get_revision(current).module.oldest
        if oldest != _oldest(connection):
            connection.execute(text(f"COMMENT ON TABLE {VERSION_TABLE} IS '{oldest}'"))


def _oldest(connection: Connection) -> str | None:
    found = connection.scalar(text(OLDEST))
    return None if found is None else str(found)


def _scripts() -> ScriptDirectory:
    return ScriptDirectory.from_config(_config(None))


def _config(connection: Connection | None) -> Config:
    config = Config()
    config.set_main_option("script_location", str(VERSIONS.parent).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes.update(connection=connection, version_table=VERSION_TABLE)
    return config
