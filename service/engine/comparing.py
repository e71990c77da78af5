"""How two executions differ, step by step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from persistence.model import ExecutionDetail, ExecutionState, Step, StepState
from service.engine.definition import Definition
from service.engine.json_patch import Patch, patching, weighing
from service.engine.planning.assigned import gathering_variables
from service.engine.slices import Work
from service.engine.steps import first_steps

MOST_PATCHES = 2 << 20
"""Bytes that the patches of a comparison come to, about; an answer has as many again for the rest."""

_STEP = 20  # microseconds for a step, beside its payloads
_NOTHING: Any = object()


class Aspect(StrEnum):
    """What executions, or steps, differ in."""

    DEFINITION = "DEFINITION"
    INPUT = "INPUT"
    OUTPUT = "OUTPUT"
    PATH = "PATH"
    STATE = "STATE"
    ATTEMPTS = "ATTEMPTS"
    USAGE = "USAGE"
    FAILURE = "FAILURE"
    VARIABLES = "VARIABLES"


@dataclass(frozen=True, slots=True)
class Side:
    """One of the executions that are compared; not `is_defined`: with as much of a definition as its records say."""

    detail: ExecutionDetail
    definition: Definition
    is_defined: bool

    def has(self, name: str) -> bool:
        """Return whether what is stored by this name, such as `steps.fetch.output`, could be read."""
        return name not in self.detail.unreadable


@dataclass(slots=True)
class Differences:
    """What two of a kind differ in, and patches of payloads that both have; `is_cut`: there was no room for all."""

    aspects: list[Aspect] = field(default_factory=list)
    patches: dict[Aspect, Patch] = field(default_factory=dict)
    is_cut: bool = False


@dataclass(frozen=True, slots=True)
class ComparedSteps:
    """The steps of one path, None where an execution has none. Not `has_payloads`: they were not read."""

    path: str
    one: Step | None
    other: Step | None
    differences: Differences
    has_payloads: bool = True


@dataclass(frozen=True, slots=True)
class Comparison:
    """How another execution differs from one, as a whole and in its steps. Not `is_whole`: there are more steps."""

    differences: Differences
    steps: Sequence[ComparedSteps]
    is_whole: bool


def comparing(one: Side, other: Side, *, most: int, shows_definitions: bool) -> Work[Comparison]:
    """Return how the other execution differs, in the first `most` steps of each.

    Definitions, and the inputs of steps, which repeat what stands in them, are compared if `shows_definitions`.
    """
    work = _Comparing(one, other, shows_definitions=shows_definitions)
    whole = yield from work.executions()
    first = yield from first_steps(one.definition, one.detail, most + 1)
    second = yield from first_steps(other.definition, other.detail, most + 1)
    is_whole = len(first) <= most and len(second) <= most
    steps = list[ComparedSteps]()
    for path, a, b in _aligned([step for _, step in first[:most]], [step for _, step in second[:most]]):
        yield _STEP
        if is_whole or (a is not None and b is not None):
            steps.append((yield from work.steps(path, a, b)))
    for aspect in Aspect.PATH, Aspect.ATTEMPTS:
        if any(aspect in each.differences.aspects for each in steps):
            whole.aspects.append(aspect)
    return Comparison(whole, steps, is_whole)


def has_run(step: Step | None) -> bool:
    """Return whether an execution has come to a step and run it."""
    if step is None:
        return False
    return step.state not in (StepState.PENDING, StepState.SKIPPED, StepState.CANCELLED) or step.start_time is not None


class _Comparing:
    """Compares, while there is room for patches."""

    def __init__(self, one: Side, other: Side, *, shows_definitions: bool) -> None:
        self._sides = one, other
        self._shows_definitions = shows_definitions
        self._left = MOST_PATCHES
        one_runs, other_runs = one.detail.execution, other.detail.execution
        self._are_defined = shows_definitions and one.is_defined and other.is_defined
        is_same = (one_runs.workflow_id, one_runs.revision) == (other_runs.workflow_id, other_runs.revision)
        self._may_be_defined_otherwise = self._are_defined and not is_same
        self._specs = [_specs(each.definition) for each in self._sides] if self._may_be_defined_otherwise else [{}, {}]

    def executions(self) -> Work[Differences]:
        """Return what the executions differ in, but for their steps."""
        found = Differences()
        one, other = (side.detail for side in self._sides)
        if self._may_be_defined_otherwise:
            documents = [side.definition.document for side in self._sides]
            yield from self._payload(found, Aspect.DEFINITION, *documents)
        if all(side.has("input") for side in self._sides):
            yield from self._payload(found, Aspect.INPUT, one.input, other.input)
        if all(side.has("result") for side in self._sides):
            results = [_result(each) for each in (one, other)]
            yield from self._payload(found, Aspect.OUTPUT, *results)
        first = yield from gathering_variables(one)
        second = yield from gathering_variables(other)
        yield from self._payload(found, Aspect.VARIABLES, first, second)
        a, b = one.execution, other.execution
        _plain(found, Aspect.STATE, a.state, b.state)
        _plain(found, Aspect.USAGE, a.usage, b.usage)
        _plain(found, Aspect.FAILURE, failure_code(a.failure), failure_code(b.failure))
        return found

    def steps(self, path: str, one: Step | None, other: Step | None) -> Work[ComparedSteps]:
        """Return what the steps of one path differ in."""
        found = Differences()
        if self._may_be_defined_otherwise and "[" not in path:
            yield from self._payload(found, Aspect.DEFINITION, *(each.get(path, _NOTHING) for each in self._specs))
        if one is None or other is None:
            found.aspects.append(Aspect.PATH)
            return ComparedSteps(path, one, other, found)
        has_payloads = True
        if has_run(one) != has_run(other):
            found.aspects.append(Aspect.PATH)
        elif any(step.key in side.detail.omitted for step, side in zip((one, other), self._sides, strict=True)):
            has_payloads = False
        else:
            yield from self._payloads(found, path, one, other)
        _plain(found, Aspect.STATE, one.state, other.state)
        _plain(found, Aspect.ATTEMPTS, one.attempt, other.attempt)
        _plain(found, Aspect.USAGE, one.usage, other.usage)
        _plain(found, Aspect.FAILURE, failure_code(one.failure), failure_code(other.failure))
        return ComparedSteps(path, one, other, found, has_payloads)

    def _payloads(self, found: Differences, path: str, one: Step, other: Step) -> Work[None]:
        if self._shows_definitions and self._have(path, "input"):
            inputs = [_NOTHING if step.input is None else step.input for step in (one, other)]
            yield from self._payload(found, Aspect.INPUT, *inputs)
        if self._have(path, "output"):
            outputs = [step.output if step.state is StepState.COMPLETED else _NOTHING for step in (one, other)]
            yield from self._payload(found, Aspect.OUTPUT, *outputs)
        if self._have(path, "assigned"):
            yield from self._payload(found, Aspect.VARIABLES, one.assigned or {}, other.assigned or {})

    def _have(self, path: str, name: str) -> bool:
        return all(side.has(f"steps.{path}.{name}") for side in self._sides)

    def _payload(self, found: Differences, aspect: Aspect, old: Any, new: Any) -> Work[None]:
        if old is _NOTHING or new is _NOTHING:
            if old is not new:
                found.aspects.append(aspect)
            return
        patch = yield from patching(old, new)
        if not patch:
            return
        found.aspects.append(aspect)
        weight = yield from weighing(patch)
        if weight > self._left:
            found.is_cut = True
        else:
            self._left -= weight
            found.patches[aspect] = patch


def _aligned(one: Sequence[Step], other: Sequence[Step]) -> Iterator[tuple[str, Step | None, Step | None]]:
    """Give the steps by path in the order of one; those that only the other has behind what they follow there."""
    ours, theirs = {step.path: step for step in one}, {step.path: step for step in other}
    behind: dict[str, list[str]] = {}
    last = ""
    for path in theirs:
        if path in ours:
            last = path
        else:
            behind.setdefault(last, []).append(path)
    for at in ("", *ours):
        if at:
            yield at, ours[at], theirs.get(at)
        for path in behind.get(at, ()):
            yield path, None, theirs[path]


def _plain(found: Differences, aspect: Aspect, old: object, new: object) -> None:
    if old != new:
        found.aspects.append(aspect)


def _result(detail: ExecutionDetail) -> Any:
    return detail.result if detail.execution.state is ExecutionState.COMPLETED else _NOTHING


def failure_code(failure: Mapping[str, Any] | None) -> str:
    """Return the code of a failure as it is stored, empty where there is none."""
    code = (failure or {}).get("code", "")
    return code if isinstance(code, str) else ""


def _specs(definition: Definition) -> Mapping[str, Any]:
    return {step["id"]: step for step in definition.document.get("steps", ())}
