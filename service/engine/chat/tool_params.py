"""What a step may say of tools to `ask_model`: the part of its schema about them, and what a schema cannot say."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from service.engine.chat.schemas import Checking
from service.engine.handlers.mcp_tool import PARAMS as MCP_PARAMS
from service.engine.schema import Problem

MOST_TOOLS, MOST_CALLED = 64, 32
"""Tools of one step: at most, and those that have a handler."""

MOST_ROUNDS, ROUNDS = 50, 8
"""How often a model is asked by one step whose tools have handlers: at most, and unless the step says otherwise."""

ABOUT_TOOLS: dict[str, Any] = {
    "tools": {
        "description": (
            "Tools that the model may ask for. Where they have a `handler`, each call that it wants is a step of "
            "its own, such as answer[0].calls[1].price, and its result goes back to the model, round by round, "
            "until it answers. Without, no tool is called: the output's `tool_calls` are for steps of the "
            "workflow, whose results go back as messages of the role tool, or by `continue_from`. At most "
            f"{MOST_TOOLS}, or {MOST_CALLED} with a handler."
        ),
        "type": "array",
        "minItems": 1,
        "maxItems": MOST_TOOLS,
        "items": {
            "type": "object",
            "properties": {
                "name": {"type": "string", "pattern": "^[A-Za-z0-9_-]{1,64}$"},
                "description": {"description": "What it does, for the model.", "type": "string"},
                "parameters": {
                    "description": "JSON Schema of its arguments, an object. Default: none.",
                    "type": "object",
                },
                "mcp": {
                    "description": (
                        "The tool of an MCP server that it is, by which its `description` and `parameters` are "
                        "found: {server, tool}, and `schema_hash` to pin its input schema, as mcp_tool has them. "
                        "Each of the `tool_calls` then tells the `schema_hash`. Default: that of `params` where "
                        "`handler` is mcp_tool and there are no `parameters`."
                    ),
                    "type": "object",
                    "properties": {name: MCP_PARAMS["properties"][name] for name in ("server", "tool", "schema_hash")},
                    "required": ["server", "tool"],
                    "additionalProperties": False,
                },
                "handler": {
                    "description": (
                        "The handler that a call runs. All tools of a step have one, or none has. It stands in "
                        "the definition and not in a template."
                    ),
                    "type": "string",
                },
                "params": {
                    "description": (
                        "Its params. Templates see `call`, {id, name, arguments}, and what those of the step see. "
                        "Default: the arguments."
                    ),
                    "type": "object",
                },
                "timeout": {"description": 'As of steps: seconds, or text such as "20s".'},
                "total_timeout": {"description": "As of steps, written as `timeout`."},
                "retry_policy": {"description": "As of steps; its intervals are written as `timeout`."},
                "delivery": {"description": "As of steps."},
            },
            "required": ["name"],
            "additionalProperties": False,
        },
    },
    "tool_choice": {
        "description": "Whether the model calls tools: auto, the default, as it sees fit; required; none.",
        "enum": ["auto", "required", "none"],
    },
    "max_rounds": {
        "description": (
            f"How often the model is asked where tools have a handler, 1 to {MOST_ROUNDS}; the last time without "
            f"tools, so that it answers. Default {ROUNDS}."
        ),
        "type": "integer",
        "minimum": 1,
        "maximum": MOST_ROUNDS,
    },
    "on_tool_error": {
        "description": (
            "What follows where the handler of a tool has failed for good: TELL, the default: its error is the "
            "result of the call, for the model. FAIL: the step fails."
        ),
        "enum": ["TELL", "FAIL"],
    },
}


def check_tools(params: Mapping[str, Any], checking: Checking) -> Iterator[Problem]:
    """Find what the schema cannot say of tools; the schemas of their arguments are checked within `checking`."""
    for name in ("max_rounds", "on_tool_error"):
        if name in params:
            yield Problem((name,), "is about tools that have a handler, and there are none")
    if "tool_choice" in params and "tools" not in params:
        yield Problem(("tool_choice",), "is about tools, which are missing")
    tools, seen = params.get("tools"), set()
    for index, tool in enumerate(tools if isinstance(tools, list) else ()):
        if not isinstance(tool, Mapping):
            continue  # a template
        if tool["name"] in seen:
            yield Problem(("tools", index, "name"), "is the name of another tool, too")
        seen.add(tool["name"])
        if "mcp" in tool and "parameters" in tool:
            yield Problem(("tools", index, "parameters"), "are those of the MCP server; remove them, or mcp")
        if "handler" in tool:
            yield Problem(("tools", index, "handler"), "must stand in the definition, and come from no template")
        if isinstance(schema := tool.get("parameters"), Mapping):
            path = ("tools", index, "parameters")
            yield from (Problem((*path, *problem.path), problem.message) for problem in checking.problems(schema))
            if schema.get("type", "object") != "object":
                yield Problem((*path, "type"), 'must be "object": arguments are an object')
