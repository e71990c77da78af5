"""What a new execution inherits of the one that it is made from: the rule of forks.

What the chosen step and all that comes after it do not include is inherited where it is done; what is parallel to them
and not done runs. What is inherited never runs again. Of a `for_each` that is done its items are inherited, too.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from persistence.model import Step, StepState
from service.engine import paths
from service.engine.definition import Block, Definition
from service.engine.planning.course import is_fatal
from service.engine.slices import Work, parts

_LOOK, _OTHERWISE = 4, 10  # microseconds for a step

MOST_INHERITED = 1_000
"""Steps that are inherited at most, in one commit."""

_DONE = frozenset({StepState.COMPLETED, StepState.SKIPPED, StepState.FAILED})


class CheckKind(StrEnum):
    """What is recorded and does not fit; the names are those of the proto."""

    INPUT = "INPUT"
    HANDLER = "HANDLER"
    NOT_DONE = "NOT_DONE"


@dataclass(frozen=True, slots=True)
class Check:
    """Something recorded that does not fit what is to be made of it, and what would be right."""

    kind: CheckKind
    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" if self.path else self.message


@dataclass(frozen=True, slots=True)
class Inheritance:
    """What is inherited: steps as they were recorded, in the order in which they ended; what does not fit; and the
    steps of the root that run, of which no output can be given.
    """

    steps: Sequence[Step] = ()
    checks: Sequence[Check] = ()
    running: frozenset[str] = frozenset()


def inheriting(
    definition: Definition, steps: Mapping[str, Step], start: str, given: Collection[str] = ()
) -> Work[Inheritance]:
    """Return what of the newest iterations of an execution is inherited by one that begins from the step `start`.

    `definition` is that of the new one. `start` is a step of its root; those `given` are done, whatever is recorded.
    """
    root = definition.root
    after = yield from _reached([start], root.successors)
    undone = set[str]()
    for part in parts(root.steps):
        for spec in part:
            if spec.id not in after and spec.id not in given and not _is_done(root, spec.id, steps.get(spec.id)):
                undone.add(spec.id)
        yield _LOOK * len(part)
    before = yield from _reached(root.predecessors[start], root.predecessors)
    running = yield from _reached([start, *undone], root.successors, frozenset(given) - after)
    checks = [_not_done(spec.id, start) for spec in root.steps if spec.id in before and spec.id in undone]
    items = yield from _items_by_root(steps)
    kept = list[Step]()
    for part in parts(root.steps):
        for spec in part:
            if spec.id in running or spec.id in given:
                continue
            of_it = [steps[spec.id], *items[spec.id]]
            for some in parts(of_it):
                if (check := _run_otherwise(definition, spec.id, some)) is not None:
                    checks.append(check)
                    break
                yield _OTHERWISE * len(some)
            kept += of_it
            if len(kept) > MOST_INHERITED:
                # So much is refused, whatever follows.
                return Inheritance(kept[: MOST_INHERITED + 1], checks, frozenset(running))
    kept.sort(key=lambda step: step.end_seq or 0)
    return Inheritance(kept, checks, frozenset(running))


def _is_done(root: Block, step_id: str, step: Step | None) -> bool:
    """Return whether others may go on with what became of a step."""
    return step is not None and step.state in _DONE and not is_fatal(root.by_id[step_id], step)


def _reached(begin: Iterable[str], edges: Mapping[str, Sequence[str]], without: Collection[str] = ()) -> Work[set[str]]:
    """Return what is reached by edges, those that it begins with among them; nothing `without` is gone through."""
    left = [step_id for step_id in begin if step_id not in without]
    found = set(left)
    while left:
        following = edges[left.pop()]
        new = [step_id for step_id in following if step_id not in found and step_id not in without]
        found.update(new)
        left += new
        yield 1 + len(following) // _LOOK
    return found


def _items_by_root(steps: Mapping[str, Step]) -> Work[Mapping[str, list[Step]]]:
    """Return the steps of items that have ended, by the step of the root that they are of."""
    found = defaultdict[str, list[Step]](list)
    for part in parts(list(steps.values())):
        for step in part:
            if "[" in step.path and step.state.is_end:
                found[step.path.partition("[")[0]].append(step)
        yield _LOOK * len(part)
    return found


def _not_done(step_id: str, start: str) -> Check:
    message = f"lies before {start} and is not done; begin from it, or give its output"
    return Check(CheckKind.NOT_DONE, step_id, message)


def _run_otherwise(definition: Definition, root: str, steps: Sequence[Step]) -> Check | None:
    """Return what tells that a step of the root was run otherwise, by these of it, None if it was not."""
    for step in steps:
        if (how := _how_otherwise(definition, step)) is not None:
            message = f"{how}; begin from {root}, or give the output of {root}"
            return Check(CheckKind.HANDLER, step.path, message)
    return None


def _how_otherwise(definition: Definition, step: Step) -> str | None:
    spec = definition.find(step.path)
    if spec is None:
        return f"was run by {step.handler}, and the revision has no such step"
    if spec.handler != step.handler and step.state is not StepState.SKIPPED:
        return f"was run by {step.handler}, and the revision runs it by {spec.handler}"
    # Whoever loads an execution tells by its definition which steps have its variables.
    if step.state is StepState.COMPLETED and {name for name, _ in spec.assign} != set(step.assigned or ()):
        return "assigns other variables in the revision than it did"
    return None


def number_of_items(steps: Iterable[Step]) -> Mapping[str, int]:
    """Return how many items have begun of each step of which there are steps of items, by its path."""
    found = defaultdict[str, int](int)
    for step in steps:
        scope, _ = paths.split(step.path)
        if scope:
            path, index = paths.owner(scope)
            found[path] = max(found[path], index + 1)
    return found
