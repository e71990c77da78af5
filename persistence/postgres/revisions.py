"""Tells which revision the schema of a database has, and whether this program can work with it."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path

import asyncpg
from asyncpg.connect_utils import SessionAttribute

from persistence.errors import SchemaError
from persistence.postgres.connection import translating

VERSION_TABLE = "schema_version"
VERSIONS = Path(__file__).with_name("migrations") / "versions"
OLDEST = f"SELECT obj_description(to_regclass('{VERSION_TABLE}'), 'pg_class')"
"""Reads the earliest revision whose programs can work with the database."""

_HEADS = f"SELECT version_num FROM {VERSION_TABLE}"  # noqa: S608 - a name of ours


@cache
def known_revisions() -> Sequence[str]:
    """Return the revisions that this program knows, the earliest first: their files begin with them."""
    return sorted(path.name[:4] for path in VERSIONS.iterdir() if re.fullmatch(r"\d{4}_\w+\.py", path.name))


def expected_revision() -> str:
    """Return the revision that this program works with."""
    return known_revisions()[-1]


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
    check_readable(current)
    if current != expected_revision() and not can_work_with(current, oldest):
        raise SchemaError(
            f"the database is at schema revision {current or 'none'}, this program needs {expected_revision()}"
        )


def only(heads: Sequence[str]) -> str | None:
    """Return the revision of a database that says these; None when it has none. Raises SchemaError for several."""
    if len(heads) > 1:
        raise SchemaError(f"the database says in {VERSION_TABLE} that it is at several schema revisions: {heads}")
    return heads[0] if heads else None


def check_readable(current: str | None) -> None:
    """Raise SchemaError for the revision of a release whose data this program cannot read."""
    if current is not None and current < known_revisions()[0]:
        raise SchemaError(
            f"the database holds data of an earlier release, at schema revision {current}, which this version cannot"
            f" read (it begins with {known_revisions()[0]}); nothing was changed: give this version a new database or"
            " data folder, or go on with the earlier release"
        )


def can_work_with(current: str | None, oldest: str | None) -> bool:
    """Whether a database is at a later revision with which programs as old as this one can work."""
    return current is not None and current not in known_revisions() and oldest in known_revisions()


async def connect(dsn: str) -> asyncpg.Connection[asyncpg.Record]:
    """Make a connection that shares nothing with the pool. Raises what the driver raises."""
    return await asyncpg.connect(dsn, timeout=10.0, target_session_attrs=SessionAttribute.read_write)


async def _standing(dsn: str) -> tuple[str | None, str | None]:
    """Return the revision of the database and the earliest one whose programs can work with it; None for what is not.

    Every start asks, and SQLAlchemy makes five questions of its own at each new connection.
    """
    async with session_of(dsn) as session:
        oldest = await session.fetchval(OLDEST)
        try:
            heads = await session.fetch(_HEADS)
        except asyncpg.UndefinedTableError:
            heads = []
    return only([head[0] for head in heads]), oldest


@asynccontextmanager
async def session_of(dsn: str) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    """Give a connection that shares nothing with the pool. Raises PersistenceError."""
    async with translating():
        session = await connect(dsn)
        try:
            yield session
        finally:
            await session.close()
