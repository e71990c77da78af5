"""Reads executions with all that hangs on them."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Any
from uuid import UUID

import asyncpg
from msgspec.structs import replace

from persistence.model import Execution, ExecutionDetail, ExecutionOutcome, ExecutionSteps, Step, StepKey
from persistence.postgres import mending, records, shared_payloads
from persistence.postgres.connection import Session
from persistence.postgres.records import STEP_COLUMNS, selected

_NOTHING = {"document": None}

# Key by key (OFFSET 0 keeps it so): a plan made while the tables were small would hash and read all of them.
_PAYLOADS = """
SELECT p.* FROM unnest($1::text[], $2::uuid[]) AS u(org_id, id), LATERAL (
    SELECT p.execution_id, p.input, p.result FROM execution_payloads p
    WHERE p.org_id = u.org_id AND p.execution_id = u.id OFFSET 0) p"""
_PAYLOAD = "SELECT input, result FROM execution_payloads WHERE org_id = $1 AND execution_id = $2"
_STEPS = f"""
SELECT s.* FROM unnest($1::text[], $2::uuid[]) AS u(org_id, id), LATERAL (
    SELECT s.execution_id, {selected(STEP_COLUMNS, "s.")}
    FROM steps s WHERE s.org_id = u.org_id AND s.execution_id = u.id OFFSET 0) s
ORDER BY s.execution_id, s.path, s.iteration"""  # noqa: S608 - our own columns

PAYLOADS = ("input", "output", "assigned", "failed_attempts", "failure")
"""What of a step may be large."""

_NARROW = tuple(name for name in STEP_COLUMNS if name not in PAYLOADS)
_OWN = " + ".join(f"coalesce(pg_column_size(s.{name}), 0)" for name in PAYLOADS)
_SHARED = """CASE WHEN jsonb_typeof(s.shared) = 'object' THEN coalesce((
    SELECT sum(pg_column_size(p.document)) FROM jsonb_each_text(s.shared) r, shared_payloads p
    WHERE p.org_id = s.org_id AND p.execution_id = s.execution_id AND p.digest = r.value), 0) ELSE 0 END"""
_FIRST = 256 << 10
_BARE_FAILURE = "CASE WHEN jsonb_typeof(w.failure) = 'object' THEN w.failure - 'details' ELSE w.failure END"


def _outlines(chosen: str, order: str) -> str:
    """Return the query of steps in an order, with the payloads of the first: how much is stored of each is known
    without reading it."""
    payloads = (f"CASE WHEN w.total <= $3 THEN w.{name} END AS {name}" for name in PAYLOADS if name != "failure")
    return f"""
SELECT w.execution_id, {selected(_NARROW, "w.")}, w.stored, w.total <= $3 AS is_whole, {", ".join(payloads)},
       CASE WHEN w.total <= $3 THEN w.failure ELSE {_BARE_FAILURE} END AS failure
FROM (SELECT s.*, sum(s.stored) OVER (ORDER BY {order}) AS total
      FROM (SELECT s.*, {_OWN} + {_SHARED} AS stored FROM ({chosen}) s) s) w
