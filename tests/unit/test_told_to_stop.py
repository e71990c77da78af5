"""An attempt is told to stop once: what it does at its end is not cut off, and its grace does not begin anew."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from persistence.model import ExecutionState, StepState
from service.app import Engine
from service.engine.failure import OUTCOME_UNKNOWN
from tests.unit.house import PATIENCE, SCOPE, begun, opened_house, step

ONCE = {"max_attempts": 1}


def in_two_items(handler_name: str) -> dict[str, Any]:
    """Return a step in whose first item one fails when the gate of `w` is open, while one of the second runs."""
    body = [
        step("w", "gate", condition="index == 0"),
        step("x", "break", params={"times": 9}, condition="index == 0", retry_policy=ONCE),
        step("y", handler_name, condition="index == 1"),
    ]
    return {"id": "all", "for_each": {"items": "[0, 1]", "max_parallel": 2, "on_item_error": "STOP", "steps": body}}


async def cancel(engine: Engine, execution: UUID) -> None:
    """Cancel an execution, and return when what runs of it has been told."""
    await engine.executions.cancel(SCOPE, execution, "bob", "enough")
    run = engine.runner.run_of(execution)
    assert run is not None
    await run.settled()


async def test_what_an_attempt_does_at_its_end_is_not_cut_off_by_a_second_end() -> None:
    """Its item is stopped by another, and then the execution is cancelled."""
    async with opened_house() as house:
        engine = await house.open(cancel_grace=PATIENCE)
        created = await begun(engine, in_two_items("tidy"))
        await house.wait_for("all[1].y")
        house.gates["all[0].w"].set()
        await house.wait_for("all[1].y tidies")
        await cancel(engine, created.execution.id)
        house.gates["all[1].y"].set()
        detail = await house.ended(engine, created)
        assert (detail.execution.state, house.stopped) == (ExecutionState.CANCELLED, ["all[1].y"])


async def test_what_an_attempt_does_when_its_time_is_over_is_not_cut_off_by_an_end() -> None:
    async with opened_house() as house:
        engine = await house.open(cancel_grace=PATIENCE)
        created = await begun(engine, step("a", "tidy", timeout=0.05, retry_policy=ONCE))
        await house.wait_for("a tidies")
        await cancel(engine, created.execution.id)
        house.gates["a"].set()
        detail = await house.ended(engine, created)
        assert (detail.execution.state, house.stopped) == (ExecutionState.CANCELLED, ["a"])


async def test_an_attempt_that_goes_on_behind_its_time_and_an_end_is_told_to_be_running_still() -> None:
    async with opened_house() as house:
        engine = await house.open(cancel_grace=PATIENCE)
        created = await begun(engine, step("a", "deaf", timeout=0.05, retry_policy=ONCE))
        await house.wait_for("a is told")
        await cancel(engine, created.execution.id)
        run = engine.runner.run_of(created.execution.id)
        assert run is not None
        [running] = run._attempts._running.values()
        assert running.timer is not None and house.stopped == ["a"]
        running.timer._run()  # its grace is over
        detail = await house.ended(engine, created)
        [record] = detail.steps
        assert record.state is StepState.CANCELLED and record.failure is not None
        assert record.failure["code"] == OUTCOME_UNKNOWN
