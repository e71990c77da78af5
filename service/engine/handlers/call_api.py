"""The handler `call_api`: one HTTP call, safe to repeat by its Idempotency-Key."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import httpx2

from service.engine.failure import INVALID_PARAMS
from service.engine.handlers.http_answer import CONNECTION_FAILED, INVALID_RESPONSE, Expectation, read
from service.engine.handlers.http_params import DEFAULT_RESPONSE_BYTES, PARAMS, check
from service.engine.handlers.http_request import CONNECT_SECONDS, request
from service.engine.handlers.http_secrets import told
from service.engine.handlers.model import Handler, HandlerError, StepContext
from service.engine.handlers.wait import seconds

DESCRIPTION = """\
Calls an HTTP API. Gives {status, headers, body}; headers of one name are joined by commas, those with secrets left out.

Redirects are not followed, cookies not kept, and proxies of the server's environment not used: calls go straight to
the host. gzip and deflate are undone.

Fails with these codes; details hold the method, the URL without secrets, the status, and the beginning of the body:
HTTP_STATUS_2XX to HTTP_STATUS_5XX: a status that is no success, whatever its body is. Retried: 5XX (beyond 599 too),
408, 425 and 429; a Retry-After of 429 and 503 is waited for, at most an hour.
CONNECTION_FAILED: no connection, or none up to the end of the answer, or not within `timeout`. Retried.
INVALID_RESPONSE: what came is not HTTP, not what its headers say, or not what `response` asks for. Not retried.
RESPONSE_TOO_LARGE: a body longer than `max_response_bytes`. Not retried.
INVALID_OUTPUT: an answer that cannot be kept as the output of a step, for its size or its numbers. Not retried.
INVALID_PARAMS: params that are wrong once their templates are filled in. Not retried."""

# What httpx says when the other side hung up before the end of its answer.
_CUT_OFF = ("disconnected without sending", "closed connection without sending")


def call_api() -> Handler:
    """Return the handler, with connections of its own that are opened at the first call."""
    caller = _Caller()
    return Handler(
        name="call_api",
        description=DESCRIPTION,
        params_schema=PARAMS,
        run=caller.run,
        check=check,
        close=caller.close,
    )


class _Caller:
    """Makes calls over shared connections."""

    def __init__(self) -> None:
        self._transport: httpx2.AsyncHTTPTransport | None = None

    async def run(self, params: Mapping[str, Any], context: StepContext) -> Any:
        try:
            asked = request(params, context)
        except (httpx2.InvalidURL, ValueError, TypeError):
            # What these say may repeat the URL or a header, and those may hold secrets.
            message = "url: the URL, or the query with what is added to it, cannot be sent as it is"
            raise HandlerError(INVALID_PARAMS, message, retryable=False) from None
        named = told(asked)
        expectation = Expectation(
            method=asked.method,
            told=named,
            success_codes=tuple(str(code).lower() for code in params.get("success_codes", ("2xx",))),
            form=params.get("response", "auto"),
            has_big_as_text=params.get("big_integers") == "text",
            max_bytes=params.get("max_response_bytes", DEFAULT_RESPONSE_BYTES),
            now=context.now,
        )
        async with _bounded(params.get("timeout"), expectation) as limit, _connected(expectation):
            response = await self._open(expectation).handle_async_request(asked)
            try:
                return await read(response, expectation, limit)
            finally:
                await response.aclose()

    async def close(self) -> None:
        transport, self._transport = self._transport, None
        if transport is not None:
            await transport.aclose()

    def _open(self, expected: Expectation) -> httpx2.AsyncHTTPTransport:
        # A client would bring what a call of one tenant must not have: cookies of another's, the server's netrc and
        # proxies. Of the environment only the certificates are taken (SSL_CERT_FILE, SSL_CERT_DIR).
        if self._transport is None:
            limits = httpx2.Limits(max_connections=1000, max_keepalive_connections=100, keepalive_expiry=5.0)
            try:
                self._transport = httpx2.AsyncHTTPTransport(trust_env=True, limits=limits)
            except OSError:
                text = "the server cannot read the certificates that its SSL_CERT_FILE or SSL_CERT_DIR names"
                raise expected.error(CONNECTION_FAILED, text) from None
        return self._transport


@asynccontextmanager
async def _connected(expected: Expectation) -> AsyncIterator[None]:
    """Make what breaks on the way CONNECTION_FAILED, and what is no HTTP at all INVALID_RESPONSE."""
    try:
        yield
    except httpx2.RemoteProtocolError as error:
        if any(words in str(error) for words in _CUT_OFF):
            text = "the other side closed the connection before the end of its answer"
            raise expected.error(CONNECTION_FAILED, text) from error
        raise expected.error(INVALID_RESPONSE, "the answer is no HTTP/1.1", retryable=False) from error
    except httpx2.RequestError as error:
        raise expected.error(CONNECTION_FAILED, expected.told.hide(_reason(error))) from error


@asynccontextmanager
async def _bounded(timeout: float | str | None, expected: Expectation) -> AsyncIterator[asyncio.Timeout]:
    limit = asyncio.timeout(None if timeout is None else seconds(timeout))
    try:
        async with limit:
            yield limit
    except TimeoutError:
        if not limit.expired():
            raise
        text = timeout if isinstance(timeout, str) else f"{timeout:g} s"
        raise expected.error(CONNECTION_FAILED, f"no complete answer within {text}") from None


def _reason(error: httpx2.RequestError) -> str:
    """Return what happened. Only the text of a failed connect is known to hold no data of either side."""
    match error:
        case httpx2.ConnectTimeout():
            return f"no connection within {CONNECT_SECONDS:g} s"
        case httpx2.ConnectError():
            return f"no connection: {root_of(error)}"[:300]
        case _:
            return f"the connection broke off ({type(error).__name__})"


def root_of(error: BaseException) -> str:
    """Return why the other side was not reached, from the system that knows, without addresses."""
    text, cause = str(error) or type(error).__name__, error.__cause__ or error.__context__
    while cause is not None:
        if isinstance(cause, ConnectionError) and cause.errno:
            return os.strerror(cause.errno)
        cause = cause.__cause__ or cause.__context__
    return text
