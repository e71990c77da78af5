"""What one run simulates, as data: a failing one is kept as a file and does not change with its generator."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec


class Spec(msgspec.Struct, frozen=True):
    """A workflow of an org."""

    org: str
    document: Mapping[str, Any]


class Request(msgspec.Struct, frozen=True):
    """One call of Execute, repeated until its answer is definite; `replica` is where the first try goes."""

    time: float
    replica: int
    order: int
    is_changed: bool = False
    """Whether the content is another one than that of the order: a reused request id."""


class RetrySpec(msgspec.Struct, frozen=True):
    """A retry in place, `after` so many seconds from an end; `change`: with an "edit" of what failed, or a "skip"."""

    after: float
    change: str = ""


class ForkSpec(msgspec.Struct, frozen=True):
    """A fork, `at` so many seconds from when the execution is known.

    It begins from a step by its place in the definition, from the beginning where that is -1; with another input if it
    `changes` that, and with an output in the place of that of the first step if it `gives` one.
    """

    at: float
    step: int = -1
    changes: bool = False
    gives: bool = False


class BulkSpec(msgspec.Struct, frozen=True):
    """An operation in bulk on all executions of an org, at a time; what it pauses is resumed in bulk later.

    Somebody stops it `stopped_after` so many seconds. With `limit` and `rate` as in a request.
    """

    time: float
    org: str
    action: str
    limit: int = 0
    rate: int = 0
    stopped_after: float | None = None


class HaltSpec(msgspec.Struct, frozen=True):
    """A pause of a whole workflow at a time, for so many seconds; perhaps also of what runs of it."""

    time: float
    workflow: int
    span: float
    pauses_running: bool = False


class SignalStartSpec(msgspec.Struct, frozen=True):
    """A signal at a time to what goes on of a workflow for a group of such signals, or to what it starts."""

    time: float
    workflow: int
    group: int
    input: Mapping[str, Any]


class OrderSpec(msgspec.Struct, frozen=True):
    """An execution that somebody wants, and what they do with it."""

    workflow: int
    input: Mapping[str, Any]
    start_delay: float = 0.0
    timeout: float | None = None
    priority: int | None = None
    cancel_at: float | None = None
    watchers: int = 0
    answered_after: float | None = None
    """Seconds that people take for what its steps ask of them; None: nobody does it."""
    paused_at: float | None = None
    """Seconds after which somebody pauses it, and for `paused_for` so long; `is_hard` stops what runs, too."""
    paused_for: float = 0.0
    is_hard: bool = False
    debugged: list[float] = []
    """Seconds for which somebody who debugs it lets it be held before each of its first steps."""
    edits_inputs: bool = True
    edits_variables: bool = False
    """What somebody who debugs it changes meanwhile."""
    signals: list[float] = []
    """Seconds after which somebody sends it a signal, from when it is known or from the one before."""
    retries: list[RetrySpec] = []
    forks: list[ForkSpec] = []
    mocks_fail: int | None = None
    """How many times each mock of a dry run fails; None: it is none. With `skips_waits` it waits for no time."""
    skips_waits: bool = False


class Fault(msgspec.Struct, frozen=True):
    """What happens to a replica, or to the store (`replica` is -1), and for how long."""

    time: float
    kind: str
    replica: int
    duration: float


class Scenario(msgspec.Struct, frozen=True):
    """Program and schedule of a run; `seed` decides what is drawn while it runs. Times in seconds, rates in [0, 1]."""

    seed: int
    replicas: int
    workflows: list[Spec]
    orders: list[OrderSpec]
    requests: list[Request]
    faults: list[Fault]
    skews: list[float]
    busy_rate: float = 0.0
    lost_rate: float = 0.0
    late_rate: float = 0.0
    held_rate: float = 0.0
    slowness: float = 1.0
    """How many times longer than usual messages take."""
    unknown_timeout: float = 2.0
    """Seconds for which a write is tried while the store is away, before its fate is unknown."""
    ttl: float = 2.0
    park_after: float = 2.0
    max_running: int = 2_000
    bulks: list[BulkSpec] = []
    halts: list[HaltSpec] = []
    signal_starts: list[SignalStartSpec] = []

    @property
    def healed_at(self) -> float:
        """When the last fault is over."""
        ends = [fault.time + fault.duration for fault in self.faults]
        begun = [*(request.time for request in self.requests), *(bulk.time for bulk in self.bulks)]
        begun += [signal.time for signal in self.signal_starts]
        ends += [halt.time + halt.span for halt in self.halts]
        return max([*ends, *begun], default=0.0)

    def order_of(self, correlation_id: str) -> OrderSpec:
        """Return what somebody ordered of an execution; what a signal started is ordered without more."""
        kind, _, number = correlation_id.partition("-")
        if kind == "order":
            return self.orders[int(number)]
        spec = next(each for each in self.signal_starts if each.group == int(number))
        return OrderSpec(spec.workflow, spec.input)

    def save(self, path: Path) -> None:
        """Write it to a file."""
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(msgspec.json.format(msgspec.json.encode(self), indent=1) + b"\n")


def load(path: Path) -> Scenario:
    """Return the scenario of a file."""
    return msgspec.json.decode(path.read_bytes(), type=Scenario)
