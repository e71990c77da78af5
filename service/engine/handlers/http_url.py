"""URLs that are called: what is wrong with one, which origin it has, and how a query is added to it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import httpx2

from service.engine.handlers.http_fields import listed
from service.engine.schema import Problem
from service.engine.schema_places import Path

LONGEST = 8192

_PORTS = {"http": 80, "https": 443}
_HOST = re.compile(r"[0-9A-Za-z._~-]+")


def check_url(url: str, path: Path, user_beside: str) -> Iterator[Problem]:
    """Find what is wrong with the URL at `path`. With `user_beside`, which says who calls, it may name no user."""
    if not url.lower().startswith(("http://", "https://")):
        yield Problem(path, 'must begin with "http://" or "https://"')
        return
    try:
        parsed = httpx2.URL(url)
        host = parsed.raw_host.decode("ascii")
        if not host:
            yield Problem(path, "has no host")
        elif ":" not in host and not _HOST.fullmatch(host):
            yield Problem(path, "has a host with a character that names of hosts cannot have")
        elif (parsed.port or 0) > 65535:
            yield Problem(path, "has a port above 65535")
        elif parsed.userinfo and user_beside:
            yield Problem(path, f"cannot have a user beside {user_beside}; remove one of them")
    except (httpx2.InvalidURL, ValueError):
        yield Problem(path, "is no valid URL")


def host_of(url: httpx2.URL) -> str:
    """Return the host as it is looked up."""
    return url.raw_host.decode("ascii")


def port_of(url: httpx2.URL) -> int:
    """Return the port, that of the scheme where none is written."""
    return url.port or _PORTS.get(url.scheme, 0)


def origin(url: httpx2.URL) -> tuple[str, bytes, int]:
    """Return what is asked by a request: scheme, host and port."""
    return url.scheme, url.raw_host.lower(), port_of(url)


def with_query(url: httpx2.URL, more: Mapping[str, Any]) -> httpx2.URL:
    """Return the URL with `more` behind its query, which stays as it was written."""
    added = str(httpx2.QueryParams(listed(more)))
    if not added:
        return url
    written = url.query.decode("ascii")
    joined = f"{written}{'' if written.endswith('&') else '&'}{added}" if written else added
    return url.copy_with(query=joined.encode("ascii"))
