"""The usual case of a flush in one statement: nothing is fenced, no request id known, and one round trip does it all.

The statement demands that all of it comes true, and else undoes itself by dividing by zero; then the batch is written
step by step, which tells one outcome from another.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import asyncpg

from persistence.model import CommitResult, Created
from persistence.postgres.commit import columns
from persistence.postgres.commit.statements import (
    INSERT_EVENTS,
    INSERT_EXECUTIONS,
    INSERT_PAYLOADS,
    INSERT_REQUESTS,
    INSERT_SHARED,
    LIVE_WORKFLOWS,
    SET_RESULTS,
    UPDATE_EXECUTIONS,
    UPSERT_STEPS,
)
from persistence.postgres.commit.units import Creation, Group, Outcome, Unit, missing_payloads

_Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"


def _with(statement: str, parameter: int) -> str:
    return statement.replace("$1", f"${parameter}")


_COMMON = f"""
    kept AS ({_with(UPSERT_STEPS, 1)} RETURNING 1),
    told AS ({_with(INSERT_EVENTS, 2)})"""
_MOVED = f"""
    moved AS ({_with(UPDATE_EXECUTIONS, 4)}),
    ended AS ({_with(SET_RESULTS, 5)})"""
_MADE = f"""
    live AS ({LIVE_WORKFLOWS.replace("$2", "$8").replace("$1", "$7")}),
    taken AS ({_with(INSERT_REQUESTS, 9)}),
    made AS ({_with(INSERT_EXECUTIONS, 10)}),
    given AS ({_with(INSERT_PAYLOADS, 11)})"""


def _sharing(statement: str, parameter: int) -> str:
    """Return the statement, which also keeps large payloads."""
    return statement.replace("WITH", f"WITH pooled AS ({_with(INSERT_SHARED, parameter)}),", 1)


_TRANSITIONS = f"""
WITH {_COMMON}, {_MOVED}
SELECT 1 / ((SELECT count(*) FROM kept) = $3 AND (SELECT count(*) FROM moved) = $6)::int"""  # noqa: S608 - our own statements
_ALL = f"""
WITH {_COMMON}, {_MOVED}, {_MADE}
SELECT 1 / ((SELECT count(*) FROM kept) = $3 AND (SELECT count(*) FROM moved) = $6
    AND (SELECT count(*) FROM live) = cardinality($8) AND (SELECT count(*) FROM taken) = $12
    AND (SELECT count(*) FROM made) = $13)::int"""  # noqa: S608 - our own statements


_SHARING = {_TRANSITIONS: _sharing(_TRANSITIONS, 7), _ALL: _sharing(_ALL, 14)}


async def write_at_once(connection: _Connection, units: Sequence[Unit]) -> Mapping[Unit, Outcome] | None:
    """Write the units as one statement and return their outcomes; None when nothing was written.

    Raises what the driver raises: after an error of the server nothing was written, after another it is unknown.
    """
    creations = [unit for unit in units if isinstance(unit, Creation)]
    groups = sorted((unit for unit in units if isinstance(unit, Group)), key=lambda group: group.last.execution_id)
    if any(creation.suspect for creation in creations):
        return None  # it may be there already
    statement, arguments = _TRANSITIONS, _of_transitions(creations, groups)
    if creations:
        statement, arguments = _ALL, [*arguments, *_of_creations(creations)]
    if missing := missing_payloads(units):
        statement, arguments = _SHARING[statement], [*arguments, columns.joined(missing)]
    try:
        await connection.execute(statement, *arguments)
    except asyncpg.DivisionByZeroError:
        return None
    outcomes: dict[Unit, Outcome] = dict.fromkeys(groups, CommitResult.COMMITTED)
    return outcomes | {creation: created(creation) for creation in creations}


def created(creation: Creation) -> Created:
    """Return the answer to a creation that was written."""
    made = creation.execution
    return Created(made if isinstance(made.tags, tuple) else replace(made, tags=tuple(made.tags)), True)


def _of_transitions(creations: Sequence[Creation], groups: Sequence[Group]) -> list[Any]:
    items: Sequence[Creation | Group] = [*creations, *groups]
    steps = [row for item in items for row in item.step_rows]
    events = [row for item in items for row in item.event_rows]
    results = [group.result_row for group in groups if group.result_row is not None]
    changes = columns.joined(group.row for group in groups)
    return [columns.joined(steps), columns.joined(events), len(steps), changes, columns.joined(results), len(groups)]


def _of_creations(creations: Sequence[Creation]) -> list[Any]:
    workflows = sorted({(creation.execution.org, creation.execution.workflow_id) for creation in creations})
    # In order of request ids, so that no two transactions wait for each other.
    asked = sorted(
        (creation for creation in creations if creation.execution.request_id),
        key=lambda creation: (creation.execution.org, creation.execution.request_id),
    )
    return [
        [org for org, _ in workflows],
        [workflow_id for _, workflow_id in workflows],
        columns.joined(columns.request_row(creation.new) for creation in asked),
        columns.joined(creation.row for creation in creations),
        columns.joined(creation.payload_row for creation in creations),
        len(asked),
        len(creations),
    ]
