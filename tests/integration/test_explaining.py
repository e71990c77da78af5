"""Why executions do not move, as ExplainExecution says it."""

from __future__ import annotations

from typing import Any

import pytest

import flowkeep
from flowkeep.v1.explanation_pb2 import ExplainExecutionResponse
from persistence.waits import WaitKind
from service.engine import obstacles
from tests.integration.stage import Stage, made, step, wait_step


async def _waiting(client: flowkeep.Client, execution_id: str) -> None:
    async for event in client.watch(execution_id):
        if event.WhichOneof("kind") in ("step_waiting", "step_retrying"):
            return


def _kinds(found: ExplainExecutionResponse) -> dict[str, Any]:
    return {each.path: [obstacle.WhichOneof("kind") for obstacle in each.obstacles] for each in found.steps}


@pytest.mark.usefixtures("prompt")
async def test_each_open_step_says_why_it_does_not_move(client: flowkeep.Client, stage: Stage) -> None:
    task = {"title": "Approve", "assignees": ["ann"], "groups": ["cfo"]}
    steps = [
        step("run", "gate"),
        {"id": "ask", "handler": "create_task", "params": task},
        {"id": "listen", "handler": "wait_signal", "params": {"name": "paid"}},
        wait_step("sleep"),
        {**step("after", "gate"), "depends_on": ["ask", "run"]},
    ]
    await client.create_workflow({"name": "held", "ordering": "GRAPH", "steps": steps})
    execution_id = (await client.execute("held")).execution_id
    await stage.called("run")
    await client.pause(execution_id, "lunch")
    found = await client.explain_execution(execution_id)
    assert [each.WhichOneof("kind") for each in found.obstacles] == ["paused", "driven"]
    assert found.obstacles[0].sentence == "developer paused it: lunch. It goes on when it is resumed."
    assert _kinds(found) == {
        "run": ["running_attempt"],
        "ask": ["task"],
        "listen": ["signal"],
        "sleep": ["timer"],
        "after": ["predecessors"],
    }
    by_path = {each.path: each.obstacles[0] for each in found.steps}
    assert by_path["ask"].sentence == "It waits for ann or the group cfo to do 'Approve'."
    assert by_path["listen"].sentence.startswith("It waits for the signal paid since 2")
    assert by_path["run"].sentence.endswith("The pause lets it finish.")
    assert by_path["after"].sentence == "It begins when ask, run have ended."
    assert list(by_path["after"].predecessors.paths) == ["ask", "run"]
    assert by_path["sleep"].HasField("end_time")
    await client.terminate(execution_id)
    found = await client.explain_execution(execution_id)
    assert [each.sentence for each in found.obstacles] == [
        "It has ended: CANCELLED with TERMINATED. Nothing is to come, unless it is retried."
    ]
    assert not found.steps


async def test_a_start_that_was_put_off_is_told(client: flowkeep.Client) -> None:
    name = await made(client, step("a"), step("b"))
    execution_id = (await client.execute(name, start_delay=3600)).execution_id
    found = await client.explain_execution(execution_id)
    assert [each.WhichOneof("kind") for each in found.obstacles] == ["start_delay"]
    assert _kinds(found) == {"a": ["execution"], "b": ["predecessors"]}


def test_each_kind_of_wait_has_a_reason() -> None:
    assert {kind.lower() for kind in WaitKind} <= {kind.value for kind in obstacles.Kind}
