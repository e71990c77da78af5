"""Removes what deleted workflows leave behind, and request ids that are old enough."""

from __future__ import annotations

from persistence.postgres.claims import WAKE_LOST
from persistence.postgres.connection import Database
from persistence.postgres.messages import REMOVE_DEAD_LETTERS
from persistence.postgres.partitions import ensure_partitions
from persistence.requests import REMEMBERED

_ENDED = """
SELECT e.org_id, e.id FROM workflows w JOIN executions e ON e.org_id = w.org_id AND e.workflow_id = w.id
WHERE w.delete_time IS NOT NULL AND e.end_time IS NOT NULL
LIMIT $1 FOR UPDATE OF e SKIP LOCKED"""
_KEYS = "USING unnest($1::text[], $2::uuid[]) AS u(org_id, id) WHERE t.org_id = u.org_id AND"
_DELETES = (
    f"DELETE FROM transitions t {_KEYS} t.execution_id = u.id",  # noqa: S608 - our own tables
    f"DELETE FROM steps t {_KEYS} t.execution_id = u.id",  # noqa: S608
    f"DELETE FROM messages t {_KEYS} t.execution_id = u.id",  # noqa: S608
    f"DELETE FROM shared_payloads t {_KEYS} t.execution_id = u.id",  # noqa: S608
    f"DELETE FROM execution_inputs t {_KEYS} t.execution_id = u.id",  # noqa: S608
    f"DELETE FROM tasks t {_KEYS} t.execution_id = u.id",  # noqa: S608
    f"DELETE FROM executions t {_KEYS} t.id = u.id",  # noqa: S608
)
# The lock keeps out creations, which hold a workflow while they write.
_DELETE_WORKFLOWS = """
WITH empty AS MATERIALIZED (
    SELECT w.org_id, w.id FROM workflows w
    WHERE w.delete_time IS NOT NULL
      AND NOT EXISTS (SELECT FROM executions e WHERE e.org_id = w.org_id AND e.workflow_id = w.id)
    ORDER BY w.id FOR UPDATE SKIP LOCKED)
DELETE FROM workflows w USING empty WHERE w.org_id = empty.org_id AND w.id = empty.id"""


# The time up to which they were looked at is a text, since the driver cannot read every time. All of one moment are
# looked at together: a batch of executions shares it. `(SELECT clock_timestamp())` is read once, so that the index ends
# the scan: without, all that are remembered would be read as soon as few are old.
_FORGET = f"""
WITH old AS MATERIALIZED (
    SELECT org_id, request_id, execution_id, create_time FROM requests
    WHERE create_time < (SELECT clock_timestamp()) - interval '{REMEMBERED.days} days'
      AND create_time > coalesce($2::text::timestamptz, '-infinity')
    ORDER BY create_time FETCH FIRST ($1::int) ROWS WITH TIES),
forgotten AS (
    DELETE FROM requests r USING old o
    WHERE r.org_id = o.org_id AND r.request_id = o.request_id AND r.create_time = o.create_time
      AND NOT EXISTS (SELECT FROM executions e WHERE e.org_id = o.org_id AND e.id = o.execution_id)
    RETURNING 1)
SELECT count(*) AS looked_at, max(create_time)::text AS last, (SELECT count(*) FROM forgotten) AS forgotten
FROM old"""  # noqa: S608 - our own number


class PostgresReaping:
    """Implements `reap` and `forget` of WorkflowRepository."""

    _database: Database
    _forgotten_to: str | None = None

    async def reap(self, limit: int) -> int:
        """See WorkflowRepository.

        Also removes what was sent to what had ended, makes the partitions of the months to come, and wakes what sleeps
        beyond the calendar.
        """
        async with self._database.session() as session:
            await ensure_partitions(session)
            await session.execute(WAKE_LOST)
            await session.execute(REMOVE_DEAD_LETTERS, limit)
            async with session.transaction():
                rows = await session.fetch(_ENDED, limit)
                if rows:
                    keys = [row["org_id"] for row in rows], [row["id"] for row in rows]
                    for statement in _DELETES:
                        await session.execute(statement, *keys)
                await session.execute(_DELETE_WORKFLOWS)
            return len(rows)

    async def forget(self, limit: int) -> int:
        """See WorkflowRepository."""
        async with self._database.session() as session:
            (row,) = await session.fetch(_FORGET, limit, self._forgotten_to)
        self._forgotten_to = row["last"] if row["looked_at"] >= limit else None
        return int(row["forgotten"])
