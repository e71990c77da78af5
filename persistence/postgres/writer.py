"""Writes batches on a connection of its own, and finds out what became of each item whatever happens on the way."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Mapping, Sequence
from typing import TypeAlias

import asyncpg

from persistence.errors import PersistenceError, UnavailableError
from persistence.model import CommitResult, Created
from persistence.postgres.batch import Creation, Group, Outcome, Unit
from persistence.postgres.connection import DRIVER_ERRORS, Database, is_contended, is_passing, translated
from persistence.postgres.flush import flush
from persistence.postgres.records import EXECUTION_COLUMNS, execution

_log = logging.getLogger(__name__)

# Plans are made once, and only the nested loop over the primary keys is right for every size of a batch.
_SETTINGS = {
    "application_name": "flowkeep committer",
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    # Whoever holds the row of one execution must not hold up those of others for long.
    "lock_timeout": "1000",
}
_COMMAND_TIMEOUT = 5.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.02, 0.5

# The lock waits for a transaction of the lost connection that is still about to commit.
_ROWS = """
SELECT e.id, e.incarnation, e.epoch, e.last_seq,
       (SELECT v.body FROM events v WHERE v.org_id = e.org_id AND v.execution_id = e.id AND v.seq = u.last_seq) AS body
FROM unnest($1::text[], $2::uuid[], $3::int8[]) AS u(org_id, id, last_seq)
JOIN executions e ON e.org_id = u.org_id AND e.id = u.id
FOR SHARE OF e"""
_MADE = f"""
SELECT {", ".join(f"e.{column}" for column in EXECUTION_COLUMNS.split(", "))}
FROM unnest($1::text[], $2::uuid[]) AS u(org_id, id)
JOIN executions e ON e.org_id = u.org_id AND e.id = u.id"""  # noqa: S608 - our own columns

_Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"


class Writer:
    """Brings each unit to its outcome, however long the database is away.

    A unit that the database answers for, but that something keeps it from writing, such as a lock that somebody holds,
    is UNKNOWN after `patience` seconds; it does not hold up the others for longer than it takes to find it.
    """

    def __init__(self, database: Database, patience: float) -> None:
        self._database = database
        self._patience = patience
        self._connection: _Connection | None = None
        self._unreplicated = False

    async def open(self) -> None:
        """Connect. Raises what the driver raises."""
        if self._connection is None or self._connection.is_closed():
            self._connection = await self._database.connect(settings=_SETTINGS, command_timeout=_COMMAND_TIMEOUT)
            self._connection.add_log_listener(self._on_log)

    async def close(self) -> None:
        """Let go of the connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                await connection.close(timeout=1.0)
            except DRIVER_ERRORS:
                connection.terminate()

    async def write(self, units: Sequence[Unit]) -> Mapping[Unit, Outcome]:
        """Write the units and return what became of each; one that the database refuses does not hurt the others."""
        try:
            outcomes = dict(await self._settle(units))
        except PersistenceError as refusal:
            if len(units) > 1:
                return await self._settle_apart(units)
            outcomes = {units[0]: refusal}
        for unit, outcome in outcomes.items():
            if isinstance(unit, Group) and len(unit.items) > 1 and _is_divisible(outcome):
                await self._write_apart(unit)
        return outcomes

    async def _write_apart(self, group: Group) -> None:
        """Write the transitions one by one, so that those before the first that is refused are kept."""
        items = group.items
        for index, item in enumerate(items):
            single = Group(item)
            single.suspect = group.suspect
            outcome = (await self.write([single]))[single]
            item.resolve(outcome)
            if outcome is not CommitResult.COMMITTED:
                for later in items[index + 1 :]:
                    later.resolve(CommitResult.FENCED)
                return

    async def _settle(self, units: Sequence[Unit]) -> Mapping[Unit, Outcome]:
        """Write the units over all that may pass. Raises PersistenceError when the database refuses them."""
        settled: dict[Unit, Outcome] = {}
        deadline = asyncio.get_running_loop().time() + self._patience
        pause, suspect = _FIRST_PAUSE, False
        while True:
            try:
                await self.open()
                if suspect:
                    settled |= await self._read_back(units)
                    units, suspect = [unit for unit in units if unit not in settled], False
                return {**settled, **await self._flush(units)}
            except PersistenceError:
                raise
            except DRIVER_ERRORS as error:
                if not is_passing(error):
                    raise translated(error) from error
                suspect = self._give_up(error, units) or suspect
                if is_contended(error) and not suspect:
                    if len(units) > 1:
                        return settled | await self._settle_apart(units)
                    if asyncio.get_running_loop().time() + pause >= deadline:
                        return settled | {unit: _unknown(unit) for unit in units}
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - only spreads the replicas
            pause = min(2 * pause, _LONGEST_PAUSE)

    async def _settle_apart(self, units: Sequence[Unit]) -> dict[Unit, Outcome]:
        """Write one half and then the other, so that what holds up one unit holds up few others."""
        middle = len(units) // 2
        return {**await self.write(units[:middle]), **await self.write(units[middle:])}

    async def _flush(self, units: Sequence[Unit]) -> Mapping[Unit, Outcome]:
        if not units:
            return {}
        assert self._connection is not None  # noqa: S101 - just opened
        self._unreplicated = False
        outcomes = await flush(self._connection, units)
        if self._unreplicated:
            return {unit: _unknown(unit) for unit in units}
        return outcomes

    def _give_up(self, error: Exception, units: Sequence[Unit]) -> bool:
        """Decide whether the fate of the units is unknown; then the connection is of no use any more."""
        connection = self._connection
        is_definite = (
            isinstance(error, asyncpg.PostgresError)
            and connection is not None
            and not connection.is_closed()
            and getattr(error, "severity_en", None) == "ERROR"  # after FATAL the server closes
        )
        _log.warning("flush of %d items failed, trying again: %r", len(units), error)
        if is_definite or connection is None:
            return False
        connection.terminate()
        self._connection = None
        for unit in units:
            unit.suspect = True
        return True

    async def _read_back(self, units: Sequence[Unit]) -> dict[Unit, Outcome]:
        """Return the outcome of those whose fate shows; the others are to be written."""
        creations = [unit for unit in units if isinstance(unit, Creation)]
        groups = [unit for unit in units if isinstance(unit, Group)]
        return {**await self._made(creations), **await self._moved(groups)}

    async def _made(self, creations: Sequence[Creation]) -> dict[Unit, Outcome]:
        if not creations:
            return {}
        assert self._connection is not None  # noqa: S101 - just opened
        keys = [(creation.execution.org, creation.execution.id) for creation in creations]
        found = {row["id"]: row for row in await self._connection.fetch(_MADE, *zip(*keys, strict=True))}
        return {
            creation: Created(execution(found[creation.execution.id]), True)
            for creation in creations
            if creation.execution.id in found
        }

    async def _moved(self, groups: Sequence[Group]) -> dict[Unit, Outcome]:
        if not groups:
            return {}
        assert self._connection is not None  # noqa: S101 - just opened
        keys = sorted(((g.last.org, g.last.execution_id, g.last.last_seq) for g in groups), key=lambda key: key[1])
        found = {row["id"]: row for row in await self._connection.fetch(_ROWS, *zip(*keys, strict=True))}
        outcomes = {group: _fate(group, found.get(group.last.execution_id)) for group in groups}
        return {group: outcome for group, outcome in outcomes.items() if outcome is not None}

    def _on_log(self, _: object, message: asyncpg.PostgresLogMessage) -> None:
        # Cancelled while it waited for the standby: Postgres commits here all the same and only warns.
        if "synchronous replication" in str(message):
            self._unreplicated = True


def _fate(group: Group, row: asyncpg.Record | None) -> CommitResult | None:
    """Tell what became of a group whose connection was lost; None when it is still to be written."""
    if row is None:
        return CommitResult.FENCED
    last = group.last
    if event := group.last_event:
        if row["last_seq"] >= last.last_seq and row["body"] == event.body:
            return CommitResult.COMMITTED
    elif group.released and (row["epoch"], row["last_seq"], row["incarnation"]) == (last.epoch, last.last_seq, None):
        return CommitResult.COMMITTED
    is_ours = (row["incarnation"], row["epoch"], row["last_seq"]) == (last.incarnation, last.epoch, group.base_seq)
    return None if is_ours else CommitResult.FENCED


def _unknown(unit: Unit) -> Outcome:
    if isinstance(unit, Group):
        return CommitResult.UNKNOWN
    return UnavailableError("the database does not answer; whether the execution was created is unknown")


def _is_divisible(outcome: Outcome) -> bool:
    return outcome is CommitResult.FENCED or isinstance(outcome, PersistenceError)
