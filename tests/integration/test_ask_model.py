"""`ask_model` against a real server of chat completions: what is sent, what becomes of answers, and what fails."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from service.engine.chat import asking
from service.engine.chat.endpoints import parse
from service.engine.chat.models import Models
from service.engine.egress.egress import Egress
from service.engine.egress.guard import Guard
from service.engine.handlers.ask_model import ask_model
from service.engine.handlers.model import Handler
from tests.integration.model_server import KEY, ModelServer, Reply, serving_model, settings, taken
from tests.integration.web import CONTEXT, Web, call, failure

ITEM: dict[str, Any] = {
    "type": "object",
    "required": ["item", "count"],
    "properties": {"item": {"type": "string"}, "count": {"type": "integer", "minimum": 1}},
    "additionalProperties": False,
}
RIGHT = '{"item": "pen", "count": 3}'
ASKED: dict[str, Any] = {"endpoint": "lab", "model": "small", "prompt": "How many?"}
TOOL = {"name": "price", "description": "What an order costs.", "parameters": ITEM}


@pytest.fixture
def server() -> Iterator[ModelServer]:
    """A server of chat completions."""
    with serving_model() as served:
        yield served


@pytest_asyncio.fixture
async def asker(server: ModelServer) -> AsyncIterator[Handler]:
    """The handler of a deployment that knows the server, and whose workflows may call public addresses."""
    handler = ask_model(models=Models(parse(settings(server))))
    yield handler
    assert handler.close is not None
    await handler.close()


async def test_a_question_is_asked_as_the_protocol_has_it(asker: Handler, server: ModelServer) -> None:
    server.says(Reply(["Three", " pens"], input_tokens=1_000, cached_tokens=400, output_tokens=20))
    used: list[tuple[int, int, int]] = []
    output = await call(
        asker,
        replace(CONTEXT, meter=lambda *given: used.append(given)),
        **ASKED,
        system="Be short.",
        temperature=0.2,
        max_tokens=50,
        stop=["\n"],
        seed=7,
        options={"top_k": 3},
    )
    # 600 at 0.5, 400 at 0.05 and 20 at 4 millionths
    usage = {"input_tokens": 1_000, "cached_input_tokens": 400, "output_tokens": 20, "cost_micros": 400}
    assert output == {
        "text": "Three pens",
        "value": None,
        "tool_calls": [],
        "messages": None,
        "finish_reason": "stop",
        "id": "chatcmpl-1",
        "model": "small-2026",
        "asks": 1,
        "usage": {**usage, "currency": "EUR"},
    }
    assert used == [(1_000, 20, 400)]
    (asked,) = server.asked
    assert asked.body == {
        "top_k": 3,
        "model": "small",
        "messages": [{"role": "system", "content": "Be short."}, {"role": "user", "content": "How many?"}],
        "temperature": 0.2,
        "max_tokens": 50,
        "stop": ["\n"],
        "seed": 7,
    }
    assert asked.headers["authorization"] == f"Bearer {KEY}"
    assert asked.headers["idempotency-key"] == CONTEXT.idempotency_token


async def test_a_stream_is_shown_piece_by_piece_and_gives_the_same(asker: Handler, server: ModelServer) -> None:
    server.says(Reply(["Three", " pëns"]))
    shown: list[str] = []
    streamed = await call(asker, replace(CONTEXT, emitter=shown.append), **ASKED, stream=True)
    assert shown == ["Three", " pëns"]
    assert streamed == await call(asker, **ASKED)
    assert streamed["usage"]["input_tokens"] == 10


async def test_a_stream_is_over_when_it_says_so(
    asker: Handler, server: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "_MOMENT", 0.05)
    server.says(Reply(["Three"], is_open=True))
    assert (await call(asker, **ASKED, stream=True))["text"] == "Three"
    assert await taken(server.hung_up)


async def test_a_server_that_cannot_stream_is_heard_all_the_same(asker: Handler, server: ModelServer) -> None:
    whole = {"choices": [{"message": {"content": "Three"}, "finish_reason": "stop"}]}
    server.says(Reply(body=whole))
    assert (await call(asker, **ASKED, stream=True))["text"] == "Three"


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_that_is_not_right_is_asked_for_again(
    asker: Handler, server: ModelServer, stream: bool
) -> None:
    server.says("It is three pens.", '{"item": "pen", "count": 0}', f"```json\n{RIGHT}\n```")
    used: list[tuple[int, int, int]] = []
    context = replace(CONTEXT, meter=lambda *given: used.append(given))
    output = await call(asker, context, **ASKED, output_schema=ITEM, strict=True, stream=stream)
    assert (output["value"], output["text"], output["asks"]) == ({"item": "pen", "count": 3}, None, 3)
    assert output["usage"]["output_tokens"] == sum(given[1] for given in used) == 15
    described = {"name": "answer", "schema": ITEM, "strict": True}
    first, second, third = server.asked
    assert first.body["response_format"] == {"type": "json_schema", "json_schema": described}
    question = ("user", "How many?")
    assert first.said == [question]
    assert second.said[:-1] == [question, ("assistant", "It is three pens.")]
    assert "answer is not JSON alone" in second.said[-1][1]
    assert third.said[:-1] == [question, ("assistant", '{"item": "pen", "count": 0}')]
    assert "answer.count" in third.said[-1][1]
    keys = [asked.headers["idempotency-key"] for asked in server.asked]
    assert keys == ["token-of-the-step", "token-of-the-step.2", "token-of-the-step.3"]


async def test_a_model_that_never_gets_it_right_is_not_asked_for_ever(asker: Handler, server: ModelServer) -> None:
    server.says("", '{"item": "pen"}')
    error = await failure(asker, **ASKED, output_schema=ITEM, quality_attempts=2)
    assert (error.code, error.retryable, len(server.asked)) == ("OUTPUT_REJECTED", False, 2)
    assert error.message.startswith("lab small: the last of 2 answers is not what was asked for: answer.count")
    assert error.details["answer"] == '{"item": "pen"}'
    assert error.details["problems"] == ["answer.count is required"]


@pytest.mark.parametrize(("form", "sent"), [("json_object", {"type": "json_object"}), ("none", None)])
async def test_a_server_that_takes_no_schema_is_told_of_it_in_words(
    asker: Handler, server: ModelServer, form: str, sent: Any
) -> None:
    server.says(RIGHT)
    messages = [{"role": "system", "content": "Be short."}, {"role": "user", "content": "How many?"}]
    params: dict[str, Any] = {"endpoint": "lab", "model": "small", "messages": messages, "output_schema": ITEM}
    await call(asker, **params, response_format=form)
    (asked,) = server.asked
    assert asked.body.get("response_format") == sent
    (role, told), question = asked.said
    assert (role, question) == ("system", ("user", "How many?"))
    assert told.startswith("Be short.\n\nAnswer with JSON alone")
    assert json.loads(told.rpartition("\n")[2]) == ITEM


@pytest.mark.parametrize("stream", [False, True])
async def test_calls_of_tools_are_given_to_the_workflow_and_what_they_gave_goes_back(
    asker: Handler, server: ModelServer, stream: bool
) -> None:
    ink = '{"item": "ink", "count": 1}'
    server.says(Reply(["Let me see."], finish="tool_calls", calls=[("price", RIGHT), ("price", ink)]), "450 cents")
    asked = await call(asker, **ASKED, tools=[TOOL], output_schema=ITEM, stream=stream)
    assert asked["tool_calls"] == [
        {"id": "call-1", "name": "price", "arguments": {"item": "pen", "count": 3}},
        {"id": "call-2", "name": "price", "arguments": {"item": "ink", "count": 1}},
    ]
    assert (asked["text"], asked["value"], asked["finish_reason"]) == ("Let me see.", None, "tool_calls")
    assert server.asked[0].body["tools"] == [{"type": "function", "function": TOOL}]
    gave = [{"role": "tool", "tool_call_id": "call-1", "content": {"cents": 450}}]
    gave.append({"role": "tool", "tool_call_id": "call-2", "content": "there is no ink"})
    # The server takes nothing but calls of tools that are followed by their results.
    messages = [*asked["messages"], *gave]
    answered = await call(asker, endpoint="lab", model="small", messages=messages, tools=[TOOL], stream=stream)
    assert answered["text"] == "450 cents"
    assert answered["messages"][1:] == [
        asked["messages"][1],
        {**gave[0], "content": '{"cents":450}'},
        gave[1],
        {"role": "assistant", "content": "450 cents"},
    ]


async def test_calls_that_no_tool_would_take_are_asked_for_again(asker: Handler, server: ModelServer) -> None:
    server.says(
        Reply(calls=[("prize", RIGHT)]), Reply(calls=[("price", '{"item": "pen"}')]), Reply(calls=[("price", RIGHT)])
    )
    output = await call(asker, **ASKED, tools=[TOOL], tool_choice="required")
    assert (output["asks"], len(output["tool_calls"])) == (3, 1)
    _, second, third = server.asked
    assert [role for role, _ in second.said] == [role for role, _ in third.said] == ["user", "user"]
    assert "there is no tool of the name that was called; there are price" in second.said[-1][1]
    assert "price.arguments.count is required" in third.said[-1][1]
    assert second.body["tool_choice"] == "required"


async def test_calls_of_tools_that_nobody_gave_are_no_answer(asker: Handler, server: ModelServer) -> None:
    server.says(Reply(calls=[("price", RIGHT)]))
    assert (await failure(asker, **ASKED)).code == "INVALID_RESPONSE"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("reply", "code", "retryable"),
    [
        (Reply(["I"], finish="content_filter"), "CONTENT_FILTERED", False),
        (Reply(["I"], finish="length"), "ANSWER_TRUNCATED", False),
        (Reply(refusal="I will not"), "MODEL_REFUSED", False),
        (Reply(finish="tool_calls"), "INVALID_RESPONSE", False),
        (Reply(finish="error"), "SERVER_ERROR", True),
    ],
    ids=lambda given: given.finish if isinstance(given, Reply) else None,
)
async def test_an_answer_that_is_none_fails_by_its_reason_and_counts(
    asker: Handler, server: ModelServer, reply: Reply, code: str, retryable: bool, stream: bool
) -> None:
    server.says(reply)
    used: list[tuple[int, int, int]] = []
    error = await failure(asker, replace(CONTEXT, meter=lambda *given: used.append(given)), **ASKED, stream=stream)
    assert (error.code, error.retryable, used) == (code, retryable, [(10, 5, 25)])
    assert {"endpoint": "lab", "model": "small", "finish_reason": reply.finish}.items() <= error.details.items()


async def test_a_step_may_take_what_was_cut_off(asker: Handler, server: ModelServer) -> None:
    server.says(Reply(["Three pe"], finish="length"))
    output = await call(asker, **ASKED, accept_truncated=True)
    assert (output["text"], output["finish_reason"]) == ("Three pe", "length")


def refused(status: int, code: str = "", **headers: str) -> Reply:
    body = {"error": {"message": "no", "type": "t", "code": code or None}}
    return Reply(status=status, headers={name.replace("_", "-"): each for name, each in headers.items()}, body=body)


@pytest.mark.parametrize(
    ("reply", "code", "retryable", "pause"),
    [
        (refused(429, Retry_After="17"), "HTTP_STATUS_4XX", True, 17.0),
        (refused(429, "insufficient_quota", Retry_After="17"), "HTTP_STATUS_4XX", False, None),
        (refused(503, Retry_After="Thu, 01 Jan 2026 00:01:00 GMT"), "HTTP_STATUS_5XX", True, 60.0),
        (refused(529, "overloaded_error"), "HTTP_STATUS_5XX", True, None),
        (refused(400, "context_length_exceeded"), "HTTP_STATUS_4XX", False, None),
        (refused(400, "content_filter"), "CONTENT_FILTERED", False, None),
        (refused(302, Location="http://elsewhere.example/"), "HTTP_STATUS_3XX", False, None),
    ],
)
async def test_a_server_that_refuses_says_whether_and_when_to_come_again(
    asker: Handler, server: ModelServer, reply: Reply, code: str, retryable: bool, pause: float | None
) -> None:
    server.says(reply)
    error = await failure(asker, **ASKED)
    assert (error.code, error.retryable, error.retry_after) == (code, retryable, pause)
    assert error.details["status"] == reply.status


@pytest.mark.parametrize(
    ("body", "code", "retryable"),
    [
        (b"<html>", "INVALID_RESPONSE", False),
        ({"choices": []}, "INVALID_RESPONSE", False),
        ([], "INVALID_RESPONSE", False),
        ({"error": {"message": "busy", "code": 502}}, "SERVER_ERROR", True),
        ({"error": {"message": "wrong", "code": "400"}}, "SERVER_ERROR", False),
        ({"error": "no such model"}, "SERVER_ERROR", True),
        (b'{"choices": [{"message": {"content": "%s"}}]}' % (b"x" * (1 << 20)), "RESPONSE_TOO_LARGE", False),
    ],
    ids=str,
)
async def test_what_is_no_answer_is_told_as_what_it_is(
    asker: Handler, server: ModelServer, body: Any, code: str, retryable: bool
) -> None:
    server.says(Reply(body=body))
    error = await failure(asker, **ASKED)
    assert (error.code, error.retryable) == (code, retryable)


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
PIECE = b'data: {"choices": [{"delta": {"content": "%s"}}]}\n\n'


@pytest.mark.parametrize(
    ("stream", "code", "retryable"),
    [
        (PIECE % b"Thr", "CONNECTION_FAILED", True),
        (b'data: {"usage": {"prompt_tokens": 7}}\n\n' + PIECE % b"Thr", "CONNECTION_FAILED", True),
        (PIECE % b"Thr" + b'data: {"error": {"message": "out of memory"}}\n\n', "SERVER_ERROR", True),
        (b"data: Three\n\n", "INVALID_RESPONSE", False),
        (b"data: [DONE]\n\n", "INVALID_RESPONSE", False),
        ((PIECE % (b"x" * 60_000)) * 5, "RESPONSE_TOO_LARGE", False),
        (b'data: {"more": "%s"}\n\n' % (b"x" * (1 << 20)), "RESPONSE_TOO_LARGE", False),
    ],
    ids=["cut", "cut after usage", "error", "no JSON", "nothing", "long", "long event"],
)
async def test_a_stream_that_goes_wrong_is_told_as_what_it_is(
    web: Web, stream: bytes, code: str, retryable: bool
) -> None:
    web.raw("/v1/chat/completions", HEAD + stream)
    asker = ask_model(models=Models(parse(json.dumps({"lab": {"url": f"{web.url}/v1"}}))))
    used: list[tuple[int, int, int]] = []
    error = await failure(asker, replace(CONTEXT, meter=lambda *given: used.append(given)), **ASKED, stream=True)
    assert (error.code, error.retryable) == (code, retryable)
    assert used[:1] == ([(7, 0, 0)] if b"usage" in stream else [(0, 0, 0)])  # what was used counts all the same
    assert asker.close is not None
    await asker.close()


async def test_no_failure_tells_a_key_or_where_an_endpoint_is(server: ModelServer) -> None:
    key = "sk-somebody-elses"
    models = Models(parse(settings(server, key=key, headers={"X-Team": "team-of-the-tests"})))
    asker = ask_model(Egress(Guard(has_loopback=True)), models)
    by_url = await failure(asker, url=server.url, model="small", prompt="?", api_key=key)
    by_name = await failure(asker, **ASKED)
    for error in (by_url, by_name):
        assert error.code == "HTTP_STATUS_4XX"
        assert "Incorrect API key provided: ***" in error.details["body"]
        assert key not in str(error.message) + str(error.details)
    assert by_url.details["url"] == f"{server.url}/chat/completions"
    for each in (server.url.removeprefix("http://"), "team-of-the-tests"):
        assert each not in by_name.message + str(by_name.details)
    assert asker.close is not None
    await asker.close()


async def test_steps_choose_public_addresses_alone(asker: Handler, server: ModelServer) -> None:
    """While an endpoint of the deployment may be anywhere, as all other tests show."""
    error = await failure(asker, url=server.url, model="small", prompt="?", api_key=KEY)
    assert (error.code, error.retryable, server.asked) == ("ADDRESS_NOT_ALLOWED", False, [])


@pytest.mark.parametrize(
    ("endpoint", "said"),
    [("lob", "FLOWKEEP_MODELS has no endpoint 'lob'; it names lab"), ("lab", "lab: key_file cannot be read: No such")],
)
async def test_what_the_deployment_lacks_is_named(
    server: ModelServer, tmp_path: Path, endpoint: str, said: str
) -> None:
    setting = {"lab": {"url": server.url, "key_file": str(tmp_path / "key")}}
    asker = ask_model(models=Models(parse(json.dumps(setting))))
    error = await failure(asker, endpoint=endpoint, model="small", prompt="?")
    assert (error.code, error.retryable) == ("NOT_CONFIGURED", False)
    assert said in error.message


@pytest.mark.parametrize("stream", [False, True])
async def test_an_attempt_that_is_told_to_stop_hangs_up(asker: Handler, server: ModelServer, stream: bool) -> None:
    server.says(Reply(["Three"], is_held=True))
    attempt = asyncio.create_task(call(asker, **ASKED, stream=stream))
    assert await taken(server.took)
    attempt.cancel()
    with pytest.raises(asyncio.CancelledError):
        await attempt
    assert await taken(server.hung_up)


async def test_the_time_of_a_step_is_for_all_that_it_asks(asker: Handler, server: ModelServer) -> None:
    server.says(Reply(["Three"], is_held=True))
    error = await failure(asker, **ASKED, timeout=0.3, stream=True)
    assert (error.code, error.retryable) == ("CONNECTION_FAILED", True)
    assert error.message == "lab small: no complete answer within 0.3 s"
