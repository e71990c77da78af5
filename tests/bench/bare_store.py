"""The baseline of a durable step: its rows written by group commit, with no service around them.

The protocol is that of our committer: while one flush is on its way, the next batch gathers. Each step writes five
rows: its own, that of its execution, its two events, and the context; a step starts when the one before is committed.
"""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass
from typing import Any, Self
from uuid import UUID, uuid4

import asyncpg

from tests.bench.flight import fly

DDL = """
CREATE TABLE bare_execution (
    id uuid PRIMARY KEY, state text NOT NULL, owner uuid, epoch int NOT NULL DEFAULT 1, seq int NOT NULL DEFAULT 0,
    progress int NOT NULL DEFAULT 0, context jsonb, updated_at timestamptz
) WITH (fillfactor = 70);
CREATE TABLE bare_step (
    execution_id uuid, path text, state text, attempt int, input jsonb, output jsonb,
    started_at timestamptz, ended_at timestamptz, PRIMARY KEY (execution_id, path)
) WITH (fillfactor = 80);
CREATE TABLE bare_event (
    execution_id uuid, seq int, kind text, body bytea, at timestamptz, PRIMARY KEY (execution_id, seq)
);
"""
FLUSH_EXECUTIONS = """
UPDATE bare_execution e SET state = u.state, seq = u.seq, progress = u.progress, context = u.context::jsonb,
    updated_at = clock_timestamp()
FROM unnest($1::uuid[], $2::text[], $3::int[], $4::int[], $5::text[]) AS u (id, state, seq, progress, context)
WHERE e.id = u.id AND e.epoch = 1 RETURNING e.id
"""
FLUSH_STEPS = """
INSERT INTO bare_step
SELECT u.id, u.path, u.state, u.attempt, u.input::jsonb, u.output::jsonb, clock_timestamp(), clock_timestamp()
FROM unnest($1::uuid[], $2::text[], $3::text[], $4::int[], $5::text[], $6::text[])
    AS u (id, path, state, attempt, input, output)
ON CONFLICT (execution_id, path) DO UPDATE
SET state = excluded.state, output = excluded.output, ended_at = excluded.ended_at
"""
FLUSH_EVENTS = """
INSERT INTO bare_event SELECT u.id, u.seq, u.kind, u.body, clock_timestamp()
FROM unnest($1::uuid[], $2::int[], $3::text[], $4::bytea[]) AS u (id, seq, kind, body)
"""
CONTEXT = json.dumps({"input": {"topic": "AI trends"}, "vars": {}})
BODY = b"x" * 80
LARGEST_BATCH = 1000


@dataclass(frozen=True, slots=True)
class Write:
    """What changes together: an execution, perhaps a step, some events."""

    execution_id: UUID
    state: str
    seq: int
    progress: int
    step: str | None
    kinds: tuple[str, ...]

    @property
    def events(self) -> list[tuple[UUID, int, str, bytes]]:
        """The events, the last of which has our seq."""
        first = self.seq - len(self.kinds) + 1
        return [(self.execution_id, first + place, kind, BODY) for place, kind in enumerate(self.kinds)]


class BareStore:
    """Executions of steps that do nothing, on one connection."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self._connection = connection
        self._pending: list[tuple[Write, asyncio.Future[None]]] = []
        self._wake = asyncio.Event()
        self._task = asyncio.create_task(self._flush_for_ever())

    @classmethod
    async def open(cls, dsn: str) -> Self:
        """Make the tables and return the store."""
        connection = await asyncpg.connect(dsn)
        await connection.execute(DDL)
        return cls(connection)

    async def close(self) -> None:
        """Let go of the connection."""
        self._task.cancel()
        await asyncio.wait([self._task])
        await self._connection.close()

    async def run(self, executions: int, steps: int, width: int) -> float:
        """Return the seconds that so many executions of so many steps take, `width` at a time."""
        ids = [uuid4() for _ in range(executions)]
        rows = [(execution_id, "pending") for execution_id in ids]
        await self._connection.executemany("INSERT INTO bare_execution (id, state) VALUES ($1, $2)", rows)
        began = time.perf_counter()
        await fly((self._execute(execution_id, steps) for execution_id in ids), width)
        took = time.perf_counter() - began
        done = "SELECT count(*) FROM bare_execution WHERE id = ANY($1) AND state = 'completed' AND seq = $2"
        assert await self._connection.fetchval(done, ids, 2 * steps + 3) == executions
        return took

    async def _execute(self, execution_id: UUID, steps: int) -> None:
        await self._put(Write(execution_id, "running", 2, 0, None, ("created", "started")))
        for number in range(steps):
            progress = (number + 1) * 100 // steps
            kinds = ("step_started", "step_completed")
            await self._put(Write(execution_id, "running", 4 + 2 * number, progress, f"s{number}", kinds))
        await self._put(Write(execution_id, "completed", 2 * steps + 3, 100, None, ("finished",)))

    def _put(self, write: Write) -> asyncio.Future[None]:
        committed = asyncio.get_running_loop().create_future()
        self._pending.append((write, committed))
        self._wake.set()
        return committed

    async def _flush_for_ever(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._pending:
                await asyncio.sleep(0)  # all that is ready to write goes into this batch
                batch, self._pending = self._pending[:LARGEST_BATCH], self._pending[LARGEST_BATCH:]
                await self._flush([write for write, _ in batch])
                for _, committed in batch:
                    committed.set_result(None)

    async def _flush(self, writes: list[Write]) -> None:
        last = {write.execution_id: write for write in writes}.values()
        executions = [(each.execution_id, each.state, each.seq, each.progress, CONTEXT) for each in last]
        steps = [(w.execution_id, w.step, "completed", 1, '{"a":1}', '{"ok":true}') for w in writes if w.step]
        events = [event for write in writes for event in write.events]
        async with self._connection.transaction():
            await self._connection.fetch(FLUSH_EXECUTIONS, *_columns(executions))
            if steps:
                await self._connection.execute(FLUSH_STEPS, *_columns(steps))
            await self._connection.execute(FLUSH_EVENTS, *_columns(events))


def _columns(rows: list[Any]) -> list[list[Any]]:
    return [list(column) for column in zip(*rows, strict=True)]
