"""Monthly partitions of all that hangs on an execution. Execution ids are UUIDv7, so a range of ids is a time."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import UTC, datetime
from uuid import UUID

import asyncpg

from persistence.postgres.connection import Session
from persistence.postgres.tables import PARTITIONED

_LOCK = 0x464C4F5750415254  # "FLOWPART"
_BEHIND, _AHEAD = 1, 2
"""Months before and after this one that have partitions."""

_BUSY_ROWS = (
    "fillfactor = {fillfactor}, autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 1000,"
    " autovacuum_vacuum_cost_limit = 2000, autovacuum_analyze_scale_factor = 0.05"
)
_GROWING = "autovacuum_vacuum_insert_scale_factor = 0.1, autovacuum_analyze_scale_factor = 0.1"
_STORAGE = {
    "executions": _BUSY_ROWS.format(fillfactor=70),
    "steps": _BUSY_ROWS.format(fillfactor=80),
    "execution_inputs": _GROWING,
    "shared_payloads": _GROWING,
    "transitions": _GROWING,
    "messages": _BUSY_ROWS.format(fillfactor=100),
}

_log = logging.getLogger(__name__)


def first_id(moment: datetime) -> UUID:
    """Return the lowest id that can be made from this moment on."""
    return UUID(int=int(moment.timestamp() * 1000) << 80)


async def ensure_partitions(session: Session, today: datetime | None = None) -> None:
    """Make the partitions of the last, this and the next two months, and the one for all other ids.

    Safe at any time, in any number of processes.
    """
    wanted = [(table, month) for month in _months(today or datetime.now(UTC)) for table in PARTITIONED]
    names = [_name(table, month) for table, month in wanted] + [f"{table}_default" for table in PARTITIONED]
    if await _all_exist(session, names):
        return
    async with session.transaction():
        await session.execute("SELECT pg_advisory_xact_lock($1)", _LOCK)
        for table in PARTITIONED:
            await session.execute(
                f"CREATE TABLE IF NOT EXISTS {table}_default PARTITION OF {table} DEFAULT WITH ({_STORAGE[table]})"
            )
        for table, month in wanted:
            await _ensure(session, table, month)


async def _all_exist(session: Session, names: list[str]) -> bool:
    found = await session.fetchval(
        "SELECT count(*) FROM unnest($1::text[]) AS n WHERE to_regclass(n) IS NOT NULL", names
    )
    return bool(found == len(names))


async def _ensure(session: Session, table: str, month: datetime) -> None:
    name = _name(table, month)
    begin, end = first_id(month), first_id(_later(month, 1))
    statement = (
        f"CREATE TABLE IF NOT EXISTS {name} PARTITION OF {table}"
        f" FOR VALUES FROM ('{begin}') TO ('{end}') WITH ({_STORAGE[table]})"
    )
    try:
        async with session.transaction():
            await session.execute(statement)
    except asyncpg.CheckViolationError:
        # Nobody was here for months: the rows of this month lie in the default partition already, and may stay there.
        _log.warning("partition %s cannot be made: the default partition holds rows of it", name)


def _months(today: datetime) -> Iterator[datetime]:
    first = today.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    for months in range(-_BEHIND, _AHEAD + 1):
        yield _later(first, months)


def _later(month: datetime, months: int) -> datetime:
    years, month_of_year = divmod(month.month - 1 + months, 12)
    return datetime(month.year + years, month_of_year + 1, 1, tzinfo=UTC)


def _name(table: str, month: datetime) -> str:
    return f"{table}_{month:%Y_%m}"
