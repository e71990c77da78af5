"""Reads executions with all that hangs on them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any
from uuid import UUID

import asyncpg

from persistence.model import Execution, ExecutionDetail, Step
from persistence.postgres import mending, records, sharing
from persistence.postgres.connection import Session
from persistence.postgres.records import STEP_COLUMNS, selected

_NOTHING = {"document": None}

# Key by key (OFFSET 0 keeps it so): a plan made while the tables were small would hash and read all of them.
_PAYLOADS = """
SELECT p.* FROM unnest($1::text[], $2::uuid[]) AS u(org_id, id), LATERAL (
    SELECT p.execution_id, p.input, p.result FROM execution_payloads p
    WHERE p.org_id = u.org_id AND p.execution_id = u.id OFFSET 0) p"""
_STEPS = f"""
SELECT s.* FROM unnest($1::text[], $2::uuid[]) AS u(org_id, id), LATERAL (
    SELECT s.execution_id, {selected(STEP_COLUMNS, "s.")}
    FROM steps s WHERE s.org_id = u.org_id AND s.execution_id = u.id OFFSET 0) s
ORDER BY s.execution_id, s.path"""  # noqa: S608 - our own columns


async def details(session: Session, executions: Sequence[Execution]) -> list[ExecutionDetail]:
    """Return the executions with payloads and steps, which one statement each reads for all of them."""
    if not executions:
        return []
    keys = [execution.org for execution in executions], [execution.id for execution in executions]
    payloads = {row["execution_id"]: row for row in await session.fetch(_PAYLOADS, *keys)}
    steps: dict[UUID, list[Step]] = defaultdict(list)
    lost: dict[UUID, list[str]] = defaultdict(list)
    for row in await _whole(session, executions, await session.fetch(_STEPS, *keys)):
        steps[row["execution_id"]].append(mending.step(row, lost))
    return [
        _detail(execution, payloads.get(execution.id), steps.get(execution.id, ()), lost.get(execution.id, ()))
        for execution in executions
    ]


async def _whole(session: Session, executions: Sequence[Execution], rows: Sequence[asyncpg.Record]) -> Sequence[Any]:
    """Return rows of steps with the payloads that they share; in the place of one that cannot be had stands no JSON."""
    if all(row["shared"] is None for row in rows):
        return rows
    orgs = {execution.id: execution.org for execution in executions}
    found = [(row, _references(row)) for row in rows]
    wanted = [(orgs[row["execution_id"]], row["execution_id"], digest) for row, of in found for digest in of.values()]
    kept = await sharing.read(session, wanted)
    whole: list[Any] = []
    for row, of in found:
        documents = {name: kept.get((row["execution_id"], digest), _NOTHING) for name, digest in of.items()}
        whole.append({**row, **{name: each["document"] or "" for name, each in documents.items()}} if of else row)
    return whole


def _references(row: asyncpg.Record) -> dict[str, str]:
    try:
        return sharing.references(row["shared"])
    except Exception:  # written by hand: nobody knows what it refers to
        return {name: "" for name in sharing.COLUMNS if row[name] is None}


def without_details(execution: Execution) -> ExecutionDetail:
    """Return an execution of whose payloads and steps nothing can be read."""
    return ExecutionDetail(execution, {}, None, (), (*execution.unreadable, "input", "result", "steps"))


def _detail(
    execution: Execution, payload: asyncpg.Record | None, steps: Sequence[Step], lost: Sequence[str]
) -> ExecutionDetail:
    given, result, unreadable = {}, None, [*execution.unreadable, *lost]
    try:
        given = records.document(payload["input"] if payload else None)
    except Exception:
        unreadable.append("input")
    try:
        result = records.decoded(payload["result"]) if payload else None
    except Exception:
        unreadable.append("result")
    if unreadable:
        mending.tell(execution.id, unreadable)
    return ExecutionDetail(execution, given, result, tuple(steps), tuple(unreadable))
