"""Writes a batch in one transaction: as one statement, or, where not all of it comes true, in several."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeVar

import asyncpg

from persistence import failpoints
from persistence.errors import PersistenceError
from persistence.postgres.commit.single import write_single
from persistence.postgres.commit.stepwise import write_stepwise
from persistence.postgres.commit.units import Outcome, Unit
from persistence.postgres.connection import Connection
from persistence.transition import Created

_Written = TypeVar("_Written", bound=Mapping[Unit, Outcome] | None)


async def flush(connection: Connection, units: Sequence[Unit]) -> Mapping[Unit, Outcome]:
    """Write the units in one transaction and return what became of each; only after the commit.

    Whatever it raises, the transaction is not known to be committed; if a PersistenceError or an error of the
    server on a connection that lives, it is rolled back.
    """
    await failpoints.reach("flush.before_begin")
    if failpoints.are_in_transaction():  # there has to be a moment between the statement and its commit
        outcomes = await _in_transaction(connection, units, write_single)
    else:
        outcomes = await write_single(connection, units)
    if outcomes is None:
        outcomes = await _in_transaction(connection, units, write_stepwise)
    await failpoints.reach("flush.after_commit_before_ack")
    return outcomes


async def _in_transaction(
    connection: Connection, units: Sequence[Unit], write: Callable[[Connection, Sequence[Unit]], Awaitable[_Written]]
) -> _Written:
    await connection.execute("BEGIN")
    try:
        outcomes = await write(connection, units)
        if outcomes is None:
            await connection.execute("ROLLBACK")
            return outcomes
        if any(isinstance(outcome, Created) and outcome.created for outcome in outcomes.values()):
            await failpoints.reach("exec.after_insert_before_commit")
        await failpoints.reach("flush.before_commit")
    except (PersistenceError, asyncpg.PostgresError, UnicodeError):
        if not connection.is_closed():
            await connection.execute("ROLLBACK")
        raise
    except BaseException:
        connection.terminate()  # nothing must be written in what is left of the transaction
        raise
    answer = await connection.execute("COMMIT")
    if answer != "COMMIT":
        raise PersistenceError("the database rolled the transaction back")
    return outcomes
