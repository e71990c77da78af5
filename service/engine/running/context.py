"""What all executions that a process drives have in common."""

from __future__ import annotations

import contextvars
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime

from persistence.model import Event
from persistence.repository import Repository
from service.engine.clock import StoreClock
from service.engine.finds import Finds
from service.engine.handlers.registry import Registry
from service.engine.planning import events
from service.engine.running.ownership import Ownership
from service.engine.running.stuck_attempts import StuckAttempts
from service.engine.running.wakeups import Wakeup
from service.engine.secrets import Secrets
from service.engine.tasks import TaskRegistry
from service.engine.turns import Turns
from service.engine.watch import WatchHub
from service.engine.workers.awaited import AwaitedWishes
from service.engine.workers.pool import Workers

Encoder = Callable[[events.Event], Event]


@dataclass(frozen=True, slots=True)
class RunnerSettings:
    """How a process takes and keeps executions; times in seconds.

    `cancel_grace` is how long an attempt that was told to stop may take before it counts as stopped. `probation` is how
    long a process must have driven an execution for its predecessors' deaths to count no more against it.
    """

    max_running: int = 2_000
    park_after: float = 10.0
    claim_interval: float = 1.0
    claim_batch: int = 100
    cancel_grace: float = 5.0
    progress_interval: float = 0.25
    probation: float = 10.0
    reap_interval: float = 5.0


@dataclass(frozen=True, slots=True)
class Context:
    """What runs and their attempts are given.

    `name` is what people know the process by; `work` wakes the claims, `mail` the sweeps; attempts begin with the
    variables of `origin`.
    """

    journal: Repository
    registry: Registry
    secrets: Secrets
    hub: WatchHub
    encode: Encoder
    ownership: Ownership
    settings: RunnerSettings
    clock: StoreClock
    draw: Callable[[], float]
    name: str
    tasks: TaskRegistry
    turns: Turns
    work: Wakeup
    mail: Wakeup
    stuck: StuckAttempts
    origin: contextvars.Context
    workers: Workers
    wishes: AwaitedWishes

    @property
    def finds(self) -> Finds:
        """What looks find without a reason."""
        return self.hub.finds

    def now(self) -> datetime:
        """Return the store's time."""
        return self.clock.now()

    def encode_all(self, recorded: Iterable[events.Event]) -> list[Event]:
        """Return the events as they are stored and sent."""
        return [self.encode(event) for event in recorded]

    def interval(self) -> float:
        """Return the seconds until the next regular look for work, spread so that replicas do not look at once."""
        return self.settings.claim_interval * (0.7 + 0.6 * self.draw())
