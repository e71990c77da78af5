"""One answer of an API, and all that it takes to have it: a token, another one if it is refused, and redirects."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx2

from service.engine.handlers import http_redirect
from service.engine.handlers.http_answer import INVALID_RESPONSE, Expectation, pass_over, read_sized, status_code
from service.engine.handlers.http_auth import secrets_of
from service.engine.handlers.http_line import Line
from service.engine.handlers.http_redirect import LocationError, moved, redirected
from service.engine.handlers.http_secrets import told
from service.engine.handlers.http_tokens import Tokens, grant_of
from service.engine.handlers.http_url import origin, with_query
from service.engine.handlers.model import StepContext


@dataclass(frozen=True, slots=True)
class Answered:
    """An answer as the output of a step, the request that it is for after all redirects, and the bytes of its body."""

    output: dict[str, Any]
    size: int
    asked: httpx2.Request
    expected: Expectation


class Exchange:
    """Makes the calls of one attempt, as its params say."""

    def __init__(self, params: Mapping[str, Any], context: StepContext, line: Line, tokens: Tokens) -> None:
        auth = params.get("auth", {})
        named = params.get("response_headers")
        self._params = params
        self._now = context.now
        self._emit = context.emit
        self._line = line
        self._tokens = tokens
        self._grant = grant_of(auth)
        self._key = auth.get("api_key", {})
        self._secrets = secrets_of(auth)
        self._redirects = params.get("redirects", "none")
        self._headers = None if named is None else frozenset(map(str.lower, named))
        self._is_home = True
        """Whether nothing has led to another origin: only as long as that holds, secrets are sent."""

    async def answer(self, asked: httpx2.Request, max_bytes: int) -> Answered:
        """Return the answer to a request after redirects, with all its headers. Raises HandlerError."""
        token = await self._token(asked) if self._grant is not None and self._is_home else ""
        can_renew, hops = bool(token), 0
        while True:
            expected = self._expectation(asked, max_bytes)
            async with self._line.answer(asked, expected, is_asked_for=self._is_home) as (response, limit):
                is_refused = can_renew and response.status_code == 401
                onward = None if is_refused else self._onward(asked, response, expected)
                if not is_refused and onward is None:
                    output, size = await read_sized(response, expected, limit)
                    return Answered(output, size, asked, expected)
                if hops == http_redirect.MOST:
                    raise _too_many(response, expected)
                await pass_over(response, limit)
            if onward is None:
                token, can_renew = await self._token(asked, refused=token), False
            else:
                self._is_home &= origin(onward.url) == origin(asked.url)
                asked, hops = onward, hops + 1
                can_renew &= self._is_home

    def moved(self, asked: httpx2.Request, url: httpx2.URL) -> httpx2.Request:
        """Return the request for what an answer leads to, which gets what showed who calls at its origin alone."""
        self._is_home &= origin(url) == origin(asked.url)
        if self._is_home and "query" in self._key and self._key["query"] not in url.params:
            url = with_query(url, {self._key["query"]: self._key["value"]})
        return moved(asked, url, self._secrets)

    def shown(self, output: Mapping[str, Any]) -> dict[str, Any]:
        """Return what the step is to have of an answer beside its body."""
        headers = output["headers"]
        if self._headers is not None:
            headers = {name: value for name, value in headers.items() if name in self._headers}
        return {"status": output["status"], "headers": headers}

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

    def _expectation(self, asked: httpx2.Request, max_bytes: int) -> Expectation:
        return Expectation(
            method=asked.method,
            told=told(asked, self._secrets),
            success_codes=tuple(str(code).lower() for code in self._params.get("success_codes", ("2xx",))),
            form=self._params.get("response", "auto"),
            has_big_as_text=self._params.get("big_integers") == "text",
            max_bytes=max_bytes,
            now=self._now,
            redirects=self._redirects,
            emit=self._emit,
        )


def _too_many(response: httpx2.Response, expected: Expectation) -> Exception:
    status = response.status_code
    text = f"answered {status}, the redirect after {http_redirect.MOST} others; no more are followed"
    return expected.error(status_code(status), text, retryable=False, status=status)
