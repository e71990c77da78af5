"""Reads of the history."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from itertools import groupby
from typing import NamedTuple
from uuid import UUID

import asyncpg

from persistence.errors import CursorAheadError, CursorExpiredError, ExecutionNotFoundError
from persistence.model import Event, Scope
from persistence.postgres.connection import Database, Session
from persistence.postgres.layout import Place, places
from persistence.postgres.records import NotReadableError, readable
from persistence.postgres.shared_payloads import Cut, cuts, read

_PAGE_BYTES = 256 << 10

# With what was cut out; whatever stands there, it is a number of bytes.
_SIZE = f"""
    octet_length(t.body) + CASE jsonb_typeof(t.shared) WHEN 'array' THEN coalesce((
        SELECT sum(CASE jsonb_typeof(s->'size') WHEN 'number'
            THEN least(greatest((s->'size')::numeric, 0), {1 << 30}) END)
        FROM jsonb_array_elements(t.shared) s), 0) ELSE 0 END"""  # noqa: S608 - our own number
# One statement, so that row and events are of the same moment. The sizes are known without reading the bodies; the
# first row comes whole.
_PAGE = f"""
SELECT e.last_seq, p.seq, {readable("p.time")} AS time, p.layout, p.body, p.shared
FROM executions e LEFT JOIN LATERAL (
    SELECT * FROM (
        SELECT t.*, row_number() OVER (ORDER BY t.seq) AS number, sum({_SIZE}) OVER (ORDER BY t.seq) AS size
        FROM (SELECT * FROM transitions WHERE org_id = $1 AND execution_id = $2 AND seq > $4 ORDER BY seq LIMIT $5) t) w
    WHERE w.size <= {_PAGE_BYTES} OR w.number = 1) p ON true
WHERE e.org_id = $1 AND e.id = $2 AND ($3::text IS NULL OR e.owner = $3)
ORDER BY p.seq"""  # noqa: S608 - our own number


class _Found(NamedTuple):
    """An event of a row, with what was cut out of it."""

    place: Place
    time: datetime
    own: bytes
    cut: Cut | None

    @property
    def size(self) -> int:
        """How many bytes its body has."""
        return len(self.own) + (self.cut.size if self.cut else 0)


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
            found = [] if rows[0]["seq"] is None else _without_gap(rows, cursor, limit)
            oldest = found[0].place.seq if found else rows[0]["last_seq"] + 1
            _check_cursor(rows[0]["last_seq"], oldest, after_seq)
            return await _whole(session, scope.org, execution_id, _page(found, limit))


def _without_gap(rows: Sequence[asyncpg.Record], cursor: int, limit: int) -> list[_Found]:
    """Return the events of rows behind a position, as far as they follow each other without a gap.

    Rows behind the first `limit` events are not looked at: each may hold hundreds.
    """
    found: list[_Found] = []
    for row in rows:
        if len(found) >= max(limit, 1):
            break
        events = [event for event in _events(row) if event.place.seq > cursor]
        if found and (not events or events[0].place.seq > cursor + 1):
            break
        found += events
        cursor = found[-1].place.seq if found else cursor
    return found


def _events(row: asyncpg.Record) -> list[_Found]:
    """Return the events of a row; none when nobody can tell which they are."""
    try:
        found = places(row["seq"], row["layout"])
    except NotReadableError:
        return []
    kept = cuts(row["shared"])
    return [_Found(place, row["time"], row["body"][place.begin : place.end], kept.get(place.seq)) for place in found]


def _page(events: Sequence[_Found], limit: int) -> list[_Found]:
    """Return the first transitions, as many as a page holds."""
    page: list[_Found] = []
    size = 0
    for _, group in groupby(events, key=lambda event: event.place.transition_seq):
        transition = list(group)
        size += sum(event.size for event in transition)
        if page and (len(page) + len(transition) > limit or size > _PAGE_BYTES):
            break
        page += transition
    return page


async def _whole(session: Session, org: str, execution_id: UUID, events: Sequence[_Found]) -> list[Event]:
    """Return the events with what was cut out of their bodies."""
    kept = await read(session, [(org, execution_id, event.cut.digest) for event in events if event.cut])
    return [
        Event(each.place.seq, each.place.transition_seq, each.place.kind, each.time, _body(each, execution_id, kept))
        for each in events
    ]


def _body(event: _Found, execution_id: UUID, kept: Mapping[tuple[UUID, str], asyncpg.Record]) -> bytes:
    shared = kept.get((execution_id, event.cut.digest)) if event.cut else None
    if event.cut is None or shared is None or shared["message"] is None:
        return event.own
    message: bytes = shared["message"]
    return event.own[: event.cut.at] + message + event.own[event.cut.at :]


def _check_cursor(last_seq: int, oldest: int, after_seq: int) -> None:
    if after_seq > last_seq:
        raise CursorAheadError(after_seq, last_seq)
    if oldest > after_seq + 1:
        raise CursorExpiredError(oldest)
