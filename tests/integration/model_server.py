"""A real server of chat completions, which says what a test tells it to, whole or as a stream."""

from __future__ import annotations

import asyncio
import json
import select
import socket
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.patience import PATIENCE

KEY = "sk-of-the-tests-7f3a"
ROLES = {"system", "developer", "user", "assistant", "tool"}


@dataclass
class Reply:
    """What the server answers: `texts` are the pieces of a stream, or the answer when they are joined.

    `calls` are names and arguments of tools that it wants called. `status` beyond 200 gives `body` alone. `is_held`:
    after the texts nothing comes until the test releases the server. `is_cut`: the stream ends without its last events.
    `is_open`: it does not end after them.
    """

    texts: Sequence[str] = ()
    finish: str | None = "stop"
    calls: Sequence[tuple[str, str]] = ()
    refusal: str | None = None
    input_tokens: int = 10
    cached_tokens: int = 0
    output_tokens: int = 5
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: Any = None
    is_held: bool = False
    is_cut: bool = False
    is_open: bool = False

    @property
    def tool_calls(self) -> list[dict[str, Any]]:
        return [
            {"id": f"call-{number}", "type": "function", "function": {"name": name, "arguments": arguments}}
            for number, (name, arguments) in enumerate(self.calls, 1)
        ]

    @property
    def usage(self) -> dict[str, Any]:
        return {
            "prompt_tokens": self.input_tokens,
            "completion_tokens": self.output_tokens,
            "prompt_tokens_details": {"cached_tokens": self.cached_tokens},
        }


