"""What is sent to a model: the messages of a step, and those that ask again for what was not right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from service.engine.chat.answer import Answer, ToolCall
from service.engine.chat.params import SENT
from service.engine.chat.schemas import plain

NO_ARGUMENTS: Mapping[str, Any] = {"type": "object", "properties": {}, "additionalProperties": False}
"""The schema of a tool that says nothing of its arguments."""

_NAME_OF_SCHEMA = "answer"
_ASKS_FOR_JSON = "Answer with JSON alone, without any text around it, that meets this JSON Schema:\n"
_ASKS_AGAIN = "Do it again, with nothing but what meets the schema."
_LONGEST_COMPLAINT = 2_000


class Conversation:
    """The body of each request of an attempt."""

    def __init__(self, params: Mapping[str, Any]) -> None:
        self._params = params
        self._asked = [_sent(each) for each in _so_far(params)]
        self._schema = params.get("output_schema")
        self._format = params.get("response_format", "json_schema")
        self._again: Sequence[Mapping[str, Any]] = ()

    def ask_again(self, answer: Answer, problems: Sequence[str]) -> None:
        """Let the next body hold an answer and what is wrong with it. One before that is left out: it says no more."""
        complaint = "; ".join(problems)[:_LONGEST_COMPLAINT]
        asking = _of("user", f"This is not what was asked for: {complaint}. {_ASKS_AGAIN}")
        # Few servers take an empty answer, and after calls of tools they want their results.
        self._again = [_of("assistant", answer.text), asking] if answer.text and not answer.calls else [asking]

    def body(self) -> dict[str, Any]:
        """Return the body of the next request."""
        params = self._params
        body = {
            **params.get("options", {}),
            "model": params["model"],
            "messages": [*self._first(), *self._again],
            **{name: params[name] for name in SENT if name in params},
        }
        if params.get("stream"):
            body.update(stream=True, stream_options={"include_usage": True})
        if "tools" in params:
            body["tools"] = [_described(tool) for tool in params["tools"]]
            body["tool_choice"] = params.get("tool_choice", "auto")
        if self._schema is not None and self._format == "json_schema":
            described = {"name": _NAME_OF_SCHEMA, "schema": plain(self._schema)}
            if "strict" in params:
                described["strict"] = params["strict"]
            body["response_format"] = {"type": "json_schema", "json_schema": described}
        elif self._schema is not None and self._format == "json_object":
            body["response_format"] = {"type": "json_object"}
        return body

    def continued(self, answer: Answer) -> list[Mapping[str, Any]]:
        """Return the messages of the step and an answer, for a step that goes on with them."""
        if answer.calls:
            calls = [_called(call) for call in answer.calls]
            return [*self._asked, {"role": "assistant", "content": answer.text or None, "tool_calls": calls}]
        return [*self._asked, _of("assistant", answer.text)] if answer.text else list(self._asked)

    def _first(self) -> list[Mapping[str, Any]]:
        asked = self._asked
        told = [self._params["system"]] if "system" in self._params else []
        if asked[0]["role"] == "system" and isinstance(asked[0]["content"], str):
            told.append(asked[0]["content"])  # one message of the system: templates of some models take no second
            asked = asked[1:]
        if self._schema is not None and self._format != "json_schema":
            told.append(_ASKS_FOR_JSON + msgspec.json.encode(plain(self._schema)).decode())
        return [*([_of("system", "\n\n".join(told))] if told else []), *asked]


def _so_far(params: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """Return the messages of a step: those that it gives, or those that it goes on with and what the calls gave."""
    if (before := params.get("continue_from")) is None:
        return params.get("messages") or [_of("user", params.get("prompt"))]
    results = zip(called(before), before["results"], strict=True)
    told = [{"role": "tool", "tool_call_id": call, "content": result} for call, result in results]
    return [*before["messages"], *told]


def called(before: Mapping[str, Any]) -> Sequence[str]:
    """Return the ids of the calls that the last message of a conversation asks for."""
    return [call.get("id", "") for call in before["messages"][-1].get("tool_calls", ())]


def _of(role: str, content: Any) -> Mapping[str, Any]:
    return {"role": role, "content": content}


def _sent(message: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a message as it is sent: what a tool gave is a text there."""
    content = message.get("content")
    if message["role"] != "tool" or isinstance(content, str):
        return message
    return {**message, "content": msgspec.json.encode(content).decode()}


def _described(tool: Mapping[str, Any]) -> Mapping[str, Any]:
    parameters = plain(tool.get("parameters", NO_ARGUMENTS))
    return {"type": "function", "function": {**tool, "parameters": parameters}}


def _called(call: ToolCall) -> Mapping[str, Any]:
    function = {"name": call.name, "arguments": call.arguments or "{}"}
    return {"id": call.id, "type": "function", "function": function}
