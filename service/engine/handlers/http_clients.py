"""The HTTP clients that handlers of people are given: by the guarded way out, and with the ids of the attempt."""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any

import httpx2

from service.engine.egress.egress import CertificatesError, Egress
from service.engine.egress.guard import AddressNotAllowedError
from service.engine.handlers.http_line import ADDRESS_NOT_ALLOWED
from service.engine.handlers.http_request import CONNECT_SECONDS
from service.engine.handlers.model import HandlerError, StepContext
from service.engine.handlers.process_http import headers_of

Run = Callable[[Mapping[str, Any], StepContext], Awaitable[Any]]

_TIMEOUT = httpx2.Timeout(None, connect=CONNECT_SECONDS)
"""The rest is bounded by the time of the attempt."""


def with_clients(run: Run, egress: Egress) -> Run:
    """Return what runs a handler with clients in its context, which are closed when it ends."""

    async def run_with_clients(params: Mapping[str, Any], context: StepContext) -> Any:
        clients = Clients(egress, context)
        try:
            return await run(params, replace(context, connector=clients))
        finally:
            await clients.close()

    return run_with_clients


class Clients:
    """The clients of one attempt, made when they are asked for."""

    def __init__(self, egress: Egress, context: StepContext) -> None:
        self._transport = _Guarded(egress, context.org)
        self._context = context
        self._loop = asyncio.get_running_loop()
        self._async: httpx2.AsyncClient | None = None
        self._sync: httpx2.Client | None = None

    @property
    def http(self) -> httpx2.AsyncClient:
        """The one for async functions."""
        if self._async is None:
            headers = headers_of(self._context)
            self._async = httpx2.AsyncClient(transport=self._transport, headers=headers, timeout=_TIMEOUT)
        return self._async

    @property
    def sync_http(self) -> httpx2.Client:
        """The one for functions in threads; what it sends goes by the event loop."""
        if self._sync is None:
            bridge = _Bridge(self._transport, self._loop, self._context)
            self._sync = httpx2.Client(transport=bridge, headers=headers_of(self._context), timeout=_TIMEOUT)
        return self._sync

    async def send(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request as it is, by the guarded way out; the answer is to be closed."""
        return await self._transport.handle_async_request(request)

    async def close(self) -> None:
        """Close those that were made."""
        if self._async is not None:
            await self._async.aclose()
        if self._sync is not None:
            self._sync.close()


class _Guarded(httpx2.AsyncBaseTransport):
    """Sends requests by the egress. Raises HandlerError for an address that the deployment does not allow."""

    def __init__(self, egress: Egress, org: str) -> None:
        self._egress = egress
        self._org = org

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        held = AsyncExitStack()
        try:
            transport = await held.enter_async_context(self._egress.transport(self._org))
            response = await transport.handle_async_request(request)
        except AddressNotAllowedError as error:
            await held.aclose()
            raise HandlerError(ADDRESS_NOT_ALLOWED, str(error), retryable=False) from None
        except CertificatesError as error:
            await held.aclose()
            raise httpx2.ConnectError(str(error), request=request) from None
        except BaseException:
            await held.aclose()
            raise
        held.push_async_callback(response.aclose)
        return httpx2.Response(
            response.status_code,
            headers=response.headers,
            stream=_Held(response, held),
            extensions=response.extensions,
        )


class _Held(httpx2.AsyncByteStream):
    """The body of an answer, whose place among the calls is held until it is closed."""

    def __init__(self, response: httpx2.Response, held: AsyncExitStack) -> None:
        self._response = response
        self._held = held

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._response.aiter_raw():
            yield chunk

    async def aclose(self) -> None:
        await self._held.aclose()


class _Bridge(httpx2.BaseTransport):
    """Sends the requests of a thread on the event loop, and gives it whole answers."""

    def __init__(self, transport: _Guarded, loop: asyncio.AbstractEventLoop, context: StepContext) -> None:
        self._transport = transport
        self._loop = loop
        self._context = context

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        whole = httpx2.Request(
            request.method, request.url, headers=request.headers, content=request.read(), extensions=request.extensions
        )
        answer = asyncio.run_coroutine_threadsafe(self._answer(whole), self._loop)
        try:
            return answer.result(self._context.remaining)
        except concurrent.futures.TimeoutError:
            answer.cancel()
            raise httpx2.ReadTimeout("the time of the attempt is over", request=request) from None

    async def _answer(self, request: httpx2.Request) -> httpx2.Response:
        response = await self._transport.handle_async_request(request)
        try:
            body = b"".join([chunk async for chunk in response.aiter_raw()])
        finally:
            await response.aclose()
        return httpx2.Response(response.status_code, headers=response.headers, stream=httpx2.ByteStream(body))
