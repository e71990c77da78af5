"""What reads, starts and claims cost beside a million executions, next to the same calls beside a few.

    python -m tests.bench.million [--executions N] [--driven N] [--folder FOLDER]

Both databases are on one embedded Postgres. A folder that is given is kept: its data are made once. The executions are
of a year's shape in little: most have completed, some failed, some wait, and one workflow is rare.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import uvloop

from persistence.embedded import EmbeddedPostgres
from persistence.listing import ExecutionFilter, ExecutionOrder, PageKey
from persistence.model import ExecutionState, Scope
from persistence.postgres import PostgresRepository, migrate
from service.engine.ids import created_within
from tests.conformance.builders import ORG, document, events, execution, new, now
from tests.folders import new_folder

FEW = 200
ROUNDS = 15
PAGE = 50
SCOPE = Scope(ORG)
REPLICA = UUID(int=7)

_GENERATE = """
WITH drawn AS MATERIALIZED (
    SELECT n, (n * 2654435761 % 1000)::int AS lot,
        clock_timestamp() - interval '25 days' * (1 - n::float8 / $1) AS moment, ($1 - n < $2) AS is_driven,
        ($1 - n >= $2 AND $1 - n < $2 + $2 / 2) AS is_parked
    FROM generate_series(1, $1::int8) n),
made AS MATERIALIZED (
    SELECT d.*, (lpad(to_hex((extract(epoch FROM moment) * 1000)::int8), 12, '0') || '7'
            || substr(md5(n::text), 1, 3) || '8' || substr(md5(n::text), 4, 15))::uuid AS id,
        CASE WHEN lot < 3 THEN 3 ELSE n % 2 + 1 END AS workflow,
        CASE WHEN is_driven THEN 'RUNNING' WHEN is_parked THEN 'RUNNING' WHEN lot % 50 = 1 THEN 'FAILED'
            WHEN lot % 100 = 2 THEN 'CANCELLED' WHEN lot = 3 THEN 'TIMED_OUT' ELSE 'COMPLETED' END AS state
    FROM drawn d),
kept AS (
    INSERT INTO executions (id, workflow_id, incarnation, create_time, start_time, end_time, deadline_time, wake_time,
        timeout, last_seq, epoch, mail, bytes, revision, run, priority, steps_total, steps_completed, steps_failed,
        steps_skipped, steps_running, steps_cancelled, progress, org_id, owner, workflow_name, state, correlation_id,
        request_id, tags, labels, result, failure)
    SELECT id, ($3::uuid[])[workflow], CASE WHEN is_driven THEN $4::uuid END, moment, moment,
        CASE WHEN NOT is_driven AND NOT is_parked THEN moment + interval '1 second' * (1 + lot * 0.37) END,
        moment + interval '1 hour', CASE WHEN is_parked THEN clock_timestamp() + interval '1 day' * (1 + n % 9) END,
        3600, 3, 1, 0, 1600, 1, 1, 0, 3, CASE state WHEN 'COMPLETED' THEN 3 ELSE 0 END, 0, 0, 0, 0,
        CASE state WHEN 'COMPLETED' THEN 100 ELSE 0 END, CASE WHEN n % 10 = 0 THEN 'globex' ELSE 'acme' END,
        'owner-' || n % 100, ($5::text[])[workflow], state,
        CASE WHEN n % 2 = 0 THEN md5((n / 4)::text) ELSE '' END, '',
        CASE WHEN n % 10 = 1 THEN ARRAY['t' || n % 1000] ELSE '{}' END,
        CASE WHEN n % 10 = 3 THEN jsonb_build_object('customer', (n % 5000)::text) ELSE '{}' END,
        CASE state WHEN 'COMPLETED' THEN '{"ok": true}'::jsonb END,
        CASE WHEN state IN ('FAILED', 'TIMED_OUT', 'CANCELLED') THEN '{"code": "X", "message": "m"}'::jsonb END
    FROM made ORDER BY n),
given AS (
    INSERT INTO execution_inputs (org_id, execution_id, input)
    SELECT CASE WHEN n % 10 = 0 THEN 'globex' ELSE 'acme' END, id, '{"topic": "AI trends"}' FROM made ORDER BY n),
stepped AS (
    INSERT INTO steps (execution_id, start_time, end_time, end_seq, iteration, position, attempt, progress, org_id,
        path, handler, state, input, output)
    SELECT id, moment, moment, 3, 1, 1, 1, 100, CASE WHEN n % 10 = 0 THEN 'globex' ELSE 'acme' END, 'fetch', 'noop',
        'COMPLETED', '{"a": 1}', '{"ok": true}'
    FROM made ORDER BY n)
