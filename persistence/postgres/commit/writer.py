"""Writes batches such that what is wrong with one item, or in the way of it, does not hurt the others."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from persistence.errors import PersistenceError, UnavailableError
from persistence.postgres.commit.session import CommitSession
from persistence.postgres.commit.settling import Phase, Settlement
from persistence.postgres.commit.units import Group, Outcome, Unit
from persistence.postgres.connection import Database
from persistence.transition import CommitResult


@dataclass(slots=True)
class _Search:
    """A search for the units that something is in the way of; `left` failures on, it is in the way of all."""

    left: int


class Writer:
    """Brings each unit to its outcome, however long the database is away.

    A unit that the database answers for, but that something keeps it from writing, such as a lock that somebody holds,
    is left without outcome; it does not hold up the others for longer than it takes to find it.
    """

    def __init__(self, database: Database, patience: float) -> None:
        self._session = CommitSession(database)
        self._patience = patience
        # Executions whose last write was left without outcome: their next one is tried apart from the others.
        self._obstructed: set[UUID] = set()

    async def open(self) -> None:
        """Connect. Raises what the driver raises."""
        await self._session.open()

    async def close(self) -> None:
        """Let go of the connection."""
        await self._session.close()

    @property
    def trouble(self) -> UnavailableError | None:
        """Why nothing could be written at the last try, where that lies with the disk of the database."""
        return self._session.trouble

    def recovered(self) -> None:
        """Say that something can be written again."""
        self._session.trouble = None

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
        phase = Phase.WRITE if search is None else Phase.WRITE_UNLOCKED
        settlement = Settlement(self._session, units, self._patience, phase)
        await settlement.run()
        self._obstructed |= {unit.execution_id for unit in settlement.obstructed}
        outcomes, rest = settlement.outcomes, settlement.left
        if settlement.refusal is not None and len(rest) == 1:
            outcomes[rest[0]], rest = settlement.refusal, ()
        for unit, outcome in list(outcomes.items()):
            if not isinstance(unit, Group) or len(unit.items) == 1 or not _is_divisible(outcome):
                continue
            if not await self._write_apart(unit):
                del outcomes[unit]
        if settlement.refusal is None and rest:
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
            outcome = (await self._write([single])).get(single)
            if outcome is None:
                group.items = items[index:]
                return False
            item.resolve(outcome)
            if outcome is CommitResult.COMMITTED:
                group.early.append(item)
            if outcome is not CommitResult.COMMITTED:
                for later in items[index + 1 :]:
                    later.resolve(CommitResult.FENCED)
                break
        return True


def _search(units: Sequence[Unit]) -> _Search:
    # Enough to find two among them by halving.
    return _Search(4 * len(units).bit_length())


def _is_divisible(outcome: Outcome) -> bool:
    return outcome is CommitResult.FENCED or isinstance(outcome, PersistenceError)
