"""What one chaos run leaves to be judged: plain data, written down by the clients, the world outside and Postgres."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

REMOTE = "chaos_remote"
"""The handler that workers serve."""
VARIABLE = "seen"
"""Which some steps assign, callers set, and some steps are called with."""
UNSET = -2
"""With what these are called for as long as there is no such variable."""


def name_of(path: str, iteration: int) -> str:
    """Return what a step in one of its iterations is called: all records name it so."""
    return path if iteration <= 1 else f"{path}#{iteration}"


def path_of(name: str) -> str:
    """Return the path of a step in whichever iteration."""
    return name.partition("#")[0]


class Outcome(StrEnum):
    """What a caller knows after a call (EX4)."""

    OK = "ok"
    DEFINITE = "definite"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Call:
    """One RPC as its client saw it; times are the client's monotonic clock."""

    client: str
    method: str
    replica: str
    invoked: float
    returned: float
    outcome: Outcome
    code: str = "OK"
    reason: str = ""
    request_id: str = ""
    execution_id: str = ""
    content: str = ""
    """What an Execute asked for, or whom a SignalWithStart meant: workflow and correlation id."""
    detail: str = ""
    """By which what was asked for is known in histories: the reason of a retry, the id of a signal or an operation, the
    path of a step that was edited, the value of a variable that was set."""
    created: bool = False
    state: str = ""
    """State of the execution in the answer."""
    step_states: Mapping[str, str] = field(default_factory=dict)
    """States of the steps in the answer of a full GetExecution."""
    last_seq: int = 0
    deadline: float = float("inf")
    """Seconds that the caller gave it."""
    is_final: bool = False
    """Whether it was made after the last fault was healed and all should be well."""


@dataclass(frozen=True)
class Message:
    """One message of a watch: events as (seq, transition_seq, bytes), or a bookmark."""

    arrived: float
    events: Sequence[tuple[int, int, bytes]] = ()
    bookmark: int | None = None


@dataclass(frozen=True)
class Stream:
    """One watch as its client saw it. `ended` is a status code, or LEFT when the client went away."""

    client: str
    replica: str
    execution_id: str
    after_seq: int
    known_seq: int
    """A position that was surely in the history when the stream was opened."""
    opened: float
    messages: Sequence[Message] = ()
    ended: str = "LEFT"
    reason: str = ""
    closed: float = 0.0
    """When it ended, by the clock of `opened`."""
    is_final: bool = False
    """Whether it was opened after the last heal, and with the patience to see the end."""


@dataclass(frozen=True)
class Effect:
    """One call that arrived in the world outside; `ended` is when it was answered, or its caller had gone."""

    token: str
    execution_id: str
    step: str
    attempt: int
    time: datetime
    ended: datetime | None = None


@dataclass(frozen=True)
class Event:
    """One row of the history, and what its body says."""

    seq: int
    transition_seq: int
    kind: str
    time: datetime
    body: bytes
    path: str = ""
    attempt: int = 0
    state: str = ""
    wake_time: datetime | None = None
    inherited: bool = False
    """Whether it tells what a fork has of another execution."""
    detail: str = ""
    """The reason of a retry, or the id of a signal."""
    taken: tuple[str, ...] = ()
    """Signals that a step took."""
    bulk_id: str = ""


@dataclass(frozen=True)
class Step:
    """One row of the steps."""

    path: str
    state: str
    attempt: int
    end_seq: int | None


@dataclass(frozen=True)
class Write:
    """One write of an execution's row, as a trigger in Postgres saw it; `id` orders those of an execution."""

    id: int
    time: datetime
    replica: str
    execution_id: str
    old_epoch: int | None
    epoch: int
    old_incarnation: str | None
    incarnation: str | None
    old_seq: int | None
    last_seq: int
    state: str


@dataclass(frozen=True)
class Lease:
    """One registration, renewal or end of an incarnation's lease, as a trigger in Postgres saw it."""

    time: datetime
    incarnation: str
    until: datetime


@dataclass(frozen=True)
class Pause:
    """A while in which a process did nothing."""

    begin: datetime
    end: datetime