INSERT INTO transitions (execution_id, seq, time, org_id, layout, body)
SELECT id, 3, moment, CASE WHEN n % 10 = 0 THEN 'globex' ELSE 'acme' END, 'c80;s38,S70',
    decode(repeat('00', 188), 'hex')
FROM made ORDER BY n"""
_NAMES = ("usual", "other", "rare")

Call = Callable[[], Awaitable[object]]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Measures calls beside a million executions.")
    parser.add_argument("--executions", type=int, default=1_000_000, metavar="N")
    parser.add_argument("--driven", type=int, default=10_000, metavar="N", help="of them are driven at this moment")
    parser.add_argument("--folder", type=Path, help="where the data are kept")
    given = parser.parse_args()
    with new_folder("flowkeep-million-", on_disk=True) as folder:
        root = given.folder or folder / "data"
        with EmbeddedPostgres(root, settings={"shared_buffers": "512MB"}) as postgres:
            uvloop.run(measure(postgres, given.executions, given.driven))


async def measure(postgres: EmbeddedPostgres, executions: int, driven: int) -> None:
    """Print how long each call takes, beside few and beside many."""
    few = await _timed(postgres, FEW, FEW // 20)
    many = await _timed(postgres, executions, driven)
    print(f"{'median of ' + str(ROUNDS) + ', ms':44}{FEW:>12,}{executions:>12,}{'ratio':>8}")
    for name, alone in few.items():
        print(f"{name:44}{alone:12.2f}{many[name]:12.2f}{many[name] / alone:8.2f}")


async def _timed(postgres: EmbeddedPostgres, executions: int, driven: int) -> Mapping[str, float]:
    dsn = await _filled(postgres, f"of_{executions}", executions, driven)
    connection = await asyncpg.connect(dsn)
    try:
        return await _measured(connection, dsn)
    finally:
        await connection.close()


async def _filled(postgres: EmbeddedPostgres, name: str, executions: int, driven: int) -> str:
    """Return the address of a database with so many executions, which is made unless it is there."""
    admin = await asyncpg.connect(postgres.dsn())
    is_new = not await admin.fetchval("SELECT true FROM pg_database WHERE datname = $1", name)
    if is_new:
        await admin.execute(f"CREATE DATABASE {name}")
    await admin.close()
    dsn = postgres.dsn(name)
    if not is_new:
        return dsn
    await migrate(dsn)
    async with _open(dsn) as repository:
        made = [await repository.create_workflow(ORG, uuid4(), document(each), "ann") for each in _NAMES]
    connection = await asyncpg.connect(dsn)
    await connection.execute("SET synchronous_commit = off; SET jit = off; SET work_mem = '256MB'")
    ids = [workflow.id for workflow in made]
    await connection.execute(_GENERATE, executions, driven, ids, REPLICA, list(_NAMES))
    await connection.execute("VACUUM (ANALYZE)")
    await connection.close()
    return dsn


@asynccontextmanager
async def _open(dsn: str) -> AsyncIterator[PostgresRepository]:
    repository = await PostgresRepository.open(dsn)
    try:
        yield repository
    finally:
        await repository.close()


async def _measured(connection: asyncpg.Connection[Any], dsn: str) -> dict[str, float]:
    async with _open(dsn) as repository:
        await repository.register(REPLICA, "drives", 3_600)
        calls = await _calls(connection, repository)
        found = {}
        for name, call in calls.items():
            times = []
            for _ in range(ROUNDS):
                began = time.perf_counter()
                await call()
                times.append(1e3 * (time.perf_counter() - began))
            found[name] = statistics.median(times)
        return found


async def _calls(connection: asyncpg.Connection[Any], repository: PostgresRepository) -> dict[str, Call]:
    """Return what is measured, by what it is called."""
    some = await connection.fetchrow(
        "SELECT id, correlation_id FROM executions WHERE org_id = $1 AND correlation_id <> ''"
        " AND end_time IS NOT NULL ORDER BY id DESC LIMIT 1",
        ORG,
    )
    assert some is not None
    driven = [
        row["id"]
        for row in await connection.fetch("SELECT id FROM executions WHERE incarnation = $1 ORDER BY id", REPLICA)
    ]
    workflow = await repository.get_workflow(SCOPE, _NAMES[0])
    begin, end = now() - timedelta(days=9), now() - timedelta(days=9, hours=-1)
    lowest_id, highest_id = created_within(begin, end)
    lists = {
        "newest": ExecutionFilter(),
        "COMPLETED": ExecutionFilter(states=[ExecutionState.COMPLETED]),
        "FAILED": ExecutionFilter(states=[ExecutionState.FAILED]),
        "RUNNING": ExecutionFilter(states=[ExecutionState.RUNNING]),
        "PAUSED, none": ExecutionFilter(states=[ExecutionState.PAUSED]),
        "FAILED or TIMED_OUT": ExecutionFilter(states=[ExecutionState.FAILED, ExecutionState.TIMED_OUT]),
        "a usual workflow": ExecutionFilter(workflow=_NAMES[0]),
        "a rare workflow": ExecutionFilter(workflow=_NAMES[2]),
        "a rare workflow, FAILED": ExecutionFilter(workflow=_NAMES[2], states=[ExecutionState.FAILED]),
        "a usual workflow, FAILED": ExecutionFilter(workflow=_NAMES[0], states=[ExecutionState.FAILED]),
        "an owner": ExecutionFilter(owner="owner-11"),
        "an owner, TIMED_OUT": ExecutionFilter(owner="owner-11", states=[ExecutionState.TIMED_OUT]),
        "a tag": ExecutionFilter(tags=["t501"]),
        "a label": ExecutionFilter(labels={"customer": "13"}),
        "a correlation id": ExecutionFilter(correlation_id=some["correlation_id"]),
        "created in an hour": ExecutionFilter(
            created_from=begin, created_until=end, lowest_id=lowest_id, highest_id=highest_id
        ),
        "ended in an hour": ExecutionFilter(ended_from=begin, ended_until=end),
    }

    def listed(
        where: ExecutionFilter, order: ExecutionOrder, scope: Scope = SCOPE, after: PageKey | None = None
    ) -> Call:
        return lambda: repository.list_executions(scope, where, order, after, PAGE)

    calls: dict[str, Call] = {f"list: {name}": listed(where, ExecutionOrder.NEWEST) for name, where in lists.items()}
    calls["list: newest, those of a caller alone"] = listed(
        ExecutionFilter(), ExecutionOrder.NEWEST, Scope(ORG, "owner-11")
    )
    for order in (ExecutionOrder.LONGEST, ExecutionOrder.LAST_ENDED):
        calls[f"list: {order}"] = listed(ExecutionFilter(), order)
        page = await repository.list_executions(SCOPE, ExecutionFilter(), order, None, PAGE)
        last = page[-1]
        assert last.end_time is not None
        start = last.start_time or last.create_time
        value = (last.end_time - start).total_seconds() if order is ExecutionOrder.LONGEST else last.end_time
        calls[f"list: {order}, its next page"] = listed(ExecutionFilter(), order, after=PageKey(value, last.id))
        calls[f"list: {order}, FAILED"] = listed(ExecutionFilter(states=[ExecutionState.FAILED]), order)
        calls[f"list: {order}, a rare workflow"] = listed(ExecutionFilter(workflow=_NAMES[2]), order)
    calls["count up to 1,000"] = lambda: repository.count_executions(
        SCOPE, ExecutionFilter(), ExecutionOrder.NEWEST, 1_000
    )

    async def execute() -> None:
        row = execution(workflow, REPLICA, last_seq=1, org=ORG, request_id=str(uuid4()))
        assert (await repository.create(new(row, events=events(0)))).created
        await connection.execute("UPDATE executions SET incarnation = NULL, wake_time = now() WHERE id = $1", row.id)
        await connection.execute("DELETE FROM executions WHERE id = $1", row.id)

    calls |= {
        "get": lambda: repository.get_detail(SCOPE, some["id"]),
        "events": lambda: repository.read_events(SCOPE, some["id"], 0, 100),
        "execute, removed again": execute,
        "claim, nothing is free": lambda: repository.claim(REPLICA, 64, 4),
        "claim, with handlers": lambda: repository.claim(REPLICA, 64, 4, handlers=["noop"]),
        "next wake time": repository.next_wake_time,
        "undriven": lambda: repository.undriven(REPLICA, driven),
        "deliver": lambda: repository.deliver(REPLICA),
        "reap": lambda: repository.reap(100),
        "forget": lambda: repository.forget(100),
    }
    return calls


if __name__ == "__main__":
    main()
