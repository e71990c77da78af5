"""What workers say and are told, without gRPC."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import Any, NamedTuple, Protocol
from uuid import UUID

from service.engine.failure import Failure
from service.engine.handlers.model import Effect


class AttemptId(NamedTuple):
    """What both sides call an attempt by: no two that workers were ever given have the same."""

    execution_id: UUID
    path: str
    iteration: int
    number: int


@dataclass(frozen=True, slots=True)
class Declared:
    """A handler as a worker declares it."""

    name: str
    description: str = ""
    params_schema: Mapping[str, Any] = field(default_factory=lambda: {"type": "object"})
    effect: Effect = Effect.IDEMPOTENT


@dataclass(frozen=True, slots=True)
class Registration:
    """What a worker is and has. `attempts` are those that it runs, or has results of that are not settled.

    `tokens` has what it was given with each.
    """

    org: str
    subject: str
    worker_id: str
    name: str
    version: str
    capacity: int
    handlers: Sequence[Declared]
    attempts: frozenset[AttemptId] = frozenset()
    tokens: Mapping[AttemptId, bytes] = field(default_factory=dict, repr=False)
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def key(self) -> tuple[str, str, str]:
        """What tells the process of a worker from all others: nobody else can speak for it."""
        return self.org, self.subject, self.worker_id


class StopReason(Enum):
    """Why a worker is to stop an attempt."""

    CANCELLED = "CANCELLED"
    TIMEOUT = "TIMEOUT"
    STALE = "STALE"


@dataclass(frozen=True, slots=True)
class Assign:
    """Run this attempt; `params` are JSON."""

    attempt: AttemptId
    handler: str
    params: bytes = field(repr=False)  # secrets are filled in
    workflow: str
    owner: str
    idempotency_token: str
    deadline_time: datetime
    timeout: float
    token: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class Stop:
    """Stop this attempt."""

    attempt: AttemptId
    reason: StopReason


@dataclass(frozen=True, slots=True)
class Settle:
    """The result of this attempt is recorded, or refused for a reason: it can be forgotten."""

    attempt: AttemptId
    is_recorded: bool
    message: str = ""


@dataclass(frozen=True, slots=True)
class Drain:
    """The server stops, and the stream with it after at most `grace` seconds."""

    grace: float


Command = Assign | Stop | Settle | Drain


class Link(Protocol):
    """The stream to a worker."""

    def tell(self, command: Command) -> None:
        """Send a command behind those that were sent before."""
        ...

    def end(self, error: Exception | None = None) -> None:
        """End the stream behind what was sent, well or with an error."""
        ...


@dataclass(frozen=True, slots=True)
class Completed:
    """The attempt has succeeded; `output` is JSON, empty for null."""

    output: bytes


@dataclass(frozen=True, slots=True)
class Failed:
    """The attempt has failed, or has stopped as it was told to."""

    failure: Failure
    retry_after: float | None = None


@dataclass(frozen=True, slots=True)
class Lost:
    """Nothing more is heard of the attempt; `reason` says why, for people. `is_cut_off` is that of WorkerLostError."""

    reason: str
    is_cut_off: bool = False


Answer = Completed | Failed | Lost


class WorkerLostError(Exception):
    """The worker that ran the attempt is lost.

    `is_cut_off`: the attempt was given to it by a process that was lost, and nobody has heard of it since.
    """

    def __init__(self, reason: str, *, is_cut_off: bool = False) -> None:
        super().__init__(reason)
        self.is_cut_off = is_cut_off


class NoWorkerError(Exception):
    """No worker that has the handler is left; the attempt has not begun."""


class WorkerFailureError(Exception):
    """The worker says that the attempt has failed."""

    def __init__(self, failure: Failure, retry_after: float | None) -> None:
        super().__init__(failure.message)
        self.failure = failure
        self.retry_after = retry_after


class HandlerExistsError(Exception):
    """The server itself has a handler of this name."""

    def __init__(self, name: str) -> None:
        super().__init__(f"the server itself has a handler named {name!r}; give the worker's another name")
        self.name = name
