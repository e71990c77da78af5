"""The tools of a question that are tools of MCP servers: described as these do, and checked by their schemas."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from service.engine.chat.schemas import FaultyAnswerError
from service.engine.handlers.mcp_tool import find_tool
from service.engine.handlers.model import StepContext
from service.engine.mcp.sessions import Sessions
from service.engine.mcp.tools import Tool
from service.engine.schema import locate

_ANYTHING: Mapping[str, Any] = {"type": "object"}
_PROBLEMS_TOLD = 10


class Offered:
    """Those of one attempt, by the names that the model has for them."""

    def __init__(self, tools: Mapping[str, Tool]) -> None:
        self._tools = tools

    @classmethod
    async def find(cls, params: Mapping[str, Any], sessions: Sessions, context: StepContext) -> Offered:
        """Ask the servers for the tools that params name. Raises HandlerError as `mcp_tool` does."""
        named = {tool["name"]: tool["mcp"] for tool in params.get("tools", ()) if "mcp" in tool}
        return cls({name: await find_tool(sessions, mcp, context) for name, mcp in named.items()})

    def told(self, params: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the params as the model is told of them."""
        return self._with(params, lambda tool: tool.input_schema)

    def read(self, params: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the params by which an answer is read: what its calls may be given is for `check`."""
        return self._with(params, lambda _: _ANYTHING)

    async def check(self, calls: Iterable[dict[str, Any]]) -> None:
        """Pin the schemas of these calls. Raises FaultyAnswerError where arguments do not meet theirs.

        A schema that is none, or too costly to check, is left to the server.
        """
        for call in calls:
            if (tool := self._tools.get(call["name"])) is None:
                continue
            if problems := await tool.problems(call["arguments"]):
                name = f"{call['name']}.arguments"
                told = [f"{locate(name, each.path)} {each.message}" for each in problems[:_PROBLEMS_TOLD]]
                raise FaultyAnswerError(told)
            call["schema_hash"] = tool.schema_hash

    def _with(self, params: Mapping[str, Any], schema: Callable[[Tool], Mapping[str, Any]]) -> Mapping[str, Any]:
        if not self._tools:
            return params
        tools = [self._described(tool, schema) for tool in params["tools"]]
        return {**params, "tools": tools}

    def _described(self, tool: Mapping[str, Any], schema: Callable[[Tool], Mapping[str, Any]]) -> Mapping[str, Any]:
        if (found := self._tools.get(tool["name"])) is None:
            return tool
        description = tool.get("description", found.description)
        told = {"description": description} if description else {}
        return {"name": tool["name"], **told, "parameters": schema(found)}
