"""Executions whose owners died: which are driven apart from others, and which no more (CONTRACT ST7)."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from uuid import UUID

import structlog

from persistence.model import SUSPECT_DEATHS, Execution
from service.engine.failure import POISONED, Failure
from service.engine.running.run import Run

log = structlog.get_logger(__name__)

POISONOUS_DEATHS = 5
"""Owners in a row that must have died with an execution before it is given up (CONTRACT ST7)."""


class Quarantine:
    """The executions that this process drives although others died with them.

    When a process dies, all that it drove has a death more. So that those which did no harm are told from the one that
    did, no two suspects are driven here at a time until the first has done well for `seconds` or has ended what it did.
    Before its last death an execution is tried alone: all else here has been driven for as long, and nothing is taken.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._suspects: set[UUID] = set()
        self._on_trial: UUID | None = None
        self._is_preparing = False

    def clear(self) -> None:
        """Forget all, because the process drops what it drives."""
        self._suspects.clear()
        self._on_trial = None
        self._is_preparing = False

    @property
    def is_exclusive(self) -> bool:
        """Whether nothing but a suspect may be taken, for the sake of a trial."""
        return self._is_preparing or self._on_trial is not None

    def room(self, runs: Collection[Run]) -> int:
        """Return how many suspects may be taken beside these runs."""
        return 0 if self._suspects or (self._is_preparing and not self._is_quiet(runs)) else 1

    def defers(self, execution: Execution, runs: Collection[Run]) -> bool:
        """Whether an execution that was just taken must be given up again, until its trial can begin here."""
        if execution.deaths != POISONOUS_DEATHS - 1 or self._is_quiet(runs):
            return False
        self._is_preparing = True
        return True

    def conclude(self, runs: Collection[Run]) -> None:
        """End the preparations for a trial that could have begun: another process took the suspect."""
        if self._is_quiet(runs):
            self._is_preparing = False

    def admit(self, run: Run) -> Failure | None:
        """Take in a run that begins here; return why it must not go on, if it must not."""
        deaths = run.execution.deaths
        if deaths >= POISONOUS_DEATHS:
            log.error("execution quarantined", execution_id=str(run.id), deaths=deaths)
            return Failure(POISONED, f"{deaths} servers in a row went down or stood still while they ran it")
        if deaths >= SUSPECT_DEATHS:
            self._suspects.add(run.id)
        if deaths == POISONOUS_DEATHS - 1:
            self._on_trial = run.id
        if deaths:
            asyncio.get_running_loop().call_later(self._seconds, run.vouch)
        return None

    def release(self, run: Run) -> bool:
        """Let go of a run that did well, has ended or is driven elsewhere; whether that may make room for another."""
        was_exclusive = self.is_exclusive
        self._suspects.discard(run.id)
        if self._on_trial == run.id:
            self._on_trial = None
        return was_exclusive or run.execution.deaths > 0

    def _is_quiet(self, runs: Collection[Run]) -> bool:
        proven = asyncio.get_running_loop().time() - self._seconds
        return all(run.begun <= proven for run in runs)
