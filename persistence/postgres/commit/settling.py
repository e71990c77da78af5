"""Brings a batch to its outcomes over all that may pass: trouble of the database, locks, lost connections."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Sequence
from enum import Enum

from persistence.errors import PersistenceError, StorageFullError, UnavailableError
from persistence.postgres.commit.session import CommitSession, unknown
from persistence.postgres.commit.units import Creation, Outcome, Unit
from persistence.postgres.connection import DRIVER_ERRORS, is_about_files, is_contended, is_passing, translated

_log = logging.getLogger(__name__)

_FIRST_PAUSE, _LONGEST_PAUSE = 0.02, 0.5

_TROUBLE = 1.0
"""Seconds that a whole batch is tried again while the database answers it with trouble of its own."""


class Phase(Enum):
    """What the next try does."""

    WRITE = "writes all"
    WRITE_UNLOCKED = "writes those whose rows nobody locks"
    READ_BACK = "finds out which were written on the connection that was lost, and writes the others"
    READ_BACK_UNLOCKED = "gives up the fate of those whose rows somebody locks as unknown, and does the same"


_READS_BACK = (Phase.READ_BACK, Phase.READ_BACK_UNLOCKED)


class _Next(Enum):
    """When the next try comes."""

    NEVER, AT_ONCE, AFTER_A_PAUSE = range(3)


class Settlement:
    """What becomes of a batch. After `run`: `outcomes`, `left` and `refusal`.

              ┌───────────┐  a lock is in the way, at once   ┌────────────────┐
         ┌───►│   WRITE   ├─────────────────────────────────►│ WRITE_UNLOCKED │◄──┐
         │    └─────┬─────┘                                  └───────┬────────┘   │
         │          └───────────────┬── the connection is lost ──────┘            │
         │ the rest                 ▼                                             │ the rest
         │                    ┌───────────┐  for `patience` s  ┌────────────────────┐
         └────────────────────┤ READ_BACK ├───────────────────►│ READ_BACK_UNLOCKED │
                              └───────────┘                    └────────────────────┘

    A phase is tried again, after a pause, while the database is away; WRITE also in other trouble, for _TROUBLE
    seconds, and READ_BACK in any. It ends when all is written, or has outcomes otherwise: those that were found
    written, and UNKNOWN for those that READ_BACK_UNLOCKED gives up. An error that stays leaves all in `left`, with the
    `refusal`; trouble that lasts, or that comes in WRITE_UNLOCKED, leaves all in `left` without. What locks keep from
    being written is `obstructed`, and neither settled nor left.
    """

    def __init__(self, session: CommitSession, units: Sequence[Unit], patience: float, phase: Phase) -> None:
        self.outcomes: dict[Unit, Outcome] = {}
        self.left: Sequence[Unit] = ()
        self.refusal: PersistenceError | None = None
        self.obstructed: set[Unit] = set()
        self._session = session
        self._units = units
        self._patience = patience
        self._phase = phase
        self._loop = asyncio.get_running_loop()
        # When it began, and since when the connection has been there but what was lost could not be read back.
        self._begun = self._stuck = self._loop.time()

    async def run(self) -> None:
        """Try until each unit has its outcome, is obstructed, or is left."""
        pause = _FIRST_PAUSE
        while True:
            try:
                await self._session.open()
                await self._try()
                return
            except PersistenceError as refusal:
                self.left, self.refusal = self._units, refusal
                return
            except DRIVER_ERRORS as error:
                following = self._failed(error)
            if following is _Next.NEVER:
                return
            if following is _Next.AFTER_A_PAUSE:
                await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - only spreads the replicas
                pause = min(2 * pause, _LONGEST_PAUSE)

    async def _try(self) -> None:
        if self._phase is Phase.READ_BACK_UNLOCKED:
            self._settle({unit: unknown(unit) for unit in await self._session.locked(self._units)})
        if self._phase in _READS_BACK:
            self._settle(await self._session.read_back(self._units))
            self._phase = Phase.WRITE if self._phase is Phase.READ_BACK else Phase.WRITE_UNLOCKED
        elif self._phase is Phase.WRITE_UNLOCKED:
            await self._leave_out_locked()
        self.outcomes |= await self._session.flush(self._units)

    def _failed(self, error: Exception) -> _Next:
        """Decide what comes after an error of the driver."""
        if not is_passing(error):
            self.left, self.refusal = self._units, translated(error)
            return _Next.NEVER
        _log.warning("flush of %d items failed, trying again: %r", len(self._units), error)
        now = self._loop.time()
        if self._session.is_lost_by(error):
            for unit in self._units:
                if isinstance(unit, Creation):
                    unit.in_doubt = True
            self._phase, self._stuck = Phase.READ_BACK, now
            return _Next.AFTER_A_PAUSE
        self._note_trouble(error)
        if not self._units:
            return _Next.NEVER
        if not self._session.is_connected:  # the database is away
            self._stuck = now
        elif self._phase in _READS_BACK:
            # Their own transaction may hold the locks still, on the connection that was lost.
            is_patient = now - self._stuck < self._patience
            self._phase = Phase.READ_BACK if is_patient else Phase.READ_BACK_UNLOCKED
        elif self._phase is Phase.WRITE and is_contended(error):
            self._phase = Phase.WRITE_UNLOCKED
            return _Next.AT_ONCE
        elif self._phase is Phase.WRITE_UNLOCKED or now - self._begun >= _TROUBLE:
            self.left = self._units
            return _Next.NEVER
        return _Next.AFTER_A_PAUSE

    def _note_trouble(self, error: Exception) -> None:
        """Let all wait for the end of the trouble; but on a full disk creations do not, of which nothing was kept."""
        trouble = translated(error)
        if not isinstance(trouble, UnavailableError):
            return
        trouble.__cause__ = error
        if is_about_files(trouble):
            self._session.trouble = trouble
        if isinstance(trouble, StorageFullError):
            refused = [unit for unit in self._units if isinstance(unit, Creation) and not unit.in_doubt]
            self._settle(dict.fromkeys(refused, trouble))

    async def _leave_out_locked(self) -> None:
        locked = await self._session.locked(self._units)
        if locked:
            self.obstructed |= locked
            message = "somebody locks the rows of %d of %d items; the others are written"
            _log.warning(message, len(locked), len(self._units))
            self._units = [unit for unit in self._units if unit not in locked]

    def _settle(self, outcomes: dict[Unit, Outcome]) -> None:
        if outcomes:
            self.outcomes |= outcomes
            self._units = [unit for unit in self._units if unit not in outcomes]
