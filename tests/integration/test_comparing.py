"""Two executions, compared step by step."""

from __future__ import annotations

from typing import Any

import pytest

from flowkeep import from_value
from flowkeep.definition import short_name
from flowkeep.v1.comparison_pb2 import Aspect, CompareExecutionsResponse, StepComparison
from service.api import comparisons
from service.engine import comparing
from tests.integration.stage import Served, made, step


def aspects(found: CompareExecutionsResponse | StepComparison) -> set[str]:
    return {short_name(Aspect.DESCRIPTOR, each) for each in found.differs_in}


def by_path(found: CompareExecutionsResponse) -> dict[str, StepComparison]:
    return {each.path: each for each in found.steps}


def replaced(value: Any, path: str = "") -> list[dict[str, Any]]:
    return [{"op": "replace", "path": path, "value": value}]


async def test_one_workflow_with_two_inputs(served: Served) -> None:
    each = step("inner", "transform", value="${ item }")
    name = await made(
        served.client,
        step("same", "transform", value=1),
        step("given", "transform", value={"n": "${ input.n }", "text": "x" * 200}, assign={"v": "result.n"}),
        step("perhaps", "transform", value=2, condition="input.n > 1"),
        {"id": "all", "for_each": {"items": "input.items", "steps": [each]}},
        step("tried", "fail", times="${ input.n - 1 }", retry_policy={"initial_interval": 0.01, "max_attempts": 3}),
        step("last", "fail", times="${ input.n > 1 ? 9 : 0 }"),
        output={"v": "${ vars.v }"},
    )
    one = await served.client.execute(name, {"n": 1, "items": [7]}, wait=True)
    other = await served.client.execute(name, {"n": 2, "items": [7, 8]}, wait=True)

    found = await served.client.compare_executions(one.execution_id, other.execution_id)
    assert aspects(found) == {"INPUT", "OUTPUT", "PATH", "STATE", "ATTEMPTS", "FAILURE", "VARIABLES"}
    assert (found.execution.execution_id, found.other_execution.execution_id) == (one.execution_id, other.execution_id)
    assert from_value(found.variables_patch) == replaced(2, "/v")
    assert not found.HasField("output_patch")  # one of them has none
    assert not found.steps_omitted and not found.patches_omitted and not found.definition_withheld
    steps = by_path(found)
    assert list(steps) == ["same", "given", "perhaps", "all", "all[0].inner", "all[1].inner", "tried", "last"]
    assert {path: aspects(each) for path, each in steps.items()} == {
        "same": set(),
        "given": {"OUTPUT", "VARIABLES"},
        "perhaps": {"PATH", "STATE"},
        "all": {"INPUT", "OUTPUT"},
        "all[0].inner": set(),
        "all[1].inner": {"PATH"},
        "tried": {"INPUT", "OUTPUT", "ATTEMPTS"},
        "last": {"INPUT", "OUTPUT", "STATE", "FAILURE"},
    }
    assert from_value(steps["given"].output_patch) == replaced(2, "/n")
    assert not steps["all[1].inner"].HasField("step")
    assert (found.totals.steps, found.totals.differing_steps) == (8, 6)
    assert (found.totals.missing_steps, found.totals.added_steps) == (0, 1)
    assert found.totals.other_attempts == found.totals.attempts + 1
    assert found.totals.HasField("duration") and steps["last"].other_step.failure_code == "BROKEN"

    itself = await served.client.compare_executions(other.execution_id, other.execution_id)
    assert (aspects(itself), itself.totals.differing_steps, itself.totals.steps) == (set(), 0, 8)


async def test_two_workflows(served: Served) -> None:
    shared = step("shared", "transform", value=1)
    names = [
        await made(served.client, step("first", "transform", value=0), shared, step("c", "transform", value=1)),
        await made(served.client, shared, step("added", "transform", value=0), step("c", "transform", value=2)),
    ]
    one, other = [await served.client.execute(name, wait=True) for name in names]
    found = await served.client.compare_executions(one.execution_id, other.execution_id)
    assert aspects(found) == {"DEFINITION", "OUTPUT", "PATH"}
    assert [each["path"] for each in from_value(found.definition_patch)]
    steps = by_path(found)
    assert list(steps) == ["first", "shared", "added", "c"]
    assert {path: aspects(each) for path, each in steps.items()} == {
        "first": {"DEFINITION", "PATH"},
        "shared": set(),
        "added": {"DEFINITION", "PATH"},
        "c": {"DEFINITION", "OUTPUT"},
    }
    assert from_value(steps["c"].definition_patch) == replaced(2, "/params/value")


async def test_what_is_too_much_is_told(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    name = await made(served.client, *(step(f"s{n}", "transform", value="${ input.text }") for n in range(4)))
    texts = ("x" * 100_000, "y" * 100_000)
    one, other = [(await served.client.execute(name, {"text": each}, wait=True)).execution_id for each in texts]
    with monkeypatch.context() as patched:
        patched.setattr(comparing, "MOST_PATCHES", 350_000)
        found = await served.client.compare_executions(one, other)
    assert [each.HasField("output_patch") for each in found.steps] == [True, False, False, False]
    assert [each.patches_omitted for each in found.steps] == [False, True, True, True]
    assert all("OUTPUT" in aspects(each) for each in found.steps)

    monkeypatch.setattr(comparisons, "STEPS_SHOWN", 2)
    monkeypatch.setattr("service.api.execution_service.LARGEST_COMPARED", 150_000)
    found = await served.client.compare_executions(one, other)
    assert found.steps_omitted
    assert [each.payloads_omitted for each in found.steps] == [False, True]
