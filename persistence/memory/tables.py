"""What the store holds, and the clock that it goes by."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec
from msgspec.structs import replace

from persistence.breakpoints import WorkflowBreakpoints
from persistence.bulks import Bulk, BulkResult
from persistence.dry_runs import DryRun
from persistence.errors import ExecutionNotFoundError, RequestIdReusedError
from persistence.memory import invariants
from persistence.memory.json import copied
from persistence.model import (
    UNREAD,
    Edit,
    EditedVariable,
    Ending,
    Event,
    Execution,
    ExecutionDetail,
    Json,
    Message,
    MessageKind,
    Outcome,
    Scope,
    Step,
    StepKey,
    Wanted,
    Workflow,
)
from persistence.pauses import WorkflowPause
from persistence.people import Task
from persistence.requests import Method, Request
from persistence.signals import Signal
from persistence.user_notifications import Reader, Recipient, UserNotification
from persistence.workers import AwaitedWorker, ConnectedWorker, WorkerAttempt, WorkerHandler


@dataclass(slots=True)
class WorkflowRow:
    """A workflow with all of its revisions, the first at index 0."""

    revisions: list[Workflow]
    is_deleted: bool = False
    pause: WorkflowPause | None = None
    breakpoints: WorkflowBreakpoints | None = None

    def pending(self, now: datetime) -> WorkflowBreakpoints | None:
        """Where the next executions are held."""
        kept = self.breakpoints
        return kept if kept is not None and kept.left > 0 and kept.until > now else None

    @property
    def latest(self) -> Workflow:
        """The newest revision."""
        return self.revisions[-1]


@dataclass(slots=True)
class ExecutionRow:
    """An execution with all that hangs on it."""

    execution: Execution
    input: Json
    result: Json
    awaits: frozenset[str] = frozenset()
    """Handlers that it waits for while nobody drives it."""
    edit: Edit | None = None
    steps: dict[StepKey, Step] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    signals: tuple[Signal, ...] = ()
    """Those that no step has taken."""
    vars: Json = field(default_factory=dict)
    """Variables that it was given when it was made."""
    edited: Mapping[str, EditedVariable] = field(default_factory=dict)
    """Variables that somebody has set."""
    dry_run: DryRun | None = None

    def fresh(self) -> Execution:
        """Return the row, sharing nothing that a caller could change."""
        row = self.execution
        ending = fresh_ending(row.ending)
        return replace(row, labels=dict(row.labels), failure=copied(row.failure), ending=ending)

    def detail(self) -> ExecutionDetail:
        """Return the row with payloads and steps by path and iteration, sharing nothing that a caller could change."""
        steps = tuple(fresh_step(self.steps[key]) for key in sorted(self.steps))
        edit = self.edit and replace(self.edit, value=copied(self.edit.value))
        return ExecutionDetail(
            self.fresh(),
            copied(self.input),
            copied(self.result),
            steps,
            edit=edit,
            vars=copied(self.vars),
            edited=fresh_edited(self.edited),
            dry_run=fresh_dry_run(self.dry_run),
        )

    def driven(self, most: int) -> ExecutionDetail:
        """Return of `detail` what it takes to drive the execution, with payloads of up to `most` characters."""
        detail = self.detail()
        first = sorted(detail.steps, key=lambda step: (step.state.is_end, step.position, step.key))
        steps, omitted = within((replace(step, input=None) for step in first), most)
        unread = (
            replace(step, input=UNREAD, output=UNREAD, assigned=UNREAD)
            if step.key in omitted
            else replace(step, input=UNREAD)
            for step in steps
        )
        in_order = tuple(sorted(unread, key=lambda step: step.key))
        return replace(detail, steps=in_order, omitted=omitted, signals=tuple(map(fresh_signal, self.signals)))

    def filled(self, taken: ExecutionDetail, wanted: Wanted) -> ExecutionDetail:
        """Return what was taken, with what is wanted of its steps."""
        steps = {step.key: step for step in taken.steps}
        for keys, names in (
            (taken.omitted & wanted.outputs, ("output", "failed_attempts", "failure")),
            (taken.omitted & wanted.assigned, ("assigned",)),
            (steps.keys() & wanted.inputs, ("input",)),
        ):
            for key in keys & self.steps.keys():
                kept = fresh_step(self.steps[key])
                steps[key] = replace(steps[key], **{name: getattr(kept, name) for name in names})
        return replace(taken, steps=tuple(steps.values()))

    def put(self, step: Step) -> None:
        """Keep a step; one whose input is UNREAD keeps the one that it had."""
        if step.input is UNREAD:
            before = self.steps.get(step.key)
            step = replace(step, input=before.input if before else None)
        self.steps[step.key] = step


@dataclass(frozen=True, slots=True)
class KeptRequest:
    """The first use of a request id; it is kept for at least 30 days and as long as its execution.

    `revisions` are those that it answered, with what became of each workflow.
    """

    method: Method
    content_hash: bytes
    create_time: datetime
    execution_id: UUID | None = None
    workflow_id: UUID | None = None
    revisions: Sequence[tuple[UUID, int, Outcome]] = ()


@dataclass(slots=True)
class NotificationRow:
    """A notification, whom it is for, and when subjects have read it."""

    kept: UserNotification
    recipients: set[Recipient]
    reads: dict[str, datetime] = field(default_factory=dict)


@dataclass(slots=True)
class NotificationTable:
    """The notifications of an org by number, and by the token that sent them."""

    last: int = 0
    rows: dict[int, NotificationRow] = field(default_factory=dict)
    tokens: dict[str, int] = field(default_factory=dict)

    def rows_for(self, reader: Reader) -> list[NotificationRow]:
        """Return what is addressed to a reader, oldest first."""
        wanted = set(reader.recipients)
        return [row for row in self.rows.values() if not wanted.isdisjoint(row.recipients)]


@dataclass(frozen=True, slots=True)
class HeldAttempt:
    """An attempt that a process holds for its worker."""

    incarnation: UUID
    seen_time: datetime
    report: bytes = b""
    stop: str = ""


@dataclass(slots=True)
class BulkRow:
    """An operation in bulk with its results in order, and the id of the request that started it, or nothing."""

    bulk: Bulk
    request_id: str
    results: list[BulkResult] = field(default_factory=list)


@dataclass(slots=True)
class Tables:
    """All rows of a store."""

    now: Callable[[], datetime]
    workflows: dict[UUID, WorkflowRow] = field(default_factory=dict)
    executions: dict[UUID, ExecutionRow] = field(default_factory=dict)
    requests: dict[tuple[str, str], KeptRequest] = field(default_factory=dict)
    messages: dict[tuple[str, UUID], dict[UUID, Message]] = field(default_factory=dict)
    """Those that nobody has seen, by org and id of the execution that they are for."""
    tasks: dict[UUID, Task] = field(default_factory=dict)
    leases: dict[UUID, datetime] = field(default_factory=dict)
    secrets: dict[str, bytes] = field(default_factory=dict)
    notifications: dict[str, NotificationTable] = field(default_factory=dict)
    """Those of each org."""
    worker_handlers: dict[tuple[str, str], WorkerHandler] = field(default_factory=dict)
    awaited_workers: dict[AwaitedWorker, datetime] = field(default_factory=dict)
    """By org and name."""
    workers: dict[UUID, Sequence[ConnectedWorker]] = field(default_factory=dict)
    """By the incarnation of the process that announced them."""
    worker_attempts: dict[WorkerAttempt, HeldAttempt] = field(default_factory=dict)
    bulks: dict[UUID, BulkRow] = field(default_factory=dict)
    replica_names: dict[UUID, str] = field(default_factory=dict)

    def row(self, scope: Scope, execution_id: UUID) -> ExecutionRow:
        """Return the execution if it lies in the scope. Raises ExecutionNotFoundError."""
        row = self.executions.get(execution_id)
        if row is None or not in_scope(row.execution, scope):
            raise ExecutionNotFoundError(execution_id)
        return row

    def unseen(self, row: ExecutionRow) -> tuple[Message, ...]:
        """Return the messages of an execution that nobody has seen, in the order in which they came."""
        found = self.messages.get((row.execution.org, row.execution.id), {}).values()
        return tuple(map(fresh_message, sorted(found, key=lambda message: (message.time, message.id))))

    def send(self, org: str, execution_id: UUID, message: Message) -> bool:
        """Keep a message unless one with its id is unseen; returns whether it was."""
        kept = self.messages.setdefault((org, execution_id), {})
        return kept.setdefault(message.id, message) is message

    def leave_signals(self, org: str, execution_id: UUID) -> None:
        """Remove the messages of an execution but for signals."""
        kept = self.messages.pop((org, execution_id), {})
        if signals := {key: message for key, message in kept.items() if message.kind == MessageKind.SIGNAL}:
            self.messages[org, execution_id] = signals

    def known(self, org: str, request: Request | None) -> KeptRequest | None:
        """Return the first use of a request. Raises RequestIdReusedError when that was another one."""
        if request is None:
            return None
        invariants.check_text(request.id, limit=128)
        first = self.requests.get((org, request.id))
        if first is not None and (first.method, first.content_hash) != (request.method, request.content_hash):
            raise RequestIdReusedError(request.id)
        return first

    def keep(self, org: str, request: Request | None, **answer: Any) -> None:
        """Keep a request and what it is answered."""
        if request is not None:
            self.requests[org, request.id] = KeptRequest(request.method, request.content_hash, self.now(), **answer)

    def executions_of(self, workflow_id: UUID) -> Iterator[ExecutionRow]:
        """Give the executions of all revisions of a workflow."""
        return (row for row in self.executions.values() if row.execution.workflow_id == workflow_id)

    def is_live(self, incarnation: UUID) -> bool:
        """Whether the lease of a process runs."""
        expiry = self.leases.get(incarnation)
        return expiry is not None and expiry > self.now()


def in_scope(execution: Execution, scope: Scope) -> bool:
    """Whether a caller with this scope may see the execution."""
    return execution.org == scope.org and scope.owner in (None, execution.owner)


def fresh_ending(ending: Ending | None) -> Ending | None:
    """Return the ending, sharing nothing that can be changed."""
    return ending and replace(ending, failure=copied(ending.failure))


def fresh_dry_run(dry_run: DryRun | None) -> DryRun | None:
    """Return what an execution is given that sends nothing, sharing nothing that can be changed."""
    return None if dry_run is None else msgspec.convert(copied(msgspec.to_builtins(dry_run)), DryRun)


def fresh_message(message: Message) -> Message:
    """Return the message, sharing nothing that can be changed."""
    return replace(message, body=copied(message.body))


def fresh_signal(signal: Signal) -> Signal:
    """Return the signal, sharing nothing that can be changed."""
    return replace(signal, payload=copied(signal.payload))


def fresh_edited(edited: Mapping[str, EditedVariable]) -> dict[str, EditedVariable]:
    """Return variables that somebody has set, sharing nothing that can be changed."""
    return {name: replace(each, value=copied(each.value)) for name, each in edited.items()}


def fresh_step(step: Step) -> Step:
    """Return the step, sharing nothing that can be changed."""
    return replace(
        step,
        input=step.input if step.input is UNREAD else copied(step.input),
        output=copied(step.output),
        failure=copied(step.failure),
        failed_attempts=tuple(copied(failed) for failed in step.failed_attempts),
        assigned=copied(step.assigned),
    )


def within(steps: Iterable[Step], most: int) -> tuple[tuple[Step, ...], frozenset[StepKey]]:
    """Return the steps with the payloads of the first, up to `most` characters, and the keys of those without."""
    found, omitted, size = list[Step](), set[StepKey](), 0
    for step in steps:
        size += sum(len(str(value)) for value in _payloads(step))
        if size > most:
            omitted.add(step.key)
        found.append(_bare(step) if size > most else step)
    return tuple(found), frozenset(omitted)


def _payloads(step: Step) -> list[Json]:
    values = (step.input, step.output, step.assigned, step.failed_attempts or None, step.failure)
    return [value for value in values if value is not None]


def _bare(step: Step) -> Step:
    failure = None if step.failure is None else {k: v for k, v in step.failure.items() if k != "details"}
    return replace(step, input=None, output=None, assigned=None, failed_attempts=(), failure=failure)
