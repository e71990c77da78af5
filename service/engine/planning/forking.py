"""How the history of an execution begins that is made from another one.

What it inherits are events of its own, marked so, and its rows and its state are what these events tell. It has not
started then: what comes after is as of any execution.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from msgspec.structs import replace

from persistence.dry_runs import DryRun
from persistence.model import Execution, ExecutionDetail, Step, StepCounts, StepState
from service.engine import paths
from service.engine.definition import Definition, Repeat
from service.engine.expressions import Allowance, ExpressionError
from service.engine.failure import Failure
from service.engine.payload import check, size
from service.engine.planning import events
from service.engine.planning.assigned import gathering_variables
from service.engine.planning.assigning import assign
from service.engine.planning.draft import COUNTED, EVENT_BYTES, Draft
from service.engine.planning.events import Event, EventBody
from service.engine.planning.folding import Folding
from service.engine.planning.inheriting import Inheritance, number_of_items
from service.engine.planning.planner import Plan
from service.engine.planning.reasons import CONDITION_IS_FALSE
from service.engine.planning.reopened import listed
from service.engine.planning.restoring import restoring
from service.engine.planning.scopes import outwards
from service.engine.slices import Work
from service.engine.violations import ValidationError, Violation

_EVENT = 60  # microseconds for one, with its row


@dataclass(frozen=True, slots=True)
class Given:
    """What the new execution is given beside its input: outputs of steps of the root by their ids, and variables."""

    outputs: Mapping[str, Any] = field(default_factory=dict)
    vars: Mapping[str, Any] = field(default_factory=dict)


def forking(
    definition: Definition,
    execution: Execution,
    input: Mapping[str, Any],
    worker: str,
    inheritance: Inheritance,
    given: Given,
    dry_run: DryRun | None = None,
) -> Work[tuple[Execution, Plan]]:
    """Return a new execution, of which nothing has happened yet, with the plan of its acceptance.

    Raises ValidationError for a given output with which a step cannot assign what its definition says.
    """
    execution = replace(execution, counts=StepCounts(total=_total(definition, inheritance.steps)))
    telling = _Telling(definition, execution, input, inheritance.steps, dry_run)
    telling.tell(events.Created(**_facts(execution)))
    for step in inheritance.steps:
        telling.inherit(step)
        yield _EVENT
    yield from _give(definition, telling, worker, given)
    if execution.lineage is not None:
        execution = replace(execution, lineage=replace(execution.lineage, inherited=len(telling.events)))
    telling.execution = execution
    state = yield from restoring(definition, telling.detail, worker)
    state = replace(state, bytes=telling.bytes + size(input) + (size(dry_run) if dry_run else 0))
    return execution, Plan(state, tuple(telling.events), tuple(telling.detail.steps))


def _facts(execution: Execution) -> dict[str, Any]:
    return {
        "workflow_id": str(execution.workflow_id),
        "workflow_name": execution.workflow_name,
        "revision": execution.revision,
        "owner": execution.owner,
        "scheduled_time": execution.scheduled_time,
        "lineage": execution.lineage,
        "dry_run": execution.is_dry_run,
    }


def _give(definition: Definition, telling: _Telling, worker: str, given: Given) -> Work[None]:
    """Add what is given, which comes after all that is inherited."""
    if given.outputs:
        state = yield from restoring(definition, telling.detail, worker)
        draft = Draft(definition, state, telling.execution.create_time)
        for index, (path, output) in enumerate(given.outputs.items()):
            spec, allowance = definition.root.by_id[path], Allowance()
            done = Step(path, spec.handler, StepState.COMPLETED, output=output, progress=100)
            variables = {**draft.variables("", attempt=0, ended=done), "result": output}
            try:
                values = assign(spec, variables, draft.state.vars, allowance)
            except (ExpressionError, ValidationError) as error:
                raise ValidationError([Violation(f"outputs[{index}].output", f"assign: {error}")]) from None
            telling.tell(events.StepCompleted(path, 0, output), "completed")
            if values:
                telling.tell(events.VariablesAssigned(path, values))
            draft.steps = draft.steps.set(path, done)
            draft.change(vars={**draft.state.vars, **values})
            yield _EVENT + allowance.spent // 1_000
    if given.vars:
        inherited = yield from gathering_variables(telling.detail)
        if found := check({**inherited, **given.vars}, "vars"):
            raise ValidationError(found)
        telling.tell(events.VariablesAssigned("", given.vars))


class _Telling:
    """Gathers the events, with counts and progress along, and what they tell."""

    def __init__(
        self,
        definition: Definition,
        execution: Execution,
        input: Mapping[str, Any],
        steps: Sequence[Step],
        dry_run: DryRun | None,
    ) -> None:
        self.events: list[Event] = []
        self.bytes = 0
        self.execution = execution
        self._folding = Folding(definition, execution, input, dry_run=dry_run)
        self._counts = execution.counts
        self._progress = 0
        self._steps = {step.path: step for step in steps}
        self._started = set[str]()

    @property
    def detail(self) -> ExecutionDetail:
        """The execution after the events so far."""
        told = self._folding.detail
        return replace(told, execution=replace(told.execution, lineage=self.execution.lineage))

    def tell(self, body: EventBody, entered: str = "", left: str = "") -> None:
        """Add an event by which a step enters one of the counts, and leaves another one."""
        changes = {left: getattr(self._counts, left) - 1} if left else {}
        if entered:
            changes[entered] = getattr(self._counts, entered) + 1
        self._counts = replace(self._counts, **changes)
        settled = self._counts.completed + self._counts.failed + self._counts.skipped
        self._progress = max(self._progress, min(99, 100 * settled // max(1, self._counts.total)))
        self.bytes += EVENT_BYTES + _payload(body)
        seq, time = len(self.events) + 1, self.execution.create_time
        is_inherited = not isinstance(body, events.Created)
        self.events.append(Event(seq, seq, time, self._progress, self._counts, body, is_inherited))
        self._folding.take(self.events[-1])

    def inherit(self, step: Step) -> None:
        """Add the events of a step that has ended, in its first iteration here; those around it have begun before."""
        scope, _ = paths.split(step.path)
        for around in reversed([each for each in outwards(scope) if each]):
            self._begin(self._steps[paths.owner(around)[0]])
        if step.input is not None and step.state is not StepState.SKIPPED:
            self._begin(step)
        self.tell(_ended(step), COUNTED[step.state], "running" if step.path in self._started else "")
        if step.assigned:
            self.tell(events.VariablesAssigned(step.path, step.assigned))

    def _begin(self, step: Step) -> None:
        if step.path not in self._started:
            self._started.add(step.path)
            started = events.StepStarted(step.path, step.handler, step.attempt, "", step.input, mocked=step.is_mocked)
            self.tell(started, "running")


def _ended(step: Step) -> EventBody:
    match step.state:
        case StepState.COMPLETED:
            return events.StepCompleted(step.path, step.attempt, step.output, mocked=step.is_mocked)
        case StepState.SKIPPED:
            is_condition = step.skip_reason.startswith(CONDITION_IS_FALSE)
            return events.StepSkipped(step.path, CONDITION_IS_FALSE if is_condition else step.skip_reason)
        case StepState.FAILED:
            failure = Failure.from_json(step.failure or {})
            return events.StepFailed(step.path, step.attempt, failure, step.failures, mocked=step.is_mocked)
    stopped = Failure.from_json(step.failure) if step.failure else None
    return events.StepCancelled(step.path, step.attempt, stopped)


def _payload(body: EventBody) -> int:
    """Return how many bytes the payload of an event has, as JSON."""
    match body:
        case events.StepStarted():
            return size(body.input)
        case events.StepCompleted():
            return size(body.output)
        case events.VariablesAssigned():
            return size(body.vars)
        case events.StepFailed():
            return size(body.failure.to_json())
    return 0


def _total(definition: Definition, steps: Sequence[Step]) -> int:
    """Return how many steps there are, those of the items that are inherited among them."""
    total, begun = len(definition.root.steps), number_of_items(steps)
    for step in steps:
        spec, items = definition.find(step.path), listed(step)
        if spec is not None and isinstance(spec.action, Repeat) and items is not None:
            number = len(items) if spec.action.until is None else begun.get(step.path, 0)
            total += number * len(spec.action.body.steps)
    return total
