"""Workflows with `ask_model`, on a real server of ours and with a real server of chat completions: the examples."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator

import pytest
import yaml

import flowkeep
from flowkeep.payload import from_struct, from_value
from flowkeep.v1.execution_pb2 import Usage
from tests.folders import ROOT
from tests.integration.conftest import Serve
from tests.integration.model_server import KEY, ModelServer, Reply, serving_model, settings
from tests.integration.stage import Stage, ended, made, step
from tests.patience import PATIENCE

EXAMPLES = ROOT / "clients" / "examples"


@pytest.fixture
def server() -> Iterator[ModelServer]:
    """A server of chat completions."""
    with serving_model() as served:
        yield served


async def test_a_watcher_sees_what_a_model_says_before_it_has_said_all(
    serve: Serve, stage: Stage, server: ModelServer
) -> None:
    server.says(Reply(["Three"], is_held=True))
    client = (await serve(stage.handlers(), models=settings(server))).client
    name = await made(
        client, step("first", "gate"), step("a", "ask_model", endpoint="lab", model="small", prompt="?", stream=True)
    )
    execution = await client.execute(name)
    async with asyncio.timeout(PATIENCE):
        async for response in client.watch_responses(execution.execution_id):
            stage.open("gate")
            if response.HasField("output"):
                assert response.output.text == "Three"
                server.release.set()
    assert server.release.is_set()


async def test_the_example_extracts_an_order_and_counts_what_that_costs(serve: Serve, server: ModelServer) -> None:
    lines = [{"item": "pen", "count": 3}, {"item": "ink", "count": 1}]
    server.says("Sure! Here is the order.", json.dumps({"customer": "Ann", "lines": lines}))
    client = (await serve(models=settings(server))).client
    definition = yaml.safe_load((EXAMPLES / "extract_order.yaml").read_text())
    await client.create_workflow(definition)
    given = {"endpoint": "lab", "model": "small", "mail": "Three pens and some ink, please. Ann"}
    execution = await ended(client, (await client.execute(definition["name"], given)).execution_id)
    assert execution.state == flowkeep.Execution.STATE_COMPLETED, execution
    assert from_value(execution.result) == {"customer": "Ann", "lines": lines, "text": "3 x pen, 1 x ink"}
    assert execution.usage == Usage(input_tokens=20, output_tokens=10, cost_micros=50)
    assert "Three pens" in server.asked[0].said[-1][1]
    (asked, *_) = (await client.get_execution(execution.execution_id)).steps
    assert KEY not in str(from_struct(asked.input)) + str(from_value(asked.output))
