"""What an answer gives to the step, once it is found right: a text, a value, or calls of tools."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from service.engine.chat.answer import Answer, ToolCall
from service.engine.chat.conversation import NO_ARGUMENTS
from service.engine.chat.schemas import FaultyAnswerError, read


@dataclass(frozen=True, slots=True)
class Said:
    """What the step has of an answer. `value` is what its text stands for, where that has a schema."""

    text: str | None
    value: Any
    calls: list[dict[str, Any]]


def said(answer: Answer, params: Mapping[str, Any]) -> Said:
    """Return what an answer gives to a step with these params. Raises FaultyAnswerError."""
    if answer.calls and params.get("tool_choice") == "none":
        raise FaultyAnswerError(["no tool can be called any more; answer with what you know"])
    if answer.calls:
        tools = {tool["name"]: tool.get("parameters", NO_ARGUMENTS) for tool in params["tools"]}
        return Said(answer.text or None, None, [_call(call, tools) for call in answer.calls])
    if "output_schema" in params:
        return Said(None, read(answer.text, params["output_schema"], "answer"), [])
    return Said(answer.text, None, [])


def _call(call: ToolCall, tools: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    if call.name not in tools:
        raise FaultyAnswerError([f"there is no tool of the name that was called; there are {', '.join(tools)}"])
    name = f"{call.name}.arguments"
    arguments = read(call.arguments or "{}", tools[call.name], name)
    if not isinstance(arguments, dict):
        raise FaultyAnswerError([f"{name} must be an object"])
    return {"id": call.id, "name": call.name, "arguments": arguments}
