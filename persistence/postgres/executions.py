"""Executions as callers see them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, suppress
from datetime import datetime
from typing import Any
from uuid import UUID

from msgspec.structs import replace
from sqlalchemy import (
    ColumnElement,
    ScalarSelect,
    Select,
    and_,
    cast,
    func,
    literal_column,
    select,
    tuple_,
    union_all,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.types import Boolean, Text

from persistence.errors import ExecutionNotFoundError, PersistenceError
from persistence.listing import ExecutionFilter, ExecutionOrder, PageKey, StepFilter, StepPlace
from persistence.model import Execution, ExecutionDetail, ExecutionOutcome, ExecutionState, ExecutionSteps, Scope
from persistence.postgres import mending, records
from persistence.postgres.connection import Database, Session, is_of_a_row, rendered
from persistence.postgres.details import chosen_within, detail_within, outcome, without_details
from persistence.postgres.records import EXECUTION_COLUMNS, selected
from persistence.postgres.tables import CORRELATION_HASH, OWNER_HASH, SOURCE, executions

_columns = executions.c
_SELECTED: ColumnElement[Any] = literal_column(selected(EXECUTION_COLUMNS))
_IN_SCOPE = "org_id = $1 AND id = $2 AND ($3::text IS NULL OR owner = $3)"
_OUTCOME = f"""
SELECT {selected(EXECUTION_COLUMNS)}, result FROM executions WHERE {_IN_SCOPE}"""  # noqa: S608 - our own columns
_IS_THERE = f"SELECT true FROM executions WHERE {_IN_SCOPE}"  # noqa: S608 - our own condition
_GET = f"SELECT {selected(EXECUTION_COLUMNS)} FROM executions WHERE {_IN_SCOPE}"  # noqa: S608 - our own columns

_FORKS = f"""
SELECT {selected(EXECUTION_COLUMNS)} FROM executions WHERE org_id = $1 AND {SOURCE} = $2 AND lineage IS NOT NULL
AND ($3::text IS NULL OR owner = $3) ORDER BY id DESC LIMIT $4"""  # noqa: S608 - our own columns

# Those that are deleted and have executions still among them; of these there are few.
_WORKFLOWS = """
SELECT id FROM workflows WHERE org_id = $1 AND name = $2 AND delete_time IS NULL
UNION SELECT id FROM workflows WHERE org_id = $1 AND name = $2 AND delete_time IS NOT NULL
UNION SELECT id FROM workflows WHERE org_id = $1 AND id = $3"""

# Walks the index from the place on; each counts in its newest iteration.
_ITEM_STEPS = """
SELECT s.position, s.items, s.path FROM steps s
WHERE s.org_id = $1 AND s.execution_id = $2 AND s.items IS NOT NULL AND (s.position, s.items) > ($3::int, $4::int[])
  AND (cardinality($5::text[]) = 0 OR s.state::text = ANY ($5)) AND $6::text IN ('', s.handler)
  AND NOT EXISTS (
    SELECT FROM steps n
    WHERE n.org_id = s.org_id AND n.execution_id = s.execution_id AND n.path = s.path AND n.iteration > s.iteration)
