"""Reads out of Postgres what a chaos run left there."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC
from typing import Any

from flowkeep.v1.event_pb2 import ExecutionEvent
from flowkeep.v1.execution_pb2 import Execution
from tests.faults.harness.database import ADMIN, Postgres
from tests.faults.harness.records import Event, Lease, Operation, Row, Step, Write, name_of

_WHICH = "($1::uuid[] IS NULL OR {0} = ANY ($1))"
# With the large payloads that were cut out of them.
EVENTS = f"""
SELECT e.execution_id, e.seq, e.transition_seq, e.kind, e.time,
    CASE WHEN p.message IS NULL THEN e.body ELSE overlay(e.body PLACING p.message FROM s.at + 1 FOR 0) END AS body
FROM events e CROSS JOIN LATERAL (SELECT (e.shared->>'at')::int AS at) s LEFT JOIN shared_payloads p
    ON p.org_id = e.org_id AND p.execution_id = e.execution_id AND p.digest = e.shared->>'digest'
WHERE {_WHICH.format("e.execution_id")} ORDER BY e.execution_id, e.seq"""  # noqa: S608 - ours
_STEPS = (
    f"SELECT execution_id, path, iteration, state, attempt, end_seq FROM steps WHERE {_WHICH.format('execution_id')}"  # noqa: S608 - ours
)
_EXECUTIONS = f"""
SELECT e.*, p.input FROM executions e
LEFT JOIN execution_inputs p ON p.org_id = e.org_id AND p.execution_id = e.id WHERE {_WHICH.format("e.id")}"""  # noqa: S608 - ours
_REQUESTS = f"""
SELECT request_id, execution_id FROM requests WHERE method = 'EXECUTE' AND {_WHICH.format("execution_id")}"""  # noqa: S608 - ours
_RESULTS = "SELECT bulk_id, execution_id, outcome FROM bulk_results ORDER BY bulk_id, number"
_WRITES = f"SELECT * FROM chaos.writes WHERE {_WHICH.format('execution_id')} ORDER BY id"  # noqa: S608 - ours


@dataclass(frozen=True)
class Kept:
    """Everything that Postgres holds of a run."""

    rows: Mapping[str, Row]
    requests: Sequence[tuple[str, str]]
    writes: Sequence[Write]
    incarnations: Mapping[str, str]
    leases: Sequence[Lease]
    operations: Sequence[Operation]


async def collect(postgres: Postgres, only: Collection[str] | None = None) -> Kept:
    """Return it, for some executions or all."""
    which = None if only is None else list(only)
    writes = await postgres.query(_WRITES, which)
    incarnations = await postgres.query("SELECT incarnation, replica FROM chaos.incarnations")
    leases = await postgres.query("SELECT time, incarnation, until FROM chaos.leases ORDER BY time")
    return Kept(
        await rows_of(postgres, which),
        await requests_of(postgres, which),
        [_write(row) for row in writes],
        {str(row["incarnation"]): row["replica"] for row in incarnations},
        [Lease(row["time"], str(row["incarnation"]), row["until"]) for row in leases],
        await operations_of(postgres),
    )


async def operations_of(postgres: Postgres) -> Sequence[Operation]:
    """Return the operations in bulk with their results."""
    results: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for row in await postgres.query(_RESULTS):
        results[str(row["bulk_id"])].append((str(row["execution_id"]), row["outcome"]))
    rows = await postgres.query("SELECT id, state FROM bulks")
    return [Operation(str(row["id"]), row["state"], results[str(row["id"])]) for row in rows]


async def requests_of(postgres: Postgres, which: Sequence[str] | None = None) -> Sequence[tuple[str, str]]:
    """Return the kept request ids with the execution of each, for some executions or all."""
    return [(row["request_id"], str(row["execution_id"])) for row in await postgres.query(_REQUESTS, which)]


async def rows_of(postgres: Postgres, which: Sequence[str] | None = None) -> Mapping[str, Row]:
    """Return executions with their histories and steps, some or all."""
    events: dict[str, list[Event]] = defaultdict(list)
    for row in await postgres.query(EVENTS, which):
        events[str(row["execution_id"])].append(_event(row))
    steps: dict[str, list[Step]] = defaultdict(list)
    for row in await postgres.query(_STEPS, which):
        name = name_of(row["path"], row["iteration"])
        steps[str(row["execution_id"])].append(Step(name, row["state"], row["attempt"], row["end_seq"]))
    rows = {}
    for row in await postgres.query(_EXECUTIONS, which):
        execution_id = str(row["id"])
        number = json.loads(row["input"] or "{}").get("number")
        rows[execution_id] = Row(
            execution_id=execution_id,
            request_id=row["request_id"],
            workflow=row["workflow_name"],
            state=row["state"],
            last_seq=row["last_seq"],
            content=f"{row['workflow_name']} {number}",
            events=tuple(events.get(execution_id, ())),
            steps=tuple(steps.get(execution_id, ())),
            correlation_id=row["correlation_id"],
        )
    return rows


async def leaks(postgres: Postgres) -> list[str]:
    """Return what stopped replicas left in Postgres: sessions, locks, leases, ownership."""
    left = []
    sessions = await postgres.query(
        "SELECT application_name, usename FROM pg_stat_activity"
        " WHERE backend_type = 'client backend' AND application_name <> $1",
        ADMIN,
    )
    left += [f"a session {row['application_name']!r} of {row['usename']} is left" for row in sessions]
    locks = await postgres.query("SELECT count(*) AS count FROM pg_locks WHERE locktype = 'advisory'")
    left += [f"{row['count']} advisory locks are left" for row in locks if row["count"]]
    prepared = await postgres.query("SELECT gid FROM pg_prepared_xacts")
    left += [f"the prepared transaction {row['gid']} is left" for row in prepared]
    owned = await postgres.query(
        "SELECT i.replica, count(*) AS count FROM executions e LEFT JOIN chaos.incarnations i USING (incarnation)"
        " WHERE e.incarnation IS NOT NULL GROUP BY 1"
    )
    left += [f"{row['count']} executions still belong to {row['replica']}" for row in owned]
    # `distinct on`: who was killed could not end its lease, but who came after it has.
    held = await postgres.query(
        "SELECT replica FROM (SELECT DISTINCT ON (replica) replica, incarnation FROM chaos.incarnations"
        " ORDER BY replica, time DESC) i JOIN replicas USING (incarnation) WHERE lease_until > '-infinity'"
    )
    left += [f"{row['replica']} has not ended its lease" for row in held]
    return left


def _event(row: Any) -> Event:
    message = ExecutionEvent.FromString(row["body"])
    content = getattr(message, row["kind"])
    wake = None
    if row["kind"] == "step_waiting":
        wake = content.wait.wake_time if content.wait.HasField("wake_time") else None
    elif row["kind"] == "step_retrying":
        wake = content.retry_time
    state = Execution.State.Name(content.state).removeprefix("STATE_") if row["kind"] == "finished" else ""
    return Event(
        seq=row["seq"],
        transition_seq=row["transition_seq"],
        kind=row["kind"],
        time=row["time"],
        body=row["body"],
        path=name_of(getattr(content, "path", ""), getattr(content, "iteration", 1)),
        attempt=getattr(content, "attempt", 0),
        state=state,
        wake_time=wake.ToDatetime(tzinfo=UTC) if wake is not None else None,
        inherited=message.inherited,
        detail=content.reason if row["kind"] == "reopened" else getattr(content, "signal_id", ""),
        taken=tuple(getattr(content, "signal_ids", ())),
        bulk_id=getattr(content, "bulk_id", ""),
    )


def _write(row: Any) -> Write:
    return Write(
        id=row["id"],
        time=row["time"],
        replica=row["replica"],
        execution_id=str(row["execution_id"]),
        old_epoch=row["old_epoch"],
        epoch=row["epoch"],
        old_incarnation=str(row["old_incarnation"]) if row["old_incarnation"] else None,
        incarnation=str(row["incarnation"]) if row["incarnation"] else None,
        old_seq=row["old_seq"],
        last_seq=row["last_seq"],
        state=row["state"],
    )
