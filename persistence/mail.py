"""What executions are told from outside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

import msgspec


class MessageKind(StrEnum):
    """What an execution is told from outside. The names are what the database holds."""

    CANCEL = "CANCEL"
    """Somebody wants it to end; `reason` in the body says why."""

    CHILD_ENDED = "CHILD_ENDED"
    """An execution that it has started has ended."""

    TASK_COMPLETED = "TASK_COMPLETED"
    """A person has completed a task; the id of the message is that of the task."""

    PAUSE = "PAUSE"
    """Nothing of it is to begin until it is resumed."""

    RESUME = "RESUME"
    """It is to go on after a pause."""

    SIGNAL = "SIGNAL"
    """Something that a step may wait for has happened outside."""

    TERMINATE = "TERMINATE"
    """It is to end at once, whatever of it still runs."""

    BREAKPOINTS = "BREAKPOINTS"
    """It is to be held before other steps than so far."""

    EDIT = "EDIT"
    """A step that is held is to be called with something else."""


BINDING_MESSAGES = frozenset(MessageKind) - {MessageKind.CHILD_ENDED}
"""Kinds that no end may pass: once sent, such a message is seen before the execution, or a task of it, ends."""


class Message(msgspec.Struct, frozen=True):
    """What reaches an execution from outside. Its owner's next transition consumes it, and then it is gone.

    `id` tells it from all others of the same execution: sent twice, it arrives once. `kind` is a MessageKind, or what
    another version sends.
    """

    id: UUID
    kind: str
    time: datetime
    sender: str
    body: Mapping[str, Any]

    @property
    def binds(self) -> bool:
        """Whether no end may pass it."""
        return self.kind in BINDING_MESSAGES


class Mail(msgspec.Struct, frozen=True):
    """Unseen messages of an execution in the order in which they came, for its owner of this epoch."""

    execution_id: UUID
    epoch: int
    messages: Sequence[Message]
    sent: int | None = None
    """With these, so many binding messages were sent to it; None where these are all that are unseen."""
