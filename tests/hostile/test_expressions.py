"""FAULTS H9: no expression holds the loop, nor do many, and each ends with a value or a clear error."""

from __future__ import annotations

from typing import Any

import pytest

import flowkeep
from flowkeep.payload import from_value
from flowkeep.v1.execution_pb2 import Execution
from tests.hostile import executing
from tests.hostile.attacked import Attacked, token
from tests.hostile.cases import Case
from tests.hostile.expressions import CONFUSION, OF, WORK
from tests.integration.stage import step, wait_step

ROWS = OF["rows"][:600]
HEAVY = "input.rows.all(x, x.v != -1 && x.name != 'zz')"
COMPLETED, FAILED = Execution.STATE_COMPLETED, Execution.STATE_FAILED


async def ended(attacked: Attacked, name: str, payload: dict[str, Any], **definition: Any) -> Execution:
    """Run a workflow, and return its execution when that has ended."""
    ended: Execution = await attacked.attacker.run(executing.ended, attacked.target, token(), name, payload, definition)
    return ended


async def outcome(client: flowkeep.Client, cel: str, of: Any) -> Any:
    """Return what an expression gives, or how it is refused or fails."""
    definition = {"name": "computes", "steps": [step("one", "transform", expression=cel)]}
    if problems := await client.validate_workflow(definition):
        assert {problem.field for problem in problems} == {"steps[0].params.expression"}
        return problems[0].description
    await client.apply([definition])
    execution = await client.execute("computes", {"of": of}, wait=True)
    if execution.state == COMPLETED:
        return from_value(execution.result)
    assert execution.failure.details["code"] == "EXPRESSION_ERROR"
    return execution.failure.message


@pytest.mark.parametrize("cases", [WORK, CONFUSION], ids=["work", "confusion"])
async def test_each_has_a_value_or_a_clear_error(attacked: Attacked, cases: tuple[Case, ...]) -> None:
    async with attacked.client() as client:
        for case in cases:
            async with attacked.case(case.name):
                cel, of = case.given
                found = await outcome(client, cel, OF[of])
                assert case.right in found if isinstance(case.right, str) else case.right == found, found


async def test_conditions_like_that_are_refused_or_fail(attacked: Attacked) -> None:
    async with attacked.client() as client:
        for case in CONFUSION:
            async with attacked.case(case.name):
                one = step("one", "transform", value=1, condition=f"{case.given[0]} == 1")
                problems = await client.validate_workflow({"name": "confused", "steps": [one]})
                assert {problem.field for problem in problems} <= {"steps[0].condition"}


async def test_64_heavy_assigns_fail_together_and_light_ones_do_not(attacked: Attacked) -> None:
    heavy = step("one", "transform", value=1, assign={f"v{n}": HEAVY for n in range(64)})
    async with attacked.beside("64 heavy assigns") as seen:
        for _ in seen.rounds():
            last = await ended(attacked, "assigns", {"rows": ROWS}, steps=[heavy])
            assert last.state == FAILED and "assign: may be too much work" in last.failure.message
    assign = {f"v{n}": f"result[{n}] + {n}" for n in range(64)}
    light = step("one", "transform", value=list(range(64)), assign=assign)
    assert (await ended(attacked, "assigns", {}, steps=[light])).state == COMPLETED


async def test_64_heavy_outcomes_fail_together_and_fewer_do_not(attacked: Attacked) -> None:
    """The planner looks at them in one go, in which nobody else has the loop."""

    def deciding(count: int) -> dict[str, Any]:
        return step("one", "condition", outcomes=[{"name": f"o{n}", "when": f"!{HEAVY}"} for n in range(count)])

    async with attacked.beside("64 heavy outcomes") as seen:
        for _ in seen.rounds():
            last = await ended(attacked, "outcomes", {"rows": ROWS}, steps=[deciding(64)])
            assert last.state == FAILED and "may be too much work" in last.failure.message
    output = "${ steps.one.output.outcome }"
    last = await ended(attacked, "outcomes", {"rows": ROWS}, steps=[deciding(2)], output=output)
    assert from_value(last.result) == "none"


async def test_50_heavy_conditions(attacked: Attacked) -> None:
    steps = [step(f"s{n}", "transform", value=1, condition=f"!{HEAVY}") for n in range(50)]
    async with attacked.beside("50 heavy conditions") as seen:
        for _ in seen.rounds():
            last = await ended(attacked, "conditions", {"rows": ROWS}, ordering="GRAPH", steps=steps)
            assert last.state == COMPLETED and last.step_counts.skipped == 50


async def test_30_heavy_executions_woken_at_once(attacked: Attacked) -> None:
    one = step("one", "transform", value=1, condition=HEAVY)
    async with attacked.client() as client:
        await client.apply([{"name": "heavy", "steps": [one]}])
        async with attacked.beside("30 heavy executions") as seen:
            for _ in seen.rounds():
                woken = executing.woken, attacked.target, token(), "heavy", {"rows": ROWS}, 30
                assert await attacked.attacker.run(*woken) == [1] * 30


async def test_30_heavy_timers_at_once(attacked: Attacked) -> None:
    waits = [wait_step(f"w{n}", 0.3) | {"assign": {f"v{n}": HEAVY}} for n in range(30)]
    async with attacked.beside("30 heavy timers") as seen:
        for _ in seen.rounds():
            last = await ended(attacked, "timers", {"rows": ROWS}, ordering="GRAPH", steps=waits)
            assert last.state == COMPLETED and len(last.vars.fields) == 30


async def test_300_steps_at_once_with_large_payloads(attacked: Attacked) -> None:
    steps = [step(f"s{n}", "transform", value="${ input.of[0] }") for n in range(300)]
    async with attacked.beside("300 steps") as seen:
        for _ in seen.rounds():
            last = await ended(attacked, "steps", {"of": OF["many"]}, ordering="GRAPH", steps=steps)
            assert last.state == COMPLETED
