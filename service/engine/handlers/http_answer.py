"""What an HTTP answer becomes: the output of a step, or the reason why it failed."""

from __future__ import annotations

import email.utils
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NoReturn

import httpx2
import msgspec

from service.engine.handlers.model import HandlerError

CONNECTION_FAILED = "CONNECTION_FAILED"
RESPONSE_TOO_LARGE = "RESPONSE_TOO_LARGE"
INVALID_RESPONSE = "INVALID_RESPONSE"

MAX_RETRY_AFTER = 3600.0
EXCERPT = 512
_EXCERPT_BYTES = 4 * EXCERPT
_RETRYABLE = frozenset({408, 425, 429})
_SECRET_HEADERS = frozenset({"set-cookie", "set-cookie2", "authorization", "www-authenticate", "proxy-authenticate"})
# Decoding these takes time that grows with the square of the length.
_NO_CHARSETS = frozenset({"idna", "punycode"})


@dataclass(frozen=True, slots=True)
class Expectation:
    """What a call takes for a good answer. `place` names the call in messages: method, host and path, no more."""

    place: str
    success_codes: tuple[str, ...]
    form: str
    max_bytes: int
    now: datetime

    def is_success(self, status: int) -> bool:
        """Return whether the caller counts this status as a success."""
        return not {str(status), f"{status // 100}xx"}.isdisjoint(self.success_codes)


async def read(response: httpx2.Response, expected: Expectation) -> dict[str, Any]:
    """Return the output {status, headers, body}, or raise HandlerError. Reads no more of the body than is allowed."""
    if not expected.is_success(response.status_code):
        await _refuse(response, expected)
    body, is_whole = await _body(response, expected.max_bytes)
    if not is_whole:
        raise HandlerError(
            RESPONSE_TOO_LARGE,
            f"{expected.place}: the body is longer than {expected.max_bytes} bytes (max_response_bytes)",
            {"status": response.status_code},
            retryable=False,
        )
    try:
        value = _parse(response, body, expected.form)
    except (ValueError, LookupError, RecursionError) as error:
        details = {"status": response.status_code, "body": _excerpt(body)}
        raise HandlerError(INVALID_RESPONSE, f"{expected.place}: {error}", details) from None
    return {"status": response.status_code, "headers": _headers(response), "body": value}


async def _refuse(response: httpx2.Response, expected: Expectation) -> NoReturn:
    status = response.status_code
    body, _ = await _body(response, _EXCERPT_BYTES)
    hint = "; redirects are not followed" if response.has_redirect_location else ""
    raise HandlerError(
        f"HTTP_STATUS_{status // 100}XX",
        f"{expected.place}: answered {status} {response.reason_phrase[:64]}".rstrip() + hint,
        {"status": status, "body": _excerpt(body)},
        retryable=status >= 500 or status in _RETRYABLE,
        retry_after=_retry_after(response, expected.now),
    )


async def _body(response: httpx2.Response, limit: int) -> tuple[bytes, bool]:
    """Return at most `limit` bytes, uncompressed, and whether that is all. Memory stays near the limit."""
    gathered = bytearray()
    async for chunk in response.aiter_bytes():
        gathered += chunk[: limit + 1 - len(gathered)]
        if len(gathered) > limit:
            return bytes(gathered[:limit]), False
    return bytes(gathered), True


def _parse(response: httpx2.Response, body: bytes, form: str) -> Any:
    kind, is_json = response.headers.get("content-type", "").partition(";")[0].strip().lower(), form == "json"
    if form == "auto":
        if not body:
            return None
        is_json = kind == "application/json" or kind.endswith("+json")
    if not is_json:
        return _text(body, response.charset_encoding or "utf-8")
    try:
        return msgspec.json.decode(body.removeprefix(b"\xef\xbb\xbf"))
    except (ValueError, RecursionError):
        raise ValueError("the body is not JSON") from None


def _text(body: bytes, charset: str) -> str:
    if charset.lower() in _NO_CHARSETS:
        raise ValueError("the body has an unknown charset")
    try:
        text = body.decode(charset)
    except (ValueError, LookupError):
        raise ValueError(f"the body is not text in {charset[:32]}") from None
    if "\0" in text:
        raise ValueError("the body is binary")
    return text


def _headers(response: httpx2.Response) -> dict[str, str]:
    return {name: value for name, value in response.headers.items() if name not in _SECRET_HEADERS}


def _excerpt(body: bytes) -> str:
    return body[:_EXCERPT_BYTES].decode("utf-8", "replace").replace("\0", "\N{REPLACEMENT CHARACTER}")[:EXCERPT]


def _retry_after(response: httpx2.Response, now: datetime) -> float | None:
    """Return the pause in seconds that a 429 or 503 asks for, at most an hour."""
    wish = response.headers.get("retry-after", "").strip()
    if response.status_code not in (429, 503) or not wish:
        return None
    if wish.isascii() and wish.isdigit():
        return min(float(wish[:10]), MAX_RETRY_AFTER)
    if (moment := _date(wish)) is None:
        return None
    # Told by the other side's clock if it shows one: clocks of two machines differ.
    pause = (moment - (_date(response.headers.get("date", "")) or now)).total_seconds()
    return min(max(pause, 0.0), MAX_RETRY_AFTER)


def _date(text: str) -> datetime | None:
    try:
        moment = email.utils.parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
