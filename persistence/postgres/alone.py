"""Makes executions of which one at a time is to go on: of a workflow, with a correlation id."""

from __future__ import annotations

from asyncio import Future, get_running_loop
from typing import Any

from sqlalchemy import ColumnElement, literal_column, select

from persistence import failpoints
from persistence.listing import ExecutionFilter, ExecutionOrder
from persistence.model import FINAL_STATES, Execution, ExecutionState, Scope
from persistence.postgres import mending
from persistence.postgres.commit.requests import find_request
from persistence.postgres.commit.stepwise import write_stepwise
from persistence.postgres.commit.units import Creation
from persistence.postgres.connection import Database, Session, rendered
from persistence.postgres.executions import chosen
from persistence.postgres.notifications import Notifications
from persistence.postgres.records import EXECUTION_COLUMNS, selected
from persistence.postgres.tables import executions
from persistence.transition import Created, NewExecution

_GOES_ON = tuple(state for state in ExecutionState if state not in FINAL_STATES)
_ROW: ColumnElement[Any] = literal_column(selected(EXECUTION_COLUMNS))
# Before all other locks: whoever waits for it holds nothing that others could wait for. Of two keys with the same hash
# one waits for the other without need.
_LOCK = "SELECT pg_advisory_xact_lock(hashtextextended($3, hashtextextended($2::text, hashtextextended($1, 0))))"


class PostgresAlone:
    """Implements `create` of Journal for what is to be alone."""

    _database: Database
    _notifications: Notifications

    async def create_alone(self, new: NewExecution, scope: Scope) -> Created:
        """Do as `create` of Journal does with `alone_in`, in a transaction of its own.

        What is committed by others of the same workflow and correlation id while this one waits for its lock is seen:
        each statement sees what was committed before it began.
        """
        future: Future[Created] = get_running_loop().create_future()
        creation, execution = Creation(new, future), new.execution
        async with self._database.session() as session, session.transaction():
            await session.execute(_LOCK, execution.org, str(execution.workflow_id), execution.correlation_id)
            if (first := await self._known(session, new) or await _going_on(session, execution, scope)) is not None:
                return Created(first, False)
            outcome = (await write_stepwise(session, [creation]))[creation]
            if isinstance(outcome, Exception):
                raise outcome
            await failpoints.reach("exec.after_insert_before_commit")
        assert isinstance(outcome, Created)  # noqa: S101 - of a creation
        if outcome.created:
            self._notifications.announce([execution.id], has_work=creation.is_free)
        return outcome

    async def _known(self, session: Session, new: NewExecution) -> Execution | None:
        """Return the execution that the same request id has made before."""
        org, request_id = new.execution.org, new.execution.request_id
        if not request_id:
            return None
        return await find_request(session, org, request_id, {new.content_hash}, new.method)


async def _going_on(session: Session, new: Execution, scope: Scope) -> Execution | None:
    """Return the newest execution that goes on of the workflow and the correlation id of a new one; no dry run."""
    where = ExecutionFilter(states=_GOES_ON, correlation_id=new.correlation_id, is_dry_run=False)
    found = select(_ROW).where(chosen(scope, where, ExecutionOrder.NEWEST), executions.c.workflow_id == new.workflow_id)
    sql, arguments = rendered(found.order_by(executions.c.id.desc()).limit(1))
    row = await session.fetchrow(sql, *arguments)
    return None if row is None else mending.execution(row)