ORDER BY {order}"""  # noqa: S608 - our own columns


_OUTLINES = _outlines("SELECT * FROM steps WHERE org_id = $1 AND execution_id = $2", "position, path, iteration")
_OUTLINES_OF = _outlines(
    """SELECT s.*, u.place FROM unnest($4::text[]) WITH ORDINALITY AS u(path, place), LATERAL (
           SELECT * FROM steps s WHERE s.org_id = $1 AND s.execution_id = $2 AND s.path = u.path
           ORDER BY s.iteration DESC LIMIT 1) s""",
    "place",
)
_PAYLOADS_OF = f"""
SELECT s.* FROM unnest($3::text[], $4::int[]) AS u(path, iteration), LATERAL (
    SELECT s.path, s.iteration, {", ".join(f"s.{name}" for name in PAYLOADS)} FROM steps s
    WHERE s.org_id = $1 AND s.execution_id = $2 AND s.path = u.path AND s.iteration = u.iteration OFFSET 0) s"""  # noqa: S608 - our own columns

_AT_A_TIME = 256 << 10
"""Characters of payloads that are read before others have their turn."""


async def details(session: Session, executions: Sequence[Execution]) -> list[ExecutionDetail]:
    """Return the executions with payloads and steps, which one statement each reads for all of them."""
    if not executions:
        return []
    keys = [execution.org for execution in executions], [execution.id for execution in executions]
    payloads = {row["execution_id"]: row for row in await session.fetch(_PAYLOADS, *keys)}
    steps: dict[UUID, list[Step]] = defaultdict(list)
    lost: dict[UUID, list[str]] = defaultdict(list)
    read = 0
    for row in await _whole(session, executions, await session.fetch(_STEPS, *keys)):
        steps[row["execution_id"]].append(mending.step(row, lost))
        if (read := read + _length(row)) > _AT_A_TIME:
            read = 0
            await asyncio.sleep(0)
    return [
        _detail(execution, payloads.get(execution.id), steps.get(execution.id, ()), lost.get(execution.id, ()))
        for execution in executions
    ]


async def _whole(session: Session, executions: Sequence[Execution], rows: Sequence[Any]) -> Sequence[Any]:
    """Return rows of steps with the payloads that they share; in the place of one that cannot be had stands no JSON."""
    if all(row["shared"] is None for row in rows):
        return rows
    orgs = {execution.id: execution.org for execution in executions}
    found = [(row, _references(row)) for row in rows]
    wanted = [(orgs[row["execution_id"]], row["execution_id"], digest) for row, of in found for digest in of.values()]
    kept = await shared_payloads.read(session, wanted)
    whole: list[Any] = []
    for row, of in found:
        documents = {name: kept.get((row["execution_id"], digest), _NOTHING) for name, digest in of.items()}
        whole.append({**row, **{name: each["document"] or "" for name, each in documents.items()}} if of else row)
    return whole


def _references(row: Mapping[str, Any]) -> dict[str, str]:
    try:
        return shared_payloads.references(row["shared"])
    except Exception:  # written by hand: nobody knows what it refers to
        return {name: "" for name in shared_payloads.COLUMNS if row[name] is None}


async def detail_within(session: Session, execution: Execution, most: int) -> ExecutionDetail:
    """Return an execution with its payloads, and with those of its first steps, up to `most` characters of them."""
    payload = await session.fetchrow(_PAYLOAD, execution.org, execution.id)
    rows = await session.fetch(_OUTLINES, execution.org, execution.id, min(most, _FIRST))
    found = await _within(session, execution, rows, most)
    steps = sorted(found.steps, key=lambda step: step.key)
    return replace(_detail(execution, payload, steps, found.unreadable), omitted=found.omitted)


async def steps_within(session: Session, execution: Execution, paths: Sequence[str], most: int) -> ExecutionSteps:
    """Return the steps with these paths, in their order, the first with payloads, up to `most` characters of them."""
    rows = await session.fetch(_OUTLINES_OF, execution.org, execution.id, min(most, _FIRST), paths)
    found = await _within(session, execution, rows, most)
    mending.tell(execution.id, list(found.unreadable))
    return found


async def _within(session: Session, execution: Execution, rows: Sequence[asyncpg.Record], most: int) -> ExecutionSteps:
    """Return the steps of these outlines, in their order."""
    lost: dict[UUID, list[str]] = defaultdict(list)
    steps: list[Step] = []
    read = rested = 0
    async with aclosing(_filled(session, execution, rows, most)) as filled:
        async for row in filled:
            if (read := read + _length(row)) > most:
                break
            steps.append(mending.step(row, lost))
            if read - rested > _AT_A_TIME:
                rested = read
                await asyncio.sleep(0)
    left = rows[len(steps) :]
    steps += (mending.step({**row, **dict.fromkeys(PAYLOADS[:-1])}, lost) for row in left)
    return ExecutionSteps(execution, tuple(steps), tuple(lost.get(execution.id, ())), frozenset(_keys(left)))


async def _filled(
    session: Session, execution: Execution, rows: Sequence[asyncpg.Record], most: int
) -> AsyncGenerator[Any, None]:
    """Give the rows with their payloads, which are read a few at a time; with `most` 0 only those that have none."""
    first = next((index for index, row in enumerate(rows) if not row["is_whole"]), len(rows))
    for row in await _whole(session, [execution], rows[:first]):
        yield row
    left = rows[first:] if most else ()
    while left:
        part = _next_part(left)
        found = await session.fetch(
            _PAYLOADS_OF, execution.org, execution.id, *map(list, zip(*_keys(part), strict=True))
        )
        payloads = dict(zip(_keys(found), found, strict=True))
        for row in await _whole(
            session, [execution], [{**row, **payloads[key]} for row, key in zip(part, _keys(part), strict=True)]
        ):
            yield row
        left = left[len(part) :]


def _next_part(rows: Sequence[asyncpg.Record]) -> Sequence[asyncpg.Record]:
    """Return the first rows of which not much more than one payload may have is stored; one at least."""
    stored = 0
    for count, row in enumerate(rows):
        stored += row["stored"]
        if count and stored > _FIRST:
            return rows[:count]
    return rows


def _keys(rows: Sequence[asyncpg.Record]) -> list[StepKey]:
    return [(row["path"], row["iteration"]) for row in rows]


def _length(row: asyncpg.Record | Mapping[str, Any]) -> int:
    return sum(len(row[name]) for name in PAYLOADS if row[name] is not None)


def outcome(row: asyncpg.Record) -> ExecutionOutcome:
    """Return the execution that a row holds, with its result."""
    execution = mending.execution(row)
    try:
        return ExecutionOutcome(execution, records.decoded(row["result"]))
    except Exception:
        mending.tell(execution.id, ["result"])
        return ExecutionOutcome(replace(execution, unreadable=(*execution.unreadable, "result")), None)


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
