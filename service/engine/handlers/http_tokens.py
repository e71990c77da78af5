"""Tokens of OAuth 2 by client credentials (RFC 6749, 4.4), kept for the calls of an org until they are about to end."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from time import monotonic
from typing import Any, TypeAlias
from urllib.parse import quote_plus

import httpx2
import msgspec

from service.engine.egress.routes import Route
from service.engine.handlers.http_answer import INVALID_RESPONSE, Expectation, read
from service.engine.handlers.http_auth import basic
from service.engine.handlers.http_body import ACCEPTED_CODINGS
from service.engine.handlers.http_fields import fault_of_value
from service.engine.handlers.http_line import Line
from service.engine.handlers.http_request import request_to
from service.engine.handlers.http_secrets import told

UNSAID = 300.0
"""Seconds for which a token is kept whose server does not say for how long it is good."""

LONGEST = 86_400.0
"""Seconds for which any is kept."""

MOST_ORGS, OF_ONE_ORG = 128, 32
"""Whose tokens are kept, and how many of each."""

_LARGEST_ANSWER, _LARGEST_TOKEN = 64 << 10, 16 << 10
# Seconds before its end in which a token is not used any more, but no more than this part of its time.
_MARGIN, _MARGIN_SHARE = 60.0, 0.1


_Key: TypeAlias = tuple[bytes, Route]
"""The key of a grant, and the route by which its token is fetched."""


@dataclass(frozen=True, slots=True)
class Grant:
    """What a token is given for."""

    url: str
    client_id: str
    client_secret: str = field(repr=False)
    scopes: tuple[str, ...]
    audience: str
    is_in_body: bool

    @property
    def key(self) -> bytes:
        """What tells grants apart, without the secret itself: it is kept for as long as the token."""
        return hashlib.sha256(msgspec.json.encode(self)).digest()


def grant_of(auth: Mapping[str, Any]) -> Grant | None:
    """Return what a token is to be fetched for, None if the call needs none."""
    if (given := auth.get("oauth2")) is None:
        return None
    return Grant(
        given["token_url"],
        given["client_id"],
        given["client_secret"],
        tuple(given.get("scopes", ())),
        given.get("audience", ""),
        given.get("client_auth") == "body",
    )


class _Slot:
    """The place of one token: whoever finds none fetches one, and the others wait for it."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.token = ""
        self.end = 0.0

    def valid(self) -> str:
        return self.token if monotonic() < self.end else ""


class Tokens:
    """The tokens of one process, in memory alone. Those of one org are used for no other."""

    def __init__(self) -> None:
        self._slots: dict[str, dict[_Key, _Slot]] = {}
        """By org and by what they are for, what was used last at the end."""

    async def token(self, grant: Grant, line: Line, now: datetime, refused: str = "") -> str:
        """Return a token other than the one that was refused. Raises HandlerError when none is to be had."""
        request = _request(grant)
        expected = Expectation(
            method="POST",
            told=told(request, (grant.client_secret, quote_plus(grant.client_secret))),
            success_codes=("2xx",),
            form="json",
            has_big_as_text=True,
            max_bytes=_LARGEST_ANSWER,
            now=now,
            has_secret_body=True,
        )
        # A token may be good only for those who come with the certificate that it was asked for with.
        slot = self._slot(line.org, (grant.key, line.route))
        async with line.bounded(expected):
            await slot.lock.acquire()
        try:
            if refused and slot.token == refused:
                slot.end = 0.0
            if not slot.valid():
                began = monotonic()
                async with line.answer(request, expected) as (response, limit):
                    slot.token, period = _read((await read(response, expected, limit))["body"], expected)
                slot.end = began + period
            return slot.token
        finally:
            slot.lock.release()

    def _slot(self, org: str, key: _Key) -> _Slot:
        own = self._slots[org] = self._slots.pop(org, {})
        slot = own[key] = own.pop(key) if key in own else _Slot()
        if len(own) > OF_ONE_ORG:
            del own[next(iter(own))]
        if len(self._slots) > MOST_ORGS:
            del self._slots[next(iter(self._slots))]
        return slot


def _request(grant: Grant) -> httpx2.Request:
    headers = httpx2.Headers(
        {
            "User-Agent": "flowkeep",
            "Accept": "application/json",
            "Accept-Encoding": ACCEPTED_CODINGS,
            "Content-Type": "application/x-www-form-urlencoded",
        }
    )
    fields = {"grant_type": "client_credentials"}
    if grant.scopes:
        fields["scope"] = " ".join(grant.scopes)
    if grant.audience:
        fields["audience"] = grant.audience
    if grant.is_in_body:
        fields |= {"client_id": grant.client_id, "client_secret": grant.client_secret}
    else:
        headers["Authorization"] = basic(quote_plus(grant.client_id), quote_plus(grant.client_secret))
    return request_to("POST", httpx2.URL(grant.url), headers, str(httpx2.QueryParams(fields)).encode())


def _read(answer: Any, expected: Expectation) -> tuple[str, float]:
    """Return the token that an answer holds, and the seconds for which it is to be used."""
    token = answer.get("access_token") if isinstance(answer, dict) else None
    if not isinstance(token, str) or not 0 < len(token) <= _LARGEST_TOKEN or fault_of_value(token):
        text = "the answer has no access_token that can be sent in a header"
        raise expected.error(INVALID_RESPONSE, text, retryable=False)
    if str(answer.get("token_type", "bearer")).lower() != "bearer":
        raise expected.error(INVALID_RESPONSE, "the token is not of the type bearer", retryable=False)
    try:
        period = min(float(answer.get("expires_in", UNSAID)), LONGEST)  # some write it as text
    except (TypeError, ValueError):
        period = UNSAID
    return token, period - min(_MARGIN, period * _MARGIN_SHARE)
