"""Comparisons of executions, domain to wire."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

from google.protobuf.duration_pb2 import Duration

from flowkeep.v1 import comparison_pb2 as pb
from persistence.model import Execution, ExecutionDetail, Step, StepKey
from service.api.encoded import Encoded, tag
from service.api.events import usage_message
from service.api.executions import STEPS_SHOWN, execution_message
from service.api.steps import Sight, fill, step_state
from service.api.times import duration
from service.api.values import value_bytes
from service.engine.comparing import Aspect, ComparedSteps, Comparison, Differences, Side, comparing, failure_code
from service.engine.slices import in_slices
from service.engine.workflows import Workflows

LARGEST_COMPARED = 8 << 20
"""Characters of the payloads of each execution that are compared."""

_STEPS = tag(pb.CompareExecutionsResponse, "steps")
_ASPECTS = {aspect: pb.Aspect.Value(f"ASPECT_{aspect.value}") for aspect in Aspect}
_PATCHES = {
    Aspect.INPUT: "input_patch",
    Aspect.OUTPUT: "output_patch",
    Aspect.VARIABLES: "variables_patch",
    Aspect.DEFINITION: "definition_patch",
}
_OF_EXECUTIONS = {aspect: tag(pb.CompareExecutionsResponse, name) for aspect, name in _PATCHES.items()}
_OF_STEPS = {aspect: tag(pb.StepComparison, name) for aspect, name in _PATCHES.items()}


@dataclass(frozen=True, slots=True)
class Pair:
    """Two executions as they were read."""

    one: ExecutionDetail
    other: ExecutionDetail

    @property
    def omitted(self) -> frozenset[StepKey]:
        """Keys of the steps whose payloads were not read."""
        return self.one.omitted | self.other.omitted


async def comparison_response(pair: Pair, workflows: Workflows, sight: Sight) -> bytes:
    """Return the serialized answer of CompareExecutions, as far as the caller may see it."""
    one, other = [Side(each, *await workflows.shown(each)) for each in (pair.one, pair.other)]
    found = await in_slices(comparing(one, other, most=STEPS_SHOWN, shows_definitions=sight.definition))
    gaps = [
        f"{name}.{lost}"
        for name, side in (("execution", one), ("other_execution", other))
        for lost in (*side.detail.unreadable, *(() if side.is_defined else ("definition",)))
    ]
    encoded, now = Encoded(), datetime.now(UTC)
    await _add_patches(encoded, found.differences, _OF_EXECUTIONS, "", gaps)
    for each in found.steps:
        encoded.add_field(_STEPS, await _step(each, now, gaps))
        await encoded.rest()
    encoded.add(
        pb.CompareExecutionsResponse(
            execution=execution_message(one.detail.execution),
            other_execution=execution_message(other.detail.execution),
            differs_in=[_ASPECTS[aspect] for aspect in found.differences.aspects],
            patches_omitted=found.differences.is_cut,
            totals=_totals(found, one.detail.execution, other.detail.execution, now),
            steps_omitted=not found.is_whole,
            definition_withheld=not sight.definition,
            unreadable=dict.fromkeys(gaps),
        )
    )
    return encoded.serialized()


async def _step(found: ComparedSteps, now: datetime, gaps: list[str]) -> Encoded:
    encoded = Encoded()
    await _add_patches(encoded, found.differences, _OF_STEPS, f"steps.{found.path}.", gaps)
    encoded.add(
        pb.StepComparison(
            path=found.path,
            step=None if found.one is None else _compared(found.one, now),
            other_step=None if found.other is None else _compared(found.other, now),
            differs_in=[_ASPECTS[aspect] for aspect in found.differences.aspects],
            payloads_omitted=not found.has_payloads,
            patches_omitted=found.differences.is_cut,
        )
    )
    return encoded


async def _add_patches(
    encoded: Encoded, found: Differences, tags: Mapping[Aspect, bytes], place: str, gaps: list[str]
) -> None:
    for aspect, patch in found.patches.items():
        fill(encoded, tags[aspect], partial(value_bytes, patch), f"{place}{_PATCHES[aspect]}", gaps)
        await encoded.rest()


def _compared(step: Step, now: datetime) -> pb.ComparedStep:
    message = pb.ComparedStep(
        handler=step.handler,
        state=step_state(step),
        iteration=step.iteration,
        attempt=step.attempt,
        usage=usage_message(step.usage),
        failure_code=failure_code(step.failure),
    )
    if step.start_time is not None:
        message.duration.CopyFrom(_span(step.start_time, step.end_time or now))
    return message


def _totals(found: Comparison, one: Execution, other: Execution, now: datetime) -> pb.ComparisonTotals:
    steps = found.steps
    totals = pb.ComparisonTotals(
        steps=len(steps),
        differing_steps=sum(bool(each.differences.aspects) for each in steps),
        missing_steps=sum(each.other is None for each in steps),
        added_steps=sum(each.one is None for each in steps),
        attempts=sum(each.one.attempt for each in steps if each.one is not None),
        other_attempts=sum(each.other.attempt for each in steps if each.other is not None),
    )
    for execution, target in ((one, totals.duration), (other, totals.other_duration)):
        if execution.start_time is not None:
            target.CopyFrom(_span(execution.start_time, execution.end_time or now))
    return totals


def _span(start: datetime, end: datetime) -> Duration:
    return duration(max(0.0, (end - start).total_seconds()))
