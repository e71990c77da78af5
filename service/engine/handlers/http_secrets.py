"""What of a call may be told: its URL, and what came back, without what looks like a secret."""

from __future__ import annotations

import re
from collections.abc import Iterable
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
_BEYOND_NAME = re.compile(r"[^=&;]*=")


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


def told(request: httpx2.Request) -> Told:
    """Return how a call is told of."""
    path, _, query = request.url.raw_path.decode("ascii").partition("?")
    host = request.url.netloc.decode("ascii")
    parts = query.split("&")
    shown = "&".join(map(_shown, parts))
    url = f"{request.url.scheme}://{host}{path}" + (f"?{shown}" if query else "")
    return Told(f"{request.method} {host}{path}"[:300], url, tuple(_longest_first(_secrets(request, parts))))


def _shown(part: str) -> str:
    """Return one part of a query, its value hidden if it, or something inside it, is named like a secret."""
    name, equals, _ = part.partition("=")
    return f"{name}={HIDDEN}" if equals and _is_secret(part) else part


def _is_secret(part: str) -> bool:
    # Twice, for a URL that is the value of a parameter.
    text = unquote_plus(unquote_plus(part))
    return any(_NAME.search(name) for name in _BEYOND_NAME.findall(text))


def _secrets(request: httpx2.Request, parts: list[str]) -> Iterable[str]:
    for part in filter(_is_secret, parts):
        value = part.partition("=")[2]
        yield from (value, unquote_plus(value))
    for name, value in request.headers.items():
        if _NAME.search(name) and name != "idempotency-key":
            yield value
            yield value.partition(" ")[2]
    yield request.url.password


def _longest_first(secrets: Iterable[str]) -> list[str]:
    return sorted({each for each in secrets if len(each) >= _SHORTEST_HIDDEN}, key=len, reverse=True)
