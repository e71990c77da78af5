"""A real proxy, which leads by CONNECT to wherever it is asked."""

from __future__ import annotations

import select
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from service.engine.egress.named import Proxy


@dataclass
class Gateway:
    """What a proxy was asked for, with which credentials, and how it answers."""

    port: int = 0
    asked: list[str] = field(default_factory=list)
    authorizations: list[str | None] = field(default_factory=list)
    answer: bytes = b""
    """Given in place of a way, with the connection closed behind it."""

    def proxy(self, name: str = "out", **given: Any) -> Proxy:
        """The proxy as a deployment names it."""
        return Proxy(name, "127.0.0.1", self.port, **given)


@contextmanager
def serving_proxy() -> Iterator[Gateway]:
    """A proxy inside, in a thread of its own."""
    gateway = Gateway()

    class Leader(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_CONNECT(self) -> None:
            gateway.asked.append(self.path)
            gateway.authorizations.append(self.headers.get("Proxy-Authorization"))
            self.close_connection = True
            if gateway.answer:
                self.wfile.write(gateway.answer)
                return
            host, _, port = self.path.rpartition(":")
            with socket.create_connection((host.strip("[]"), int(port))) as other:
                self.wfile.write(b"HTTP/1.1 200 Go\r\n\r\n")
                _relay(self.connection, other)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    class Quiet(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: Any, client_address: Any) -> None:
            pass

    server = Quiet(("127.0.0.1", 0), Leader)
    gateway.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield gateway
    server.shutdown()
    server.server_close()
    thread.join()


def _relay(one: socket.socket, other: socket.socket) -> None:
    while True:
        for source in select.select([one, other], [], [])[0]:
            data = source.recv(65_536)
            if not data:
                return
            (other if source is one else one).sendall(data)
