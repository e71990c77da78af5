"""Steps that ask a model with tools which other steps run, on a real server of ours, of chat completions and of MCP."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

import flowkeep
from flowkeep.payload import from_struct, from_value
from flowkeep.v1.execution_pb2 import StepExecution
from tests.folders import ROOT
from tests.integration.conftest import Serve
from tests.integration.model_server import KEY, ModelServer, Reply, serving_model, settings
from tests.integration.stage import Stage, ended, kinds, log, made, step
from tests.patience import PATIENCE

EXAMPLES = ROOT / "clients" / "examples"
SHOP = json.dumps({"shop": {"command": sys.executable, "args": [str(EXAMPLES / "mcp_server.py")]}})
COMPLETED = StepExecution.STATE_COMPLETED


@pytest.fixture
def server() -> Iterator[ModelServer]:
    """A server of chat completions."""
    with serving_model() as served:
        yield served


def asks(*calls: tuple[str, Any]) -> Reply:
    """An answer that asks for calls of tools."""
    return Reply(calls=[(name, json.dumps(arguments)) for name, arguments in calls], finish="tool_calls")


def tool(name: str, handler: str = "take", **fields: Any) -> dict[str, Any]:
    """A tool whose arguments are anything, and those of its handler."""
    return {"name": name, "handler": handler, "parameters": {"type": "object"}, **fields}


def agent(*tools: dict[str, Any], prompt: str = "?", **fields: Any) -> dict[str, Any]:
    """A step that asks with tools."""
    return step("answer", "ask_model", endpoint="lab", model="small", prompt=prompt, tools=list(tools), **fields)


async def ended_by_and_by(client: flowkeep.Client, execution_id: str) -> flowkeep.Execution:
    """The execution when it has ended; each of its events may take as long as others together: processes start."""
    events = client.watch(execution_id)
    is_over = False
    while not is_over:
        async with asyncio.timeout(PATIENCE):
            is_over = (await anext(events)).HasField("finished")
    return await client.get_execution(execution_id)


def results(server: ModelServer) -> list[Any]:
    """What tools gave, as the model was told last."""
    return [json.loads(content) for role, content in server.asked[-1].said if role == "tool"]


async def test_the_example_calls_its_tools_in_steps_until_it_knows(serve: Serve, server: ModelServer) -> None:
    answer = {"cents": 2196, "text": "2196 cents, without the ink, which there is not"}
    server.says(
        asks(("price", {"item": "pen", "count": 3}), ("price", {"item": "ink", "count": 1})),
        asks(("price", {"item": "book", "count": "one"})),  # breaks the schema, of which the MCP server tells
        asks(("price", {"item": "book", "count": 1})),
        asks(("discount", {"cents": 2440})),
        "I know it!",
        json.dumps(answer),
    )
    client = (await serve(models=settings(server), mcp_servers=SHOP)).client
    definition = yaml.safe_load((EXAMPLES / "agent.yaml").read_text())
    await client.create_workflow(definition)
    given = {"endpoint": "lab", "model": "small", "question": "What do three pens, a book and ink cost me?"}
    execution = await ended_by_and_by(client, (await client.execute(definition["name"], given)).execution_id)
    assert execution.state == flowkeep.Execution.STATE_COMPLETED, execution
    assert from_value(execution.result) == answer
    pens, ink, book, discount = results(server)
    assert [pens["structured"], book["structured"], discount] == [{"cents": 450}, {"cents": 1990}, 2196]
    assert ink["error"]["code"] == "TOOL_ERROR" and "there is no ink" in ink["error"]["message"]
    done = {each.path: each for each in execution.steps if each.state == COMPLETED}
    assert [path for path in done if "calls[" in path] == [
        "answer[0].calls[0].price",
        "answer[1].calls[0].price",
        "answer[2].calls[0].discount",
    ]
    assert [path for path in done if path.endswith(".ask")] == [f"answer[{n}].ask" for n in range(4)]
    told = {each["function"]["name"]: each["function"] for each in server.asked[0].body["tools"]}
    assert told["price"]["description"] == "Tell what some of an item cost."
    assert told["price"]["parameters"]["required"] == ["item", "count"]
    pinned = from_struct(done["answer[0].calls[0].price"].input)["schema_hash"]
    assert len(pinned) == 64 and pinned == from_value(done["answer[0].ask"].output)["tool_calls"][0]["schema_hash"]
    assert execution.usage.output_tokens == 30
    assert KEY not in str(execution)


async def test_a_tool_is_a_handler_with_the_arguments_or_with_params_of_them(
    serve: Serve, stage: Stage, server: ModelServer
) -> None:
    server.says(asks(("give", {"give": [1]}), ("more", {"n": 7})), "done")
    client = (await serve(stage.handlers(), models=settings(server))).client
    more = tool("more", params={"give": "${ call.arguments.n + input.n } of ${ call.name }"})
    name = await made(client, agent(tool("give"), more), output="${ steps.answer.output.text }")
    assert await client.result((await client.execute(name, {"n": 1})).execution_id) == "done"
    assert [content for role, content in server.asked[-1].said if role == "tool"] == ["[1]", "8 of more"]
    assert [each.body["tool_choice"] for each in server.asked] == ["auto", "auto"]


async def test_the_last_round_is_without_tools(serve: Serve, stage: Stage, server: ModelServer) -> None:
    server.says(asks(("give", {})), asks(("give", {})), "well then")
    client = (await serve(stage.handlers(), models=settings(server))).client
    name = await made(client, agent(tool("give"), max_rounds=2), output="${ steps.answer.output.text }")
    execution = await ended(client, (await client.execute(name)).execution_id)
    assert from_value(execution.result) == "well then"
    assert [each.body["tool_choice"] for each in server.asked] == ["auto", "none", "none"]
    assert "no tool can be called any more" in server.asked[-1].said[-1][1]
    assert [each.path for each in execution.steps if "calls[" in each.path] == ["answer[0].calls[0].give"]


@pytest.mark.parametrize("asked", [asks(("none", {})), asks(("give", "no object")), asks(("give", {"n": "x"}))])
async def test_calls_of_what_there_is_not_go_back_to_the_model(
    serve: Serve, stage: Stage, server: ModelServer, asked: Reply
) -> None:
    server.says(asked, asks(("give", {"n": 1})), "done")
    client = (await serve(stage.handlers(), models=settings(server))).client
    takes = {"type": "object", "properties": {"n": {"type": "integer"}}}
    name = await made(client, agent(tool("give", parameters=takes, params={"give": "${ call.arguments.n }"})))
    execution = await ended(client, (await client.execute(name)).execution_id)
    assert execution.state == flowkeep.Execution.STATE_COMPLETED, execution
    assert "This is not what was asked for" in server.asked[1].said[-1][1]
    assert len(stage.calls) == 1


@pytest.mark.parametrize(("policy", "state"), [("TELL", "STATE_COMPLETED"), ("FAIL", "STATE_FAILED")])
async def test_what_follows_from_a_tool_that_fails(
    serve: Serve, stage: Stage, server: ModelServer, policy: str, state: str
) -> None:
    server.says(asks(("break", {}), ("give", {"give": 1})), "done")
    client = (await serve(stage.handlers(), models=settings(server))).client
    retry = {"max_attempts": 2, "initial_interval": "10ms"}
    broken = tool("break", "fail", params={"code": "BROKEN"}, retry_policy=retry, timeout="1m")
    name = await made(client, agent(broken, tool("give"), on_tool_error=policy))
    execution = await ended(client, (await client.execute(name)).execution_id)
    assert flowkeep.Execution.State.Name(execution.state) == state
    assert stage.attempts("answer[0].calls[0].break") == [1, 2]
    if policy == "TELL":
        assert results(server) == [{"error": {"code": "BROKEN", "message": "attempt 2 broke"}}, 1]
    else:
        assert execution.failure.step_path == "answer[0].calls[0].break" and len(server.asked) == 1


async def test_a_server_that_begins_anew_asks_nothing_again_that_is_recorded(
    serve: Serve, stage: Stage, server: ModelServer
) -> None:
    """Stopped while the second of two calls is under way: neither the question nor the first call are made again."""
    server.says(asks(("give", {"give": 1}), ("gate", {})), asks(("give", {"give": 2})), "done")
    first = await serve(stage.handlers(), models=settings(server))
    name = await made(first.client, agent(tool("give"), tool("gate", "gate")))
    execution = await first.client.execute(name)
    await stage.called("answer[0].calls[1].gate")
    await first.stop()

    second = await serve(stage.handlers(), models=settings(server))
    await stage.called("answer[0].calls[1].gate", 2)
    assert len(server.asked) == 1
    stage.open("gate")
    events = kinds(await log(second.client, execution.execution_id))
    assert [stage.attempts(f"answer[0].calls[{n}].{tool}") for n, tool in enumerate(("give", "gate"))] == [[1], [1, 2]]
    assert [path.split()[1] for path in events if path.startswith("step_started") and path.endswith(".ask")] == [
        f"answer[{n}].ask" for n in range(3)
    ]
    assert len(server.asked) == 3
    assert results(server)[-1] == 2


async def test_a_cancel_reaches_the_tool_that_runs(serve: Serve, stage: Stage, server: ModelServer) -> None:
    server.says(asks(("gate", {})), "done")
    client = (await serve(stage.handlers(), models=settings(server))).client
    execution_id = (await client.execute(await made(client, agent(tool("gate", "gate"))))).execution_id
    await stage.called("answer[0].calls[0].gate")
    await client.cancel(execution_id)
    assert (await ended(client, execution_id)).state == flowkeep.Execution.STATE_CANCELLED
    assert stage.stopped == [("answer[0].calls[0].gate", 1)] and len(server.asked) == 1


async def test_agents_side_by_side_have_conversations_of_their_own(
    serve: Serve, stage: Stage, server: ModelServer
) -> None:
    server.says(asks(("give", {})), "done")
    client = (await serve(stage.handlers(), models=settings(server))).client
    own = agent(tool("give", params={"give": "${ item } ${ index }"}), prompt="${ item }")
    each = {"id": "all", "for_each": {"items": "['a', 'b']", "max_parallel": 1, "steps": [own]}}
    name = await made(client, each)
    server.says(asks(("give", {})), "one", asks(("give", {})), "two")
    execution = await ended(client, (await client.execute(name)).execution_id)
    assert [each["text"] for each in from_value(execution.result)] == ["one", "two"]
    said = [[content for role, content in asked.said if role in ("user", "tool")] for asked in server.asked]
    assert said == [["a"], ["a", "a 0"], ["b"], ["b", "b 1"]]


async def test_a_tool_that_an_mcp_server_does_not_have_fails_the_question(serve: Serve, server: ModelServer) -> None:
    client = (await serve(models=settings(server), mcp_servers=SHOP)).client
    params = {"server": "shop", "tool": "prize", "arguments": "${ call.arguments }"}
    name = await made(client, agent({"name": "price", "handler": "mcp_tool", "params": params}))
    execution = await ended_by_and_by(client, (await client.execute(name)).execution_id)
    assert (execution.failure.step_path, execution.failure.message) == (
        "answer[0].ask",
        "shop prize: the server has no tool of this name; there are price",
    )
    assert not server.asked
