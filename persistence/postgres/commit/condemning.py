"""Ends what can neither be read nor go on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

import asyncpg

from persistence.journal import End
from persistence.model import Event, ExecutionState, StepCounts
from persistence.postgres.commit import columns
from persistence.postgres.commit.encoding import joined
from persistence.postgres.commit.statements import INSERT_HISTORY
from persistence.postgres.connection import Database, Session
from persistence.postgres.layout import layout
from persistence.postgres.notifications import Notifications
from persistence.postgres.records import IS_READABLE, encoded
from persistence.transition import Closing

# The number goes by the events, which the row may contradict. None of ours comes near 2^62.
_FIND = """
SELECT e.org_id, e.state = 'CANCELLING' OR EXISTS (
           SELECT FROM messages m
           WHERE m.org_id = e.org_id AND m.execution_id = e.id AND m.kind IN ('CANCEL', 'TERMINATE')
       ) AS is_cancelled, e.progress, e.steps_total, clock_timestamp() AS time,
       1 + coalesce((SELECT max(t.seq) FROM transitions t
                     WHERE t.org_id = e.org_id AND t.execution_id = e.id AND t.seq < 4611686018427387904), 0) AS seq
FROM executions e WHERE e.id = $1 AND e.incarnation = $2 FOR UPDATE"""
_CLOSE_STEPS = """
UPDATE steps SET state = 'CANCELLED', end_time = $3, end_seq = $4, output = NULL,
    shared = CASE jsonb_typeof(shared) WHEN 'object' THEN shared - 'output' ELSE shared END
WHERE org_id = $1 AND execution_id = $2 AND end_time IS NULL"""
_CLOSE_TASKS = """
UPDATE tasks SET state = 'CANCELLED', end_time = $3, update_time = $3, version = version + 1
WHERE org_id = $1 AND execution_id = $2 AND waited AND end_time IS NULL"""
_COUNT_STEPS = """
SELECT s.state, count(*)::int AS count FROM (
    SELECT DISTINCT ON (path) state FROM steps WHERE org_id = $1 AND execution_id = $2 ORDER BY path, iteration DESC) s
GROUP BY s.state"""
# The duration is computed from the times, which fails for some: those go.
_CLOSE = f"""
UPDATE executions e SET state = $3, end_time = $4, failure = $5::jsonb, result = NULL, ending = NULL, pause = NULL,
    last_seq = $6, incarnation = NULL, wake_time = NULL, progress = least(e.progress, 99),
    start_time = CASE WHEN e.start_time {IS_READABLE} THEN e.start_time END,
    create_time = CASE WHEN e.create_time {IS_READABLE} THEN e.create_time ELSE $4 END,
    steps_total = $7, steps_completed = $8, steps_failed = $9, steps_skipped = $10, steps_running = 0,
    steps_cancelled = $11
WHERE e.org_id = $1 AND e.id = $2"""  # noqa: S608 - our own condition
_CLEAR_INBOX = "DELETE FROM messages WHERE org_id = $1 AND execution_id = $2 AND kind <> 'SIGNAL'"
_TELL = f"{INSERT_HISTORY.text}\nON CONFLICT DO NOTHING"


class PostgresCondemning:
    """Implements `condemn` of Journal."""

    _database: Database
    _notifications: Notifications

    async def condemn(self, incarnation: UUID, execution_id: UUID, end: End) -> Event | None:
        """See Journal."""
        async with self._database.session() as session, session.transaction():
            found = await session.fetchrow(_FIND, execution_id, incarnation)
            if found is None:
                return None
            key = found["org_id"], execution_id
            await session.execute(_CLOSE_STEPS, *key, found["time"], found["seq"])
            await session.execute(_CLOSE_TASKS, *key, found["time"])
            states = await session.fetch(_COUNT_STEPS, *key)
            closing = _closing(found, {row["state"]: row["count"] for row in states})
            failure, event = end(closing)
            await _write(session, key, closing, failure, event)
        self._notifications.announce([execution_id])
        return event


def _closing(found: asyncpg.Record, states: Mapping[str, int]) -> Closing:
    completed = states.get("COMPLETED", 0) + states.get("COMPENSATED", 0)
    failed, skipped = states.get("FAILED", 0), states.get("SKIPPED", 0)
    total = max(found["steps_total"], sum(states.values()))
    counts = StepCounts(total, completed, failed, skipped, 0, total - completed - failed - skipped)
    state = ExecutionState.CANCELLED if found["is_cancelled"] else ExecutionState.FAILED
    return Closing(state, found["seq"], found["time"], min(found["progress"], 99), counts)


async def _write(
    session: Session, key: tuple[str, UUID], closing: Closing, failure: Mapping[str, Any], event: Event
) -> None:
    counts = closing.counts
    await session.execute(
        _CLOSE,
        *key,
        closing.state.value,
        closing.time,
        encoded(failure).decode(),
        closing.seq,
        counts.total,
        counts.completed,
        counts.failed,
        counts.skipped,
        counts.cancelled,
    )
    await session.execute(_CLEAR_INBOX, *key)
    org, execution_id = key
    told = columns.HISTORY.encode(
        event,
        org_id=org,
        execution_id=execution_id,
        layout=layout([event], [len(event.body)]),
        body=event.body,
        shared=None,
    )
    await session.execute(_TELL, joined([told]))
