"""What an HTTP answer becomes: the output of a step, or the reason why it failed."""

from __future__ import annotations

import asyncio
import email.utils
import re
from base64 import b64encode
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NoReturn

import httpx2

from service.engine import payload
from service.engine.failure import INVALID_OUTPUT
from service.engine.handlers.http_body import (
    TooManyValuesError,
    UnreadableError,
    as_json,
    as_text,
    big_as_text,
    is_json,
    media_type,
    uncompressed,
)
from service.engine.handlers.http_events import MEDIA_TYPE as EVENTS_TYPE
from service.engine.handlers.http_events import Events
from service.engine.handlers.http_fields import SECRET_HEADERS
from service.engine.handlers.http_secrets import Told
from service.engine.handlers.model import HandlerError

CONNECTION_FAILED = "CONNECTION_FAILED"
RESPONSE_TOO_LARGE = "RESPONSE_TOO_LARGE"
INVALID_RESPONSE = "INVALID_RESPONSE"

MAX_RETRY_AFTER = 3600.0
EXCERPT = 512
_EXCERPT_BYTES = 4 * EXCERPT
# Seconds for a body that is read by the way: the status says all.
_BY_THE_WAY = 2.0
# Compressed data is hardly ever longer than the plain; more of it than this is made to keep a reader busy.
_COMPRESSED_OVERHEAD = 64 << 10
_HINTS = {"none": "; redirects are not followed", "same_origin": "; redirects to another origin are not followed"}
_EVENTS_A_TURN = 64
_RETRYABLE = frozenset({408, 425, 429})
_WITHOUT_BODY = frozenset({204, 205, 304})
# From 2001 to 2286; as a number of seconds the least is 31 years.
_UNIX_TIMES = (1e9, 1e10)
_SECONDS = re.compile(r"[0-9]+(?:\.[0-9]+)?", re.ASCII)


def _unseen(text: str) -> None:
    """Show nothing."""


@dataclass(frozen=True, slots=True)
class Expectation:
    """What a call takes for a good answer, and how it is told of.

    `has_secret_body`: a failure that is about the body of a success shows nothing of it. `emit` is given each event,
    and may raise. An event has at most `max_bytes`; all have `max_stream_bytes`, or without it `max_bytes` as well.
    """

    method: str
    told: Told
    success_codes: tuple[str, ...]
    form: str
    has_big_as_text: bool
    max_bytes: int
    now: datetime
    redirects: str = "none"
    has_secret_body: bool = False
    max_stream_bytes: int | None = None
    emit: Callable[[str], None] = field(default=_unseen, repr=False, compare=False)

    def is_success(self, status: int) -> bool:
        """Return whether the caller counts this status as a success."""
        return not {str(status), f"{status_class(status)}xx"}.isdisjoint(self.success_codes)

    def error(
        self, code: str, text: str, *, retryable: bool = True, retry_after: float | None = None, **details: Any
    ) -> HandlerError:
        """Return the error of this call: its message names the call, its details the whole URL without secrets."""
        details = {"method": self.method, "url": self.told.url, **details}
        return HandlerError(code, f"{self.told.place}: {text}", details, retryable, retry_after)

    def too_long(self) -> str:
        """Return what is wrong with a body over its limit."""
        return f"the body is longer than the {self.max_bytes} bytes that max_response_bytes leaves it"


