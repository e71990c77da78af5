"""The schema goes up and down, once at a time, and is what the tables say."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import pytest_asyncio
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from persistence.embedded import EmbeddedPostgres
from persistence.errors import PersistenceError, SchemaError, UnavailableError
from persistence.postgres import (
    PostgresRepository,
    check_schema,
    current_revision,
    expected_revision,
    migrate,
    partitions,
    revising,
    revisions,
)
from persistence.postgres.revisions import VERSION_TABLE, VERSIONS, known_revisions
from persistence.postgres.tables import PARTITIONED, metadata
from tests.conftest import NewDatabase
from tests.patience import PATIENCE

EARLIER = Path(__file__).parents[1] / "schema_0005.sql"
LATER = """
from alembic import op

revision, down_revision, oldest = "0999", "{0}", "{0}"


def upgrade():
    op.execute("ALTER TABLE steps ADD COLUMN later TEXT")


def downgrade():
    op.execute("ALTER TABLE steps DROP COLUMN later")
"""


@pytest_asyncio.fixture
async def empty_dsn(new_database: NewDatabase) -> AsyncIterator[str]:
    """A database without any table."""
    async with new_database("") as dsn:
        yield dsn


@pytest.fixture
def before(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    """The newest revision, of a program that goes on to one more."""
    newest = expected_revision()
    versions = tmp_path / "migrations" / "versions"
    shutil.copytree(VERSIONS.parent, versions.parent, ignore=shutil.ignore_patterns("__pycache__"))
    (versions / "0999_later.py").write_text(LATER.format(newest))
    for module in (revisions, revising):
        monkeypatch.setattr(module, "VERSIONS", versions)
    known_revisions.cache_clear()
    yield newest
    known_revisions.cache_clear()


async def tables(dsn: str) -> set[str]:
    connection = await asyncpg.connect(dsn)
    rows = await connection.fetch(
        "SELECT relname FROM pg_class WHERE relkind IN ('r', 'p') AND relnamespace = 'public'::regnamespace"
    )
    await connection.close()
    return {row[0] for row in rows}


async def execute(dsn: str, statement: str) -> None:
    connection = await asyncpg.connect(dsn)
    await connection.execute(statement)
    await connection.close()


async def test_up_down_up(empty_dsn: str):
    assert await current_revision(empty_dsn) is None
    with pytest.raises(SchemaError, match="none"):
        await check_schema(empty_dsn)
    await migrate(empty_dsn)
    assert await current_revision(empty_dsn) == expected_revision()
    await check_schema(empty_dsn)
    await migrate(empty_dsn)
    first = await tables(empty_dsn)
    assert first >= {*metadata.tables, *(f"{table}_default" for table in PARTITIONED)}
    await migrate(empty_dsn, "base")
    assert await tables(empty_dsn) == {VERSION_TABLE}
    await migrate(empty_dsn, expected_revision())
    assert await current_revision(empty_dsn) == expected_revision()


async def test_three_processes_at_once(empty_dsn: str):
    program = "import asyncio, sys; from persistence.postgres import migrate; asyncio.run(migrate(sys.argv[1]))"
    processes = [
        await asyncio.create_subprocess_exec(sys.executable, "-c", program, empty_dsn, stderr=subprocess.PIPE)
        for _ in range(3)
    ]
    ends = [await process.communicate() for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], ends
    await check_schema(empty_dsn)


async def test_opening_at_once_makes_the_partitions_once(empty_dsn: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(partitions, "_BEHIND", 1)
    monkeypatch.setattr(partitions, "_AHEAD", 2)
    await migrate(empty_dsn, expected_revision())
    repositories = await asyncio.gather(
        *(PostgresRepository.open(empty_dsn, pool_size=2, command_timeout=PATIENCE) for _ in range(3))
    )
    for repository in repositories:
        await repository.close()
    made = await tables(empty_dsn) - set(metadata.tables) - {VERSION_TABLE}
    assert len(made) == len(PARTITIONED) * 5


async def test_who_reads_for_long_does_not_make_all_others_wait(database_dsn: str, before: str):
    """As a backup of the database that the servers before the roll-out are working on."""
    assert await current_revision(database_dsn) == before
    reader, other = await asyncpg.connect(database_dsn), await asyncpg.connect(database_dsn)
    backup = reader.transaction()
    await backup.start()
    await reader.execute("LOCK TABLE steps IN ACCESS SHARE MODE")
    waits = """
        SELECT count(*) FROM pg_locks JOIN pg_database d ON d.oid = database
        WHERE datname = current_database() AND relation = 'steps'::regclass AND NOT granted"""
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(migrate(database_dsn))
        while not await other.fetchval(waits):  # noqa: ASYNC110 - no signal tells of it
            await asyncio.sleep(0.02)
        assert await other.execute("DELETE FROM steps", timeout=PATIENCE) == "DELETE 0"
        await backup.rollback()
    await check_schema(database_dsn)
    await reader.close()
    await other.close()


async def at_a_later_revision(dsn: str, oldest: str) -> None:
    """Leave what the migration of a newer program leaves: its revision, and the earliest that can work with it."""
    await execute(dsn, f"UPDATE {VERSION_TABLE} SET version_num = '9999'")  # noqa: S608 - our own name
    await execute(dsn, f"COMMENT ON TABLE {VERSION_TABLE} IS '{oldest}'")


async def test_a_newer_schema_that_still_fits_is_worked_with_and_left_alone(database_dsn: str):
    """In the middle of a roll-out servers that are not replaced yet start again."""
    await at_a_later_revision(database_dsn, expected_revision())
    await check_schema(database_dsn)
    await migrate(database_dsn)
    repository = await PostgresRepository.open(database_dsn)
    await repository.close()
    assert await current_revision(database_dsn) == "9999"
    with pytest.raises(SchemaError, match="9999"):
        await migrate(database_dsn, "base")


async def test_each_revision_says_with_which_programs_it_works(empty_dsn: str, before: str):
    connection = await asyncpg.connect(empty_dsn)
    for revision in ("head", before, "head", "base", before):
        await migrate(empty_dsn, revision)
        said = await connection.fetchval(f"SELECT obj_description('{VERSION_TABLE}'::regclass)")
        assert said == {"head": before, before: "0023"}.get(revision, said)
        assert await current_revision(empty_dsn) == {"head": "0999", "base": None}.get(revision, revision)
    await connection.close()


@pytest.mark.parametrize("revision", ["0005", "0006"])
async def test_data_of_an_earlier_release_are_refused_and_left_alone(empty_dsn: str, revision: str):
    """Whatever its tables are: what it says its revision is decides."""
    await execute(empty_dsn, EARLIER.read_text())
    await execute(empty_dsn, f"UPDATE {VERSION_TABLE} SET version_num = '{revision}'")  # noqa: S608 - our own name
    await execute(empty_dsn, f"COMMENT ON TABLE {VERSION_TABLE} IS '{revision}'")
    held = await tables(empty_dsn), await definitions(empty_dsn)
    tries = [migrate(empty_dsn), migrate(empty_dsn, "base"), migrate(empty_dsn, revision), check_schema(empty_dsn)]
    for attempt in (*tries, PostgresRepository.open(empty_dsn)):
        with pytest.raises(SchemaError) as refused:
            await attempt
        assert f"data of an earlier release, at schema revision {revision}," in str(refused.value)
        assert "a new database or data folder, or go on with the earlier release" in str(refused.value)
    assert (await tables(empty_dsn), await definitions(empty_dsn)) == held
    connection = await asyncpg.connect(empty_dsn)
    assert await connection.fetchval("SELECT body FROM events") == b"old"
    assert await connection.fetchval(f"SELECT version_num FROM {VERSION_TABLE}") == revision  # noqa: S608 - our own name
    await connection.close()


async def test_a_newer_schema_is_refused_and_left_alone(database_dsn: str):
    await at_a_later_revision(database_dsn, "9999")
    before = await tables(database_dsn)
    for revision in ("head", "base"):
        with pytest.raises(SchemaError, match="9999"):
            await migrate(database_dsn, revision)
    with pytest.raises(SchemaError, match="9999"):
        await PostgresRepository.open(database_dsn)
    assert await tables(database_dsn) == before
    assert await current_revision(database_dsn) == "9999"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (f"INSERT INTO {VERSION_TABLE} VALUES ('0001')", "several"),  # noqa: S608 - our own name
        (f"DELETE FROM {VERSION_TABLE}", "already exists"),  # noqa: S608 - our own name
    ],
)
async def test_a_revision_that_cannot_be_is_refused_and_left_alone(database_dsn: str, change: str, says: str):
    await execute(database_dsn, change)
    before = await tables(database_dsn)
    with pytest.raises(PersistenceError, match=says):
        await migrate(database_dsn)
    with pytest.raises(SchemaError):
        await PostgresRepository.open(database_dsn)
    assert await tables(database_dsn) == before


async def test_an_unknown_target_is_refused(database_dsn: str):
    with pytest.raises(SchemaError, match="no schema revision 12"):
        await migrate(database_dsn, "12")


async def test_an_absent_database_is_unavailable(postgres: EmbeddedPostgres):
    with pytest.raises(UnavailableError):
        await migrate(postgres.dsn("absent"))
    with pytest.raises(UnavailableError):
        await current_revision("postgresql://postgres@localhost:1/flowkeep")


def differences(connection: Connection) -> list[Any]:
    prefixes = tuple(f"{table}_" for table in PARTITIONED)

    def is_ours(name: str | None, kind: str, parents: Any) -> bool:
        return kind != "table" or name in metadata.tables or not str(name).startswith(prefixes)

    options = {"include_name": is_ours, "version_table": VERSION_TABLE, "compare_server_default": True}
    return list(compare_metadata(MigrationContext.configure(connection, opts=options), metadata))


async def test_the_schema_is_what_the_tables_say(database_dsn: str):
    async def connect() -> asyncpg.Connection:
        return await asyncpg.connect(database_dsn)

    engine = create_async_engine("postgresql+asyncpg://", async_creator=connect, poolclass=NullPool)
    async with engine.connect() as connection:
        assert await connection.run_sync(differences) == []
    await engine.dispose()


async def test_the_checks_are_what_the_tables_say(empty_dsn: str, database_dsn: str):
    """Alembic does not compare them: the schema is built from the tables, beside the migrated one."""

    async def connect() -> asyncpg.Connection:
        return await asyncpg.connect(empty_dsn)

    engine = create_async_engine("postgresql+asyncpg://", async_creator=connect, poolclass=NullPool)
    async with engine.begin() as connection:
        await connection.run_sync(metadata.create_all)
    await engine.dispose()
    assert await definitions(empty_dsn) == await definitions(database_dsn)


async def definitions(dsn: str) -> set[tuple[Any, ...]]:
    """Constraints, indexes and columns of the tables that are not partitions."""
    connection = await asyncpg.connect(dsn)
    rows = await connection.fetch(
        """
        SELECT c.relname::text, o.conname::text, pg_get_constraintdef(o.oid)
        FROM pg_constraint o JOIN pg_class c ON c.oid = o.conrelid
        WHERE NOT c.relispartition AND c.relname = ANY ($1)
        UNION ALL
        SELECT t.relname::text, i.relname::text, pg_get_indexdef(i.oid)
        FROM pg_index x JOIN pg_class t ON t.oid = x.indrelid JOIN pg_class i ON i.oid = x.indexrelid
        WHERE NOT t.relispartition AND t.relname = ANY ($1)
        UNION ALL
        SELECT c.relname::text, a.attname::text,
               concat_ws(' ', format_type(a.atttypid, a.atttypmod), a.attnotnull, pg_get_expr(d.adbin, d.adrelid))
        FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
        LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
        WHERE a.attnum > 0 AND NOT a.attisdropped AND c.relname = ANY ($1)
        """,
        list(metadata.tables),
    )
    await connection.close()
    return {tuple(row) for row in rows}


def test_revisions_are_named_and_follow_each_other_as_their_files_do():
    scripts = reversed(list(revising._scripts().walk_revisions()))
    assert [script.revision for script in scripts] == known_revisions()
