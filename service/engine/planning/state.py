"""The state of an execution as the planner sees it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol
from uuid import UUID

import msgspec
from immutables import Map

from persistence.breakpoints import Breakpoints
from persistence.dry_runs import DryRun
from persistence.model import (
    Edit,
    EditedVariable,
    Execution,
    ExecutionState,
    Pause,
    Step,
    StepCounts,
    StepKey,
    StepState,
    WaitKind,
)
from persistence.model import Ending as StoredEnding
from persistence.signals import Signal
from persistence.usage import Usage
from service.engine import paths
from service.engine.failure import CANCELLED, EXECUTION_TIMEOUT, STEP_FAILED, TERMINATED, Failure
from service.engine.payload import size
from service.engine.planning.heap import Heap
from service.engine.planning.scopes import Place
from service.engine.slices import Work, in_one_go, parts
from service.engine.wishes import awaited

OPEN = frozenset({StepState.RUNNING, StepState.WAITING})
"""States of a step that has begun and not ended."""

Ready = tuple[Place, str]
"""A step that may begin, or that may begin or end items: its place, behind those of its items, and its path."""

Timer = tuple[datetime, Place, str]
"""A step that goes on at a time, unless it has gone on before."""


class OpenBlock(msgspec.Struct, frozen=True):
    """A block of which something may still happen: how many of its steps have not ended, and how many of those began.

    `met` says of a step how many of those that it waits for have ended, while that is some and not all. `is_ending`:
    a step of it has failed for good, so that no other begins, and it closes when all that began have ended.
    """

    left: int
    open: int = 0
    met: Map[str, int] = Map()
    is_ending: bool = False


class Repeating(msgspec.Struct, frozen=True):
    """What has become of the items of a `for_each`: the first `next` of `total` have begun, `open` have not ended.

    `again` are those that have begun in an earlier run of the execution, are not done, and not open again yet.

    `failed` is the path of the step because of which no other item begins. `outputs` are those of the first items, of
    which all have ended. `is_over` is what `until` has given after the last round, None before that. Both are found
    anew by whoever takes the execution over: what follows from them is recorded, the next round or the end of the step.
    """

    total: int
    limit: int
    next: int = 0
    open: int = 0
    failed: str = ""
    outputs: tuple[Any, ...] = ()
    is_over: bool | None = None
    again: tuple[int, ...] = ()

    @property
    def may_go_on(self) -> bool:
        """Whether another item may begin, or all have ended."""
        return self.open == 0 or (self.is_any_left and self.open < self.limit)

    @property
    def is_any_left(self) -> bool:
        """Whether there is an item that is not open and not done."""
        return self.next < self.total or bool(self.again)

    @property
    def following(self) -> int:
        """The number of the item that opens next."""
        return self.again[0] if self.again else self.next


class Sweep(msgspec.Struct, frozen=True):
    """What is left of seeing to the steps in work `within` a scope; or, by the path of one that repeats, to its items.

    They come in the order of the definition, those before the place `at` are done. `handlers` are those for which steps
    need not wait any more, `remote` those of workers, whose attempts may go on.
    """

    within: str = ""
    at: Place = ()
    handlers: frozenset[str] = frozenset()
    remote: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Ending:
    """The end that an execution has been given while attempts of it are still being stopped."""

    state: ExecutionState
    failure: Failure

    @property
    def is_at_once(self) -> bool:
        """Whether attempts that run are told to stop and not waited for."""
        return self.failure.code == TERMINATED

    def stored(self) -> StoredEnding:
        """Return it as the store keeps it."""
        return StoredEnding(self.state, self.failure.to_json())


class State(msgspec.Struct, frozen=True):
    """All that decides how an execution goes on. `steps` holds those that left PENDING by path, each in its newest
    iteration.

    `facts` is what expressions see as `execution`. `ending` is set from the moment the end is decided, `pause` while
    the state is PAUSED, also where the end is decided meanwhile. `worker` names the process that drives the execution.
    `bytes` is what it has written so far, as `Draft.charge` counts it, `usage` what its attempts that have ended used.
    `time` is that of the newest event since this process has driven the execution, before which no other happens.

    `signals` are those that came and that no step has taken, in the order in which they did.

    `edited` are variables that somebody has set, by their names: `vars` has them already.

    `reopened_seq` is the number of the event with which its `run` began, 0 for the first. `earlier` are the steps that
    have ended in an earlier run, are to run again and have not begun to: they count as not begun, and are not among
    the `steps`. `edit` is what one of them is given instead of what its definition says. `dry_run`: nothing is sent.

    `sweeps` are to be gone on with, the first one first: what they have not seen to is in work still. `inherited` are
    the steps in work of another process, as that left them; one that this process has gone on with is another value.
    `stopping` are attempts that a pause has told to stop, by their steps.
    All three are known to this process alone: whoever takes the execution over begins with a sweep of all.

    The last eight follow from the others, and are kept so that nothing has to look through all steps. `open` holds the
    steps that run or wait, `running` the number of the attempt that runs of each, `awaited` how many steps wait for
    each handler, and for one with the same wishes, `listening` the steps that wait for a signal, by its name and their
    paths, with when they began to, `ready` what may begin and has been put off, `timers` each step that
    waits for a time, `blocks` those that are open, by scope, and `repeats` the open steps that repeat one, by path.
    `ready` and `timers` may hold others, too; one like that is the least only where there were too many to forget at
    once, or under an end, where nothing is ready and nothing waits for a time. The order of a map is that of hashes, so
    nothing may follow from it.
    """

    facts: Mapping[str, Any]
    input: Mapping[str, Any]
    timeout: float
    counts: StepCounts
    state: ExecutionState = ExecutionState.PENDING
    is_held_back: bool = False
    steps: Map[str, Step] = Map()
    vars: Mapping[str, Any] = msgspec.field(default_factory=dict)
    progress: int = 0
    last_seq: int = 0
    start_time: datetime | None = None
    end_time: datetime | None = None
    deadline_time: datetime | None = None
    scheduled_time: datetime | None = None
    ending: Ending | None = None
    pause: Pause | None = None
    breakpoints: Breakpoints | None = None
    failure: Failure | None = None
    result: Any = None
    worker: str = ""
    bytes: int = 0
    usage: Usage | None = None
    run: int = 1
    reopened_seq: int = 0
    earlier: Map[str, Step] = Map()
    edit: Edit | None = None
    dry_run: DryRun | None = None
    time: datetime | None = None
    signals: tuple[Signal, ...] = ()
    edited: Mapping[str, EditedVariable] = msgspec.field(default_factory=dict)
    sweeps: tuple[Sweep, ...] = ()
    inherited: Map[str, Step] = Map()
    stopping: Map[StepKey, int] = Map()
    open: Map[str, Step] = Map()
    running: Map[StepKey, int] = Map()
    awaited: Map[str, int] = Map()
    listening: Map[str, Map[str, datetime]] = Map()
    ready: Heap[Ready] = Heap()
    timers: Heap[Timer] = Heap()
    blocks: Map[str, OpenBlock] = Map()
    repeats: Map[str, Repeating] = Map()

    @property
    def next_wake(self) -> datetime | None:
        """The next moment at which a timer fires: a start delay, a step's timer or the deadline. None at an end."""
        if self.state.is_end:
            return None
        if self.state is ExecutionState.PENDING:
            return None if self.is_held_back else self.scheduled_time
        deadline = self.deadline if self.ending is None else None
        if (first := self.timers.first) is None or self.is_paused:
            return deadline
        timer = first[0]
        return timer if deadline is None else min(timer, deadline)

    @property
    def is_paused(self) -> bool:
        """Whether nothing begins until the execution is resumed, unless its end is decided."""
        return self.state is ExecutionState.PAUSED and self.ending is None

    @property
    def deadline(self) -> datetime | None:
        """When the execution is cut off, None when no time is told off now."""
        return None if self.pause is not None and self.pause.stops_deadline else self.deadline_time

    def may_run(self, path: str, iteration: int, attempt: int) -> bool:
        """Whether an attempt is the one that runs of its step, and nothing has decided that it is to stop."""
        return self.running.get((path, iteration)) == attempt and not is_ending(self, paths.split(path)[0])

    @property
    def is_idle(self) -> bool:
        """Whether no attempt runs: only a timer, or something outside, moves the execution."""
        return not self.running


