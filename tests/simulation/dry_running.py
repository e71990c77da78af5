"""Dry runs send nothing, and their steps fail as often as their mocks say, whoever drives them (DR1)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from persistence.dry_runs import DryRun, Mock, MockFailure
from persistence.model import StepState
from tests.simulation.folding import given_by_hand

if TYPE_CHECKING:
    from tests.simulation.world import World

CODE = "MOCKED"
"""With which mocks fail."""


def dry_run(document: Mapping[str, Any], fails: int, *, skips_waits: bool) -> DryRun:
    """Return mocks for what of a workflow may send something, which fail so many times before they give an output."""
    failure = MockFailure(CODE, retryable=True, times=fails) if fails else None
    mocks = {step["id"]: Mock({"value": 1}, failure) for step in document["steps"] if step["handler"] == "effect"}
    for step in document["steps"]:
        if step["handler"] == "create_task":
            mocks[step["id"]] = Mock({"outcome": step["params"]["outcomes"][0], "completed_by": "nobody"})
    return DryRun(mocks, skips_waits=skips_waits)


def check_dry_runs(world: World) -> Iterator[str]:
    """Give what dry runs have sent, whom they have asked, and steps that did not come to what their mocks say."""
    rows = world.database.tables.executions
    dry = {execution_id: row for execution_id, row in rows.items() if row.execution.is_dry_run}
    for call in world.history.calls:
        if call.execution_id in dry and not call.is_harmless:
            yield f"DR1: {call.process} called {call.path} of the dry run {call.execution_id} at {call.begun:.3f}"
    for task in world.database.tables.tasks.values():
        if task.execution_id in dry:
            yield f"DR1: the dry run {task.execution_id} asks people: {task.path}"
    for execution_id, row in dry.items():
        if row.dry_run is None:
            yield f"DR1: the dry run {execution_id} has lost its mocks"
            continue
        given = given_by_hand(row.events)
        for (path, _), step in row.steps.items():
            mock = row.dry_run.mocks.get(path)
            if step.state is not StepState.COMPLETED or step.key in given or (mock is None and not step.is_mocked):
                continue
            times = mock.failure.times if mock is not None and mock.failure is not None else 0
            if mock is None or (step.is_mocked, step.failures, step.output) != (True, times, mock.output):
                yield f"DR1: {path} of {execution_id} failed {step.failures} times and gave {step.output}: {mock}"
