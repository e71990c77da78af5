"""The MCP servers of a deployment, as FLOWKEEP_MCP_SERVERS names them: programs to start, or URLs to call."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any
from urllib.parse import urlsplit

import msgspec

from service.engine.egress.allowed import parse as parse_target
from service.engine.egress.routes import Route, Routes

MOST_SERVERS = 100
HIDDEN = "***"

_FORM = (
    'must be JSON such as {"files": {"command": "files-mcp", "args": []}, "crm": {"url": "https://crm.example/mcp"}}'
)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_VALUE = re.compile(r"[\t\x20-\x7e]*")
# Shorter ones stand in too many texts by chance.
_SHORTEST_HIDDEN = 6


@dataclass(frozen=True, slots=True)
class StdioServer:
    """A program that is spoken to over its standard input and output."""

    command: str
    args: tuple[str, ...] = field(default=(), repr=False)
    env: Mapping[str, str] = field(default_factory=dict, repr=False)

    def hide(self, text: str) -> str:
        """Return a text of the server without the secrets that it was started with."""
        return _without(text, self.env.values())


@dataclass(frozen=True, slots=True)
class HttpServer:
    """A server that is called over HTTP, by certificates and a proxy that other settings name, if it has them."""

    url: str = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    tls: str | None = None
    proxy: str | None = None

    @property
    def target(self) -> str:
        """The host and port, in the form of FLOWKEEP_HTTP_ALLOW."""
        return _target(self.url)

    def route(self, routes: Routes, org: str | None = None) -> Route:
        """Return how calls of an org go to it, without one those of any. Raises RouteError."""
        found = routes.named(self.tls, self.proxy) if org is None else routes.route(org, self.tls, self.proxy)
        found.check(*_place(self.url))
        return found

    def hide(self, text: str) -> str:
        """Return a text of the server without the secrets that it is called with."""
        values = [*self.headers.values(), *(value.partition(" ")[2] for value in self.headers.values())]
        url = urlsplit(self.url)
        return _without(text, [*values, url.password or "", *(part.partition("=")[2] for part in url.query.split("&"))])


Server = StdioServer | HttpServer


def parse(text: str) -> Mapping[str, Server]:
    """Return the servers by name. Raises ValueError that says what is wrong where, and repeats no value."""
    try:
        document = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        raise ValueError(_FORM) from None
    if not isinstance(document, dict):
        raise ValueError(_FORM)
    if len(document) > MOST_SERVERS:
        raise ValueError(f"must name at most {MOST_SERVERS} servers")
    for name in document:
        if not _NAME.fullmatch(name):
            raise ValueError("a name of a server has 1 to 64 letters, digits and _ . - and begins with none of these")
    return MappingProxyType({name: _server(name, given) for name, given in document.items()})


def texts_of(server: Server) -> Iterable[str]:
    """Return the texts of a server that may name secrets: what it is started or called with."""
    return (server.env if isinstance(server, StdioServer) else server.headers).values()


def filled(server: Server, fill: Callable[[str], str]) -> Server:
    """Return a server with its secrets filled in. Raises ValueError, without any of it, where it cannot have them."""
    if isinstance(server, StdioServer):
        env = {name: fill(text) for name, text in server.env.items()}
        if any("\0" in text for text in env.values()):
            raise ValueError("its env cannot have a secret with the character NUL")
        return replace(server, env=MappingProxyType(env))
    return with_headers(server, fill)


def with_headers(server: HttpServer, fill: Callable[[str], str]) -> HttpServer:
    """Return a server with the secrets of its headers filled in. Raises ValueError, as `filled` does."""
    headers = {name: fill(text) for name, text in server.headers.items()}
    if not all(_HEADER_VALUE.fullmatch(text) and text == text.strip() for text in headers.values()):
        raise ValueError("its headers cannot have a secret with line ends, other control characters or beyond ASCII")
    return replace(server, headers=MappingProxyType(headers))


def _server(name: str, given: Any) -> Server:
    match given:
        case {"command": str(command), **rest} if command and rest.keys() <= {"args", "env"}:
            args = rest.get("args", [])
            if not isinstance(args, list) or not all(isinstance(each, str) and "\0" not in each for each in args):
                raise ValueError(f"{name}.args: must be a list of strings")
            env = _texts(rest.get("env", {}), f"{name}.env")
            if "\0" in command or any("\0" in each or "=" in key for key, each in env.items()):
                raise ValueError(f"{name}: command and env must be without the character NUL, and names without =")
            return StdioServer(command, tuple(args), env)
        case {"url": str(url), **rest} if rest.keys() <= {"headers", "tls", "proxy"}:
            return http_server(name, url, given)
    raise ValueError(
        f"{name}: must have a command, with args and env or without; or a url, with headers, tls and proxy or without"
    )


def http_server(name: str, url: str, given: Mapping[str, Any]) -> HttpServer:
    """Return the server of this name that is called at a URL, with the `headers`, `tls` and `proxy` that are given.

    Raises ValueError as `parse` does.
    """
    _check_url(url, f"{name}.url")
    headers = _texts(given.get("headers", {}), f"{name}.headers")
    for header, value in headers.items():
        if not _HEADER_NAME.fullmatch(header) or not _HEADER_VALUE.fullmatch(value) or value != value.strip():
            raise ValueError(f"{name}.headers: has a name or a value that headers cannot carry")
    for each in ("tls", "proxy"):
        if each in given and not (isinstance(given[each], str) and given[each]):
            raise ValueError(f"{name}.{each}: must be a name of FLOWKEEP_HTTP_{'TLS' if each == 'tls' else 'PROXIES'}")
    if "tls" in given and url.lower().startswith("http://"):
        raise ValueError(f"{name}.tls: has no effect on a URL with http://")
    return HttpServer(url, headers, given.get("tls"), given.get("proxy"))


def _texts(given: Any, place: str) -> Mapping[str, str]:
    if not isinstance(given, dict) or not all(key and isinstance(value, str) for key, value in given.items()):
        raise ValueError(f"{place}: must be an object whose values are strings")
    return MappingProxyType(given)


def _check_url(url: str, place: str) -> None:
    try:
        if urlsplit(url).scheme not in ("http", "https"):
            raise ValueError
        parse_target(_target(url))
    except ValueError:
        raise ValueError(f'{place}: must be an http or https URL, such as "https://crm.example/mcp"') from None


def _target(url: str) -> str:
    host, port = _place(url)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _place(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    return parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)


def _without(text: str, secrets: Any) -> str:
    for secret in sorted(_long(secrets), key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    return text


def _long(secrets: Any) -> Iterator[str]:
    return (each for each in set(secrets) if len(each) >= _SHORTEST_HIDDEN)
