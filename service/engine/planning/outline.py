"""As much of a definition as the records of an execution say."""

from __future__ import annotations

from collections.abc import Mapping

from persistence.model import ExecutionDetail
from service.engine import paths
from service.engine.definition import Block, Call, Definition, Repeat, StepSpec
from service.engine.expressions import Template, compile_value
from service.engine.planning.state import newest

_NOTHING = compile_value("[]", frozenset())


def outline(detail: ExecutionDetail) -> Definition:
    """Return a definition with the steps that left PENDING, in the order of their starts, and no document."""
    execution = detail.execution
    begun = sorted(
        newest(detail.steps).values(),
        key=lambda step: (step.start_time or step.end_time or execution.create_time, step.path),
    )
    handlers = {paths.place(step.path): step.handler for step in begun}
    return Definition(execution.workflow_name, _block("", handlers, execution.timeout), execution.timeout)


def _block(scope: str, handlers: Mapping[str, str], timeout: float) -> Block:
    """Return the block at a place."""
    steps = []
    for place, handler in handlers.items():
        above, step_id = paths.split(place)
        if above == scope:
            body = _block(place, handlers, timeout)
            action = Repeat(_NOTHING, body) if body.steps else Call(handler, Template.constant({}, "params"))
            steps.append(StepSpec(step_id, action, timeout))
    return Block(tuple(steps))
