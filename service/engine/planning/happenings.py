"""What can happen to an execution from outside its planner. Time and chance come with the happening.

With what ends an attempt comes what the attempt used, None for nothing.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

from persistence.lineage import Lineage
from persistence.model import Edit, Message, MessageKind
from persistence.pauses import PAUSE_ID
from persistence.usage import Usage
from service.engine.failure import Failure


class Accepted(msgspec.Struct, frozen=True):
    """The execution was accepted; the first happening of each. `lineage`: it is made from another one."""

    time: datetime
    lineage: Lineage | None = None


class Started(msgspec.Struct, frozen=True):
    """The execution may start."""

    time: datetime


class StepSucceeded(msgspec.Struct, frozen=True):
    """An attempt gave its output."""

    time: datetime
    path: str
    attempt: int
    output: Any
    iteration: int = 1
    usage: Usage | None = None


class StepFailed(msgspec.Struct, frozen=True):
    """An attempt failed. `draw` in [0, 1) places the jitter; `retry_after` is a least pause in seconds."""

    time: datetime
    path: str
    attempt: int
    failure: Failure
    draw: float = 0.5
    retry_after: float | None = None
    iteration: int = 1
    usage: Usage | None = None


class StepSuspended(msgspec.Struct, frozen=True):
    """A handler asked to be parked until a time, and gave the output of the step for then."""

    time: datetime
    path: str
    attempt: int
    until: datetime
    output: Any
    reason: str = ""
    iteration: int = 1
    usage: Usage | None = None


class StepProgressed(msgspec.Struct, frozen=True):
    """A running attempt reported progress."""

    time: datetime
    path: str
    attempt: int
    percent: int
    message: str = ""
    iteration: int = 1


class StepStopped(msgspec.Struct, frozen=True):
    """An attempt that was told to stop has stopped; or it has not, and is waited for no longer."""

    time: datetime
    path: str
    attempt: int
    has_ended: bool = True
    iteration: int = 1
    usage: Usage | None = None


class AttemptLost(msgspec.Struct, frozen=True):
    """Nobody hears any more of an attempt that a worker ran; `reason` says why, for people.

    `is_cut_off`: its server was lost before, and no worker has come back with it.
    """

    time: datetime
    path: str
    attempt: int
    reason: str
    iteration: int = 1
    usage: Usage | None = None
    is_cut_off: bool = False


class SlotMissed(msgspec.Struct, frozen=True):
    """An attempt could not begin because others hold all of a `resource`; `reason` says so for people."""

    time: datetime
    path: str
    attempt: int
    reason: str
    iteration: int = 1
    resource: str = "threads"


class SlotFreed(msgspec.Struct, frozen=True):
    """What a step waits for is kept for it."""

    time: datetime
    path: str
    iteration: int = 1


class HandlerMissed(msgspec.Struct, frozen=True):
    """An attempt could not begin because this process does not have its handler; `reason` says so for people.

    `wishes` is the text of what a worker with the handler must have, too.
    """

    time: datetime
    path: str
    attempt: int
    reason: str
    iteration: int = 1
    wishes: str = ""


class HandlersCame(msgspec.Struct, frozen=True):
    """This process has what steps may wait for: handlers, or those with wishes, as State.awaited names them."""

    time: datetime
    handlers: frozenset[str]


class TimerFired(msgspec.Struct, frozen=True):
    """It is `time`: every timer that is due by then fires, the deadline of the execution among them."""

    time: datetime


class MessageCame(msgspec.Struct, frozen=True):
    """Something came from outside the execution; what follows is recorded together with having seen it."""

    time: datetime
    message: Message


class Recovered(msgspec.Struct, frozen=True):
    """Another process drives the execution from here on: what ran is cut off, but for what workers may run still.

    `handlers` are those that it has of what State.awaited names, and `remote` those of workers among the
    handlers of what ran.
    """

    time: datetime
    handlers: frozenset[str] = frozenset()
    remote: frozenset[str] = frozenset()


class Continued(msgspec.Struct, frozen=True):
    """The planner may start more of the steps that it left at the last happening."""

    time: datetime


class Condemned(msgspec.Struct, frozen=True):
    """The execution cannot go on, for a reason outside its definition."""

    time: datetime
    failure: Failure


class Reopened(msgspec.Struct, frozen=True):
    """Somebody lets the execution go on after its end, from what failed, for at most `timeout` seconds, if not as long
    as the first time; with an `edit` of one of the steps that run again.
    """

    time: datetime
    by: str
    reason: str = ""
    timeout: float | None = None
    edit: Edit | None = None
    bulk_id: str = ""


EndOfAttempt = StepSucceeded | StepFailed | StepSuspended | StepStopped | AttemptLost
"""What ends an attempt that has begun."""

OfAttempt = EndOfAttempt | StepProgressed | SlotMissed | HandlerMissed
"""What happens to an attempt, which path, iteration and number tell from all others."""

Happening = (
    Accepted
    | Started
    | StepSucceeded
    | StepFailed
    | StepSuspended
    | StepProgressed
    | StepStopped
    | AttemptLost
    | SlotMissed
    | SlotFreed
    | HandlerMissed
    | HandlersCame
    | TimerFired
    | MessageCame
    | Recovered
    | Continued
    | Condemned
    | Reopened
)

RESULTS = (StepSucceeded, StepFailed, StepSuspended)
"""What an attempt came to."""


def wish(message: Message) -> tuple[str, str, str]:
    """Return of a message that somebody wants something by who and why, and the operation in bulk that sent it."""
    return message.sender, str(message.body.get("reason") or ""), str(message.body.get("bulk_id") or "")


def workflow_pause(message: Message) -> str:
    """Return the id of the pause of the whole workflow that sent a message, empty for what else did."""
    return str(message.body.get(PAUSE_ID) or "")


def is_at_once(happening: Happening) -> bool:
    """Return whether it is applied before what waits for its turn: it evaluates nothing.

    A cancel or a termination must be heeded in time, and the others follow from what an attempt has met just now.
    """
    if isinstance(happening, MessageCame):
        return happening.message.kind in (MessageKind.CANCEL, MessageKind.TERMINATE)
    return isinstance(happening, StepProgressed | SlotMissed | HandlerMissed)
