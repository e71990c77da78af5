"""Breakpoints of whole workflows: which new executions take them up, each of which is counted in its own commit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import NamedTuple, TypeAlias
from uuid import UUID

import asyncpg
from msgspec.structs import replace

from persistence.breakpoints import BreakpointsMetError, WorkflowBreakpoints, fits
from persistence.errors import PersistenceError, WorkflowNotFoundError
from persistence.postgres import records
from persistence.postgres.commit.statements import LOCK_BREAKPOINTS, TAKE_BREAKPOINTS
from persistence.postgres.commit.units import Creation, WorkflowKey
from persistence.postgres.connection import Session

_Key: TypeAlias = tuple[str, UUID]


class Live(NamedTuple):
    """How a workflow takes new executions."""

    is_paused: bool
    is_held: bool


class Counted:
    """What the workflows of a batch have left for its executions, which take it up one after the other."""

    def __init__(self, pending: Mapping[_Key, WorkflowBreakpoints | None]) -> None:
        self._pending = dict(pending)

    def has(self, creation: Creation) -> bool:
        """Whether the workflow of an execution is counted for."""
        return _key(creation) in self._pending

    def take(self, creation: Creation) -> bool:
        """Let an execution take up what its workflow has; False where it is to take up something else."""
        key, takes = _key(creation), creation.new.takes
        pending = self._pending.get(key)
        if not fits(takes, creation.execution.breakpoints, pending):
            return False
        if takes is not None and pending is not None:
            self._pending[key] = replace(pending, left=pending.left - 1) if pending.left > 1 else None
        return True

    def refusal(self, creation: Creation, live: Mapping[WorkflowKey, Live]) -> PersistenceError:
        """Return why an execution is not kept."""
        if creation.workflow in live:
            return BreakpointsMetError(self._pending.get(_key(creation)))
        return WorkflowNotFoundError(str(creation.execution.workflow_id))

    async def write(self, connection: Session, written: Iterable[Creation]) -> None:
        """Count those that were written."""
        taken = Counter(_key(creation) for creation in written if creation.new.takes is not None)
        if not taken:
            return
        lefts = [left.left if (left := self._pending[key]) is not None else 0 for key in taken]
        await connection.execute(TAKE_BREAKPOINTS.text, *zip(*taken, strict=True), lefts)


async def lock_breakpoints(
    connection: Session, live: Mapping[WorkflowKey, Live], creations: Iterable[Creation]
) -> Counted:
    """Lock the breakpoints of the workflows that have some, or had, and return them."""
    keys = {key[:2] for key, how in live.items() if how.is_held}
    keys |= {_key(creation) for creation in creations if creation.new.takes is not None}
    if not keys:
        return Counted({})
    orgs, ids = zip(*sorted(keys), strict=True)
    rows = await connection.fetch(LOCK_BREAKPOINTS.text, orgs, ids)
    return Counted({(row["org_id"], row["id"]): _pending(row) if row["is_held"] else None for row in rows})


def _pending(row: asyncpg.Record) -> WorkflowBreakpoints | None:
    try:
        return records.workflow_breakpoints(row)
    except Exception:  # written by hand
        return None


def _key(creation: Creation) -> _Key:
    return creation.execution.org, creation.execution.workflow_id
