"""Facts about a database that an operator wants to know before trusting it."""

from __future__ import annotations

import time
from dataclasses import dataclass

import asyncpg

from persistence.errors import UnavailableError

OLDEST_VERSION = 15


@dataclass(frozen=True, slots=True)
class DatabaseFacts:
    """What a database says of itself. `clock_offset` is its clock minus ours, in seconds."""

    version: str
    major: int
    revision: str | None
    is_durable: bool
    is_primary: bool
    is_superuser: bool
    clock_offset: float


async def inspect(dsn: str) -> DatabaseFacts:
    """Return the facts. Raises UnavailableError."""
    try:
        connection = await asyncpg.connect(dsn, timeout=5.0, command_timeout=5.0)
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise UnavailableError(f"cannot connect: {str(error) or type(error).__name__}") from error
    try:
        return await _facts(connection)
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise UnavailableError(str(error)) from error
    finally:
        connection.terminate()


async def _facts(connection: asyncpg.Connection[asyncpg.Record]) -> DatabaseFacts:
    before = time.time()
    row = await connection.fetchrow(
        """
        select current_setting('server_version') as version,
               current_setting('server_version_num')::int / 10000 as major,
               current_setting('fsync')::bool and current_setting('full_page_writes')::bool
                   and current_setting('synchronous_commit') <> 'off' as is_durable,
               not pg_is_in_recovery() as is_primary,
               current_setting('is_superuser')::bool as is_superuser,
               to_regclass('schema_version') is not null as has_schema,
               extract(epoch from clock_timestamp())::float8 as clock
        """
    )
    middle = (before + time.time()) / 2
    if row is None:
        raise UnavailableError("the database gave no answer")
    revision = await connection.fetchval("select version_num from schema_version") if row["has_schema"] else None
    return DatabaseFacts(
        version=row["version"],
        major=row["major"],
        revision=revision,
        is_durable=row["is_durable"],
        is_primary=row["is_primary"],
        is_superuser=row["is_superuser"],
        clock_offset=row["clock"] - middle,
    )
