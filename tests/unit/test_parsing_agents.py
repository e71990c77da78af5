"""Steps that ask a model with tools which have handlers, as they are written."""

from __future__ import annotations

from typing import Any

import pytest

from service.engine.definition import Call, OnError, OnItemError, Repeat, Transform
from service.engine.parsing import parse
from tests.unit.documents import CATALOG, DEFAULTS, step, the_violation, workflow, wrong


def tool(name: str = "give", handler: str = "transform", **fields: Any) -> dict[str, Any]:
    params = {"value": "${ call.arguments }"} if handler == "transform" else {"url": "https://example.com"}
    return {"name": name, "handler": handler, "params": params, **fields}


def agent(*tools: Any, step_fields: Any = None, **params: Any) -> dict[str, Any]:
    given = {"endpoint": "lab", "model": "small", "prompt": "?", "tools": list(tools) or [tool()], **params}
    return {"id": "answer", "handler": "ask_model", "params": given, **(step_fields or {})}


def read(document: dict[str, Any]) -> tuple[Repeat, Repeat]:
    definition = parse(workflow(document), CATALOG, DEFAULTS)
    rounds = definition.places["answer"].action
    calls = definition.places["answer.calls"].action
    assert isinstance(rounds, Repeat) and isinstance(calls, Repeat)
    return rounds, calls


def test_it_becomes_rounds_of_a_question_and_the_calls_that_it_asks_for() -> None:
    definition = parse(workflow(agent(tool(), tool("page", "call_api"))), CATALOG, DEFAULTS)
    assert list(definition.places) == ["answer", "answer.ask", "answer.calls", "answer.calls.give", "answer.calls.page"]
    rounds, calls = read(agent(tool(), tool("page", "call_api")))
    assert rounds.items.source == "[1, 2, 3, 4, 5, 6, 7, 8]" and rounds.gives_last and rounds.max_parallel == 1
    assert calls.on_item_error is OnItemError.COLLECT
    assert isinstance(definition.places["answer.ask"].action, Call)
    assert isinstance(definition.places["answer.calls.give"].action, Transform)
    condition = definition.places["answer.calls.page"].condition
    assert condition is not None and condition.source == "call.name == 'page'"


def test_it_reads_the_same_without_the_handlers() -> None:
    """As what is kept is read."""
    document = workflow(agent(tool(), tool("page", "call_api", timeout="20s"), max_rounds=3))
    assert parse(document, None, DEFAULTS).places == parse(document, CATALOG, DEFAULTS).places


def test_what_is_said_of_attempts_is_said_of_each_question() -> None:
    fields = {"timeout": 7, "retry_policy": {"max_attempts": 2}, "on_error": "RETRY", "total_timeout": 60}
    definition = parse(workflow(agent(step_fields=fields)), CATALOG, DEFAULTS)
    ask, answer = definition.places["answer.ask"], definition.places["answer"]
    assert (ask.timeout, ask.retry.max_attempts, ask.on_error, ask.total_timeout) == (7, 2, OnError.RETRY, 60)
    assert (answer.on_error, answer.total_timeout, answer.retry.max_attempts) == (OnError.STOP, None, 1)


def test_the_step_itself_has_what_is_no_attempt() -> None:
    fields = {"assign": {"x": "result.text"}, "condition": "has(input.x)", "on_error": "CONTINUE"}
    answer = parse(workflow(agent(step_fields=fields)), CATALOG, DEFAULTS).places["answer"]
    assert answer.on_error is OnError.CONTINUE and answer.condition is not None and len(answer.assign) == 1


def test_a_tool_has_the_policies_of_a_step() -> None:
    policy = {"max_attempts": 4, "initial_interval": "2s", "max_interval": 9}
    page = tool("page", "call_api", timeout="1m30s", retry_policy=policy, total_timeout=300)
    spec = parse(workflow(agent(page)), CATALOG, DEFAULTS).places["answer.calls.page"]
    assert (spec.timeout, spec.total_timeout) == (90, 300)
    assert (spec.retry.max_attempts, spec.retry.initial_interval, spec.retry.max_interval) == (4, 2, 9)


def test_prompt_and_tools_see_what_is_around_the_step() -> None:
    own = agent(tool(params={"value": "${ steps.before.output } ${ item } ${ index } ${ call.name }"}))
    own["params"]["prompt"] = "${ steps.before.output } ${ item } ${ index } ${ attempt }"
    assert wrong(workflow(step("before"), {"id": "all", "for_each": {"items": "[1]", "steps": [own]}})) == []


