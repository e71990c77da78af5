"""What expressions see of an execution, without a copy of any of it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from persistence.model import Step, StepState
from service.engine.failure import Failure


class SeenSteps(Mapping[str, Any]):
    """Those of the steps `ids` that have a record, in this order; what is seen of one is made when it is asked for."""

    __slots__ = ("_ids", "_steps")

    def __init__(self, ids: Collection[str], steps: Mapping[str, Step]) -> None:
        self._ids = ids
        self._steps = steps

    def __getitem__(self, step_id: str) -> Mapping[str, Any]:
        if step_id not in self._ids:
            raise KeyError(step_id)
        step = self._steps[step_id]
        output = step.output if step.state is StepState.COMPLETED else None
        return {"state": step.state.value, "output": output, "error": Failure.told(step.failure)}

    def __contains__(self, step_id: object) -> bool:
        return step_id in self._ids and step_id in self._steps

    def __iter__(self) -> Iterator[str]:
        return (step_id for step_id in self._ids if step_id in self._steps)

    def __len__(self) -> int:
        return sum(1 for _ in self)
