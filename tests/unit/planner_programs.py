"""A driver that feeds the planner without clock, handlers or store."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from unittest import mock
from uuid import UUID

from immutables import Map
from msgspec.structs import replace

from persistence.dry_runs import DryRun
from persistence.model import (
    Edit,
    Execution,
    ExecutionDetail,
    ExecutionState,
    Message,
    Step,
    StepCounts,
)
from persistence.usage import Usage
from service.engine.definition import (
    Definition,
    RetryPolicy,
)
from service.engine.expressions import cost
from service.engine.failure import HANDLER_ERROR, Failure
from service.engine.planning import happenings, planner, rules
from service.engine.planning.course import Course
from service.engine.planning.effects import CancelAttempt, StartAttempt
from service.engine.planning.events import Event, EventBody, StepStarted
from service.engine.planning.happenings import RESULTS, Happening, is_at_once
from service.engine.planning.heap import Heap
from service.engine.planning.planner import Plan
from service.engine.planning.restoring import restore
from service.engine.planning.state import State, initial, is_due
from tests.unit.planner_messages import CANCEL as CANCEL
from tests.unit.planner_messages import T0 as T0
from tests.unit.planner_messages import Messages

FATAL = Failure(HANDLER_ERROR, "boom")
PLAIN = RetryPolicy(max_attempts=3, jitter=0.0)


@dataclass(frozen=True)
class Turn:
    """One happening, the state before it, what followed, and what a store held after it.

    `begins`: whether steps could begin by it. `is_behind`: something that had happened was to be applied after it.
    `is_first`: it is the first of a process that goes on from what another one has left.
    """

    before: State
    happening: Happening
    plan: Plan
    stored: ExecutionDetail
    begins: bool = True
    is_behind: bool = False
    is_first: bool = False


class Driver(Messages):
    """Keeps one execution: its state, its rows as a store has them, and the attempts that run.

    `rows` are the newest iterations of steps, `past` the others.

    Plans are treated as by a `Run`. What is put off comes in the next turn: at once, unless the driver `waits_turns`;
    then `take_turn` lets it come. `work` is what an application may do, `enough` what it writes before no more begins.
    """

    def __init__(
        self,
        definition: Definition,
        input: Mapping[str, Any] | None = None,
        scheduled_time: datetime | None = None,
        *,
        waits_turns: bool = False,
        work: int | None = None,
        enough: int | None = None,
        dry_run: DryRun | None = None,
    ) -> None:
        self.definition = definition
        self.waits_turns = waits_turns
        self.backlog: deque[Happening] = deque()
        self._work, self._enough = work, enough
        self.now = T0
        self.turns: list[Turn] = []
        self.running: dict[str, StartAttempt] = {}
        self.told_to_stop: dict[str, int] = {}
        self.rows: dict[str, Step] = {}
        self.past: list[Step] = []
        self.execution = Execution(
            id=UUID(int=1),
            org="org",
            owner="ann",
            workflow_id=UUID(int=2),
            workflow_name=definition.name,
            revision=1,
            state=ExecutionState.PENDING,
            create_time=T0,
            timeout=definition.timeout,
            counts=StepCounts(total=len(definition.root.steps)),
            scheduled_time=scheduled_time,
            is_dry_run=dry_run is not None,
        )
        self.input, self.vars, self.dry_run = dict(input or {}), dict[str, Any](), dry_run
        self.initial = self.state = initial(self.execution, self.input, dry_run=dry_run)
        self._is_fresh = False  # whether the process has just read it
        self.apply(happenings.Accepted(T0))

    def __repr__(self) -> str:
        return "\n".join([*map(repr, self.definition.root.steps), *(repr(turn.happening) for turn in self.turns)])

    # --- what is to be seen

    @property
    def events(self) -> list[Event]:
        """All events so far."""
        return [event for turn in self.turns for event in turn.plan.events]

    @property
    def bodies(self) -> list[EventBody]:
        """The bodies of all events so far."""
        return [event.body for event in self.events]

    @property
    def states(self) -> dict[str, str]:
        """The states of the steps that left PENDING."""
        return {path: row.state.value for path, row in self.rows.items()}

    @property
    def stored(self) -> ExecutionDetail:
        """What a store holds."""
        steps, state = [*self.past, *self.rows.values()], self.state
        detail = ExecutionDetail(self.execution, self.input, state.result, steps)
        given = {"vars": self.vars, "edited": state.edited, "dry_run": self.dry_run}
        return replace(detail, signals=state.signals, edit=state.edit, **given)

    def wake_time(self, path: str) -> datetime | None:
        """Until when a step waits."""
        wait = self.rows[path].wait
        return None if wait is None else wait.wake_time

    # --- happenings

    def plan(self, state: State, happening: Happening, *, begins: bool = True) -> Plan:
        """Return what follows from a happening within what one application may do."""
        with (
            mock.patch.object(cost, "PER_ALLOWANCE", self._work or cost.PER_ALLOWANCE),
            mock.patch.object(rules, "ENOUGH", self._enough or rules.ENOUGH),
        ):
            return planner.apply(self.definition, state, happening, begins=begins)

    def apply(self, happening: Happening) -> Plan:
        """Let something happen, now or when what has happened before is applied."""
        if self.backlog and not is_at_once(happening):
            self.backlog.append(happening)
            return Plan(self.state)
        plan = self.apply_now(happening)
        while self.backlog and not self.waits_turns:
            self.take_turn()
        return plan

    def take_turn(self) -> None:
        """Apply the first of what was put off."""
        self.apply_now(self.backlog.popleft())

    def apply_now(self, happening: Happening, *, begins: bool = True) -> Plan:
        """Let something happen, store what changed and carry out the effects."""
        before = self.state
        plan = self.plan(before, happening, begins=begins)
        self.state = plan.state
        if not plan.is_empty:
            self._store(plan)
            self._perform(plan)
        if plan.state.state.is_end:
            self.backlog.clear()
        elif plan.is_partial and begins and not isinstance(happening, happenings.Reopened):
            self.backlog.append(happenings.Continued(self.now))
        self.turns.append(Turn(before, happening, plan, self.stored, begins, bool(self.backlog), self._is_fresh))
        self._is_fresh = False
        return plan

    def start(self) -> Plan:
        """Let the execution start."""
        return self.apply(happenings.Started(self.now))

    def succeed(self, path: str, output: Any = None, attempt: int | None = None, usage: Usage | None = None) -> Plan:
        """Let an attempt, by default the newest, give its output."""
        number = self.ended(path, attempt)
        return self.apply(happenings.StepSucceeded(self.now, path, number, output, self.iteration(path), usage))

    def fail(self, path: str, attempt: int | None = None, failure: Failure | None = None, **fields: Any) -> Plan:
        """Let an attempt fail, by default in a way that may be tried again."""
        failure = failure or Failure(HANDLER_ERROR, "boom", retryable=True)
        number, iteration = self.ended(path, attempt), self.iteration(path)
        return self.apply(happenings.StepFailed(self.now, path, number, failure, iteration=iteration, **fields))

    def suspend(
        self, path: str, seconds: float, output: Any = None, attempt: int | None = None, usage: Usage | None = None
    ) -> Plan:
        """Let an attempt ask to be parked."""
        number, until = self.ended(path, attempt), self.now + timedelta(seconds=seconds)
        parked = self.now, path, number, until, output, "parked", self.iteration(path), usage
        return self.apply(happenings.StepSuspended(*parked))

    def progress(self, path: str, percent: int, attempt: int | None = None) -> Plan:
        """Let an attempt report its progress."""
        number = self._number(path, attempt)
        return self.apply(happenings.StepProgressed(self.now, path, number, percent, "on it", self.iteration(path)))

    def stopped(
        self, path: str, attempt: int | None = None, *, has_ended: bool = True, usage: Usage | None = None
    ) -> Plan:
        """Let an attempt that was told to stop say that it has, or be waited for no longer."""
        number = self.ended(path, attempt)
        return self.apply(happenings.StepStopped(self.now, path, number, has_ended, self.iteration(path), usage))

    def miss_thread(self, path: str) -> Plan:
        """Let the newest attempt find no free thread."""
        return self.apply(happenings.SlotMissed(self.now, path, self.ended(path), "all are held", self.iteration(path)))

    def free_thread(self, path: str) -> Plan:
        """Let a thread become free for a step."""
        return self.apply(happenings.SlotFreed(self.now, path, self.iteration(path)))

    def miss_handler(self, path: str, wishes: str = "") -> Plan:
        """Let the newest attempt find no handler, or no worker with it that meets wishes."""
        missed = self.now, path, self.ended(path), "not here", self.iteration(path), wishes
        return self.apply(happenings.HandlerMissed(*missed))

    def take_handlers(self, *handlers: str) -> Plan:
        """Let the process have handlers, or those with wishes."""
        return self.apply(happenings.HandlersCame(self.now, frozenset(handlers)))

    def lose(self, path: str, reason: str = "") -> Plan:
        """Let nobody come back with the newest attempt; or, for a reason, its worker be lost."""
        lost = happenings.AttemptLost(
            self.now, path, self.ended(path), reason, self.iteration(path), is_cut_off=not reason
        )
        return self.apply(lost)

    def fire(self, seconds: float = 0.0) -> Plan:
        """Let time pass and the timers that are due then fire."""
        self.now += timedelta(seconds=seconds)
        return self.apply(happenings.TimerFired(self.now))

    def reopen(self, reason: str = "", timeout: float | None = None, edit: Edit | None = None) -> Plan:
        """Let somebody retry the execution in place, and another process go on with it."""
        self.apply_now(happenings.Reopened(self.now, "ann", reason, timeout, edit))
        return self.recover()

    def shut_down(self) -> None:
        """Let the process stop that drives it: ends of attempts are recorded, and nothing begins by them."""
        kept = [happening for happening in self.backlog if isinstance(happening, RESULTS)]
        self.backlog.clear()
        for happening in kept:
            self.apply_now(happening, begins=False)

    def recover(
        self,
        worker: str = "",
        handlers: Iterable[str] = (),
        mail: Iterable[Message] = (),
        remote: Iterable[str] = (),
    ) -> Plan:
        """Let another process, which has these handlers, go on from what is stored and was sent.

        Attempts of handlers that are `remote` run still.
        """
        self.state, self._is_fresh = restore(self.definition, self.stored, worker), True
        self.backlog.clear()
        self.running.clear()
        self.told_to_stop.clear()
        recovered = happenings.Recovered(self.now, frozenset(handlers), frozenset(remote))
        self.backlog.append(recovered)
        for message in mail:  # the mail is opened before
            self.apply_now(happenings.MessageCame(self.now, message))
        self.backlog.clear()
        plan = self.apply_now(recovered)
        while self.backlog and not self.waits_turns:
            self.take_turn()
        return plan

    def ended(self, path: str, attempt: int | None = None) -> int:
        """Forget an attempt that runs no more, and return its number."""
        number = self._number(path, attempt)
        if path in self.running and self.running[path].attempt == number:
            del self.running[path]
            self.told_to_stop.pop(path, None)
        return number

    def iteration(self, path: str) -> int:
        """Return the number of the newest iteration of a step."""
        return self.rows[path].iteration if path in self.rows else 1

    def _number(self, path: str, attempt: int | None) -> int:
        row = self.rows.get(path)
        return attempt if attempt is not None else row.attempt if row else 1

    def _store(self, plan: Plan) -> None:
        after = plan.state
        for row in plan.steps:
            if (before := self.rows.get(row.path)) is not None and before.iteration < row.iteration:
                self.past.append(before)
            self.rows[row.path] = row
        self.execution = replace(
            self.execution,
            state=after.state,
            counts=after.counts,
            progress=after.progress,
            last_seq=after.last_seq,
            start_time=after.start_time,
            end_time=after.end_time,
            deadline_time=after.deadline_time,
            failure=after.failure.to_json() if after.failure else None,
            ending=after.ending.stored() if after.ending else None,
            pause=after.pause,
            breakpoints=after.breakpoints,
            bytes=after.bytes,
            usage=after.usage,
            run=after.run,
            reopened_seq=after.reopened_seq,
        )

    def _perform(self, plan: Plan) -> None:
        for effect in plan.effects:
            match effect:
                case StartAttempt():
                    self.running[effect.path] = effect
                case CancelAttempt() if effect.path in self.running:
                    self.told_to_stop[effect.path] = effect.attempt


def started(definition: Definition, input: Mapping[str, Any] | None = None) -> Driver:
    """Return the driver of an execution that has just started."""
    driver = Driver(definition, input)
    driver.start()
    return driver


def starts(driver: Driver) -> list[tuple[str, int]]:
    """Return path and attempt of everything that was started."""
    return [(body.path, body.attempt) for body in driver.bodies if isinstance(body, StepStarted)]


def check_stored(driver: Driver) -> None:
    """Assert that what is stored gives the state again."""
    restored = restore(driver.definition, driver.stored)
    assert restored == told_by_rows(driver.definition, driver.state)
    assert list(restored.vars) == list(driver.state.vars)


def told_by_rows(definition: Definition, state: State) -> State:
    """Return a state without what it may hold beyond its rows: what has gone on, outputs of items and whether they are
    over, its time, sweeps.

    All that is in work is inherited by whoever reads them. Items with nothing in work are not told to be open where no
    other step begins; a sweep is about to close them.
    """
    course = Course(definition, state, T0)
    for scope, block in state.blocks.items():
        if scope and not block.open and course.is_ending(scope):
            course.close_item(scope)
    repeats = Map({path: replace(repeat, outputs=(), is_over=None) for path, repeat in course.repeats.items()})
    return replace(
        state,
        ready=Heap(ready for ready in state.ready if course.may_begin(ready)),
        timers=Heap(timer for timer in state.timers if is_due(timer, state.open)),
        blocks=course.blocks,
        repeats=repeats,
        time=None,
        sweeps=(),
        stopping=Map(),
        inherited=state.open,
    )