ORDER BY s.position, s.items, s.path LIMIT $7"""

_SORT: dict[ExecutionOrder, ColumnElement[Any] | None] = {
    ExecutionOrder.NEWEST: None,
    ExecutionOrder.LONGEST: _columns.duration,
    ExecutionOrder.LAST_ENDED: _columns.end_time,
}

_APART: dict[ExecutionOrder, ColumnElement[Any]] = {
    ExecutionOrder.LONGEST: _columns.duration + literal_column("0"),
    ExecutionOrder.LAST_ENDED: _columns.end_time + literal_column("interval '0'"),
}
"""The same values, for which there is no index."""

_ALL: ColumnElement[Any] = literal_column("*")
_FEW = 5_000


class PostgresExecutions:
    """Implements ExecutionRepository but for the history and what is sent."""

    _database: Database

    async def get_execution(self, scope: Scope, execution_id: UUID) -> Execution:
        """See ExecutionRepository."""
        try:
            async with self._database.session() as session:
                return await self._row(session, scope, execution_id)
        except PersistenceError as error:
            if not is_of_a_row(error):
                raise
        return await self._nothing_of(scope, execution_id)

    async def _nothing_of(self, scope: Scope, execution_id: UUID) -> Execution:
        async with self._database.session() as session:
            if not await session.fetchval(_IS_THERE, scope.org, execution_id, scope.owner):
                raise ExecutionNotFoundError(execution_id)
        return mending.nothing_of(execution_id, scope.org)

    async def get_detail(
        self, scope: Scope, execution_id: UUID, most: int = 32 << 20, first: int | None = None
    ) -> ExecutionDetail:
        """See ExecutionRepository."""
        try:
            async with self._reading(scope.org, most or first is None) as session:
                execution = await self._row(session, scope, execution_id)
                return await detail_within(session, execution, most, first)
        except PersistenceError as error:
            if not is_of_a_row(error):
                raise
        return without_details(await self.get_execution(scope, execution_id))

    async def get_outcome(self, scope: Scope, execution_id: UUID) -> ExecutionOutcome:
        """See ExecutionRepository."""
        try:
            async with self._database.session() as session:
                row = await session.fetchrow(_OUTCOME, scope.org, execution_id, scope.owner)
        except PersistenceError as error:
            if not is_of_a_row(error):
                raise
            nothing = await self.get_execution(scope, execution_id)
            return ExecutionOutcome(replace(nothing, unreadable=(*nothing.unreadable, "result")), None)
        if row is None:
            raise ExecutionNotFoundError(execution_id)
        return outcome(row)

    async def get_steps(
        self, scope: Scope, execution_id: UUID, paths: Sequence[str], most: int, iteration: int = 0
    ) -> ExecutionSteps:
        """See ExecutionRepository."""
        try:
            async with self._reading(scope.org, most) as session:
                execution = await self._row(session, scope, execution_id)
                return await chosen_within(session, execution, paths, most, iteration)
        except PersistenceError as error:
            if not is_of_a_row(error):
                raise
        return ExecutionSteps(await self.get_execution(scope, execution_id), (), ("steps",))

    async def list_item_steps(
        self, scope: Scope, execution_id: UUID, where: StepFilter, after: StepPlace | None, limit: int
    ) -> Sequence[tuple[StepPlace, str]]:
        """See ExecutionRepository."""
        position, items = after or (-(2**31), ())  # whatever was written by hand stands behind it
        asked = sorted(state.value for state in where.states), where.handler
        async with self._database.snapshot() as session:
            await self._row(session, scope, execution_id)
            rows = await session.fetch(_ITEM_STEPS, scope.org, execution_id, position, list(items), *asked, limit)
        return [(StepPlace(row["position"], records.numbers(row["items"])), row["path"]) for row in rows]

    async def list_forks(self, scope: Scope, execution_id: UUID, limit: int) -> Sequence[Execution]:
        """See ExecutionRepository."""
        async with self._database.session() as session:
            rows = await session.fetch(_FORKS, scope.org, str(execution_id), scope.owner, limit)
        return [mending.execution(row) for row in rows]

    def _reading(self, org: str, is_much: float) -> AbstractAsyncContextManager[Session]:
        """Lend a connection all of whose reads see the same moment; where there may be much to read, to few at once."""
        return self._database.reading(org) if is_much else self._database.snapshot()

    async def _row(self, session: Session, scope: Scope, execution_id: UUID) -> Execution:
        row = await session.fetchrow(_GET, scope.org, execution_id, scope.owner)
        if row is None:
            raise ExecutionNotFoundError(execution_id)
        return mending.execution(row)

    async def list_executions(
        self, scope: Scope, where: ExecutionFilter, order: ExecutionOrder, after: PageKey | None, limit: int
    ) -> Sequence[Execution]:
        """See ExecutionRepository."""
        found = select(_SELECTED).select_from(executions).where(chosen(scope, where, order))
        sort = _SORT[order]
        if after is not None and sort is None:
            found = found.where(_columns.id < after.id)
        elif after is not None and sort is not None:
            value = _value_of(after.id, sort, scope) if after.value is None else after.value
            found = found.where(tuple_(sort, _columns.id) < tuple_(value, after.id))
        try:
            async with self._database.searching(scope.org) as session:
                found = await of_workflow(session, scope, found, where.workflow)
                if sort is not None and where != ExecutionFilter() and await _are_few(session, found):
                    sort = _APART[order]
                statement = first(found, sort, where, limit)
                sql, arguments = rendered(statement)
                return [mending.execution(row) for row in await session.fetch(sql, *arguments)]
        except PersistenceError as error:
            if not is_of_a_row(error):
                raise
        return await self._one_by_one(scope, first(found.with_only_columns(_columns.id), sort, where, limit))

    async def _one_by_one(self, scope: Scope, statement: Select[Any]) -> list[Execution]:
        """Return the executions whose ids are selected, so that what is wrong with one is wrong with it alone."""
        sql, arguments = rendered(statement)
        async with self._database.searching(scope.org) as session:
            ids = [row["id"] for row in await session.fetch(sql, *arguments)]
        found = []
        for execution_id in ids:
            with suppress(ExecutionNotFoundError):
                found.append(await self.get_execution(scope, execution_id))
        return found

    async def count_executions(self, scope: Scope, where: ExecutionFilter, order: ExecutionOrder, limit: int) -> int:
        """See ExecutionRepository."""
        counted = select(_columns.id).where(chosen(scope, where, order)).limit(limit)
        async with self._database.searching(scope.org) as session:
            counted = await of_workflow(session, scope, counted, where.workflow)
            sql, arguments = rendered(select(func.count()).select_from(counted.subquery()))
            return int(await session.fetchval(sql, *arguments))


def first(found: Select[Any], sort: ColumnElement[Any] | None, where: ExecutionFilter, limit: int) -> Select[Any]:
    """Return the first of the executions that are found."""
    if sort is not None:
        return found.order_by(sort.desc(), _columns.id.desc()).limit(limit)
    if len(where.states) < 2 or ExecutionState.COMPLETED in where.states:
        return found.order_by(_columns.id.desc()).limit(limit)
    # The index has those of one state in order; of several states at once all would be read, and put in order.
    of_each = (
        found.where(_columns.state == state.value).order_by(_columns.id.desc()).limit(limit)
        for state in sorted(set(where.states))
    )
    together = union_all(*(select(_ALL).select_from(part.subquery()) for part in of_each)).subquery()
    return select(_ALL).select_from(together).order_by(literal_column("id").desc()).limit(limit)


async def _are_few(session: Session, found: Select[Any]) -> bool:
    """Whether there are so few executions that they are soon put in order.

    By the index of that order, others would be read for as long as they go before those that are looked for.
    """
    some = found.with_only_columns(_columns.id).limit(_FEW + 1).subquery()
    sql, arguments = rendered(select(func.count()).select_from(some))
    return bool(await session.fetchval(sql, *arguments) <= _FEW)


def _value_of(execution_id: UUID, sort: ColumnElement[Any], scope: Scope) -> ScalarSelect[Any]:
    """Return the sort value of a row itself, where nobody can read it."""
    same = executions.alias()
    return select(same.c[str(sort.key)]).where(same.c.org_id == scope.org, same.c.id == execution_id).scalar_subquery()


def chosen(scope: Scope, where: ExecutionFilter, order: ExecutionOrder) -> ColumnElement[bool]:
    """Return the condition of a list, but for the workflow."""
    conditions = [_columns.org_id == scope.org, *_conditions(scope.org, where)]
    if scope.owner is not None:
        conditions += _hashed(OWNER_HASH, _columns.owner, scope.org, scope.owner)
    if order is not ExecutionOrder.NEWEST:
        conditions.append(_columns.end_time.is_not(None))
    return and_(*conditions)


def _conditions(org: str, where: ExecutionFilter) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = []
    if where.owner:
        conditions += _hashed(OWNER_HASH, _columns.owner, org, where.owner)
    if where.states:
        conditions.append(_columns.state.in_([state.value for state in where.states]))
    # The predicates of the partial indexes are repeated, or Postgres would not use them.
    if where.correlation_id:
        conditions += _hashed(CORRELATION_HASH, _columns.correlation_id, org, where.correlation_id)
        conditions.append(_predicate("correlation_id <> ''"))
    if where.tags:
        conditions += [_columns.tags.contains(list(where.tags)), _predicate("tags <> '{}'")]
    if where.labels:
        wanted = cast(cast(records.encoded(dict(where.labels)).decode(), Text), JSONB)
        conditions += [_columns.labels.contains(wanted), _predicate("labels <> '{}'")]
    if where.source is not None:
        conditions += [literal_column(SOURCE, Text) == str(where.source), _predicate("lineage IS NOT NULL")]
    if where.is_dry_run is not None:
        conditions.append(_predicate("dry_run IS TRUE" if where.is_dry_run else "dry_run IS NOT TRUE"))
    if where.lowest_id is not None:
        conditions.append(_columns.id >= where.lowest_id)
    if where.highest_id is not None:
        conditions.append(_columns.id <= where.highest_id)
    return conditions + _times(where)


def _hashed(index: str, column: ColumnElement[str], org: str, value: str) -> list[ColumnElement[bool]]:
    """Return that a column has a value, such that an index of its hash finds it."""
    same = func.hashtextextended(value, func.hashtextextended(org, 0))
    return [column == value, literal_column(index) == same]


def _predicate(sql: str) -> ColumnElement[bool]:
    return literal_column(sql, Boolean)


async def of_workflow(session: Session, scope: Scope, statement: Select[Any], reference: str) -> Select[Any]:
    """Return the statement for executions of the workflows with this name or id; unchanged where none is given."""
    if not reference:
        return statement
    rows = await session.fetch(_WORKFLOWS, scope.org, reference, records.canonical_id(reference))
    ids = [row["id"] for row in rows]
    # `=` keeps the order of the index.
    return statement.where(_columns.workflow_id == ids[0] if len(ids) == 1 else _columns.workflow_id.in_(ids))


def _times(where: ExecutionFilter) -> list[ColumnElement[bool]]:
    return [
        *_range(_columns.create_time, where.created_from, where.created_until),
        *_range(_columns.end_time, where.ended_from, where.ended_until),
    ]


def _range(column: ColumnElement[Any], begin: datetime | None, end: datetime | None) -> list[ColumnElement[bool]]:
    conditions = []
    if begin is not None:
        conditions.append(column >= begin)
    if end is not None:
        conditions.append(column < end)
    return conditions
