"""How executions are paused, and whole workflows, of which what has not started waits for the resume."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import msgspec
from msgspec.structs import replace

NEVER = datetime(9999, 12, 31, tzinfo=UTC)
"""The wake_time of what waits for the resume of its workflow: no claim comes to it."""

PAUSE_ID = "workflow_pause_id"
"""What messages and pauses of executions name the pause of their workflow by."""


class Pause(msgspec.Struct, frozen=True):
    """Since when nothing of an execution begins, and who wanted that why.

    `is_hard`: attempts that ran were stopped, and are made again. `stops_deadline`: the time of it does not count.
    `seq` is the number of its event, `step` the path of
    the step that is held, where the execution paused itself. `workflow_pause_id` is that of the pause of the whole
    workflow, where that paused it. `is_joined`: somebody has asked for it while a breakpoint or the workflow held it.
    """

    by: str
    reason: str
    time: datetime
    is_hard: bool = False
    stops_deadline: bool = False
    seq: int = 0
    step: str = ""
    workflow_pause_id: str = ""
    is_joined: bool = False

    @property
    def is_joinable(self) -> bool:
        """Whether nobody has asked for it by Pause: it is of a breakpoint or of the workflow alone, and gives way."""
        return not self.is_joined and bool(self.step or self.workflow_pause_id)

    def joining(self, before: Pause | None) -> Pause:
        """Return it as it goes on from the pause before it, which it takes the place of: one resume ends both.

        The step that was held stays held, what was stopped stays so, and time that did not count is not lost.
        """
        if before is None:
            return self
        return replace(
            self,
            time=before.time if before.stops_deadline else self.time,
            is_hard=self.is_hard or before.is_hard,
            stops_deadline=self.stops_deadline or before.stops_deadline,
            step=before.step,
            is_joined=True,
        )


class WorkflowPause(msgspec.Struct, frozen=True):
    """Since when executions of a workflow do not start, and who wanted that why.

    `pauses_running`: those that ran were asked to pause, too.
    """

    id: UUID
    by: str
    reason: str
    time: datetime
    pauses_running: bool = False


class WorkflowPausing(msgspec.Struct, frozen=True):
    """What is asked of a workflow that is to be paused; `is_hard` and `stops_deadline` are for those that run."""

    id: UUID
    by: str
    reason: str
    pauses_running: bool = False
    is_hard: bool = False
    stops_deadline: bool = False

    def body(self, pause_id: UUID) -> dict[str, Any]:
        """Return what the message PAUSE says to executions that run, for the pause with this id."""
        how = {"hard": self.is_hard, "stop_deadline": self.stops_deadline}
        return {"reason": self.reason, **how, PAUSE_ID: str(pause_id)}


def body_for_retried(pause: WorkflowPause) -> dict[str, Any]:
    """Return what the message PAUSE says to an execution that goes on after its end while its workflow is paused."""
    return {"reason": pause.reason, "hard": False, "stop_deadline": True, PAUSE_ID: str(pause.id)}


def body_of_resume(pause: WorkflowPause, reason: str) -> dict[str, Any]:
    """Return what the message RESUME says to the executions that this pause has paused."""
    return {"reason": reason, PAUSE_ID: str(pause.id)}