@dataclass(frozen=True)
class StepFacts:
    """What the generator knows of a step."""

    handler: str
    delivery: str = "AT_LEAST_ONCE"
    seconds: float = 0.0
    """Length of a wait, or of a block of the event loop."""
    reads: bool = False
    """Whether the `number` that it is called with, in the `json` of a call, is what `VARIABLE` is."""


CALLS = frozenset({"call_api", "chaos_remote"})
"""Handlers that call the world outside: of the server, and of workers."""


@dataclass(frozen=True)
class Replay:
    """The result of an attempt that its worker had lost, said again by it, and what the server said to that."""

    execution_id: str
    step: str
    attempt: int
    is_recorded: bool
    message: str = ""


@dataclass(frozen=True)
class Row:
    """An execution as Postgres keeps it, with its history and its steps."""

    execution_id: str
    request_id: str
    workflow: str
    state: str
    last_seq: int
    content: str
    events: Sequence[Event] = ()
    steps: Sequence[Step] = ()
    has_ended: bool = True
    correlation_id: str = ""
    """Only those executions have one that signals start."""


@dataclass(frozen=True)
class Operation:
    """An operation in bulk, with the executions that it came to, and what came of each."""

    bulk_id: str
    state: str
    results: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True)
class Landing:
    """One fault: when it hit by the clock of the machine, whom, and which executions were in flight there.

    `accepting` is when Postgres took connections again after a fault that took it away, `until` when a fault that
    lasts was over.
    """

    kind: str
    time: datetime
    victim: str
    in_flight: Sequence[str] = ()
    accepting: datetime | None = None
    until: datetime | None = None


@dataclass(frozen=True)
class Usage:
    """What a process has in use. `tasks` are counted by what they run."""

    memory: int
    descriptors: int
    threads: int
    tasks: Mapping[str, int]


@dataclass(frozen=True)
class Sample:
    """What was in use at a moment, in seconds since the first one.

    `values` are by measure: those of the replica that no fault hits, of Postgres, and of the machine.
    """

    time: float
    values: dict[str, float]


@dataclass(frozen=True)
class Record:
    """Everything."""

    kind: str
    seed: int
    calls: Sequence[Call] = ()
    streams: Sequence[Stream] = ()
    effects: Sequence[Effect] = ()
    rows: Mapping[str, Row] = field(default_factory=dict)
    requests: Sequence[tuple[str, str]] = ()
    """The kept request ids with the execution of each."""
    operations: Sequence[Operation] = ()
    writes: Sequence[Write] = ()
    incarnations: Mapping[str, str] = field(default_factory=dict)
    """Which replica was which incarnation."""
    leases: Sequence[Lease] = ()
    programs: Mapping[str, Mapping[str, StepFacts]] = field(default_factory=dict)
    caps: Mapping[str, int] = field(default_factory=dict)
    """How many steps of an execution of a program may run at a time, where its definition says so."""
    stalls: Sequence[Pause] = ()
    """When the harness itself stood still, so that what it saw afterwards may have arrived before."""
    clock: datetime | None = None
    """What the clock of the machine said when the monotonic clock of the clients was at 0."""
    landings: Sequence[Landing] = ()
    traffic_share: float = 1.0
    """Executions before the first fault, as a share of the target."""
    keeps_ownership: bool = False
    """Whether the fault must not cost a replica its executions."""
    all_ended: bool = True
    """Whether every execution had ended in time after the last heal."""
    void_reason: str = ""
    crash: str = ""
    """How the run itself came to grief: a replica that did not start again, say."""
    logs: Mapping[str, str] = field(default_factory=dict)
    exit_codes: Mapping[str, int] = field(default_factory=dict)
    worker_logs: Mapping[str, str] = field(default_factory=dict)
    replays: Sequence[Replay] = ()
    leaks: Sequence[str] = ()
    fresh: Mapping[str, Usage] = field(default_factory=dict)
    """What each replica used after it had started."""
    idle: Mapping[str, Usage] = field(default_factory=dict)
    """What it used at the end, when there was nothing left to do and its clients had gone."""
    notes: Mapping[str, Any] = field(default_factory=dict)