@pytest.mark.parametrize(
    ("document", "field", "told"),
    [
        (agent(tool(handler="transfrm")), "tools[0].handler", '"transfrm" is unknown; did you mean "transform"?'),
        (agent(tool(params={})), "tools[0].params", "value"),
        (agent(tool(params={"value": "${ call. }"})), "tools[0].params.value", "unexpected '.'"),
        (agent(tool(params={"value": "${ item }"})), "tools[0].params.value", "unknown variable 'item'"),
        (agent(tool(timeout="1m")), "tools[0].timeout", "has no effect on transform"),
        (agent(tool("page", "call_api", timeout="soon")), "tools[0].timeout", "must be a number"),
        (agent(tool("no-id")), "tools[0].name", "it is the id of the step that is a call"),
        (agent(tool(), tool()), "tools[1].name", "is the name of another tool"),
        (agent(tool(), {"name": "b"}), "tools[1].handler", "is required: the other tools have one"),
        (agent(tool(parameters={"type": "array"})), "tools[0].parameters.type", 'must be "object"'),
        (agent({"name": "a", "handler": "transform"}), "tools[0].params", "is required with transform"),
        (agent(tool(colour=1)), "tools[0].colour", "is unknown"),
        (agent(max_rounds=51), "max_rounds", "must be between 1 and 50"),
        (agent(on_tool_error="SHRUG"), "on_tool_error", "must be TELL or FAIL"),
        (agent(tool_choice="none"), "tool_choice", "must be one of auto, required"),
        (agent(tool_choice="${ input.x }"), "tool_choice", "must be one of auto, required"),
        (agent(continue_from=None), "continue_from", "is of the rounds themselves"),
        (agent(temperature=3), "temperature", "2"),
        (agent(prompt="${ steps.ask.output }"), "", 'reads step "ask", a name that the steps of tools take'),
        (agent(tool(params={"value": "${ steps.give }"})), "tools[0].params", 'reads step "give", a name'),
        (agent(prompt="${ steps.none.output }"), "", 'reads step "none", which does not exist'),
    ],
)
def test_what_is_wrong_is_told_where_it_is_written(document: dict[str, Any], field: str, told: str) -> None:
    found, message = the_violation(workflow(document))
    assert found.startswith(f"steps[0].params.{field}".removesuffix(".")) and told in message


@pytest.mark.parametrize(("field", "value"), [("max_rounds", 3), ("on_tool_error", "FAIL")])
def test_what_is_about_handlers_of_tools_needs_them(field: str, value: Any) -> None:
    found, message = the_violation(workflow(agent({"name": "a"}, **{field: value})))
    assert (found, message) == (
        f"steps[0].params.{field}",
        "is about tools that have a handler, and there are none",
    )


def test_tools_count_as_steps_and_blocks() -> None:
    many = [agent(step_fields={"id": f"a{n}"}) for n in range(125)]
    assert wrong(workflow(*many)) == []
    (found, *_) = wrong(workflow(*many, agent()))
    assert found == ("steps[124].params", "goes beyond the 500 steps that a workflow may have in all blocks")
    document: dict[str, Any] = agent()
    for depth in range(5):
        document = {"id": f"b{depth}", "for_each": {"items": "[1]", "steps": [document]}}
    assert wrong(workflow(document)) == []
    (message,) = [told for _, told in wrong(workflow({"id": "b", "for_each": {"items": "[1]", "steps": [document]}}))]
    assert message.startswith("lies too deep")


def test_a_tool_of_an_mcp_server_is_described_by_it_and_pinned() -> None:
    params = {"server": "shop", "tool": "price", "arguments": "${ call.arguments }"}
    definition = parse(workflow(agent({"name": "price", "handler": "mcp_tool", "params": params})), CATALOG, DEFAULTS)
    ask, call = definition.places["answer.ask"].action, definition.places["answer.calls.price"].action
    assert isinstance(ask, Call) and isinstance(call, Call)
    given = {"round": 1, "previous": {}, "call": {"arguments": {"n": 1}, "schema_hash": "f" * 64}}
    assert ask.params.render(given)["tools"] == [{"name": "price", "mcp": {"server": "shop", "tool": "price"}}]
    assert call.params.render(given) == {**params, "arguments": {"n": 1}, "schema_hash": "f" * 64}
