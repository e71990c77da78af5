"""Whose rows somebody else holds at this moment."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from uuid import UUID

from persistence.postgres.commit.units import Creation, Group, Unit
from persistence.postgres.connection import Connection

# What the lock skips although it is there. As strong as what a flush needs, and let go at once.
_THERE = (
    "SELECT t.id FROM unnest($1::text[], $2::uuid[]) AS u(org_id, id) JOIN {0} t ON t.org_id = u.org_id AND t.id = u.id"
)
_FREE = {"executions": "FOR NO KEY UPDATE OF t SKIP LOCKED", "workflows": "FOR KEY SHARE OF t SKIP LOCKED"}


async def locked_units(connection: Connection, units: Sequence[Unit]) -> set[Unit]:
    """Return the transitions whose execution, and the creations whose workflow, another transaction locks."""
    groups = {(unit.last.org, unit.execution_id) for unit in units if isinstance(unit, Group)}
    creations = {(unit.execution.org, unit.execution.workflow_id) for unit in units if isinstance(unit, Creation)}
    executions = await _locked(connection, "executions", groups)
    workflows = await _locked(connection, "workflows", creations)
    return {
        unit
        for unit in units
        if (unit.execution_id in executions if isinstance(unit, Group) else unit.execution.workflow_id in workflows)
    }


async def _locked(connection: Connection, table: str, keys: Iterable[tuple[str, UUID]]) -> set[UUID]:
    columns = [list(column) for column in zip(*keys, strict=True)]
    if not columns:
        return set()
    there = _THERE.format(table)
    free = {row[0] for row in await connection.fetch(f"{there} {_FREE[table]}", *columns)}
    return {row[0] for row in await connection.fetch(there, *columns)} - free
