"""Reads steps with as many payloads as are asked for: how much is stored of each is known without reading it."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from typing import Any, TypeVar
from uuid import UUID

import asyncpg

from persistence.model import Execution, ExecutionSteps, Step, StepKey
from persistence.postgres import mending, shared_payloads
from persistence.postgres.connection import Session
from persistence.postgres.records import STEP_COLUMNS, selected

Item = TypeVar("Item")

PAYLOADS = ("input", "output", "assigned", "failed_attempts", "failure")
"""What of a step may be large."""

FIRST = 256 << 10
"""Characters of payloads that are read together."""

ROW = 512
"""Characters that a row without payloads counts for."""

_PART = FIRST // ROW
_TOGETHER = 4 * _PART
_NONE: Mapping[str, str] = {}
_NOTHING = {"document": None}
_NARROW = tuple(name for name in STEP_COLUMNS if name not in PAYLOADS)
_BARE_FAILURE = "CASE WHEN jsonb_typeof(w.failure) = 'object' THEN w.failure - 'details' ELSE w.failure END"


class Reading:
    """The queries that read some of the columns that may be large; the others are NULL."""

    def __init__(self, *names: str) -> None:
        self.names = names
        self.shared = tuple(name for name in names if name in shared_payloads.COLUMNS)
        own = " + ".join(f"coalesce(pg_column_size(s.{name}), 0)" for name in names)
        digests = ", ".join(f"s.shared->>'{name}'" for name in self.shared)
        kept = f"""CASE WHEN jsonb_typeof(s.shared) = 'object' THEN coalesce((
    SELECT sum(pg_column_size(p.document)) FROM shared_payloads p
    WHERE p.org_id = s.org_id AND p.execution_id = s.execution_id AND p.digest IN ({digests})), 0) ELSE 0 END"""  # noqa: S608 - our own columns
        self._stored = f"{own} + {kept}" if self.shared else own
        values = (
            f"CASE WHEN w.total <= $3 THEN w.{name} END AS {name}" if name in names else f"NULL AS {name}"
            for name in PAYLOADS[:-1]
        )
        failure = f"CASE WHEN w.total <= $3 THEN w.failure ELSE {_BARE_FAILURE} END" if "failure" in names else "NULL"
        self._columns = f"""w.execution_id, {selected(_NARROW, "w.")}, w.stored, w.total <= $3 AS is_whole,
       {", ".join(values)}, {failure} AS failure"""
        columns = (f"s.{name}" if name in names else f"NULL AS {name}" for name in PAYLOADS)
        self.payloads = f"""
