"""A real HTTP server for the demo: busy at first, then it answers which licences are fine."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

ALLOWED = ["MIT", "BSD", "Apache", "PSF", "Python Software Foundation", "ISC", "Zope", "Unlicense", "CC0"]


class _PolicyHandler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        server: Any = self.server
        server.calls += 1
        if server.calls == 1:
            self._answer(503, {"error": "busy, come back in a second"}, {"Retry-After": "1"})
        else:
            self._answer(200, {"allowed": ALLOWED, "calls": server.calls}, {})

    def log_message(self, format: str, *args: Any) -> None:
        """Keep quiet: standard error belongs to the demo."""

    def _answer(self, status: int, body: dict[str, Any], headers: dict[str, str]) -> None:
        raw = json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", "Content-Length": str(len(raw)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(raw)


@contextmanager
def policy_server() -> Iterator[str]:
    """Serve on a free port of this machine inside; gives the URL. The first call gets a 503."""
    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), _PolicyHandler)
    server.calls = 0
    threading.Thread(target=server.serve_forever, name="policy server", daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/policy"
    finally:
        server.shutdown()
        server.server_close()
