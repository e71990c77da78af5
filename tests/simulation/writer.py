"""What the committer of a simulated process writes with: the simulated store, over a connection that breaks."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING
from uuid import UUID

from persistence.errors import PersistenceError, UnavailableError
from persistence.postgres.commit.units import Creation, Group, Outcome, Unit
from persistence.transition import CommitResult, Created

if TYPE_CHECKING:
    from tests.simulation.database import Database
    from tests.simulation.link import Link

BATCH = 8


class Writer:
    """Brings each unit of the real committer to its outcome, and finds out what became of it when an answer is lost.

    As the real one: trouble before the commit is retried, after it what was written is read back; only what can
    neither be written nor read back in time is unknown. How long that takes is a part of the scenario: the real one
    waits for a store that is away, and gives up sooner only when others are written meanwhile.
    """

    trouble: UnavailableError | None = None
    patience = 2.0
    """Seconds from the first trouble."""

    def __init__(self, link: Link, database: Database) -> None:
        self._link = link
        self._database = database

    async def open(self) -> None:
        """Connect; each call does."""

    async def close(self) -> None:
        """Let go."""

    def recovered(self) -> None:
        """Take note of it."""

    def forget(self, execution_ids: Iterable[UUID]) -> None:
        """Take note of it."""

    async def write(self, units: Sequence[Unit]) -> Mapping[Unit, Outcome]:
        """See BatchWriter."""
        outcomes: dict[Unit, Outcome] = {}
        for begin in range(0, len(units), BATCH):
            outcomes |= await self._settle(units[begin : begin + BATCH])
        for unit, outcome in outcomes.items():
            if isinstance(unit, Group) and len(unit.items) > 1 and _is_divisible(outcome):
                await self._write_apart(unit)
        return outcomes

    async def _write_apart(self, group: Group) -> None:
        """Write the transitions one by one, so that those before the first that is refused are kept."""
        outcome: Outcome = CommitResult.COMMITTED
        for item in group.items:
            if outcome is CommitResult.COMMITTED:
                single = Group(item)
                outcome = (await self._settle([single]))[single]
                item.resolve(outcome)
                if outcome is CommitResult.COMMITTED:
                    group.early.append(item)
            else:
                item.resolve(CommitResult.FENCED)

    async def _settle(self, units: Sequence[Unit]) -> dict[Unit, Outcome]:
        """Bring each to its outcome within about `patience` of the first trouble."""
        loop = self._database.loop
        begun, pause, is_suspect = loop.time(), 0.02, False
        settled: dict[Unit, Outcome] = {}
        pending = list(units)
        while True:
            try:
                if is_suspect:
                    settled |= await self._link.call("read back", partial(self._read_back, pending), lost=False)
                    pending = [unit for unit in pending if unit not in settled]
                if pending:
                    settled |= await self._link.call("flush", partial(self._flush, pending))
                return settled
            except UnavailableError as error:
                is_suspect = is_suspect or "no answer" in str(error)
            if loop.time() + pause >= begun + self.patience:
                self._database.history.note(loop.time(), self._link.process, "unknown", len(pending))
                return settled | {unit: _unknown(unit) for unit in pending}
            await asyncio.sleep(pause)
            pause = min(2 * pause, 0.5)

    def _flush(self, units: Sequence[Unit]) -> dict[Unit, Outcome]:
        """Carry out a batch at once, each by itself."""
        return {unit: self._create(unit) if isinstance(unit, Creation) else self._submit(unit) for unit in units}

    def _create(self, unit: Creation) -> Outcome:
        row = self._database.tables.executions.get(unit.execution_id)
        if row is not None:  # it came through on another try
            return Created.anew(unit.new, row.fresh())
        try:
            return self._database.create(self._link.process, unit.new, self._link.decided(unit.new))
        except Exception as error:
            return error

    def _submit(self, group: Group) -> Outcome:
        try:
            return self._database.submit(self._link.process, group, self._link.decided)
        except Exception as error:
            return error

    def _read_back(self, units: Sequence[Unit]) -> dict[Unit, Outcome]:
        """Return the outcomes that show in the tables; the others are to be written."""
        found: dict[Unit, Outcome] = {}
        for unit in units:
            if isinstance(unit, Creation):
                if (row := self._database.tables.executions.get(unit.execution_id)) is not None:
                    found[unit] = Created.anew(unit.new, row.fresh())
            elif (fate := self._database.fate(unit)) is not None:
                found[unit] = fate
        return found


def _is_divisible(outcome: Outcome) -> bool:
    return outcome is CommitResult.FENCED or isinstance(outcome, PersistenceError)


def _unknown(unit: Unit) -> Outcome:
    if isinstance(unit, Group):
        return CommitResult.UNKNOWN
    return UnavailableError("whether the execution was created is unknown")
