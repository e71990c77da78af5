"""What a step may say to `ask_model`: the schema of its params, and what a schema cannot say of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from service.engine.chat.schemas import LARGEST as LARGEST_SCHEMAS
from service.engine.chat.schemas import Checking
from service.engine.chat.tool_params import ABOUT_TOOLS, check_tools
from service.engine.durations import TEN_YEARS
from service.engine.handlers.credentials import of_headers, of_url
from service.engine.handlers.http_fields import SCALAR, fault_of_value
from service.engine.handlers.http_params import check_headers
from service.engine.handlers.http_route import SCHEMA as ROUTE
from service.engine.handlers.http_route import check as check_route
from service.engine.handlers.http_url import LONGEST, check_url
from service.engine.pauses import seconds
from service.engine.schema import Problem
from service.engine.schema_places import Path

MOST_ASKS, ASKS = 5, 3
"""How often a model is asked for an answer that meets its schema: at most, and unless the step says otherwise."""

_ROLES = ["system", "developer", "user", "assistant", "tool"]
_PENALTY = {"type": "number", "minimum": -2, "maximum": 2}
_TOKENS = {"type": "integer", "minimum": 1, "maximum": 10_000_000}

SENT: dict[str, Any] = {
    "temperature": {"description": "0 to 2, how free the answer is.", "type": "number", "minimum": 0, "maximum": 2},
    "top_p": {"description": "0 to 1.", "type": "number", "minimum": 0, "maximum": 1},
    "max_tokens": {"description": "Longest answer, in tokens, as most servers call it.", **_TOKENS},
    "max_completion_tokens": {"description": "The same, as models of OpenAI that reason call it.", **_TOKENS},
    "stop": {
        "description": "Texts at which the answer ends.",
        "type": ["string", "array"],
        "minLength": 1,
        "minItems": 1,
        "maxItems": 16,
        "items": {"type": "string", "minLength": 1},
    },
    "seed": {"description": "For answers that can be had again, where the server can.", "type": "integer"},
    "presence_penalty": {"description": "-2 to 2.", **_PENALTY},
    "frequency_penalty": {"description": "-2 to 2.", **_PENALTY},
    "reasoning_effort": {
        "description": "How much a model that reasons is to think.",
        "type": "string",
        "maxLength": 32,
    },
}
"""What is sent as it is."""

_MESSAGES: dict[str, Any] = {
    "type": "array",
    "minItems": 1,
    "maxItems": 1_000,
    "items": {
        "type": "object",
        "properties": {
            "role": {"enum": _ROLES},
            "content": {
                "description": (
                    "A text, or parts as the protocol has them: {type: text, text}, image_url, …. Of a tool: "
                    "what it gave, any JSON, which is sent as text."
                )
            },
            "name": {"type": "string", "minLength": 1, "maxLength": 64},
            "tool_call_id": {"description": "Of a tool: which call it is the result of.", "type": "string"},
            "tool_calls": {
                "description": "Of the assistant: the tools that it called, as the protocol has them.",
                "type": "array",
                "items": {"type": "object"},
            },
        },
        "required": ["role"],
        "additionalProperties": False,
    },
}

_SENT_FOR = frozenset({"stream", "stream_options", "response_format", "tools", "tool_choice"})
_OURS = frozenset({"model", "messages", *_SENT_FOR, *SENT})
_NOT_READ = frozenset({"n", "functions", "function_call", "audio"})

PARAMS: dict[str, Any] = {
    "type": "object",
    "properties": {
        "endpoint": {
            "description": "The name of an endpoint in FLOWKEEP_MODELS; or give a `url`.",
            "type": "string",
            "minLength": 1,
            "maxLength": 64,
        },
        "url": {
            "description": (
                "The API, such as https://api.openai.com/v1; /chat/completions is added to its path. It must be "
                "public, as those of call_api."
            ),
            "type": "string",
            "minLength": 1,
            "maxLength": LONGEST,
        },
        "api_key": {
            "description": (
                "Sent as a bearer token, in place of the endpoint's own key: write ${ secret('name') }, so that it is "
                "kept nowhere."
            ),
            "writeOnly": True,
            "type": "string",
            "minLength": 1,
            "maxLength": LONGEST,
        },
        "headers": {
            "description": "More headers, beside `url`: names and values in ASCII.",
            "type": "object",
            "additionalProperties": SCALAR,
            "maxProperties": 64,
        },
        **ROUTE,
        "model": {"description": "The name of the model.", "type": "string", "minLength": 1, "maxLength": 256},
        "system": {"description": "What the model is told first, as the system.", "type": "string", "minLength": 1},
        "prompt": {"description": "The question, as one message of the user.", "type": "string", "minLength": 1},
        "messages": {
            "description": (
                "The conversation so far, in place of `prompt`; `system` comes before it. The `messages` of an output, "
                "and what tools gave, go on with it."
            ),
            **_MESSAGES,
        },
        "continue_from": {
            "description": (
                "An earlier answer to go on from, in place of `prompt` or `messages`, which it begins with; null for "
                "none: {messages, results}, the `messages` of its output, and what its `tool_calls` gave, in their "
                "order."
            ),
            "type": ["object", "null"],
            "properties": {
                "messages": _MESSAGES,
                "results": {"description": "Any JSON, which is sent as text.", "type": "array", "maxItems": 1_000},
            },
            "required": ["messages", "results"],
            "additionalProperties": False,
        },
        **SENT,
        "options": {
            "description": "Further fields of the request, sent as they are, such as top_k or chat_template_kwargs.",
            "type": "object",
            "maxProperties": 64,
        },
        **ABOUT_TOOLS,
        "output_schema": {
            "description": (
                "JSON Schema (draft 2020-12) of the answer: the model is told to answer with JSON that meets it, the "
                "answer is checked, and the model asked again with what is wrong. All schemas of a step have at most "
                f"{LARGEST_SCHEMAS} bytes."
            ),
            "type": "object",
        },
        "quality_attempts": {
            "description": (
                f"How often the model is asked for an answer that meets `output_schema`, or calls of `tools` that "
                f"meet theirs. Default {ASKS}."
            ),
            "type": "integer",
            "minimum": 1,
            "maximum": MOST_ASKS,
        },
        "response_format": {
            "description": (
                "How the server is told of `output_schema`. json_schema, the default: with the schema, which it makes "
                "the model keep to. json_object: that it is JSON, for servers that know no more. none: not at all. "
                "With the last two, the schema stands in a message of the system."
            ),
            "enum": ["json_schema", "json_object", "none"],
        },
        "strict": {
            "description": (
                "Sent with the schema: whether the server has to keep to all of it. OpenAI then takes schemas alone "
                "that require all properties and allow no others. Default: not sent."
            ),
            "type": "boolean",
        },
        "stream": {
            "description": (
                "Whether those who watch are shown the answer as it comes; what they see is not kept. Default: not."
            ),
            "type": "boolean",
        },
        "accept_truncated": {
            "description": "Whether an answer that ends at the most tokens is one. Default false: ANSWER_TRUNCATED.",
            "type": "boolean",
        },
        "timeout": {
            "description": (
                'For all asks together: seconds, or text such as "2m". The step\'s timeout, 5 min by default, holds in '
                "any case."
            ),
            "type": ["number", "string"],
            "exclusiveMinimum": 0,
            "maximum": TEN_YEARS,
        },
    },
    "required": ["model"],
    "additionalProperties": False,
}


def credentials(params: Mapping[str, Any]) -> Iterator[Path]:
    """Return where else than in `api_key` a question has credentials."""
    yield from of_url(params.get("url"), ("url",))
    yield from of_headers(params.get("headers"), ("headers",))


def check(params: Mapping[str, Any]) -> Iterator[Problem]:
    """Find what the schema cannot say; a template stands for a string that may yet become right."""
    yield from _check_place(params)
    if ("prompt" in params) == ("messages" in params):
        yield Problem(("prompt",), "must be given, or messages, and not both")
    if "max_tokens" in params and "max_completion_tokens" in params:
        yield Problem(("max_completion_tokens",), "cannot be given beside max_tokens; remove one of them")
    options = params.get("options")
    for name in options if isinstance(options, Mapping) else ():
        if name in _OURS:
            yield Problem(("options", name), "is sent by Flowkeep, where a param says so")
        elif name in _NOT_READ:
            yield Problem(("options", name), "is not supported: answers to it are not read")
    checking = Checking()
    yield from _check_messages(params.get("messages"), ("messages",))
    yield from _check_before(params.get("continue_from"))
    yield from check_tools(params, checking)
    yield from _check_output(params, checking)
    if isinstance(timeout := params.get("timeout"), str):
        try:
            if not seconds(timeout):
                yield Problem(("timeout",), "must be more than 0 s")
        except ValueError as error:
            yield Problem(("timeout",), str(error))


def _check_place(params: Mapping[str, Any]) -> Iterator[Problem]:
    if ("endpoint" in params) == ("url" in params):
        yield Problem(("endpoint",), "must be given, or url, and not both")
    if isinstance(url := params.get("url"), str):
        yield from check_url(url, ("url",), "api_key" if "api_key" in params else "")
        if "#" in url:
            yield Problem(("url",), "must be without a fragment, the part from # on")
        yield from check_route(params)
    headers = params.get("headers")
    for name in ("headers", "tls", "proxy") if "url" not in params else ():
        if name in params:
            yield Problem((name,), "can be given beside url alone; that of an endpoint stands in FLOWKEEP_MODELS")
    if isinstance(headers, Mapping):
        yield from check_headers(headers, "api_key" if "api_key" in params else "")
    if isinstance(key := params.get("api_key"), str) and (fault := fault_of_value(key)):
        yield Problem(("api_key",), fault)


def _check_before(before: Any) -> Iterator[Problem]:
    if not isinstance(before, Mapping):
        return
    messages, results = before["messages"], before["results"]
    place = ("continue_from", "messages")
    yield from _check_messages(messages, place)
    last = messages[-1] if isinstance(messages, list) else None
    calls = last.get("tool_calls", []) if isinstance(last, Mapping) else None
    if not isinstance(calls, list) or not isinstance(results, list):
        return  # a template
    if not all(isinstance(call, str) or isinstance(call.get("id"), str) for call in calls):
        yield Problem((*place, len(messages) - 1, "tool_calls"), "must be calls that have an id")
    elif len(calls) != len(results):
        yield Problem(("continue_from", "results"), f"must be those of {len(calls)} calls, and has {len(results)}")


def _check_messages(messages: Any, place: Path) -> Iterator[Problem]:
    for index, message in enumerate(messages if isinstance(messages, list) else ()):
        if not isinstance(message, Mapping):
            continue  # a template
        path = (*place, index)
        role, content = message["role"], message.get("content")
        if role == "tool":
            if "tool_call_id" not in message:
                yield Problem((*path, "tool_call_id"), "is required of a tool")
        elif role == "assistant" and content is None and message.get("tool_calls"):
            continue
        elif not content or not (isinstance(content, str) or _are_parts(content)):
            yield Problem((*path, "content"), "must be a text that is not empty, or a list of parts with a type")
        if role != "assistant" and "tool_calls" in message:
            yield Problem((*path, "tool_calls"), "is of the assistant alone")
        if role != "tool" and "tool_call_id" in message:
            yield Problem((*path, "tool_call_id"), "is of tools alone")


def _are_parts(content: Any) -> bool:
    return isinstance(content, list) and all(isinstance(each, Mapping) and "type" in each for each in content)


def _check_output(params: Mapping[str, Any], checking: Checking) -> Iterator[Problem]:
    if "output_schema" not in params:
        for name in ("response_format", "strict"):
            if name in params:
                yield Problem((name,), "is about output_schema, which is missing")
        if "quality_attempts" in params and "tools" not in params:
            yield Problem(("quality_attempts",), "is about output_schema and tools, which are missing")
        return
    if params.get("response_format") in ("json_object", "none") and "strict" in params:
        yield Problem(("strict",), "is about response_format: json_schema; remove it")
    if params.get("accept_truncated") is True:
        yield Problem(("accept_truncated",), "cannot be true beside output_schema: JSON that is cut off is none")
    if isinstance(schema := params["output_schema"], Mapping):
        for problem in checking.problems(schema):
            yield Problem(("output_schema", *problem.path), problem.message)