def facts(execution: Execution) -> dict[str, Any]:
    """Return what expressions see as `execution`."""
    return {
        "id": str(execution.id),
        "workflow": execution.workflow_name,
        "workflow_id": str(execution.workflow_id),
        "revision": execution.revision,
        "owner": execution.owner,
        "tags": list(execution.tags),
        "labels": dict(execution.labels),
        "correlation_id": execution.correlation_id,
    }


def initial(execution: Execution, payload: Mapping[str, Any], worker: str = "", dry_run: DryRun | None = None) -> State:
    """Return the state of an execution of which nothing has happened yet, for the process `worker`."""
    return State(
        facts=facts(execution),
        input=payload,
        timeout=execution.timeout,
        counts=execution.counts,
        scheduled_time=execution.scheduled_time,
        worker=worker,
        bytes=size(payload) + (size(dry_run) if dry_run else 0),
        breakpoints=execution.breakpoints,
        dry_run=dry_run,
    )


def runs(step: Step) -> bool:
    """Return whether an attempt of the step runs. A step that runs without attempts is in work as long as its items."""
    return step.state is StepState.RUNNING and step.attempt > 0


def awaited_handler(step: Step | None) -> str:
    """Return the handler that a step waits for until somebody has it, with its wishes, empty when it waits for none."""
    if step is None or step.wait is None or not step.waits_for(WaitKind.WORKER):
        return ""
    return awaited(step.wait.handler, step.wait.wishes)


