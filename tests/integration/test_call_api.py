"""`call_api` against a real HTTP server."""

from __future__ import annotations

import asyncio
import gzip
import json
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from uuid import UUID

import pytest

from flowkeep.handlers import HandlerError, StepContext
from service.engine.handlers.call_api import call_api
from service.engine.handlers.model import Handler

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass
class Call:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Server:
    """Answers what a test put into `answers` by path, and keeps the calls."""

    url: str = ""
    answers: dict[str, tuple[int, dict[str, str], bytes]] = field(default_factory=dict)
    calls: list[Call] = field(default_factory=list)
    release: threading.Event = field(default_factory=threading.Event)

    def answer(self, path: str, status: int = 200, body: bytes | str = b"", **headers: str) -> str:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.answers[path] = (status, named, body.encode() if isinstance(body, str) else body)
        return self.url + path


def _serve(server: Server) -> ThreadingHTTPServer:
    class Answerer(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _answer(self) -> None:
            length = int(self.headers.get("content-length", 0))
            headers = {name.lower(): value for name, value in self.headers.items()}
            server.calls.append(Call(self.command, self.path, headers, self.rfile.read(length)))
            path = self.path.partition("?")[0]
            if path == "/hang":
                server.release.wait(30)
            if path == "/break":
                self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc")
                self.close_connection = True
                return
            status, named, body = server.answers.get(path, (200, {}, b""))
            self.send_response_only(status)
            for name, value in {"Content-Length": str(len(body)), **named}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = _answer

        def log_message(self, format: str, *args: Any) -> None:
            pass

    class Quiet(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 64

        def handle_error(self, request: Any, client_address: Any) -> None:
            pass  # a client that stops reading is what some tests are about

    http = Quiet(("127.0.0.1", 0), Answerer)
    server.url = f"http://127.0.0.1:{http.server_port}"
    return http


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    http = _serve(server)
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield server
    server.release.set()
    http.shutdown()
    http.server_close()
    thread.join()


@pytest.fixture
async def handler() -> AsyncIterator[Handler]:
    handler = call_api()
    yield handler
    assert handler.close is not None
    await handler.close()


CONTEXT = StepContext(
    execution_id=UUID(int=1),
    org="acme",
    owner="ann",
    workflow="w",
    step_path="fetch",
    attempt=1,
    idempotency_token="token-of-the-step",
    timeout=30.0,
    now=NOW,
    variables={},
    reporter=lambda percent, message: None,
    emitter=lambda text: None,
)


async def call(handler: Handler, context: StepContext = CONTEXT, **params: Any) -> Any:
    assert handler.validate(params) == []
    return await handler.run(params, context)


async def failure(handler: Handler, context: StepContext = CONTEXT, **params: Any) -> HandlerError:
    with pytest.raises(HandlerError) as caught:
        await call(handler, context, **params)
    return caught.value


async def test_json_answer(handler: Handler, server: Server) -> None:
    url = server.answer("/a", body='{"n": 1, "z": null}', Content_Type="application/json", X_Total="7")
    output = await call(handler, url=url)
    assert (output["status"], output["body"]) == (200, {"n": 1, "z": None})
    assert output["headers"]["x-total"] == "7"


@pytest.mark.parametrize(
    ("headers", "body", "response", "expected"),
    [
        ({"Content_Type": "application/problem+json; charset=utf-8"}, "[1]", "auto", [1]),
        ({"Content_Type": "text/plain"}, "[1]", "auto", "[1]"),
        ({"Content_Type": "text/plain"}, "[1]", "json", [1]),
        ({"Content_Type": "application/json"}, "[1]", "text", "[1]"),
        ({"Content_Type": "text/plain; charset=latin-1"}, "é".encode("latin-1"), "auto", "é"),
        ({}, "", "auto", None),
        ({"Content_Type": "application/json"}, b"\xef\xbb\xbf{}", "auto", {}),
        ({"Content_Encoding": "gzip"}, gzip.compress(b"hello", mtime=0), "auto", "hello"),
    ],
)
async def test_reading_of_the_body(
    handler: Handler, server: Server, headers: dict[str, str], body: bytes | str, response: str, expected: Any
) -> None:
    url = server.answer("/a", 200, body, **headers)
    assert (await call(handler, url=url, response=response))["body"] == expected


@pytest.mark.parametrize(
    ("headers", "body", "response"),
    [
        ({"Content_Type": "application/json"}, "{not json", "auto"),
        ({"Content_Type": "text/html"}, "<html>", "json"),
        ({}, "", "json"),
        ({"Content_Type": "image/png"}, b"\x89PNG\r\n\x1a\n\xff\xfe", "auto"),
        ({"Content_Type": "text/plain"}, b"a\0b", "auto"),
        ({"Content_Type": "text/plain; charset=punycode"}, b"abc", "auto"),
        ({"Content_Type": "text/plain; charset=no-such"}, b"\xff", "auto"),
        ({"Content_Type": "application/json"}, "[" * 100_000, "auto"),
        ({"Content_Encoding": "gzip"}, b"this is no gzip", "auto"),
    ],
)
async def test_answer_that_is_not_what_was_asked_for(
    handler: Handler, server: Server, headers: dict[str, str], body: bytes | str, response: str
) -> None:
    error = await failure(handler, url=server.answer("/a", 200, body, **headers), response=response)
    assert error.code == "INVALID_RESPONSE"


@pytest.mark.parametrize(
    ("status", "code", "retryable"),
    [
        (400, "HTTP_STATUS_4XX", False),
        (404, "HTTP_STATUS_4XX", False),
        (408, "HTTP_STATUS_4XX", True),
        (425, "HTTP_STATUS_4XX", True),
        (429, "HTTP_STATUS_4XX", True),
        (500, "HTTP_STATUS_5XX", True),
        (503, "HTTP_STATUS_5XX", True),
    ],
)
async def test_status_that_is_no_success(
    handler: Handler, server: Server, status: int, code: str, retryable: bool
) -> None:
    url = server.answer("/orders", status, "x" * 5000)
    error = await failure(handler, url=f"{url}?token=geheim", headers={"X-Key": "geheim"}, method="POST")
    assert (error.code, error.retryable, error.retry_after) == (code, retryable, None)
    assert error.details == {"status": status, "body": "x" * 512}
    host = url.removeprefix("http://").partition("/")[0]
    assert error.message.startswith(f"POST {host}: answered {status} ")
    assert "geheim" not in error.message


async def test_success_codes_decide(handler: Handler, server: Server) -> None:
    url = server.answer("/a", 404)
    assert (await call(handler, url=url, success_codes=["2xx", 404]))["status"] == 404
    assert (await call(handler, url=url, success_codes=["4XX"]))["status"] == 404
    assert (await failure(handler, url=server.answer("/b", 204), success_codes=[200])).code == "HTTP_STATUS_2XX"


async def test_redirect_is_not_followed(handler: Handler, server: Server) -> None:
    url = server.answer("/a", 302, Location="/b")
    error = await failure(handler, url=url)
    assert error.code == "HTTP_STATUS_3XX"
    assert not error.retryable
    assert "redirects are not followed" in error.message
    assert [c.path for c in server.calls] == ["/a"]


@pytest.mark.parametrize(
    ("status", "headers", "expected"),
    [
        (429, {"Retry_After": "7"}, 7.0),
        (503, {"Retry_After": "86400"}, 3600.0),
        (503, {"Retry_After": "9" * 400}, 3600.0),
        (503, {"Retry_After": format_datetime(NOW.replace(minute=2), usegmt=True)}, 120.0),
        (503, {"Retry_After": format_datetime(NOW.replace(year=2020), usegmt=True)}, 0.0),
        (503, {"Retry_After": "soon"}, None),
        (503, {"Retry_After": "-5"}, None),
        (500, {"Retry_After": "7"}, None),
    ],
)
async def test_retry_after(
    handler: Handler, server: Server, status: int, headers: dict[str, str], expected: float | None
) -> None:
    # The server of the standard library shows its clock; the test's is the one to count from.
    url = server.answer("/a", status, **headers, Date=format_datetime(NOW, usegmt=True))
    error = await failure(handler, url=url)
    assert error.retry_after == expected


async def test_body_over_the_cap(handler: Handler, server: Server) -> None:
    url = server.answer("/a", body=b"x" * 1001, Content_Type="text/plain")
    assert (await call(handler, url=url, max_response_bytes=1001))["body"] == "x" * 1001
    error = await failure(handler, url=url, max_response_bytes=1000)
    assert (error.code, error.retryable) == ("RESPONSE_TOO_LARGE", False)


async def test_cap_counts_what_compression_hides(handler: Handler, server: Server) -> None:
    bomb = gzip.compress(bytes(64 << 20), mtime=0)
    error = await failure(handler, url=server.answer("/a", body=bomb, Content_Encoding="gzip"))
    assert error.code == "RESPONSE_TOO_LARGE"


async def test_st5_token_is_equal_over_attempts_and_the_attempt_is_sent_apart(handler: Handler, server: Server) -> None:
    url = server.answer("/a")
    for attempt in (1, 2, 3):
        await call(handler, replace(CONTEXT, attempt=attempt), url=url)
    assert {c.headers["idempotency-key"] for c in server.calls} == {"token-of-the-step"}
    assert [c.headers["x-flowkeep-attempt"] for c in server.calls] == ["1", "2", "3"]


@pytest.mark.parametrize(
    ("params", "kind", "body"),
    [
        ({"json": {"a": [1, None]}}, "application/json", b'{"a":[1,null]}'),
        ({"json": None}, "application/json", b"null"),
        ({"text": "grüße"}, "text/plain; charset=utf-8", "grüße".encode()),
        ({"text": "<a/>", "headers": {"content-type": "application/xml"}}, "application/xml", b"<a/>"),
        ({"form": {"a": 1, "b": [True, "x y"]}}, "application/x-www-form-urlencoded", b"a=1&b=true&b=x+y"),
    ],
)
async def test_bodies(handler: Handler, server: Server, params: dict[str, Any], kind: str, body: bytes) -> None:
    await call(handler, url=server.answer("/a"), method="POST", **params)
    assert (server.calls[0].headers["content-type"], server.calls[0].body) == (kind, body)


async def test_query_is_added_to_that_of_the_url(handler: Handler, server: Server) -> None:
    await call(handler, url=server.answer("/a") + "?x=1", query={"n": [1, 2], "ok": False})
    assert server.calls[0].path == "/a?x=1&n=1&n=2&ok=false"


async def test_authorisation(handler: Handler, server: Server) -> None:
    url = server.answer("/a", Set_Cookie="s=1", WWW_Authenticate="Basic")
    output = await call(handler, url=url, auth={"bearer": "abc"})
    await call(handler, url=url, auth={"basic": {"username": "ann", "password": "pw"}})
    assert [c.headers["authorization"] for c in server.calls] == ["Bearer abc", "Basic YW5uOnB3"]
    assert not {"set-cookie", "www-authenticate"} & output["headers"].keys()


async def test_cookies_of_one_call_do_not_ride_on_another(handler: Handler, server: Server) -> None:
    url = server.answer("/a", Set_Cookie="session=1; Path=/")
    await call(handler, url=url)
    await call(handler, url=url)
    assert "cookie" not in server.calls[1].headers


async def test_head_has_no_body(handler: Handler, server: Server) -> None:
    url = server.answer("/a", body="{}", Content_Type="application/json")
    assert (await call(handler, url=url, method="HEAD"))["body"] is None


async def test_own_timeout(handler: Handler, server: Server) -> None:
    error = await failure(handler, url=server.url + "/hang", timeout=0.05)
    assert (error.code, error.retryable) == ("CONNECTION_FAILED", True)
    assert "no complete answer within 0.05 s" in error.message


async def test_timeout_of_the_step_and_cancel_reach_the_call(handler: Handler, server: Server) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await call(handler, url=server.url + "/hang")


async def test_connection_refused(handler: Handler) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        error = await failure(handler, url=f"http://ann:geheim@127.0.0.1:{taken.getsockname()[1]}/a?k=geheim")
    assert (error.code, error.retryable) == ("CONNECTION_FAILED", True)
    assert "geheim" not in error.message


async def test_connection_that_breaks_off(handler: Handler, server: Server) -> None:
    error = await failure(handler, url=server.url + "/break")
    assert error.code == "CONNECTION_FAILED"


@pytest.mark.parametrize("headers", [{"X-A": "a\r\nX-B: b"}, {"X A": "b"}, {"X-A": "grüße"}, {"X-A": "☃"}])
async def test_headers_that_cannot_be_sent(handler: Handler, server: Server, headers: dict[str, str]) -> None:
    try:
        await call(handler, url=server.answer("/a"), headers=headers)
    except HandlerError as error:
        assert (error.code, error.retryable) == ("INVALID_PARAMS", False)
        assert not any(value in error.message for value in headers.values())
    else:
        assert headers == {"X-A": "grüße"}
    assert all("x-b" not in c.headers for c in server.calls)


async def test_calls_at_the_same_time_and_after_close(handler: Handler, server: Server) -> None:
    assert handler.close is not None
    await asyncio.gather(*(call(handler, url=server.answer("/a", body=json.dumps(n))) for n in range(20)))
    await handler.close()
    assert (await call(handler, url=server.answer("/a")))["status"] == 200
