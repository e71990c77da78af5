"""How requests are sent, within the time of one attempt, and what it means when they do not get through."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import httpx2

from service.engine.egress.egress import CertificatesError, Egress
from service.engine.egress.guard import AddressNotAllowedError
from service.engine.egress.http11 import UnboundedAnswerError
from service.engine.egress.routes import DIRECT, Route, RouteError
from service.engine.failure import INVALID_PARAMS, SECRET_NOT_FOUND, SECRETS_UNAVAILABLE
from service.engine.handlers.http_answer import CONNECTION_FAILED, INVALID_RESPONSE, Expectation
from service.engine.handlers.http_request import CONNECT_SECONDS
from service.engine.handlers.http_url import host_of, port_of
from service.engine.handlers.model import HandlerError
from service.engine.pauses import seconds
from service.engine.secrets import SecretNotFoundError, SecretsUnavailableError

ADDRESS_NOT_ALLOWED = "ADDRESS_NOT_ALLOWED"

ANSWER_SECONDS = 30.0
"""In which an answer that has begun must be there, unless the step says otherwise."""

# What httpx says when the other side hung up before the end of its answer.
_CUT_OFF = ("disconnected without sending", "closed connection without sending")


class Line:
    """Sends the requests of one attempt over the connections of its org, by one route.

    `timeout` is for all of them together. Without one, each answer must be there some time after its beginning; if it
    `may_last`, within the attempt's time.
    """

    def __init__(
        self,
        egress: Egress,
        org: str,
        timeout: float | str | None,
        route: Route = DIRECT,
        *,
        may_last: bool = False,
    ) -> None:
        self.org = org
        self.route = route
        self._egress = egress
        self._may_last = may_last
        self._timeout = timeout
        self._end = None if timeout is None else asyncio.get_running_loop().time() + seconds(timeout)

    @asynccontextmanager
    async def answer(
        self, request: httpx2.Request, expected: Expectation, *, is_asked_for: bool = True
    ) -> AsyncIterator[tuple[httpx2.Response, asyncio.Timeout]]:
        """Give the answer to a request, whose body is still to be read, and what bounds that.

        `is_asked_for`: the step has named its origin, not an answer; certificates of the route may be for that alone.
        Raises HandlerError, also for what happens while it is read.
        """
        async with self.bounded(expected) as limit, _connected(expected):
            if self._timeout is None and not self._may_last:
                request.extensions["began"] = lambda: limit.reschedule(_end_of_answer())
            route = self.route.towards(host_of(request.url), port_of(request.url), is_asked_for=is_asked_for)
            async with self._egress.transport(self.org, route) as transport:
                response = await transport.handle_async_request(request)
                try:
                    yield response, limit
                finally:
                    await response.aclose()

    @asynccontextmanager
    async def bounded(self, expected: Expectation) -> AsyncIterator[asyncio.Timeout]:
        """Let what is done inside take no longer than the time that is left. Raises HandlerError when it does."""
        limit = asyncio.timeout_at(self._end)
        try:
            async with limit:
                yield limit
        except TimeoutError:
            if not limit.expired():
                raise
            if self._timeout is None:
                text = f"{ANSWER_SECONDS:g} s of its beginning; `timeout` allows for more"
            else:
                text = self._timeout if isinstance(self._timeout, str) else f"{self._timeout:g} s"
            raise expected.error(CONNECTION_FAILED, f"no complete answer within {text}") from None


def route_of(egress: Egress, org: str, params: Mapping[str, Any]) -> Route:
    """Return the route that the params of a call name by `tls` and `proxy`. Raises HandlerError."""
    url = httpx2.URL(params["url"])
    try:
        route = egress.routes.route(org, params.get("tls"), params.get("proxy"))
        route.check(host_of(url), port_of(url))
    except RouteError as error:
        raise HandlerError(INVALID_PARAMS, str(error), retryable=False) from None
    return route


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
    except SecretNotFoundError as error:
        raise expected.error(SECRET_NOT_FOUND, f"FLOWKEEP_HTTP_PROXIES: {error}", retryable=False) from None
    except SecretsUnavailableError as error:
        raise expected.error(SECRETS_UNAVAILABLE, f"FLOWKEEP_HTTP_PROXIES: {error}") from None
    except CertificatesError as error:
        raise expected.error(CONNECTION_FAILED, str(error)) from None
    except httpx2.RequestError as error:
        raise expected.error(CONNECTION_FAILED, expected.told.hide(_reason(error))) from error


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
