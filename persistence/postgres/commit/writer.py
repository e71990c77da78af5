"""Writes batches on a connection of its own, and finds out what became of each item whatever happens on the way."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

import asyncpg

from persistence.errors import PersistenceError, StorageFullError, UnavailableError
from persistence.model import CommitResult, Created
from persistence.postgres.commit.flush import flush
from persistence.postgres.commit.locks import locked_units
from persistence.postgres.commit.sharing import Sharing, is_body
from persistence.postgres.commit.units import Creation, Group, Outcome, Unit, is_written
from persistence.postgres.connection import (
    DRIVER_ERRORS,
    Connection,
    Database,
    is_about_files,
    is_contended,
    is_passing,
    is_unreplicated,
    translated,
)
from persistence.postgres.mending import execution
from persistence.postgres.records import EXECUTION_COLUMNS, selected

_log = logging.getLogger(__name__)

# Plans are made once, and only the nested loop over the primary keys is right for every size of a batch.
_SETTINGS = {
    "application_name": "flowkeep committer",
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    # Whoever holds the row of one execution must not hold up those of others for long.
    "lock_timeout": "250",
}
_COMMAND_TIMEOUT = 5.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.02, 0.5

_TROUBLE = 1.0
"""Seconds that a whole batch is tried again while the database answers it with trouble of its own."""

# The lock waits for a transaction of the lost connection that is still about to commit. It also makes the reading a
# write, which like any other is confirmed by the synchronous standbys, and what it read with it.
_ROWS = """
SELECT e.id, e.incarnation, e.epoch, e.last_seq,
       v.body, v.shared
