"""Reads of the history."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

import asyncpg

from persistence.errors import CursorAheadError, CursorExpiredError, ExecutionNotFoundError
from persistence.model import Event, Scope
from persistence.postgres.connection import Database, Session
from persistence.postgres.records import readable
from persistence.postgres.shared_payloads import cut_out, read

_PAGE_BYTES = 256 << 10

# With what was cut out; whatever stands there, it is a number of bytes.
_SIZE = f"""
    octet_length(v.body) + CASE jsonb_typeof(v.shared->'size') WHEN 'number'
        THEN least(greatest((v.shared->'size')::numeric, 0), {1 << 30})::int ELSE 0 END"""
# One statement, so that row and events are of the same moment. The sizes are known without reading the bodies; the
# first transition comes whole, as far as the limit reaches.
_PAGE = f"""
SELECT e.last_seq, p.seq, p.transition_seq, p.kind, {readable("p.time")} AS time, p.body, p.shared
FROM executions e LEFT JOIN LATERAL (
    SELECT * FROM (
        SELECT v.*, sum({_SIZE}) OVER (ORDER BY v.seq) AS size,
               first_value(v.transition_seq) OVER (ORDER BY v.seq) AS first_transition
        FROM (SELECT * FROM events WHERE org_id = $1 AND execution_id = $2 AND seq > $4 ORDER BY seq LIMIT $5) v) w
    WHERE w.size <= {_PAGE_BYTES} OR w.transition_seq = w.first_transition) p ON true
WHERE e.org_id = $1 AND e.id = $2 AND ($3::text IS NULL OR e.owner = $3)
ORDER BY p.seq"""  # noqa: S608 - our own number

_TRANSITION = f"""
SELECT seq, transition_seq, kind, {readable("time")} AS time, body, shared FROM events
WHERE org_id = $1 AND execution_id = $2 AND seq > $3 AND seq <= $4 ORDER BY seq"""  # noqa: S608 - our own column


class PostgresEvents:
    """Implements the history half of ExecutionRepository."""

    _database: Database

    async def read_events(self, scope: Scope, execution_id: UUID, after_seq: int, limit: int) -> Sequence[Event]:
        """See ExecutionRepository."""
        cursor = min(after_seq, 2**63 - 1)
        async with self._database.session() as session:
            rows = await session.fetch(_PAGE, scope.org, execution_id, scope.owner, cursor, max(limit, 1))
            if not rows:
                raise ExecutionNotFoundError(execution_id)
            _check_cursor(rows[0], after_seq)
            if rows[0]["seq"] is None:
                return []
            whole = _without_gap(rows)
            end = next((i for i in range(whole, 0, -1) if rows[i - 1]["seq"] == rows[i - 1]["transition_seq"]), 0)
            if end == 0 and whole == len(rows):
                rows = await session.fetch(_TRANSITION, scope.org, execution_id, cursor, rows[0]["transition_seq"])
                end = whole = _without_gap(rows)
            if end == 0 or (end == whole < len(rows) and rows[end - 1]["seq"] != rows[end - 1]["transition_seq"]):
                raise CursorExpiredError(rows[whole]["seq"])
            return await _whole(session, scope.org, execution_id, rows[:end])


async def _whole(session: Session, org: str, execution_id: UUID, rows: Sequence[asyncpg.Record]) -> list[Event]:
    """Return the events of rows, with what was cut out of their bodies."""
    cuts = {row["seq"]: cut for row in rows if row["shared"] is not None and (cut := cut_out(row["shared"]))}
    kept = await read(session, [(org, execution_id, digest) for digest, _ in cuts.values()])
    events = []
    for row in rows:
        digest, at = cuts.get(row["seq"], ("", 0))
        found = kept.get((execution_id, digest))
        message = found["message"] if found else None
        body = row["body"] if message is None else row["body"][:at] + message + row["body"][at:]
        events.append(_event(row, body))
    return events


def _without_gap(rows: Sequence[asyncpg.Record]) -> int:
    """Return how many of the first rows follow each other without a gap."""
    first: int = rows[0]["seq"]
    if rows[-1]["seq"] - first == len(rows) - 1:
        return len(rows)
    return next(index for index, row in enumerate(rows) if row["seq"] != first + index)


def _check_cursor(row: asyncpg.Record, after_seq: int) -> None:
    last_seq: int = row["last_seq"]
    if after_seq > last_seq:
        raise CursorAheadError(after_seq, last_seq)
    oldest = last_seq + 1 if row["seq"] is None else row["seq"]
    if oldest > after_seq + 1:
        raise CursorExpiredError(oldest)


def _event(row: asyncpg.Record, body: bytes) -> Event:
    return Event(row["seq"], row["transition_seq"], row["kind"], row["time"], body)
