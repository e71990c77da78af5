"""One step by itself: what it begins in, and the rules of single steps without what its end does to others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from immutables import Map
from msgspec.structs import replace

from persistence.model import (
    Edit,
    Execution,
    ExecutionDetail,
    ExecutionState,
    Step,
    StepCounts,
    StepState,
    Wait,
    WaitKind,
)
from service.engine import paths
from service.engine.definition import Definition, OnError, Ordering, Repeat, StepSpec
from service.engine.expressions import Allowance, ExpressionError
from service.engine.failure import HANDLER_ERROR, Failure
from service.engine.planning.assigned import gathering_variables
from service.engine.planning.block_rules import BlockRules
from service.engine.planning.course import MAX_ITEMS
from service.engine.planning.draft import Draft
from service.engine.planning.failed_attempts import with_failed_attempt
from service.engine.planning.happenings import (
    Happening,
    SlotFreed,
    SlotMissed,
    StepFailed,
    StepStopped,
    StepSucceeded,
    StepSuspended,
)
from service.engine.planning.reasons import still_running
from service.engine.planning.scopes import block_of, order, outwards
from service.engine.planning.state import OpenBlock, Repeating, State, facts, finding_newest
from service.engine.slices import Work, parts
from service.engine.violations import ValidationError, Violation

_NO_ANSWER = Failure(HANDLER_ERROR, "the handler stopped without a result, as if it had been cancelled", retryable=True)


@dataclass(frozen=True, slots=True)
class Given:
    """What a step sees that runs by itself: values that were given, over those of an execution.

    `outputs` are those of steps by path, `items` those of items by the name that steps see them by. `params` are what
    its handler is called with in place of what the definition says.
    """

    input: Mapping[str, Any] | None = None
    variables: Mapping[str, Any] = field(default_factory=dict)
    outputs: Mapping[str, Any] = field(default_factory=dict)
    items: Mapping[str, Any] = field(default_factory=dict)
    params: Mapping[str, Any] | None = None
    recorded: ExecutionDetail | None = None


@dataclass(frozen=True, slots=True)
class Next:
    """A step that comes after another one: whether its condition holds, or why nobody can tell."""

    path: str
    runs: bool
    error: str = ""


def surrounding(definition: Definition, execution: Execution, path: str, given: Given, now: datetime) -> Work[State]:
    """Return, in pieces, a state in which the step at `path`, which the definition has, is about to begin.

    Raises ValidationError for outputs of no step, and for an item that there is not.
    """
    recorded = given.recorded
    records = (yield from finding_newest(recorded.steps)) if recorded is not None else {}
    steps: dict[str, Step] = {}
    for part in parts(list(records.items())):
        steps.update((at, step) for at, step in part if step.state.is_end and not _is_within(at, path))
        yield len(part)
    for at, output in given.outputs.items():
        if definition.find(at) is None:
            raise ValidationError([Violation(f"outputs[{at}]", "the definition has no such step")])
        steps[at] = _completed(definition, at, output, now)
    variables = (yield from gathering_variables(recorded)) if recorded is not None else {}
    state = State(
        facts=facts(execution),
        input=given.input if given.input is not None else recorded.input if recorded is not None else {},
        timeout=definition.timeout,
        counts=StepCounts(total=max(1, len(definition.places))),
        state=ExecutionState.RUNNING,
        steps=Map(steps),
        vars={**variables, **given.variables},
        start_time=now,
        edit=None if given.params is None else Edit(path, 1, given.params),
    )
    for scope in reversed(list(outwards(paths.split(path)[0]))):
        state = _opened(definition, state, scope, given.items, records, now)
    return state


def _is_within(at: str, path: str) -> bool:
    """Whether a path is that of the step, or of an item of it."""
    return at == path or at.startswith(f"{path}[")


def _completed(definition: Definition, path: str, output: Any, now: datetime) -> Step:
    return replace(
        _record(definition, path), state=StepState.COMPLETED, output=output, start_time=now, end_time=now, end_seq=1
    )


def _record(definition: Definition, path: str) -> Step:
    (position, *items), spec = order(definition, path), definition.places[paths.place(path)]
    return Step(path, spec.handler, StepState.PENDING, position=position, items=tuple(items))


def _opened(
    definition: Definition,
    state: State,
    scope: str,
    given: Mapping[str, Any],
    records: Mapping[str, Step],
    now: datetime,
) -> State:
    """Return a state in which the block of a scope is open, those around which are."""
    steps, repeats = state.steps, state.repeats
    if scope:
        owner, index = paths.owner(scope)
        action = definition.places[paths.place(owner)].action
        if not isinstance(action, Repeat):
            raise TypeError(f"step {owner} has no items")
        items = _items(definition, state, owner, index, action, given, records.get(owner), now)
        around = replace(_record(definition, owner), state=StepState.RUNNING, input={"items": items}, start_time=now)
        steps = steps.set(owner, around)
        repeats = repeats.set(owner, Repeating(len(items), 1, index + 1, 1))
    block = OpenBlock(len(block_of(definition, scope).steps), 1)
    return replace(state, steps=steps, repeats=repeats, blocks=state.blocks.set(scope, block))


def _items(
    definition: Definition,
    state: State,
    owner: str,
    index: int,
    action: Repeat,
    given: Mapping[str, Any],
    record: Step | None,
    now: datetime,
) -> Sequence[Any]:
    """Return the list of which the step is to see the item `index`."""
    if index >= MAX_ITEMS:
        raise ValidationError([Violation("path", f"no step has more than {MAX_ITEMS:,} items")])
    if action.item_name in given:
        return [None] * index + [given[action.item_name]]
    items = record.input.get("items") if record is not None and isinstance(record.input, dict) else None
    if not isinstance(items, list):
        try:
            variables = Draft(definition, state, now).variables(paths.split(owner)[0])
            items = action.items.spend(variables, Allowance())
        except ExpressionError as error:
            wanted = f"there is no item {action.item_name!r}, which can be given, and the list of {owner}: {error}"
            raise ValidationError([Violation("items", wanted)]) from None
    if not isinstance(items, list) or index >= len(items):
        number = len(items) if isinstance(items, list) else "no"
        wanted = (
            f"{owner} has {number} items, and none with the number {index}; one can be given as {action.item_name!r}"
        )
        raise ValidationError([Violation("items", wanted)])
    return items


class OneStep(BlockRules):
    """The rules for a step that runs by itself: one attempt, and nothing else begins or ends with it."""

    def ended(self, step: Step) -> None:
        """Do nothing: it has no execution around it."""

    def begin_alone(self, path: str) -> None:
        """Begin the step, skip it or fail it, as its condition and its params say."""
        self._begin(path)

    def take(self, happening: Happening) -> None:
        """Do what follows for the step from what its attempt has come to. What is not heard of here changes nothing."""
        match happening:
            case SlotFreed():
                step = self.draft.steps.get(happening.path)
                if step is not None:
                    self.start_attempt(step)
                return
            case StepSucceeded() | StepFailed() | StepSuspended() | StepStopped():
                if (step := self.running(happening)) is None:
                    return
                if happening.usage is not None:
                    step = self.draft.use(step, happening.usage)
                self._end(step, happening)
            case SlotMissed():
                if (step := self.running(happening)) is not None:
                    wait = Wait(WaitKind.SLOT, self.time, reason=happening.reason, resource=happening.resource)
                    self.take_back(step, wait)

    def _end(self, step: Step, happening: StepSucceeded | StepFailed | StepSuspended | StepStopped) -> None:
        match happening:
            case StepSucceeded(output=output):
                self.complete(step, output)
            case StepSuspended() if happening.until <= self.time:
                self.complete(step, happening.output)
            case StepSuspended():
                self.put_off(step, happening.until, happening.output, happening.reason)
            case StepFailed(failure=failure):
                self._fail(step, failure)
            case StepStopped():
                self._fail(step, _NO_ANSWER if happening.has_ended else still_running(step))

    def _fail(self, step: Step, failure: Failure) -> None:
        """Fail it for good: there is one attempt, whatever the policy of retries says."""
        failure = self.fitting(failure)
        failed = with_failed_attempt(step, failure, self.time)
        failed = replace(failed, failures=step.failures + 1, failure=failure.to_json())
        self.fail_for_good(failed, failure, is_of_attempt=True)

    def _all_skipped(self, scope: str, spec: StepSpec) -> bool:
        """Whether all that it depends on is known to be skipped. What is not known is taken to have run."""
        known = [self.draft.steps.get(paths.join(scope, before)) for before in spec.depends_on]
        return all(step is not None and step.state is StepState.SKIPPED for step in known)

    def following(self, path: str) -> Iterator[Next]:
        """Yield the steps that are looked at after this one has ended: of a sequence up to the first that runs."""
        step, scope = self.draft.steps[path], self.scope(self.draft.steps[path])
        if step.state not in _GOES_ON or (step.state is StepState.FAILED and self._stops(step)):
            return
        block = block_of(self.definition, scope)
        after = list(block.successors[paths.split(path)[1]])
        while after:
            spec = block.by_id[after.pop(0)]
            found = self._looked_at(scope, spec)
            yield found
            if block.ordering is Ordering.SEQUENTIAL and not found.runs and not found.error:
                after += block.successors[spec.id]

    def _stops(self, step: Step) -> bool:
        return self.spec(step).on_error is not OnError.CONTINUE

    def _looked_at(self, scope: str, spec: StepSpec) -> Next:
        path = paths.join(scope, spec.id)
        if spec.condition is None:
            return Next(path, runs=True)
        try:
            return Next(path, bool(spec.condition.spend(self.draft.variables(scope), Allowance())))
        except ExpressionError as error:
            return Next(path, runs=False, error=str(error))


_GOES_ON = frozenset({StepState.COMPLETED, StepState.SKIPPED, StepState.FAILED})
