"""Brings the schema of a database to a revision."""

from __future__ import annotations

from persistence.postgres.partitions import ensure_partitions
from persistence.postgres.revisions import current_revision, expected_revision, session_of


async def migrate(dsn: str, revision: str = "head") -> None:
    """Bring the database up or down to `revision` ("base" removes all); all or nothing, one process at a time.

    At the head it makes the monthly partitions too.

    Nothing is done for "head" at a later revision that says that this program can work with it. Raises SchemaError,
    having changed nothing, at any other revision that this program does not know, of a newer program or of a release
    whose data it cannot read, or when there is no such revision; UnavailableError, also when others hold a table for
    about a minute.
    """
    if revision != "head" or await current_revision(dsn) != expected_revision():
        # Loading Alembic takes as long as all the rest of a start, and most starts have nothing to change.
        from persistence.postgres.revising import revise

        await revise(dsn, revision)
    if revision == "head":
        async with session_of(dsn) as session:
            await ensure_partitions(session)
