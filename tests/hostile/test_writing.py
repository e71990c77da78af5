"""FAULTS P21: what one call writes is bounded, in bytes and in how often it is written, and others go on beside it."""

from __future__ import annotations

from typing import Any

import pytest

import flowkeep
from flowkeep.errors import InvalidArgumentError
from tests.hostile import executing
from tests.hostile.attacked import MOST_WRITTEN, Attacked, token
from tests.hostile.cases import Case, each
from tests.integration.stage import step

INPUT = {"b": "x" * 250_000}
TOO_LARGE = "EXECUTION_TOO_LARGE"


def many(count: int, handler: str = "transform", **fields: Any) -> list[dict[str, Any]]:
    """So many steps that do the same; `{n}` in a text is the number of each."""
    return [step(f"s{n}", handler, **{k: numbered(v, n) for k, v in fields.items()}) for n in range(count)]


def numbered(value: Any, number: int) -> Any:
    return value.replace("{n}", str(number)) if isinstance(value, str) else value


FILLING = [
    Case("the same parameters 500 times", many(500, value="${ input.b }"), TOO_LARGE),
    Case("other parameters each time", many(40, value="${ input.b + '{n}' }"), TOO_LARGE),
    Case("outputs alone", many(40, expression="input.b + '{n}'"), TOO_LARGE),
    Case("variables", many(500, value="{n}", assign={"v": "input.b"}), TOO_LARGE),
    Case("steps that may fail", many(500, value="${ input.b }", on_error="CONTINUE"), ""),
    Case("waits that are over", many(100, "wait", duration="0.000001s"), ""),
    Case("few and large", many(5, value="${ input.b }"), ""),
]
PAUSES = ("initial_interval", "max_interval")


@each(FILLING)
async def test_an_execution_writes_no_more_than_it_may_and_ends(attacked: Attacked, case: Case):
    filling = executing.ended, attacked.target, token(), "fills", INPUT, {"steps": case.given}
    async with attacked.beside(case.name) as seen:
        for _ in seen.rounds():
            ended = await attacked.attacker.run(*filling)
            assert ended.state in (flowkeep.Execution.STATE_COMPLETED, flowkeep.Execution.STATE_FAILED)
            assert ended.failure.details["code"] == case.right if case.right else not ended.HasField("failure")
            # What ends a step is written in any case, and so is the result.
            assert ended.written_bytes < MOST_WRITTEN + len(INPUT["b"]) + 2_000 * len(case.given)


@pytest.mark.parametrize("pause", PAUSES)
async def test_a_pause_that_is_none_is_refused(attacked: Attacked, pause: str):
    policy = {"max_attempts": 1000, "initial_interval": "10ms", "max_interval": "10ms"} | {pause: "0.000000001s"}
    async with attacked.client() as client:
        with pytest.raises(InvalidArgumentError) as refused:
            await client.apply(
                [{"name": "spins", "steps": [step("a", "call_api", url="https://example.com", retry_policy=policy)]}]
            )
    (field, description), *_ = refused.value.violations
    assert field.endswith(f"steps[0].retry_policy.{pause}")
    assert "0.01" in description or "10ms" in description