def status_class(status: int) -> int:
    """Return the class of a status. One beyond 599 is taken for a server error (RFC 9110, 15)."""
    return min(status // 100, 5)


def status_code(status: int) -> str:
    """Return the code of the failure that an answer of this status is where it is no success."""
    return f"HTTP_STATUS_{status_class(status)}XX"


async def read(response: httpx2.Response, expected: Expectation, limit: asyncio.Timeout) -> dict[str, Any]:
    """Return the output {status, headers, body}, as `read_sized` does."""
    output, _ = await read_sized(response, expected, limit)
    return output


async def read_sized(
    response: httpx2.Response, expected: Expectation, limit: asyncio.Timeout
) -> tuple[dict[str, Any], int]:
    """Return the output {status, headers, body} and the bytes of the body, uncompressed, or raise HandlerError.

    Reads no more of the body than is allowed.

    `limit` bounds the call. It is lifted when the status says all: what is wrong with a body changes nothing then.
    """
    status = response.status_code
    if not expected.is_success(status):
        await _refuse(response, expected, limit)
    if expected.form == "none" or expected.method == "HEAD" or status in _WITHOUT_BODY:
        await _glance(response, limit)  # the connection can be used again
        return {"status": status, "headers": _headers(response), "body": None}, 0
    if expected.form == "events":
        return await _heard(response, expected)
    came, is_whole = await _raw(response, _most(response, expected.max_bytes))

    async def failed(code: str, text: str) -> HandlerError:
        if expected.has_secret_body:
            return expected.error(code, text, retryable=False, status=status)
        excerpt = await _excerpt(came[:_EXCERPT_BYTES], response, expected.told)
        return expected.error(code, text, retryable=False, status=status, body=excerpt)

    try:
        plain, fits = await uncompressed(came, _codings(response), expected.max_bytes, partly=not is_whole)
        if not (fits and is_whole):
            raise await failed(RESPONSE_TOO_LARGE, expected.too_long())
        body = _parsed(plain, response.headers, expected)
    except TooManyValuesError as error:
        raise await failed(INVALID_OUTPUT, f"output.body {error}") from None
    except UnreadableError as error:
        raise await failed(INVALID_RESPONSE, str(error)) from None
    output = {"status": status, "headers": _headers(response), "body": body}
    await asyncio.sleep(0)  # reading a large one takes a while, and so does looking at it
    if fault := _fault(output):
        raise await failed(INVALID_OUTPUT, fault)
    return output, len(plain)


async def _heard(response: httpx2.Response, expected: Expectation) -> tuple[dict[str, Any], int]:
    """Show each event when it has come; return the output, with how many there were and the last of them."""
    status = response.status_code

    def failed(code: str, text: str) -> HandlerError:
        return expected.error(code, text, retryable=False, status=status)

    if media_type(_content_type(response.headers)) != EVENTS_TYPE:
        raise failed(INVALID_RESPONSE, f"the answer is not {EVENTS_TYPE}, which response: events asks for")
    if any(coding.strip().lower() not in ("", "identity") for coding in _codings(response)):
        raise failed(INVALID_RESPONSE, "the events are compressed, which was not asked for")
    events, size = Events(), 0
    most = expected.max_bytes if expected.max_stream_bytes is None else expected.max_stream_bytes
    async for chunk in response.aiter_raw():
        size += len(chunk)
        if size > most or events.held + len(chunk) > expected.max_bytes:
            raise failed(RESPONSE_TOO_LARGE, expected.too_long())
        for number, data in enumerate(events.take(chunk), 1):
            expected.emit(f"{data}\n")  # what comes at a time is shown together
            if number % _EVENTS_A_TURN == 0:
                await asyncio.sleep(0)
    body = {"events": events.count, "last": events.last}
    output = {"status": status, "headers": _headers(response), "body": body}
    if fault := _fault(output):
        raise failed(INVALID_OUTPUT, fault)
    return output, size


def _fault(output: dict[str, Any]) -> str:
    """Return why an output cannot be kept, and the way if there is one; empty when it can."""
    found = payload.check(output, "output")
    if not found:
        return ""
    if payload.is_bounded(output) and not payload.check(big_as_text(output)):
        return f"{found[0].field} is a whole number beyond 2^53; big_integers: text gives such numbers as text"
    return f"{found[0].field} {found[0].description}"


def _parsed(body: bytes, headers: httpx2.Headers, expected: Expectation) -> Any:
    if expected.form == "base64":
        return b64encode(body).decode()
    content_type = _content_type(headers)
    says_json = is_json(media_type(content_type))
    if expected.form == "auto" and not (body.strip() if says_json else body):
        return None
    if expected.form == "json" or (expected.form == "auto" and says_json):
        value = as_json(body, content_type)
        return big_as_text(value) if expected.has_big_as_text and payload.is_bounded(value) else value
    return as_text(body, content_type)


async def _refuse(response: httpx2.Response, expected: Expectation, limit: asyncio.Timeout) -> NoReturn:
    status = response.status_code
    excerpt = await _excerpt(await _glance(response, limit), response, expected.told)
    hint = _HINTS.get(expected.redirects, "") if 300 <= status < 400 and "location" in response.headers else ""
    text = f"answered {status} {response.reason_phrase[:64]}".rstrip() + hint
    raise expected.error(
        status_code(status),
        expected.told.hide(text),
        retryable=status >= 500 or status in _RETRYABLE,
        retry_after=_retry_after(response, expected.now),
        status=status,
        body=excerpt,
    )


async def pass_over(response: httpx2.Response, limit: asyncio.Timeout) -> None:
    """Read what there is of a body that nobody needs, so that the connection can be used again."""
    await _glance(response, limit)


async def _glance(response: httpx2.Response, limit: asyncio.Timeout) -> bytes:
    """Return the beginning of a body as far as it comes at once."""
    body, until = bytearray(), asyncio.get_running_loop().time() + _BY_THE_WAY
    until = min(until, limit.when() or until)
    limit.reschedule(None)
    with suppress(httpx2.RequestError, TimeoutError):
        async with asyncio.timeout_at(until):
            async for chunk in response.aiter_raw():
                body += chunk[: _EXCERPT_BYTES - len(body)]
                if len(body) >= _EXCERPT_BYTES:
                    break
    return bytes(body)


async def _raw(response: httpx2.Response, limit: int) -> tuple[bytes, bool]:
    """Return at most `limit` bytes as they came, and whether that is all."""
    gathered = bytearray()
    async for chunk in response.aiter_raw():
        gathered += chunk[: limit + 1 - len(gathered)]
        if len(gathered) > limit:
            return bytes(gathered[:limit]), False
    return bytes(gathered), True


def _most(response: httpx2.Response, max_bytes: int) -> int:
    return 2 * max_bytes + _COMPRESSED_OVERHEAD if _codings(response) else max_bytes


def _codings(response: httpx2.Response) -> list[str]:
    return response.headers.get_list("content-encoding")


def _headers(response: httpx2.Response) -> dict[str, str]:
    return {name: value for name, value in response.headers.items() if name not in SECRET_HEADERS}


def _content_type(headers: httpx2.Headers) -> str:
    return (headers.get_list("content-type") or [""])[-1]


async def _excerpt(body: bytes, response: httpx2.Response, told: Told) -> str:
    """Return the beginning of a body as text, as well as it can be read."""
    with suppress(UnreadableError):
        body, _ = await uncompressed(body, _codings(response), _EXCERPT_BYTES, partly=True)
    body = body[:_EXCERPT_BYTES]
    try:
        text = as_text(body, _content_type(response.headers))
    except UnreadableError:
        text = body.decode("utf-8", "replace").replace("\0", "\N{REPLACEMENT CHARACTER}")
    return told.hide(text)[:EXCERPT]


def _retry_after(response: httpx2.Response, now: datetime) -> float | None:
    """Return the pause in seconds that a 429 or 503 asks for, at most an hour."""
    wish = next(iter(response.headers.get_list("retry-after")), "").strip()
    if response.status_code not in (429, 503) or not wish:
        return None
    if _SECONDS.fullmatch(wish):
        return _bounded(_since(float(wish[:20]), now))
    if (moment := _date(wish)) is None:
        return None
    # Told by the other side's clock if it shows one: clocks of two machines differ.
    pause = (moment - (_date(response.headers.get("date", "")) or now)).total_seconds()
    return _bounded(pause)


def _since(seconds: float, now: datetime) -> float:
    """Return the pause of a number: of seconds, or of a moment in Unix time, which some servers give instead."""
    return seconds - now.timestamp() if _UNIX_TIMES[0] <= seconds < _UNIX_TIMES[1] else seconds


def _bounded(pause: float) -> float:
    return min(max(pause, 0.0), MAX_RETRY_AFTER)


def _date(text: str) -> datetime | None:
    try:
        moment = email.utils.parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
