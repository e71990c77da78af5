"""As much of a definition as the records of an execution say."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from datetime import datetime

from persistence.model import ExecutionDetail
from service.engine import paths
from service.engine.definition import Block, Call, Definition, Repeat, StepSpec
from service.engine.expressions import Template, compile_value
from service.engine.planning.state import finding_newest
from service.engine.slices import Work, in_one_go, parts

_LOOK = 4  # microseconds for a step

_NOTHING = compile_value("[]", frozenset())


def outline(detail: ExecutionDetail) -> Definition:
    """Return a definition with the steps that left PENDING, in the order of their starts, and no document."""
    return in_one_go(outlining(detail))


def outlining(detail: ExecutionDetail) -> Work[Definition]:
    """Do what `outline` does, in pieces: an execution may have ten thousands of steps."""
    execution = detail.execution
    first = dict[str, tuple[datetime, str, str]]()
    for part in parts(list((yield from finding_newest(detail.steps)).values())):
        for step in part:
            place, begun = paths.place(step.path), step.start_time or step.end_time or execution.create_time
            start = begun, step.path, step.handler
            first[place] = min(first.get(place, start), start)
        yield _LOOK * len(part)
    blocks: dict[str, dict[str, str]] = defaultdict(dict)
    for place in sorted(first, key=first.__getitem__):
        above, step_id = paths.split(place)
        blocks[above][step_id] = first[place][2]
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
