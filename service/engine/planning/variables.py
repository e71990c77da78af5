"""What expressions see of an execution, without a copy of any of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from persistence.model import Step, StepState
from service.engine import paths
from service.engine.definition import PREVIOUS, Block, Call, Definition, StepSpec
from service.engine.expressions import EVERY_STEP
from service.engine.failure import Failure
from service.engine.planning.scopes import block_of, outwards


class SeenSteps(Mapping[str, Any]):
    """Those steps that have a record, of a scope and of those around it; what is seen of one is made when asked for.

    A step hides those around it that have the same id, also before it has a record.
    """

    __slots__ = ("_definition", "_scope", "_steps")

    def __init__(self, definition: Definition, scope: str, steps: Mapping[str, Step]) -> None:
        self._definition, self._scope, self._steps = definition, scope, steps

    def __getitem__(self, step_id: str) -> Mapping[str, Any]:
        return _seen(self._steps[self._path(step_id)])

    def __contains__(self, step_id: object) -> bool:
        return self._path(step_id) in self._steps

    def __iter__(self) -> Iterator[str]:
        ids = dict.fromkeys(step_id for _, block in self._blocks() for step_id in block)
        return (step_id for step_id in ids if step_id in self)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def _path(self, step_id: object) -> str:
        """Return the path of the innermost step of an id; of one that there is not, a path that there is not."""
        for scope, block in self._blocks():
            if step_id in block:
                return paths.join(scope, str(step_id))
        return ""

    def _blocks(self) -> Iterator[tuple[str, Mapping[str, StepSpec]]]:
        return ((scope, block_of(self._definition, scope).by_id) for scope in outwards(self._scope))


class StepsOfItem(Mapping[str, Any]):
    """Those steps of one item that have a record, without those around it."""

    __slots__ = ("_block", "_scope", "_steps")

    def __init__(self, block: Block, scope: str, steps: Mapping[str, Step]) -> None:
        self._block, self._scope, self._steps = block, scope, steps

    def __getitem__(self, step_id: str) -> Mapping[str, Any]:
        if step_id not in self._block.by_id:
            raise KeyError(step_id)
        return _seen(self._steps[paths.join(self._scope, step_id)])

    def __contains__(self, step_id: object) -> bool:
        return step_id in self._block.by_id and paths.join(self._scope, str(step_id)) in self._steps

    def __iter__(self) -> Iterator[str]:
        return (step_id for step_id in self._block.by_id if step_id in self)

    def __len__(self) -> int:
        return sum(1 for _ in self)


def _seen(step: Step) -> Mapping[str, Any]:
    output = step.output if step.state is StepState.COMPLETED else None
    return {"state": step.state.value, "output": output, "error": Failure.told(step.failure)}


def shown(spec: StepSpec, variables: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what a handler is shown: of steps what its parameters read, so that nothing else need be at hand."""
    all_but_steps = dict(variables)
    all_but_steps.pop(PREVIOUS, None)
    if not isinstance(spec.action, Call) or EVERY_STEP in spec.action.params.reads:
        return all_but_steps
    params, steps = spec.action.params, variables["steps"]
    seen = {path: steps[path] for path in params.references if path in steps} if params.references else {}
    all_but_steps["steps"] = {p: e if p in params.reads else {"state": e["state"]} for p, e in seen.items()}
    return all_but_steps
