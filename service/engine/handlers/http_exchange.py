"""One answer of an API, and all that it takes to have it: a token, another one if it is refused, and redirects."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import httpx2

from service.engine.handlers import http_redirect
from service.engine.handlers.http_answer import INVALID_RESPONSE, Expectation, pass_over, read, status_code
from service.engine.handlers.http_auth import secrets_of
from service.engine.handlers.http_line import Line
from service.engine.handlers.http_params import DEFAULT_RESPONSE_BYTES
from service.engine.handlers.http_redirect import LocationError, redirected
from service.engine.handlers.http_secrets import told
from service.engine.handlers.http_tokens import Tokens, grant_of
from service.engine.handlers.model import StepContext


class Exchange:
    """Makes the calls of one attempt, as its params say."""

    def __init__(self, params: Mapping[str, Any], context: StepContext, line: Line, tokens: Tokens) -> None:
        auth = params.get("auth", {})
        self._params = params
        self._now = context.now
        self._line = line
        self._tokens = tokens
        self._grant = grant_of(auth)
        self._secrets = secrets_of(auth)
        self._redirects = params.get("redirects", "none")

    async def answer(self, asked: httpx2.Request) -> dict[str, Any]:
        """Return the output {status, headers, body} of the last answer. Raises HandlerError."""
        token = await self._token(asked) if self._grant is not None else ""
        can_renew, hops = bool(token), 0
        while True:
            expected = self._expectation(asked)
            async with self._line.answer(asked, expected) as (response, limit):
                is_refused = can_renew and response.status_code == 401
                onward = None if is_refused else self._onward(asked, response, expected)
                if not is_refused and onward is None:
                    return await read(response, expected, limit)
                if hops == http_redirect.MOST:
                    raise _too_many(response, expected)
                await pass_over(response, limit)
            if onward is None:
                token, can_renew = await self._token(asked, refused=token), False
            else:
                asked, hops = onward, hops + 1
                can_renew = can_renew and "authorization" in asked.headers

    async def _token(self, asked: httpx2.Request, refused: str = "") -> str:
        """Put a token into a request, and return it."""
        assert self._grant is not None  # noqa: S101 - asked for by those that have one
        token = await self._tokens.token(self._grant, self._line, self._now, refused)
        asked.headers["Authorization"] = f"Bearer {token}"
        return token

    def _onward(self, asked: httpx2.Request, response: httpx2.Response, expected: Expectation) -> httpx2.Request | None:
        if expected.is_success(response.status_code):
            return None
        try:
            return redirected(asked, response, self._redirects, self._secrets)
        except LocationError:
            text = f"answered {response.status_code}, a redirect to what is no URL that can be called"
            raise expected.error(INVALID_RESPONSE, text, retryable=False, status=response.status_code) from None

    def _expectation(self, asked: httpx2.Request) -> Expectation:
        named = self._params.get("response_headers")
        return Expectation(
            method=asked.method,
            told=told(asked, self._secrets),
            success_codes=tuple(str(code).lower() for code in self._params.get("success_codes", ("2xx",))),
            form=self._params.get("response", "auto"),
            has_big_as_text=self._params.get("big_integers") == "text",
            max_bytes=self._params.get("max_response_bytes", DEFAULT_RESPONSE_BYTES),
            now=self._now,
            redirects=self._redirects,
            headers=None if named is None else frozenset(map(str.lower, named)),
        )


def _too_many(response: httpx2.Response, expected: Expectation) -> Exception:
    status = response.status_code
    text = f"answered {status}, the redirect after {http_redirect.MOST} others; no more are followed"
    return expected.error(status_code(status), text, retryable=False, status=status)
