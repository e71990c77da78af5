"""A real HTTP server that answers as a test says, and calls of `call_api` to it."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from flowkeep.handlers import HandlerError, StepContext
from service.engine.handlers.model import Handler
from tests.patience import PATIENCE
from tests.unit.attempts import context


@dataclass
class Call:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes


Answer = tuple[int, dict[str, str], bytes]
"""Status, headers and body."""


@dataclass
class Web:
    """Answers what a test put into `answers` by path, and keeps the calls."""

    url: str = ""
    answers: dict[str, Answer | bytes | Callable[[Call], Answer]] = field(default_factory=dict)
    calls: list[Call] = field(default_factory=list)
    release: threading.Event = field(default_factory=threading.Event)

    def answer(self, path: str, status: int = 200, body: bytes | str = b"", **headers: str) -> str:
        """Answer calls of a path so, and return its URL."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.answers[path] = (status, named, body.encode() if isinstance(body, str) else body)
        return self.url + path

    def by(self, path: str, answering: Callable[[Call], Answer]) -> str:
        """Answer calls of a path by what a function gives, and return its URL."""
        self.answers[path] = answering
        return self.url + path

    def raw(self, path: str, answer: bytes) -> str:
        """Answer calls of a path with these bytes, then close the connection; return the URL.

        That of /held is closed on release.
        """
        self.answers[path] = answer
        return self.url + path


def _serve(server: Web) -> ThreadingHTTPServer:
    class Answerer(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _answer(self) -> None:
            length = int(self.headers.get("content-length", 0))
            headers = {name.lower(): value for name, value in self.headers.items()}
            sent = Call(self.command, self.path, headers, self.rfile.read(length))
            server.calls.append(sent)
            path = self.path.partition("?")[0]
            if path == "/hang":
                server.release.wait(10 * PATIENCE)
            answer = server.answers.get(path, (200, {}, b""))
            answer = answer(sent) if callable(answer) else answer
            if isinstance(answer, bytes):
                self.wfile.write(answer)
                if path.endswith("/held"):
                    server.release.wait(10 * PATIENCE)
                self.close_connection = True
                return
            if path.endswith("/dribble"):
                self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
                while not server.release.wait(0.02):
                    self.wfile.write(b" ")
                self.close_connection = True
                return
            if path.endswith("/drip"):
                head = "".join(f"{name}: {value}\r\n" for name, value in {**answer[1], "Content-Length": "100"}.items())
                self.wfile.write(f"HTTP/1.1 {answer[0]} So\r\n{head}\r\nslow".encode())
                server.release.wait(10 * PATIENCE)
                self.close_connection = True
                return
            status, named, body = answer
            self.send_response_only(status)
            for name, value in {"Content-Length": str(len(body)), **named}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = do_OPTIONS = _answer

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


@contextmanager
def serving_web(tls: ssl.SSLContext | None = None) -> Iterator[Web]:
    """A server inside, in a thread of its own; with TLS it speaks nothing else."""
    server = Web()
    http = _serve(server)
    if tls is not None:
        http.socket = tls.wrap_socket(http.socket, server_side=True)
        server.url = server.url.replace("http://", "https://")
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield server
    server.release.set()
    http.shutdown()
    http.server_close()
    thread.join()


CONTEXT = replace(context(), step_path="fetch", attempt=1, idempotency_token="token-of-the-step")


async def call(caller: Handler, context: StepContext = CONTEXT, **params: Any) -> Any:
    """The output of a call with these params, which are found right."""
    assert caller.validate(params) == []
    return await caller.run(params, context)


async def failure(caller: Handler, context: StepContext = CONTEXT, **params: Any) -> HandlerError:
    """The error of a call with these params, which are found right."""
    with pytest.raises(HandlerError) as caught:
        await call(caller, context, **params)
    return caught.value