FROM unnest($1::text[], $2::uuid[], $3::int8[]) AS u(org_id, id, last_seq)
JOIN executions e ON e.org_id = u.org_id AND e.id = u.id
LEFT JOIN events v ON v.org_id = e.org_id AND v.execution_id = e.id AND v.seq = u.last_seq
FOR SHARE OF e"""
_MADE = f"""
SELECT {selected(EXECUTION_COLUMNS, "e.")}
FROM unnest($1::text[], $2::uuid[]) AS u(org_id, id)
JOIN executions e ON e.org_id = u.org_id AND e.id = u.id
FOR KEY SHARE OF e"""  # noqa: S608 - our own columns


@dataclass(slots=True)
class _Search:
    """A search for the units that something is in the way of; `left` failures on, it is in the way of all."""

    left: int


@dataclass(slots=True)
class _Settled:
    """What became of a batch: outcomes, and the rest, which was not written, with the reason if it was refused."""

    outcomes: dict[Unit, Outcome]
    rest: Sequence[Unit] = ()
    refusal: PersistenceError | None = None


class Writer:
    """Brings each unit to its outcome, however long the database is away.

    A unit that the database answers for, but that something keeps it from writing, such as a lock that somebody holds,
    is left without outcome; it does not hold up the others for longer than it takes to find it.
    """

    def __init__(self, database: Database, patience: float) -> None:
        self._database = database
        self._sharing = Sharing()
        self._patience = patience
        self._connection: Connection | None = None
        self._unreplicated = False
        # Executions whose last write was left without outcome: their next one is tried apart from the others.
        self._obstructed: set[UUID] = set()
        self.trouble: UnavailableError | None = None
        """Why nothing could be written at the last try, where that lies with the disk of the database."""

    async def open(self) -> None:
        """Connect. Raises what the driver raises."""
        if self._connection is None or self._connection.is_closed():
            self._sharing.forget()
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
        """Write the units and return what became of each; one that the database refuses does not hurt the others.

        Those without outcome were not written, and are to be tried again after a while.
        """
        known = [unit for unit in units if unit.execution_id in self._obstructed] if self._obstructed else []
        if not known:
            return await self._write(units)
        outcomes = await self._write([unit for unit in units if unit.execution_id not in self._obstructed])
        outcomes |= await self._write(known, _search(known))
        self._obstructed -= {unit.execution_id for unit in outcomes}
        return outcomes

    def forget(self, execution_ids: Iterable[UUID]) -> None:
        """Take these as not tried again."""
        self._obstructed.difference_update(execution_ids)

    async def _write(self, units: Sequence[Unit], search: _Search | None = None) -> dict[Unit, Outcome]:
        if not units or (search is not None and search.left <= 0):
            return {}
        settled = await self._settle(units, search)
        outcomes, rest = settled.outcomes, settled.rest
        if settled.refusal is not None and len(rest) == 1:
            outcomes[rest[0]], rest = settled.refusal, ()
        for unit, outcome in list(outcomes.items()):
            if not isinstance(unit, Group) or len(unit.items) == 1 or not _is_divisible(outcome):
                continue
            if not await self._write_apart(unit):
                del outcomes[unit]
        if settled.refusal is None and rest:
            search = search or _search(rest)
            search.left -= 1
        if len(rest) == 1:
            self._obstructed.add(rest[0].execution_id)
        elif rest:
            middle = len(rest) // 2
            outcomes |= await self._write(rest[:middle], search)
            outcomes |= await self._write(rest[middle:], search)
        return outcomes

    async def _write_apart(self, group: Group) -> bool:
        """Write the transitions one by one, so that those before the first that is refused are kept.

        False when something is in the way of one; the group then holds what is still to be written.
        """
        items = group.items
        for index, item in enumerate(items):
            single = Group(item)
            single.suspect = group.suspect
            outcome = (await self._write([single])).get(single)
            if outcome is None:
                group.items = items[index:]
                return False
            item.resolve(outcome)
            if outcome is not CommitResult.COMMITTED:
                for later in items[index + 1 :]:
                    later.resolve(CommitResult.FENCED)
                break
        return True

    async def _settle(self, units: Sequence[Unit], search: _Search | None) -> _Settled:
        """Write the units over all that may pass, once in a search."""
        settled = _Settled({})
        begun = stuck = asyncio.get_running_loop().time()
        pause, is_suspect, looks = _FIRST_PAUSE, False, search is not None
        while True:
            try:
                await self.open()
                assert self._connection is not None  # noqa: S101 - just opened
                if is_suspect:
                    if looks:
                        units = await self._without_locked(units, settled)
                    settled.outcomes |= await self._read_back(units)
                    units, is_suspect = [unit for unit in units if unit not in settled.outcomes], False
                elif looks:
                    units = await self._without_locked(units)
                settled.outcomes |= await self._flush(units)
                return settled
            except PersistenceError as refusal:
                settled.rest, settled.refusal = units, refusal
                return settled
            except DRIVER_ERRORS as error:
                if not is_passing(error):
                    settled.rest, settled.refusal = units, translated(error)
                    return settled
                if self._give_up(error, units):
                    is_suspect, looks = True, False
                    stuck = asyncio.get_running_loop().time()
                elif not (units := self._without_refused(error, units, settled)):
                    return settled
                elif self._connection is None:  # the database is away
                    stuck = asyncio.get_running_loop().time()
                elif is_suspect:
                    # Their own transaction may hold the locks still, on a connection that was lost.
                    looks = asyncio.get_running_loop().time() - stuck >= self._patience
                elif is_contended(error) and not looks:
                    looks = True
                    continue
                elif looks or asyncio.get_running_loop().time() - begun >= _TROUBLE:
                    settled.rest = units
                    return settled
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - only spreads the replicas
            pause = min(2 * pause, _LONGEST_PAUSE)

    async def _without_locked(self, units: Sequence[Unit], settled: _Settled | None = None) -> Sequence[Unit]:
        """Return those whose rows nobody locks. With `settled`, the fate of the others is given up as unknown."""
        assert self._connection is not None  # noqa: S101 - just opened
        locked = await locked_units(self._connection, units)
        if settled is not None:
            settled.outcomes |= {unit: _unknown(unit) for unit in locked}
        elif locked:
            self._obstructed |= {unit.execution_id for unit in locked}
            _log.warning("somebody locks the rows of %d of %d items; the others are written", len(locked), len(units))
        return [unit for unit in units if unit not in locked]

    def _without_refused(self, error: Exception, units: Sequence[Unit], settled: _Settled) -> Sequence[Unit]:
        """Return those that wait for the end of the trouble; on a full disk creations do not, nothing was kept."""
        trouble = translated(error)
        if not isinstance(trouble, UnavailableError):
            return units
        trouble.__cause__ = error
        if is_about_files(trouble):
            self.trouble = trouble
        if not isinstance(trouble, StorageFullError):
            return units
        refused = [unit for unit in units if isinstance(unit, Creation) and not unit.suspect]
        settled.outcomes |= dict.fromkeys(refused, trouble)
        return [unit for unit in units if unit not in settled.outcomes]

    async def _flush(self, units: Sequence[Unit]) -> Mapping[Unit, Outcome]:
        if not units:
            return {}
        assert self._connection is not None  # noqa: S101 - just opened
        self._unreplicated = False
        sharing = [unit for unit in units if unit.payload_rows]
        for unit in sharing:
            unit.known = self._sharing.known
        outcomes = await flush(self._connection, units)
        self.trouble = None
        if self._unreplicated:
            self._sharing.forget()
            return {unit: _unknown(unit) for unit in units}
        self._sharing.note(key for unit in sharing if is_written(outcomes.get(unit)) for key in unit.payload_rows)
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
        self._unreplicated = False
        found = {**await self._made(creations), **await self._moved(groups)}
        return {unit: _unknown(unit) for unit in found} if self._unreplicated else found

    async def _made(self, creations: Sequence[Creation]) -> dict[Unit, Outcome]:
        if not creations:
            return {}
        assert self._connection is not None  # noqa: S101 - just opened
        keys = sorted(((c.execution.org, c.execution.id) for c in creations), key=lambda key: key[1])
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
        if is_unreplicated(message):
            self._unreplicated = True


def _search(units: Sequence[Unit]) -> _Search:
    # Enough to find two among them by halving.
    return _Search(4 * len(units).bit_length())


def _fate(group: Group, row: asyncpg.Record | None) -> CommitResult | None:
    """Tell what became of a group whose connection was lost; None when it is still to be written."""
    if row is None:
        return CommitResult.FENCED
    last = group.last
    if event := group.last_event:
        if row["last_seq"] >= last.last_seq and is_body(event, row["body"], row["shared"]):
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
