"""The connection that batches go over: made anew when it is lost, it then tells what became of what was on its way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import asyncpg

from persistence.errors import UnavailableError
from persistence.postgres.commit.flush import flush
from persistence.postgres.commit.locks import locked_units
from persistence.postgres.commit.sharing import Sharing, body_of
from persistence.postgres.commit.statements import READ_CHANGED, READ_CREATED
from persistence.postgres.commit.units import Creation, Group, Outcome, Unit, is_written
from persistence.postgres.connection import DRIVER_ERRORS, Connection, Database, is_unreplicated
from persistence.postgres.mending import execution
from persistence.transition import CommitResult, Created

# Plans are made once, and only the nested loop over the primary keys is right for every size of a batch.
SETTINGS = {
    "application_name": "flowkeep committer",
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    # Whoever holds the row of one execution must not hold up those of others for long.
    "lock_timeout": "250",
}
_COMMAND_TIMEOUT = 5.0


class CommitSession:
    """Writes batches, and reads back what became of them."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._sharing = Sharing()
        self._connection: Connection | None = None
        self._unreplicated = False
        self.trouble: UnavailableError | None = None
        """Why nothing could be written at the last try, where that lies with the disk of the database."""

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection, which may be broken."""
        return self._connection is not None

    async def open(self) -> None:
        """Connect unless it is connected. Raises what the driver raises."""
        if self._connection is None or self._connection.is_closed():
            self._sharing.forget()
            self._connection = await self._database.connect(settings=SETTINGS, command_timeout=_COMMAND_TIMEOUT)
            self._connection.add_log_listener(self._on_log)

    async def close(self) -> None:
        """Let go of the connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                await connection.close(timeout=1.0)
            except DRIVER_ERRORS:
                connection.terminate()

    def is_lost_by(self, error: Exception) -> bool:
        """Whether the connection is of no use after this error, since nobody knows what became of the transaction."""
        connection = self._connection
        is_definite = (
            isinstance(error, asyncpg.PostgresError)
            and connection is not None
            and not connection.is_closed()
            and getattr(error, "severity_en", None) == "ERROR"  # after FATAL the server closes
        )
        if is_definite or connection is None:
            return False
        connection.terminate()
        self._connection = None
        return True

    async def flush(self, units: Sequence[Unit]) -> Mapping[Unit, Outcome]:
        """Write the units in one transaction and return what became of each. Raises what `flush` raises."""
        if not units:
            return {}
        self._unreplicated = False
        sharing = [unit for unit in units if unit.payload_rows]
        for unit in sharing:
            unit.known = self._sharing.known
        outcomes = await flush(self._opened, units)
        self.trouble = None
        if self._unreplicated:
            self._sharing.forget()
            return {unit: unknown(unit) for unit in units}
        self._sharing.note(key for unit in sharing if is_written(outcomes.get(unit)) for key in unit.payload_rows)
        return outcomes

    async def locked(self, units: Sequence[Unit]) -> set[Unit]:
        """Return those whose rows somebody else locks."""
        return await locked_units(self._opened, units)

    async def read_back(self, units: Sequence[Unit]) -> dict[Unit, Outcome]:
        """Return the outcome of those whose fate shows; the others are to be written."""
        creations = [unit for unit in units if isinstance(unit, Creation)]
        groups = [unit for unit in units if isinstance(unit, Group)]
        self._unreplicated = False
        found = {**await self._created(creations), **await self._changed(groups)}
        return {unit: unknown(unit) for unit in found} if self._unreplicated else found

    @property
    def _opened(self) -> Connection:
        assert self._connection is not None  # noqa: S101 - `open` comes first
        return self._connection

    async def _created(self, creations: Sequence[Creation]) -> dict[Unit, Outcome]:
        if not creations:
            return {}
        # In order of ids, so that no two transactions wait for each other.
        keys = sorted(((c.execution.org, c.execution.id) for c in creations), key=lambda key: key[1])
        found = {row["id"]: row for row in await self._opened.fetch(READ_CREATED.text, *zip(*keys, strict=True))}
        return {
            creation: Created.anew(creation.new, execution(found[creation.execution.id]))
            for creation in creations
            if creation.execution.id in found
        }

    async def _changed(self, groups: Sequence[Group]) -> dict[Unit, Outcome]:
        if not groups:
            return {}
        keys = sorted(((g.last.org, g.last.execution_id, g.last.last_seq) for g in groups), key=lambda key: key[1])
        found = {row["id"]: row for row in await self._opened.fetch(READ_CHANGED.text, *zip(*keys, strict=True))}
        outcomes = {group: _fate(group, found.get(group.last.execution_id)) for group in groups}
        return {group: outcome for group, outcome in outcomes.items() if outcome is not None}

    def _on_log(self, _: object, message: asyncpg.PostgresLogMessage) -> None:
        if is_unreplicated(message):
            self._unreplicated = True


def unknown(unit: Unit) -> Outcome:
    """Return the outcome of a unit whose fate cannot be found out."""
    if isinstance(unit, Group):
        return CommitResult.UNKNOWN
    return UnavailableError("the database does not answer; whether the execution was created is unknown")


def _fate(group: Group, row: asyncpg.Record | None) -> CommitResult | None:
    """Tell what became of a group whose connection was lost; None when it is still to be written."""
    if row is None:
        return CommitResult.FENCED
    last = group.last
    if events := group.last_events:
        if row["last_seq"] >= last.last_seq and row["body"] == body_of(events):
            return CommitResult.COMMITTED
    elif group.released and (row["epoch"], row["last_seq"], row["incarnation"]) == (last.epoch, last.last_seq, None):
        return CommitResult.COMMITTED
    is_ours = (row["incarnation"], row["epoch"], row["last_seq"]) == (last.incarnation, last.epoch, group.base_seq)
    return None if is_ours else CommitResult.FENCED
