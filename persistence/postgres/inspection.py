"""Facts about a database that an operator wants to know before trusting it."""

from __future__ import annotations

import time
from dataclasses import dataclass

import asyncpg

from persistence.errors import UnavailableError

OLDEST_VERSION = 15

_MESSAGES = """
select count(*), coalesce(extract(epoch from clock_timestamp() - min(m.create_time)), 0)::float8 from messages m
where not exists (select from executions e
                  where e.org_id = m.org_id and e.id = m.execution_id and e.end_time is not null)"""


@dataclass(frozen=True, slots=True)
class DatabaseFacts:
    """What a database says of itself. `clock_offset` is its clock minus ours, in seconds.

    `messages` is how many wait in the inboxes of executions, and `oldest_message` since how many seconds the first of
    them does; None and 0 where the schema has no inboxes, or none is there.
    """

    version: str
    major: int
    revision: str | None
    is_durable: bool
    is_primary: bool
    is_superuser: bool
    clock_offset: float
    messages: int | None = None
    oldest_message: float = 0.0


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
               to_regclass('messages') is not null as has_messages,
               extract(epoch from clock_timestamp())::float8 as clock
        """
    )
    middle = (before + time.time()) / 2
    if row is None:
        raise UnavailableError("the database gave no answer")
    revision = await connection.fetchval("select version_num from schema_version") if row["has_schema"] else None
    waiting = await connection.fetchrow(_MESSAGES) if row["has_messages"] else None
    count, oldest = waiting or (None, 0.0)
    return DatabaseFacts(
        version=row["version"],
        major=row["major"],
        revision=revision,
        is_durable=row["is_durable"],
        is_primary=row["is_primary"],
        is_superuser=row["is_superuser"],
        clock_offset=row["clock"] - middle,
        messages=count,
        oldest_message=oldest,
    )