SELECT s.* FROM unnest($3::text[], $4::int[]) AS u(path, iteration), LATERAL (
    SELECT s.path, s.iteration, {", ".join(columns)} FROM steps s
    WHERE s.org_id = $1 AND s.execution_id = $2 AND s.path = u.path AND s.iteration = u.iteration OFFSET 0) s"""  # noqa: S608 - our own columns

    def outlines(self, chosen: str, order: str) -> str:
        """Return the query of steps in an order, with the payloads of the first, up to $3 bytes."""
        return f"SELECT {self._columns} FROM {self.measured(chosen, order)} w ORDER BY {order}"  # noqa: S608 - our own columns

    def outlines_of_each(self, keys: str, chosen: str, order: str, shown: str) -> str:
        """Return the same for each of several executions: `chosen` are the steps of a row of `keys`."""
        return f"SELECT {self._columns} FROM {keys}, LATERAL {self.measured(chosen, order)} w ORDER BY {shown}"  # noqa: S608 - our own columns

    def measured(self, chosen: str, order: str) -> str:
        """Return a table of steps with what is stored of each, and of those before it."""
        return f"""(
    SELECT s.*, sum(s.stored) OVER (ORDER BY {order}) AS total
    FROM (SELECT s.*, {self._stored} AS stored FROM ({chosen}) s) s)"""  # noqa: S608 - our own columns


EVERYTHING = Reading(*PAYLOADS)


async def steps_within(
    session: Session, execution: Execution, rows: Sequence[asyncpg.Record], most: float, reading: Reading = EVERYTHING
) -> ExecutionSteps:
    """Return the steps of these outlines, in their order, the first with payloads, up to `most` characters of them."""
    lost: dict[UUID, list[str]] = defaultdict(list)
    steps: list[Step] = []
    read = since = 0
    async with aclosing(_filled(session, execution, rows, most, reading)) as filled:
        async for row in filled:
            if (read := read + length(row)) > most:
                break
            steps.append(mending.step(row, lost))
            if (since := since + length(row) + ROW) > FIRST:
                since = 0
                await asyncio.sleep(0)
    omitted: set[StepKey] = set()
    async for part in in_parts(rows[len(steps) :]):
        steps += (mending.step({**row, **dict.fromkeys(PAYLOADS[:-1])}, lost) for row in part)
        omitted.update(_keys(part))
    return ExecutionSteps(execution, tuple(steps), tuple(lost.get(execution.id, ())), frozenset(omitted))


async def in_parts(items: Sequence[Item]) -> AsyncIterator[Sequence[Item]]:
    """Give items some hundred at a time; others have their turn in between."""
    for at in range(0, len(items), _PART):
        if at:
            await asyncio.sleep(0)
        yield items[at : at + _PART]


async def whole(
    session: Session, executions: Sequence[Execution], rows: Sequence[Any], reading: Reading = EVERYTHING
) -> Sequence[Any]:
    """Return rows of steps with the payloads that they share; in the place of one that cannot be had stands no JSON."""
    orgs = {execution.id: execution.org for execution in executions}
    found: list[tuple[Any, Mapping[str, str]]] = []
    wanted: dict[tuple[str, UUID, str], None] = {}
    async for part in in_parts(rows):
        for row in part:
            of = _references(row, reading) if row["shared"] is not None else _NONE
            found.append((row, of))
            wanted.update(((orgs[row["execution_id"]], row["execution_id"], digest), None) for digest in of.values())
    if not wanted:
        return rows
    kept = await shared_payloads.read(session, list(wanted))
    filled: list[Any] = []
    async for each in in_parts(found):
        filled += (_with_documents(row, of, kept) if of else row for row, of in each)
    return filled


def _with_documents(row: Mapping[str, Any], of: Mapping[str, str], kept: Mapping[Any, Any]) -> Mapping[str, Any]:
    documents = {name: kept.get((row["execution_id"], digest), _NOTHING) for name, digest in of.items()}
    return {**row, **{name: each["document"] or "" for name, each in documents.items()}}


def length(row: asyncpg.Record | Mapping[str, Any]) -> int:
    """Return how many characters of payloads a row has."""
    return sum(len(row[name]) for name in PAYLOADS if row[name] is not None)


def _references(row: Mapping[str, Any], reading: Reading) -> dict[str, str]:
    try:
        found = shared_payloads.references(row["shared"])
    except Exception:  # written by hand: nobody knows what it refers to
        return {name: "" for name in reading.shared if row[name] is None}
    return {name: digest for name, digest in found.items() if name in reading.shared}


async def _filled(
    session: Session, execution: Execution, rows: Sequence[asyncpg.Record], most: float, reading: Reading
) -> AsyncGenerator[Any, None]:
    """Give the rows with their payloads, which are read a few at a time; with `most` 0 only those that have none."""
    first = next((index for index, row in enumerate(rows) if not row["is_whole"]), len(rows))
    for row in await whole(session, [execution], rows[:first], reading):
        yield row
    left = rows[first:] if most else ()
    while left:
        part = _next_part(left)
        keys = map(list, zip(*_keys(part), strict=True))
        found = await session.fetch(reading.payloads, execution.org, execution.id, *keys)
        payloads = dict(zip(_keys(found), found, strict=True))
        filled = [{**row, **payloads[key]} for row, key in zip(part, _keys(part), strict=True)]
        for row in await whole(session, [execution], filled, reading):
            yield row
        left = left[len(part) :]


def _next_part(rows: Sequence[asyncpg.Record]) -> Sequence[asyncpg.Record]:
    """Return the first rows of which not much more than one payload may have is stored; one at least."""
    stored = 0
    for count, row in enumerate(rows):
        stored += row["stored"]
        if count and (stored > FIRST or count == _TOGETHER):
            return rows[:count]
    return rows


def _keys(rows: Sequence[asyncpg.Record]) -> list[StepKey]:
    return [(row["path"], row["iteration"]) for row in rows]
