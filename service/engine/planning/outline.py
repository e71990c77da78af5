"""As much of a definition as the records of an execution say."""

from __future__ import annotations

from persistence.model import ExecutionDetail
from service.engine.definition import Block, Call, Definition, StepSpec
from service.engine.expressions import Template
from service.engine.planning.state import newest


def outline(detail: ExecutionDetail) -> Definition:
    """Return a definition with the steps that left PENDING, in the order of their starts, and no document."""
    nothing = Template.parse({}, frozenset(), "params")
    execution = detail.execution
    begun = sorted(
        newest(detail.steps).values(),
        key=lambda step: (step.start_time or step.end_time or execution.create_time, step.path),
    )
    steps = tuple(StepSpec(step.path, Call(step.handler, nothing), execution.timeout, nothing) for step in begun)
    return Definition(execution.workflow_name, Block(steps), execution.timeout)