def awaited_task(step: Step | None) -> UUID | None:
    """Return the id of the task that a step waits for, None when it waits for none."""
    return (
        UUID(step.wait.task) if step is not None and step.wait is not None and step.waits_for(WaitKind.TASK) else None
    )


def awaited_signals(step: Step | None) -> tuple[str, ...]:
    """Return the names of the signals that a step waits for, none when it waits for none."""
    return step.wait.signals if step is not None and step.wait is not None and step.waits_for(WaitKind.SIGNAL) else ()


class Scopes(Protocol):
    """What tells where nothing begins any more."""

    @property
    def ending(self) -> Ending | None:
        """The end that the execution has been given."""
        ...

    @property
    def blocks(self) -> Map[str, OpenBlock]:
        """The blocks that are open, by scope."""
        ...

    @property
    def repeats(self) -> Map[str, Repeating]:
        """The open steps that repeat one, by path."""
        ...


def is_ending(scopes: Scopes, scope: str) -> bool:
    """Return whether nothing begins any more in a scope, because of what failed in it or around it, or ended it all."""
    if not scope:
        return scopes.ending is not None
    block = scopes.blocks.get(scope)
    return block is None or block.is_ending or is_stopping(scopes, paths.owner(scope)[0])


def is_stopping(scopes: Scopes, path: str) -> bool:
    """Return whether no more items of the step at a path begin."""
    repeat = scopes.repeats.get(path)
    return repeat is None or bool(repeat.failed) or is_ending(scopes, paths.split(path)[0])


def is_due(timer: Timer, open_steps: Mapping[str, Step]) -> bool:
    """Return whether the step of a timer waits for its time still."""
    step = open_steps.get(timer[2])
    return step is not None and step.wait is not None and step.wait.wake_time == timer[0]


def newest(steps: Sequence[Step]) -> dict[str, Step]:
    """Return the newest iteration of each step, by path."""
    return in_one_go(finding_newest(steps))


def finding_newest(steps: Sequence[Step]) -> Work[dict[str, Step]]:
    """Do what `newest` does, in pieces: an execution may have a hundred thousand steps."""
    found: dict[str, Step] = {}
    for part in parts(steps):
        for step in part:
            if (known := found.get(step.path)) is None or known.iteration <= step.iteration:
                found[step.path] = step
        yield len(part)
    return found


def cancelled(by: str, reason: str) -> Ending:
    """Return the end that somebody asked for."""
    message = f"cancelled by {by}" + (f": {reason}" if reason else "")
    return Ending(ExecutionState.CANCELLED, Failure(CANCELLED, message))


def terminated(by: str, reason: str) -> Ending:
    """Return the end that somebody asked for who does not want to wait."""
    message = f"terminated by {by}" + (f": {reason}" if reason else "")
    return Ending(ExecutionState.CANCELLED, Failure(TERMINATED, message))


def timed_out(state: State) -> Ending:
    """Return the end that the deadline gives. Of a later run it need not be that of the execution's own timeout."""
    message = f"the execution took longer than its timeout of {state.timeout:g} s"
    if state.run > 1 and state.deadline_time is not None:
        message = f"run {state.run} of the execution was not done by its deadline, {state.deadline_time.isoformat()}"
    return Ending(ExecutionState.TIMED_OUT, Failure(EXECUTION_TIMEOUT, message))


def step_failed(step: Step) -> Ending:
    """Return the end that a failed step gives to its execution."""
    return Ending(ExecutionState.FAILED, because_of(step))


def because_of(step: Step) -> Failure:
    """Return the failure of what cannot go on since a step has failed: it names the innermost one that did."""
    failure = Failure.from_json(step.failure or {})
    if failure.code == STEP_FAILED and failure.step_path:
        return failure
    return Failure(STEP_FAILED, failure.message, {"code": failure.code}, step.path, step.iteration)
