"""What of a call may be told: its URL, and what came back, without what looks like a secret."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from urllib.parse import unquote_plus

import httpx2

HIDDEN = "***"
# Shorter ones stand in too many texts by chance.
_SHORTEST_HIDDEN = 6
_NAME = re.compile(
    r"token|secret|passw|passphrase|pwd|signature|credential|session|jwt|hmac|cookie|api-?key"
    r"|key(?!word|board)|auth(?!or(?!i))|(?<![a-z])(?:sig|sid|pass|pw|code)(?![a-z])",
    re.IGNORECASE,
)
_BETWEEN = re.compile("[&;]")


@dataclass(frozen=True, slots=True)
class Told:
    """How messages and details name a call: method, host and path; and the whole URL."""

    place: str
    url: str
    secrets: tuple[str, ...]

    def hide(self, text: str) -> str:
        """Return a text of the other side without the secrets of the call, which some servers repeat."""
        for secret in self.secrets:
            text = text.replace(secret, HIDDEN)
        return text


def told(request: httpx2.Request, more: Collection[str] = ()) -> Told:
    """Return how a call is told of. `more` are secrets that do not look like any."""
    path, _, query = request.url.raw_path.decode("ascii").partition("?")
    host = request.url.netloc.decode("ascii")
    parts = query.split("&")
    # Most queries hold nothing of the kind, and none of its parts has to be looked at then.
    secret = {part for part in parts if _is_secret(part)} if _NAME.search(_plain(query)) else set()
    secret |= {part for part in parts if unquote_plus(part.partition("=")[2]) in more}
    shown = "&".join(f"{part.partition('=')[0]}={HIDDEN}" if part in secret else part for part in parts)
    url = f"{request.url.scheme}://{host}{path}" + (f"?{shown}" if query else "")
    return Told(f"{request.method} {host}{path}"[:300], url, tuple(_longest_first([*_secrets(request, secret), *more])))


def told_by_host(request: httpx2.Request, more: Collection[str] = ()) -> Told:
    """Return how a call is told of whose path is a secret, as that of an incoming webhook is: by the host alone.

    `more` are secrets that do not look like any.
    """
    path, _, query = request.url.raw_path.decode("ascii").partition("?")
    host = request.url.netloc.decode("ascii")
    pieces = {path, *path.split("/")}
    secrets = (*pieces, *map(_plain, pieces), *_secrets(request, query.split("&")), *more)
    return Told(f"{request.method} {host}"[:300], f"{request.url.scheme}://{host}", tuple(_longest_first(secrets)))


def names_secret(name: str) -> bool:
    """Return whether what has this name is likely to be a secret."""
    return _NAME.search(name) is not None and name.lower() != "idempotency-key"


def _is_secret(part: str) -> bool:
    """Return whether one part of a query, or something inside it, is named like a secret."""
    pairs = _BETWEEN.split(_plain(part))
    return "=" in part and any(_NAME.search(pair.rpartition("=")[0]) for pair in pairs)


def _plain(text: str) -> str:
    # Twice, for a URL that is the value of a parameter.
    return unquote_plus(unquote_plus(text))


def _secrets(request: httpx2.Request, parts: Iterable[str]) -> Iterable[str]:
    for part in parts:
        value = part.partition("=")[2]
        yield from (value, unquote_plus(value))
    for name, value in request.headers.items():
        if names_secret(name):
            yield value
            yield value.partition(" ")[2]
    yield request.url.password


def _longest_first(secrets: Iterable[str]) -> list[str]:
    return sorted({each for each in secrets if len(each) >= _SHORTEST_HIDDEN}, key=len, reverse=True)
