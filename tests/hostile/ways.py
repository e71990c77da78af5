"""How the steps of a workflow come to call a URL, beside `call_api` itself: each URL is tried by each (H8)."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

from tests.hostile.cases import Case
from tests.integration.web import Answer, Call, Web

STATUSES = (301, 302, 303, 307, 308)

MORE = (
    Case("a dot at the end of an address", "http://127.0.0.1.:{port}/", "ADDRESS_NOT_ALLOWED"),
    Case("a dot at the end of a name", "http://localhost.:{port}/", "ADDRESS_NOT_ALLOWED"),
    Case("a zone without escapes", "http://[fe80::1%lo]:{port}/", "ADDRESS_NOT_ALLOWED"),
    Case("a zone of loopback", "http://[::1%lo]:{port}/", "ADDRESS_NOT_ALLOWED"),
    Case("a short address of a network inside", "http://10.1:{port}/", "ADDRESS_NOT_ALLOWED"),
    Case("metadata in octal", "http://0251.0376.0251.0376/", "INVALID_PARAMS"),
    Case("metadata, two parts of it", "http://169.16689662/", "ADDRESS_NOT_ALLOWED"),
    Case("metadata, mapped", "http://[::ffff:169.254.169.254]/", "ADDRESS_NOT_ALLOWED"),
    Case("metadata by 6to4", "http://[2002:a9fe:a9fe::1]/", "ADDRESS_NOT_ALLOWED"),
    Case("metadata of Google in IPv6", "http://[fd20:ce::254]/", "ADDRESS_NOT_ALLOWED"),
    Case("a port of another service", "http://127.0.0.1:22/", "ADDRESS_NOT_ALLOWED"),
    Case("the port 0", "http://127.0.0.1:0/", "ADDRESS_NOT_ALLOWED"),
    Case("a negative port", "http://127.0.0.1:-1/", "INVALID_PARAMS"),
    Case("a soft hyphen", "http://local\u00adhost:{port}/", "ADDRESS_NOT_ALLOWED"),
    Case("a space of no width", "http://local\u200bhost:{port}/", "INVALID_PARAMS"),
    Case("a long s", "http://localho\u017ft:{port}/", "INVALID_PARAMS"),
)
"""URLs beside those of `calls.py`."""


Params = Callable[[str], dict[str, Any]]

_OAUTH2 = {"client_id": "me", "client_secret": "x"}
_QUESTION = {"model": "m", "prompt": "?"}


def ways(web: Web) -> dict[str, tuple[str, Params]]:
    """The ways: a handler, and its params that have it call a URL; some have a server outside lead there."""
    away, page, plain = web.by("/away", _away), web.by("/page", _page), web.answer("/a")
    pages = {"next": "body.next", "items": "body.items"}

    def redirect(status: int) -> Params:
        return lambda url: {"url": away, "query": {"to": url, "status": status}, "redirects": "any"}

    return {
        "a call": ("call_api", lambda url: {"url": url}),
        "events": ("call_api", lambda url: {"url": url, "response": "events"}),
        "a file": ("call_api", lambda url: {"url": url, "method": "POST", "multipart": [{"name": "a", "text": "b"}]}),
        "a token": ("call_api", lambda url: {"url": plain, "auth": {"oauth2": {"token_url": url, **_OAUTH2}}}),
        "a page": ("call_api", lambda url: {"url": page, "query": {"to": url}, "pages": pages}),
        "a proxy": ("call_api", lambda url: {"url": url, "proxy": "out"}),
        "a webhook": ("send_notification", lambda url: {"webhook": {"url": url, "json": {}}}),
        "a message": ("send_notification", lambda url: {"slack": {"url": url, "text": "x"}}),
        "a message by a proxy": ("send_notification", lambda url: {"slack": {"url": url, "text": "x", "proxy": "out"}}),
        "a model": ("ask_model", lambda url: {"url": url, **_QUESTION, "stream": True}),
        "a model by a proxy": ("ask_model", lambda url: {"url": url, **_QUESTION, "proxy": "out"}),
        "gRPC": ("call_grpc", lambda url: {"target": url, "method": "a.B/C"}),
        "gRPC without TLS": ("call_grpc", lambda url: {"target": _bare(url), "method": "a.B/C", "tls": False}),
        **{f"a redirect with {status}": ("call_api", redirect(status)) for status in STATUSES},
        "a second redirect": ("call_api", lambda url: {"url": away, "query": {"then": url}, "redirects": "any"}),
    }


def _bare(url: str) -> str:
    """Return host and port of a URL."""
    return url.partition("://")[2].rstrip("/")


def redirecting(status: int, to: str) -> bytes:
    """An answer that leads elsewhere, also to what no library would write."""
    location = to.encode().replace(b"\r", b"").replace(b"\n", b"")
    return b"HTTP/1.1 %d Away\r\nContent-Length: 0\r\nConnection: close\r\nLocation: %s\r\n\r\n" % (status, location)


def _away(asked: Call) -> Answer:
    query = parse_qs(urlsplit(asked.path).query)
    if "then" in query:
        return redirecting(302, f"?status=302&to={quote(query['then'][0])}")  # type: ignore[return-value]
    return redirecting(int(query["status"][0]), query["to"][0])  # type: ignore[return-value]


def _page(asked: Call) -> Answer:
    to = parse_qs(urlsplit(asked.path).query)["to"][0]
    body = json.dumps({"next": to, "items": []}).encode()
    return 200, {"Content-Type": "application/json"}, body
