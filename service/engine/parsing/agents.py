"""Reads a step that asks a model with tools which steps run: as rounds, each a question and the calls that it asks for.

answer                      for_each in rounds, until an answer calls no tool; its output is that of the last question
answer[0].ask               ask_model, with what the step says
answer[0].calls             for_each call that the answer asks for, unless there is none
answer[0].calls[2].price    what the tool that is called stands for
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from service.engine.chat import tools as written
from service.engine.chat.tool_params import MOST_CALLED, MOST_ROUNDS, ROUNDS
from service.engine.definition import Action, Block, OnError, OnItemError, Ordering, Repeat, StepSpec
from service.engine.handlers.registry import Catalog
from service.engine.parsing.fields import Fields
from service.engine.parsing.params import OF_ATTEMPTS, check_effects, read_action, read_call
from service.engine.parsing.sources import VARIABLES, Sources
from service.engine.parsing.steps import ID, ID_WORDS, StepReader
from service.engine.pauses import seconds
from service.engine.slices import Work
from service.engine.wishes import WorkerSelector

BLOCKS = 2
"""Blocks that lie within such a step."""

_ASK, _CALLS = "ask", "calls"
_OF_TOOL = ("handler", "params", *OF_ATTEMPTS)
_OF_ROUNDS = ("max_rounds", "on_tool_error")
_CHOICES = ("auto", "required")

_IS_OVER = f"size(steps.{_ASK}.output.tool_calls) == 0"
_HAS_CALLS = f"size(steps.{_ASK}.output.tool_calls) > 0"
_ARGUMENTS = "${ call.arguments }"
_BEFORE = f"{{'messages': previous.{_ASK}.output.messages, 'results': previous.{_CALLS}.output}}"
_GOES_ON = f"${{ round == 1 ? dyn(null) : {_BEFORE} }}"


def is_agent(fields: Fields) -> bool:
    """Return whether a step as written asks a model with tools that have a handler."""
    return bool(written.of_step({"handler": fields.raw("handler"), "params": fields.raw("params")}))


class AgentReader:
    """Reads such steps of one workflow. `timeout` is that of an attempt where the step says nothing.

    `worker` says which workers may run its tools.
    """

    def __init__(self, catalog: Catalog | None, timeout: float, worker: WorkerSelector | None) -> None:
        self._catalog = catalog
        self._timeout = timeout
        self._worker = worker

    def steps(self, fields: Fields) -> int:
        """Return how many steps there are within one."""
        return 2 + len(written.of_step({"handler": fields.raw("handler"), "params": fields.raw("params")}))

    def read(self, fields: Fields, reader: StepReader, step_id: str) -> Work[StepSpec]:
        """Return the step that the fields describe. What is wrong with it is told at the place where it is written."""
        params: Mapping[str, Any] = fields.raw("params")
        check_effects(fields, self._catalog)
        given = Fields(params, fields.at("params"), fields.findings)
        rounds = given.whole("max_rounds", 1, MOST_ROUNDS) or ROUNDS
        on_tool_error = given.raw("on_tool_error") or "TELL"
        if on_tool_error not in ("TELL", "FAIL"):
            given.wrong("on_tool_error", "must be TELL or FAIL")
        inner = reader.sources.of_body(step_id, "round", is_round=True)
        items = yield from inner.value(str(list(range(1, rounds + 1))), given.at("max_rounds"), "", frozenset())
        until = yield from inner.condition(_IS_OVER, given.at("tools"), "")
        output = yield from inner.template(f"${{ steps.{_ASK}.output }}", given.at("tools"), "", VARIABLES)
        ask = yield from self._ask(fields, _asked(given, params, rounds), inner)
        on_item_error = OnItemError.STOP if on_tool_error == "FAIL" else OnItemError.COLLECT
        calls = yield from self._calls(given, inner, on_item_error)
        inner.refuse_uses((_ASK, _CALLS), _ASK)
        yield from inner.check_uses({_ASK: 0, _CALLS: 1}, (), None, False)
        action = None
        if items is not None and until is not None and calls is not None:
            body = Block((ask, calls), Ordering.SEQUENTIAL, output)
            action = Repeat(items, body, 1, OnItemError.STOP, until, gives_last=True, item_name="round")
        on_error = None if fields.raw("on_error") == OnError.RETRY else fields.raw("on_error")
        of_ask = dict.fromkeys(("id", "handler", "params", *OF_ATTEMPTS))
        around = fields.replaced({**of_ask, "on_error": on_error})
        return (yield from reader.read(around, step_id, action))

    def _ask(self, fields: Fields, params: Mapping[str, Any], sources: Sources) -> Work[StepSpec]:
        document = {name: fields.raw(name) for name in OF_ATTEMPTS}
        if fields.raw("on_error") == OnError.RETRY:
            document["on_error"] = OnError.RETRY.value
        ask = fields.replaced({"handler": "ask_model", "params": params, **document}, is_all=True)
        action = yield from read_action(ask, sources, self._catalog, _ASK)
        return (yield from self._reader(sources).read(ask, _ASK, action))

    def _calls(self, given: Fields, sources: Sources, on_item_error: OnItemError) -> Work[StepSpec | None]:
        inner = sources.of_body(_CALLS, "call")
        field = given.at("tools")
        made = yield from sources.value(f"steps.{_ASK}.output.tool_calls", field, _CALLS, VARIABLES)
        condition = yield from sources.condition(_HAS_CALLS, field, _CALLS)
        steps = []
        tools = given.items("tools", MOST_CALLED)
        for index, tool in enumerate(tools):
            each = Fields(tool, f"{field}[{index}]", given.findings)
            steps.append((yield from self._tool(each, inner)))
        positions = {step.id: index for index, step in enumerate(steps)}
        inner.refuse_uses((*positions, _ASK, _CALLS))
        yield from inner.check_uses(positions, (), None, False)
        if made is None or len(positions) < len(tools):
            return None
        body = Block(tuple(steps))
        action: Action = Repeat(made, body, on_item_error=on_item_error, item_name="call")
        return StepSpec(_CALLS, action, self._timeout, condition=condition)

    def _tool(self, tool: Fields, sources: Sources) -> Work[StepSpec]:
        name = tool.text("name", 64, ID, f"{ID_WORDS}: it is the id of the step that is a call", required=True)
        document = {"handler": tool.raw("handler"), "params": _pinned(tool)}
        document |= {each: _in_seconds(tool.raw(each)) for each in OF_ATTEMPTS}
        step = tool.replaced({**document, "condition": f"call.name == '{name}'"}, is_all=True)
        check_effects(step, self._catalog)
        action = None
        if not tool.has("handler"):
            tool.wrong("handler", "is required: the other tools have one, so the calls of this one need one, too")
        elif step.has("params"):
            action = yield from read_action(step, sources, self._catalog, name)
        else:
            action = yield from read_call(step, sources, self._catalog, name, _ARGUMENTS)
        return (yield from self._reader(sources).read(step, name, action))

    def _reader(self, sources: Sources) -> StepReader:
        return StepReader(Ordering.SEQUENTIAL, self._catalog, self._timeout, sources, self._worker)


def _asked(given: Fields, params: Mapping[str, Any], rounds: int) -> Mapping[str, Any]:
    """Return the params of a question: those of the step, its tools as the model is told of them, and the rounds."""
    choice = params.get("tool_choice", _CHOICES[0])
    if choice not in _CHOICES:
        given.wrong(
            "tool_choice", f"must be one of {', '.join(_CHOICES)}, as it stands; the last round is without tools"
        )
        choice = _CHOICES[0]
    if "continue_from" in params:
        given.wrong("continue_from", "is of the rounds themselves where tools have a handler; give messages")
    told = [_told(tool) if isinstance(tool, Mapping) else tool for tool in params["tools"]]
    return {
        **{name: value for name, value in params.items() if name not in _OF_ROUNDS},
        "tools": told,
        "tool_choice": f"${{ round < {rounds} ? '{choice}' : 'none' }}",
        "continue_from": _GOES_ON,
    }


def _told(tool: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a tool as the model is told of it; one of an MCP server is described by that."""
    told = {name: value for name, value in tool.items() if name not in _OF_TOOL}
    return {**told, "mcp": _mcp(tool)} if _is_described(tool) else told


def _is_described(tool: Mapping[str, Any]) -> bool:
    """Return whether the MCP server of a tool describes it."""
    params = tool.get("params")
    is_named = isinstance(params, Mapping) and {"server", "tool"} <= params.keys()
    return tool.get("handler") == "mcp_tool" and is_named and not {"parameters", "mcp"} & tool.keys()


def _mcp(tool: Mapping[str, Any]) -> Mapping[str, Any]:
    return {name: tool["params"][name] for name in ("server", "tool", "schema_hash") if name in tool["params"]}


def _pinned(tool: Fields) -> Any:
    """Return the params of a call: of a tool as its MCP server has described it to the model, and no other."""
    params = tool.raw("params")
    written = {name: tool.raw(name) for name in ("handler", "params", "parameters", "mcp") if tool.has(name)}
    return {"schema_hash": "${ call.schema_hash }", **params} if _is_described(written) else params


def _in_seconds(value: Any) -> Any:
    """Return a span of time, or those of a policy, in seconds where it is written as text, as params have it."""
    if isinstance(value, Mapping):
        return {name: _in_seconds(each) if name.endswith("_interval") else each for name, each in value.items()}
    try:
        return seconds(value) if isinstance(value, str) else value
    except ValueError:
        return value