@dataclass
class Asked:
    """A request that the server took."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]

    @property
    def said(self) -> list[tuple[str, Any]]:
        """The messages, as role and content."""
        return [(each["role"], each["content"]) for each in self.body["messages"]]


@dataclass
class ModelServer:
    """Gives its replies one by one, the last one again and again."""

    url: str = ""
    replies: deque[Reply] = field(default_factory=lambda: deque([Reply(["Hello"])]))
    asked: list[Asked] = field(default_factory=list)
    release: threading.Event = field(default_factory=threading.Event)
    took: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    """Released with each request that is held."""
    hung_up: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    """Released when a caller closes the connection of a request that is held."""

    def says(self, *replies: Reply | str) -> None:
        """Answer so, from now on."""
        self.replies = deque(Reply([each]) if isinstance(each, str) else each for each in replies)

    def next(self) -> Reply:
        return self.replies.popleft() if len(self.replies) > 1 else self.replies[0]


def _fault(body: Any, headers: dict[str, str]) -> tuple[int, str]:
    """Return what a server of the protocol refuses, status 200 for nothing."""
    if headers.get("authorization") not in (None, f"Bearer {KEY}"):
        key = headers["authorization"].partition(" ")[2]
        return 401, f"Incorrect API key provided: {key}, of {headers.get('x-team')}"
    if not isinstance(body, dict) or not isinstance(body.get("model"), str):
        return 400, "you must provide a model parameter"
    messages = body.get("messages")
    if not messages or any(each.get("role") not in ROLES for each in messages):
        return 400, "messages: each has a role"
    if not all(each.get("content") or each.get("tool_calls") for each in messages):
        return 400, "messages: each has content"
    called = [call["id"] for each in messages for call in each.get("tool_calls", ())]
    if called != [each["tool_call_id"] for each in messages if each["role"] == "tool"]:
        return 400, "messages: each call of a tool is followed by its result"
    if any(not isinstance(each["content"], str) for each in messages if each["role"] == "tool"):
        return 400, "messages: what a tool gave is a text"
    form = body.get("response_format", {"type": "text"})
    if form["type"] == "json_schema" and not {"name", "schema"} <= form["json_schema"].keys():
        return 400, "response_format.json_schema: has a name and a schema"
    return 200, ""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    model_server: ModelServer

    def do_POST(self) -> None:
        sent = self.rfile.read(int(self.headers["content-length"]))
        body = json.loads(sent)
        headers = {name.lower(): value for name, value in self.headers.items()}
        server = self.model_server
        if self.path.partition("?")[0] != "/v1/chat/completions":
            return self._send(404, {"error": {"message": "no such path"}})
        status, fault = _fault(body, headers)
        if status != 200:
            return self._send(status, {"error": {"message": fault, "type": "invalid_request_error", "code": None}})
        server.asked.append(Asked(self.path, headers, body))
        reply = server.next()
        if reply.status != 200 or reply.body is not None:
            return self._send(reply.status, reply.body, reply.headers)
        if body.get("stream"):
            return self._stream(reply, body)
        if reply.is_held:
            self._hold()
        message: dict[str, Any] = {
            "role": "assistant",
            "content": "".join(reply.texts) or None,
            "refusal": reply.refusal,
        }
        if reply.calls:
            message["tool_calls"] = reply.tool_calls
        choice = {"index": 0, "message": message, "finish_reason": reply.finish}
        return self._send(200, {**self._head(body, "chat.completion"), "choices": [choice], "usage": reply.usage})

    def _head(self, body: Any, kind: str) -> dict[str, Any]:
        return {"id": "chatcmpl-1", "object": kind, "created": 1_790_000_000, "model": f"{body['model']}-2026"}

    def _send(self, status: int, document: Any, headers: dict[str, str] | None = None) -> None:
        data = document if isinstance(document, bytes) else json.dumps(document).encode()
        self.send_response_only(status)
        named = {"Content-Type": "application/json", "Content-Length": str(len(data)), **(headers or {})}
        for name, value in named.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def _stream(self, reply: Reply, body: Any) -> None:
        self.send_response_only(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        head = self._head(body, "chat.completion.chunk")
        self._event({**head, "choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]})
        for text in reply.texts:
            self._event({**head, "choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}]})
        for index, each in enumerate(reply.tool_calls):
            arguments = each["function"]["arguments"]
            begun = {**each, "index": index, "function": {"name": each["function"]["name"], "arguments": ""}}
            self._event({**head, "choices": [{"index": 0, "delta": {"tool_calls": [begun]}}]})
            for piece in (arguments[:3], arguments[3:]):
                more = {"index": index, "function": {"arguments": piece}}
                self._event({**head, "choices": [{"index": 0, "delta": {"tool_calls": [more]}}]})
        if reply.is_held:
            self._hold()
        if not reply.is_cut:
            if reply.refusal:
                self._event({**head, "choices": [{"index": 0, "delta": {"refusal": reply.refusal}}]})
            self._event({**head, "choices": [{"index": 0, "delta": {}, "finish_reason": reply.finish}]})
            if body.get("stream_options", {}).get("include_usage"):
                self._event({**head, "choices": [], "usage": reply.usage})
            self._chunk(b"data: [DONE]\n\n")
        if reply.is_open:
            self._hold()
        self._chunk(b"")

    def _event(self, document: Any) -> None:
        self._chunk(b"data: " + json.dumps(document).encode() + b"\n\n")

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.flush()

    def _hold(self) -> None:
        """Wait for the test, or for the caller to hang up."""
        self.model_server.took.release()
        while not self.model_server.release.is_set():
            readable, _, _ = select.select([self.connection], [], [], 0.02)
            if readable and self._has_hung_up():
                self.model_server.hung_up.release()
                raise ConnectionResetError

    def _has_hung_up(self) -> bool:
        try:
            return not self.connection.recv(1, socket.MSG_PEEK)
        except ConnectionError:
            return True

    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextmanager
def serving_model() -> Iterator[ModelServer]:
    """A server inside, in threads of its own."""
    server = ModelServer()

    class Handler(_Handler):
        model_server = server

    class Quiet(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 64

        def handle_error(self, request: Any, client_address: Any) -> None:
            pass  # a caller that hangs up is what some tests are about

    http = Quiet(("127.0.0.1", 0), Handler)
    server.url = f"http://127.0.0.1:{http.server_port}/v1"
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield server
    server.release.set()
    http.shutdown()
    http.server_close()
    thread.join()


def settings(server: ModelServer, **more: Any) -> str:
    """The setting that names the server."""
    prices = {"small": {"input": 0.5, "cached_input": 0.05, "output": 4}}
    return json.dumps({"lab": {"url": server.url, "key": KEY, "prices": prices, "currency": "EUR", **more}})


async def taken(semaphore: threading.Semaphore) -> bool:
    """Return whether a semaphore was released in the time that tests wait for anything."""
    return await asyncio.to_thread(semaphore.acquire, timeout=PATIENCE)
