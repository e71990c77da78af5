"""What of an execution's records may still be read: by an expression that has not been evaluated, or for a result.

So much is loaded of an execution that another process has begun; of large ones that is most often little.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain

from persistence.model import ExecutionDetail, Step, StepKey, StepState, Wanted
from service.engine import paths
from service.engine.definition import (
    Ask,
    Block,
    Call,
    Decide,
    Definition,
    Listen,
    Pause,
    Repeat,
    StepSpec,
    Transform,
)
from service.engine.expressions import EVERY_STEP
from service.engine.planning.course import is_fatal, telling
from service.engine.planning.reopened import finding_earlier
from service.engine.planning.scopes import outwards
from service.engine.planning.state import finding_newest
from service.engine.slices import Work, in_one_go, parts

_LOOK = 6  # microseconds for a step

_NOTHING: frozenset[str] = frozenset()


def still_wanted(definition: Definition, detail: ExecutionDetail) -> Wanted:
    """Return what may still be read of the records of an execution that is to be driven on.

    What is open is written whole, so it is read whole, but for the input: only items, and what is asked of people
    or waited for, are read again.
    """
    return in_one_go(wanting(definition, detail))


def wanting(definition: Definition, detail: ExecutionDetail) -> Work[Wanted]:
    """Do what `still_wanted` does, in pieces: an execution may have ten thousands of steps."""
    newest = yield from finding_newest(detail.steps)
    earlier = yield from finding_earlier(definition, newest, detail.execution.reopened_seq)
    steps = [step for step in newest.values() if step.path not in earlier]
    outputs, inputs = set[StepKey](), {step.key for step in earlier.values() if _is_read_again(definition, step)}
    scopes: dict[str, dict[str, Step]] = defaultdict(dict)
    for part in parts(steps):
        for step in part:
            scope, step_id = paths.split(step.path)
            scopes[scope][step_id] = step
            if not step.state.is_end:
                outputs.add(step.key)
                if step.is_fixed or _is_read_again(definition, step):
                    inputs.add(step.key)
        yield 2 * len(part)
    begun = frozenset(outputs)
    if detail.execution.ending is not None or detail.execution.state.is_end:
        return Wanted(begun, begun, frozenset(inputs))  # nothing is evaluated any more
    for scope in scopes:
        yield _LOOK * len(scopes[scope])
        block = definition.blocks.get(paths.place(scope))
        if block is not None and _is_open(scope, scopes, earlier):
            outputs.update(_read_in(definition, block, scope, scopes))
            if _is_looked_back_at(definition, scope, scopes):
                outputs.update(step.key for step in scopes[scope].values())
    assigned = yield from _last_assigned(definition, detail.steps)
    return Wanted(frozenset(outputs), begun.union(assigned), frozenset(inputs))


def _is_read_again(definition: Definition, step: Step) -> bool:
    """Whether the planner reads the input of a step that is open or to run again: for its items, or for what happens
    when it is overdue.
    """
    spec = definition.find(step.path)
    return spec is not None and isinstance(spec.action, Repeat | Ask | Listen)


def _is_open(scope: str, scopes: Mapping[str, Mapping[str, Step]], earlier: Mapping[str, Step]) -> bool:
    """Return whether steps of a scope may still begin, or its output be asked for."""
    if not scope or paths.owner(scope)[0] in earlier:
        return True
    above, step_id = paths.split(paths.owner(scope)[0])
    owner = scopes.get(above, {}).get(step_id)
    return owner is not None and not owner.state.is_end


def _is_looked_back_at(definition: Definition, scope: str, scopes: Mapping[str, Mapping[str, Step]]) -> bool:
    """Return whether a round that is in work, or one that may begin, sees all steps of the item in a scope."""
    if not scope:
        return False
    path, index = paths.owner(scope)
    action = definition.places[paths.place(scope)].action
    return isinstance(action, Repeat) and action.until is not None and paths.item(path, index + 2) not in scopes


def _read_in(
    definition: Definition, block: Block, scope: str, scopes: Mapping[str, Mapping[str, Step]]
) -> Iterator[StepKey]:
    """Give the steps that may still be read in an open scope: its own, and those of the scopes around it."""
    steps = scopes[scope]
    ids = set(chain.from_iterable(_reads(spec, steps.get(spec.id)) for spec in block.steps))
    if block.output is not None:
        ids |= block.output.reads
    around_it = definition.places[paths.place(scope)].action if scope else None
    if isinstance(around_it, Repeat) and around_it.until is not None:
        ids |= around_it.until.reads
    for around in outwards(scope):
        found = scopes.get(around, {})
        yield from (found[step_id].key for step_id in (found if EVERY_STEP in ids else ids) if step_id in found)
    if block.output is None:
        yield from (step.key for step in telling(block, steps.get))
    if scope:  # why the step around it fails
        yield from (step.key for spec in block.steps if (step := steps.get(spec.id)) and is_fatal(spec, step))


def _reads(spec: StepSpec, record: Step | None) -> frozenset[str]:
    """Return the ids of the steps that a step may still read."""
    if record is not None and record.state.is_end:
        return _NOTHING
    condition = spec.condition.reads if record is None and spec.condition is not None else _NOTHING
    return condition.union(_action_reads(spec), *(expression.reads for _, expression in spec.assign))


def _action_reads(spec: StepSpec) -> frozenset[str]:
    match spec.action:
        case Call(params=params) | Pause(params=params) | Ask(params=params) | Listen(params=params):
            return params.reads
        case Transform(value=value):
            return value.reads
        case Decide(outcomes=outcomes):
            return _NOTHING.union(*(when.reads for _, when in outcomes if when is not None))
        case Repeat(items=items, body=body, until=until):
            own = (each.reads for each in (body.output, until) if each is not None)
            return items.reads.union(*own, *(_reads(each, None) for each in body.steps))


def _last_assigned(definition: Definition, steps: Sequence[Step]) -> Work[set[StepKey]]:
    """Return the steps that assigned the values that the variables have now."""
    last: dict[str, Step] = {}
    for part in parts(steps):
        for step in part:
            spec = definition.find(step.path)
            if spec is None or step.state not in (StepState.COMPLETED, StepState.COMPENSATED):
                continue
            for name, _ in spec.assign:
                if name not in last or (last[name].end_seq or 0) < (step.end_seq or 0):
                    last[name] = step
        yield 2 * len(part)
    return {step.key for step in last.values()}
