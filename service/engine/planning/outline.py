"""As much of a definition as the records of an execution say."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from persistence.model import ExecutionDetail
from service.engine import paths
from service.engine.definition import Block, Call, Definition, Repeat, StepSpec
from service.engine.expressions import Template, compile_value
from service.engine.planning.state import newest
from service.engine.slices import Work, in_one_go

_LOOK = 4  # microseconds for a step

_NOTHING = compile_value("[]", frozenset())


def outline(detail: ExecutionDetail) -> Definition:
    """Return a definition with the steps that left PENDING, in the order of their starts, and no document."""
    return in_one_go(outlining(detail))


def outlining(detail: ExecutionDetail) -> Work[Definition]:
    """Do what `outline` does, in pieces: an execution may have ten thousands of steps."""
    execution = detail.execution
    begun = sorted(
        newest(detail.steps).values(),
        key=lambda step: (step.start_time or step.end_time or execution.create_time, step.path),
    )
    yield _LOOK * len(begun)
    handlers = dict[str, str]()
    for step in begun:
        handlers[paths.place(step.path)] = step.handler
        yield _LOOK
    blocks: dict[str, dict[str, str]] = defaultdict(dict)
    for place, handler in handlers.items():
        above, step_id = paths.split(place)
        blocks[above][step_id] = handler
    root = yield from _block("", blocks, execution.timeout)
    return Definition(execution.workflow_name, root, execution.timeout)


def _block(place: str, blocks: Mapping[str, Mapping[str, str]], timeout: float) -> Work[Block]:
    """Return the block at a place, of handlers by the ids of steps by the places of their blocks."""
    steps = []
    for step_id, handler in blocks.get(place, {}).items():
        yield _LOOK
        at = paths.join(place, step_id)
        if at in blocks:
            body = yield from _block(at, blocks, timeout)
            steps.append(StepSpec(step_id, Repeat(_NOTHING, body), timeout))
        else:
            steps.append(StepSpec(step_id, Call(handler, Template.constant({}, "params")), timeout))
    return Block(tuple(steps))
