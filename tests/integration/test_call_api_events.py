"""Server-sent events that `call_api` reads from a real HTTP server, and shows."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from service.engine.handlers.http_events import Events
from service.engine.handlers.model import Handler
from tests.integration.conftest import Serve
from tests.integration.stage import Stage, made, step
from tests.integration.web import CONTEXT, Web, call, failure
from tests.patience import PATIENCE

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n\r\n"

STREAM = (
    b"\xef\xbb\xbfdata: one\n\n: a comment\n\n"
    b"event: more\r\ndata: t\xc3\xbcwo\r\ndata:  lines\r\nid: 7\r\nretry: 10\r\n\r\n"
    b"event: nothing\n\n"
    b"data\rother: x\r\r"
    b"data: a\0b\n\n"
    b"data: without an end\n"
)
SHOWN = ["one", "tüwo\n lines", "", "a\N{REPLACEMENT CHARACTER}b"]


def of(stream: bytes, size: int) -> tuple[list[str], Events]:
    """What is shown of a stream that comes in pieces of so many bytes."""
    events = Events()
    return [data for at in range(0, len(stream), size) for data in events.take(stream[at : at + size])], events


@pytest.mark.parametrize("size", [*range(1, 12), len(STREAM)])
def test_pieces_may_end_anywhere(size: int) -> None:
    shown, events = of(STREAM, size)
    assert shown == SHOWN
    assert (events.count, events.last) == (4, {"event": "message", "data": SHOWN[-1], "id": "7"})


async def test_each_event_is_shown_and_the_last_one_given(caller: Handler, web: Web) -> None:
    shown: list[str] = []
    url = web.raw("/a", HEAD + STREAM)
    output = await call(caller, replace(CONTEXT, emitter=shown.append), url=url, response="events")
    assert shown == [f"{each}\n" for each in SHOWN]
    assert output["body"] == {"events": 4, "last": {"event": "message", "data": SHOWN[-1], "id": "7"}}
    sent = web.calls[0].headers
    assert (sent["accept"], sent["accept-encoding"]) == ("text/event-stream", "identity")


async def test_stream_without_events(caller: Handler, web: Web) -> None:
    output = await call(caller, url=web.raw("/a", HEAD), response="events")
    assert output["body"] == {"events": 0, "last": None}
    assert (await call(caller, url=web.answer("/b", 204), response="events"))["body"] is None


@pytest.mark.parametrize(
    ("answer", "params", "code"),
    [
        (HEAD.replace(b"event-stream", b"plain") + STREAM, {}, "INVALID_RESPONSE"),
        (HEAD.replace(b"\r\n\r\n", b"\r\nContent-Encoding: gzip\r\n\r\n") + STREAM, {}, "INVALID_RESPONSE"),
        (HEAD + STREAM, {"max_response_bytes": len(STREAM) - 1}, "RESPONSE_TOO_LARGE"),
        (HEAD + b"data: " + b"x" * 300_000 + b"\n\n", {"max_response_bytes": 1 << 20}, "INVALID_OUTPUT"),
    ],
)
async def test_stream_that_is_not_what_was_asked_for(
    caller: Handler, web: Web, answer: bytes, params: dict[str, Any], code: str
) -> None:
    error = await failure(caller, url=web.raw("/a", answer), response="events", **params)
    assert (error.code, error.retryable) == (code, False)


async def test_stream_that_is_cut_off_is_asked_for_again(caller: Handler, web: Web) -> None:
    head = HEAD.replace(b"\r\n\r\n", b"\r\nContent-Length: 1000\r\n\r\n")
    error = await failure(caller, url=web.raw("/a", head + STREAM), response="events")
    assert (error.code, error.retryable) == ("CONNECTION_FAILED", True)


async def test_event_is_seen_by_a_watcher_before_the_stream_ends(serve: Serve, stage: Stage, web: Web) -> None:
    served = await serve(stage.handlers())
    url = web.raw("/held", HEAD + b"data: now\n\n")
    name = await made(served.client, step("first", "gate"), step("a", "call_api", url=url, response="events"))
    execution = await served.client.execute(name)
    async with asyncio.timeout(PATIENCE):
        async for response in served.client.watch_responses(execution.execution_id):
            stage.open("gate")
            if response.HasField("output"):
                assert response.output.text == "now\n"
                web.release.set()
    assert web.release.is_set()
