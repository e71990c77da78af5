"""What a step that waits waits for."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from persistence.signals import Time


class WaitKind(StrEnum):
    """What a step waits for. The names are what the database holds."""

    TIMER = "TIMER"
    """A time."""

    RETRY = "RETRY"
    """The pause before its next attempt."""

    SLOT = "SLOT"
    """Something that there is only so much of."""

    WORKER = "WORKER"
    """A process that has its handler."""

    TASK = "TASK"
    """A person."""

    SIGNAL = "SIGNAL"
    """Signals of some names."""

    BREAKPOINT = "BREAKPOINT"
    """Somebody who looks at it before it begins."""


class Wait(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a step waits for, since `start_time`; `reason` says it for people.

    `wake_time` is when it goes on by itself, None where no timer decides. `attempt` is the one that a RETRY comes to,
    `resource` what a SLOT is of, `handler` what a WORKER must have, `wishes` what else, as the engine writes it, `task`
    the id of a TASK; that was `escalated` when it was overdue for the first time. A SIGNAL is one of these `signals`;
    `every`: one of each. `edited`: what the step at a BREAKPOINT is to be called with was changed by somebody.
    """

    kind: WaitKind
    start_time: Time
    wake_time: Time | None = None
    reason: str = ""
    attempt: int = 0
    resource: str = ""
    handler: str = ""
    task: str = ""
    escalated: bool = False
    wishes: str = ""
    signals: tuple[str, ...] = ()
    every: bool = False
    edited: bool = False
