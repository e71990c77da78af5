"""The handler `call_api`: one HTTP call, safe to repeat by its Idempotency-Key."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import httpx2

from service.engine.egress.egress import CertificatesError, Egress
from service.engine.egress.guard import AddressNotAllowedError, Guard
from service.engine.egress.http11 import UnboundedAnswerError
from service.engine.failure import INVALID_PARAMS
from service.engine.handlers.http_answer import CONNECTION_FAILED, INVALID_RESPONSE, Expectation, read
from service.engine.handlers.http_params import DEFAULT_RESPONSE_BYTES, PARAMS, check
from service.engine.handlers.http_request import CONNECT_SECONDS, request
from service.engine.handlers.http_secrets import told
from service.engine.handlers.model import Effect, Handler, HandlerError, StepContext
from service.engine.pauses import seconds

DESCRIPTION = """\
Calls an HTTP API. Gives {status, headers, body}; headers of one name are joined by commas, those with secrets left out.

Redirects are not followed, cookies not kept, and proxies of the server's environment not used: calls go straight to
the host. gzip and deflate are undone. An answer that has begun must be complete within 30 s, or within `timeout`.

Hosts are called at public addresses only, unless the server's setting FLOWKEEP_HTTP_ALLOW names others.

Fails with these codes; details hold the method, the URL without secrets, the status, and the beginning of the body:
HTTP_STATUS_2XX to HTTP_STATUS_5XX: a status that is no success, whatever its body is. Retried: 5XX (beyond 599 too),
408, 425 and 429; a Retry-After of 429 and 503 is waited for, at most an hour.
CONNECTION_FAILED: no connection, or none up to the end of the answer, or not in time. Retried.
ADDRESS_NOT_ALLOWED: the host has an address that workflows may not call. Nothing was sent. Not retried.
INVALID_RESPONSE: what came is not HTTP, not what its headers say, or not what `response` asks for. Not retried.
RESPONSE_TOO_LARGE: a body longer than `max_response_bytes`. Not retried.
INVALID_OUTPUT: an answer that cannot be kept as the output of a step, for its size or its numbers. Not retried.
INVALID_PARAMS: params that are wrong once their templates are filled in. Not retried."""

ADDRESS_NOT_ALLOWED = "ADDRESS_NOT_ALLOWED"

ANSWER_SECONDS = 30.0
"""In which an answer that has begun must be there, unless the step says otherwise."""

# What httpx says when the other side hung up before the end of its answer.
_CUT_OFF = ("disconnected without sending", "closed connection without sending")


def call_api(egress: Egress | None = None) -> Handler:
    """Return the handler, which calls by `egress`; by default by one of its own that leads to public addresses only."""
    caller = _Caller(egress or Egress(Guard()))
    return Handler(
        name="call_api",
        description=DESCRIPTION,
        params_schema=PARAMS,
        effect=Effect.EXTERNAL,
        run=caller.run,
        check=check,
        close=caller.close,
    )


class _Caller:
    """Makes calls, each over the connections of its org."""

    def __init__(self, egress: Egress) -> None:
        self._egress = egress

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
        timeout = params.get("timeout")
        async with _bounded(timeout, expectation) as limit, _connected(expectation):
            if timeout is None:
                asked.extensions["began"] = lambda: limit.reschedule(_end_of_answer())
            async with self._egress.transport(context.org) as transport:
                response = await transport.handle_async_request(asked)
                try:
                    return await read(response, expectation, limit)
                finally:
                    await response.aclose()

    async def close(self) -> None:
        await self._egress.close()


def _end_of_answer() -> float:
    """Return the time of the event loop at which an answer that begins now must be there."""
    return asyncio.get_running_loop().time() + ANSWER_SECONDS


@asynccontextmanager
async def _connected(expected: Expectation) -> AsyncIterator[None]:
    """Make what breaks on the way CONNECTION_FAILED, and what is no HTTP at all INVALID_RESPONSE."""
    try:
        yield
    except httpx2.RemoteProtocolError as error:
        if any(words in str(error) for words in _CUT_OFF):
            text = "the other side closed the connection before the end of its answer"
            raise expected.error(CONNECTION_FAILED, text) from error
        raise expected.error(INVALID_RESPONSE, _fault_of(error), retryable=False) from error
    except AddressNotAllowedError as error:
        raise expected.error(ADDRESS_NOT_ALLOWED, str(error), retryable=False) from None
    except CertificatesError as error:
        raise expected.error(CONNECTION_FAILED, str(error)) from None
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
        if timeout is None:
            text = f"{ANSWER_SECONDS:g} s of its beginning; `timeout` allows for more"
        else:
            text = timeout if isinstance(timeout, str) else f"{timeout:g} s"
        raise expected.error(CONNECTION_FAILED, f"no complete answer within {text}") from None


def _fault_of(error: httpx2.RemoteProtocolError) -> str:
    """Return why an answer is not read to its end. Nothing of the answer itself is told."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, UnboundedAnswerError):
            return f"the answer is not read to its end: {cause}"
        cause = cause.__cause__ or cause.__context__
    return "the answer is no HTTP/1.1"


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
