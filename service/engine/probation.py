"""Executions whose owners died: which are driven apart from others, and which no more (CONTRACT ST7)."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING
from uuid import UUID

import structlog

from persistence.model import SUSPECT_DEATHS
from service.engine.failure import POISONED, Failure

if TYPE_CHECKING:
    from service.engine.run import Run

log = structlog.get_logger(__name__)

POISONOUS_DEATHS = 5
"""Owners in a row that must have died with an execution before it is given up (CONTRACT ST7)."""


class Probation:
    """The executions that this process drives although others died with them.

    When a process dies, all that it drove has a death more. So that those which did no harm are told from the one that
    did, no two suspects are driven here at a time until the first has done well for `seconds` or has ended a step.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._suspects: set[UUID] = set()

    @property
    def room(self) -> int:
        """How many suspects may be taken."""
        return 0 if self._suspects else 1

    def admit(self, run: Run) -> Failure | None:
        """Watch over a run that begins here; return why it must not go on, if it must not."""
        deaths = run.execution.deaths
        if deaths >= POISONOUS_DEATHS:
            log.error("execution quarantined", execution_id=str(run.id), deaths=deaths)
            return Failure(POISONED, f"{deaths} servers in a row went down while they ran it")
        if deaths >= SUSPECT_DEATHS:
            self._suspects.add(run.id)
        if deaths:
            asyncio.get_running_loop().call_later(self._seconds, run.vouch)
        return None

    def discharge(self, execution_id: UUID) -> bool:
        """Forget an execution that did well, has ended or is driven elsewhere; whether it had been a suspect."""
        if execution_id not in self._suspects:
            return False
        self._suspects.remove(execution_id)
        return True
