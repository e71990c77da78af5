"""An MCP server that is called over streamable HTTP, by the guarded way out: its host is the deployment's choice."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import httpx2
import msgspec
from mcp.client.streamable_http import streamable_http_client
from mcp_types import CONNECTION_CLOSED

from service.engine.egress.egress import CertificatesError, Egress
from service.engine.egress.guard import AddressNotAllowedError
from service.engine.egress.routes import DIRECT, Route
from service.engine.mcp.screen import MESSAGE_BYTES, refusal, screened
from service.engine.mcp.servers import HttpServer
from service.engine.secrets import SecretNotFoundError, SecretsUnavailableError

CONNECT_SECONDS = 10.0

_OURS = {"User-Agent": "flowkeep", "Accept-Encoding": "identity"}
_END_OF_EVENT = re.compile(rb"\r\n\r\n|\n\n|\r\r")
_SESSION = "mcp-session-id"
_NOT_SENT = (
    httpx2.RequestError,
    AddressNotAllowedError,
    CertificatesError,
    SecretNotFoundError,
    SecretsUnavailableError,
)


class Way(httpx2.AsyncBaseTransport):
    """Sends the requests of one session, and reads answers within bounds.

    What breaks becomes an answer that says so: one raised here would take down all calls of the session.
    """

    def __init__(self, egress: Egress, org: str, route: Route = DIRECT) -> None:
        self._egress = egress
        self._org = org
        self._route = route
        self.is_lost = False
        """Whether the server knows the session no more."""

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Return the answer, or one with the status 503."""
        stack = AsyncExitStack()
        try:
            transport = await stack.enter_async_context(self._egress.transport(self._org, self._route))
            response = await transport.handle_async_request(request)
            stack.push_async_callback(response.aclose)
        except _NOT_SENT as error:
            await stack.aclose()
            return _broken(_request_id(request), _reason(error))
        except BaseException:
            await stack.aclose()
            raise
        if response.status_code in (400, 404) and _SESSION in request.headers:
            self.is_lost = True
        if response.headers.get("content-encoding", "identity") != "identity":
            await stack.aclose()
            return _broken(_request_id(request), "the answer is compressed, which was not asked for")
        headers = [(name, value) for name, value in response.headers.multi_items() if name != "content-length"]
        body = _Body(response, _request_id(request), stack)
        return httpx2.Response(response.status_code, headers=headers, stream=body, extensions=response.extensions)


@asynccontextmanager
async def connected(server: HttpServer, way: Way) -> AsyncIterator[tuple[Any, Any]]:
    """Give the streams of the server's messages and of ours inside. Redirects are not followed."""
    client = httpx2.AsyncClient(
        transport=way,
        headers={**_OURS, **server.headers},
        timeout=httpx2.Timeout(None, connect=CONNECT_SECONDS),
        max_redirects=0,  # the library follows those within an origin, so many times
        trust_env=False,
    )
    async with (
        client,
        streamable_http_client(server.url, http_client=client, max_sse_event_size=2 * MESSAGE_BYTES) as streams,
    ):
        yield streams


class _Body(httpx2.AsyncByteStream):
    """The body of an answer, in which each message has been looked at."""

    def __init__(self, response: httpx2.Response, request_id: Any, stack: AsyncExitStack) -> None:
        self._response = response
        self._request_id = request_id
        self._stack = stack

    async def __aiter__(self) -> AsyncIterator[bytes]:
        kind = self._response.headers.get("content-type", "").lower()
        if kind.startswith("text/event-stream"):
            async for event in self._events():
                yield event
        else:
            yield await self._whole()

    async def aclose(self) -> None:
        await self._stack.aclose()

    async def _whole(self) -> bytes:
        body = bytearray()
        try:
            async for piece in self._pieces():
                body += piece
                if len(body) > MESSAGE_BYTES:
                    return refusal(self._request_id) or b""
        except httpx2.RequestError as error:
            return refusal(self._request_id, CONNECTION_CLOSED, _reason(error)) or b""
        return screened(bytes(body)) or b""

    async def _events(self) -> AsyncIterator[bytes]:
        left = bytearray()
        async for piece in self._pieces():
            since = max(0, len(left) - 3)
            left += piece
            while end := _END_OF_EVENT.search(left, since):
                event, since = bytes(left[: end.start()]), 0
                del left[: end.end()]
                if (passed := _screened_event(event)) is not None:
                    yield passed
            if len(left) > MESSAGE_BYTES:
                if (instead := refusal(self._request_id)) is not None:
                    yield _event(instead)
                return

    def _pieces(self) -> AsyncIterator[bytes]:
        stream = self._response.stream
        assert isinstance(stream, httpx2.AsyncByteStream)  # noqa: S101 - it came of an asynchronous transport
        return stream.__aiter__()


def _screened_event(event: bytes) -> bytes | None:
    lines = [line for line in event.splitlines() if line.startswith(b"data:")]
    data = b"\n".join(line[5:].removeprefix(b" ") for line in lines)
    if not data:
        return event + b"\n\n"  # it says how to go on after a break, or nothing
    passed = screened(data)
    return event + b"\n\n" if passed is data else None if passed is None else _event(passed)


def _event(message: bytes) -> bytes:
    return b"event: message\ndata: " + message + b"\n\n"


def _broken(request_id: Any, text: str) -> httpx2.Response:
    body = refusal(request_id, CONNECTION_CLOSED, text) or b"{}"
    return httpx2.Response(503, headers={"Content-Type": "application/json"}, content=body)


def _request_id(request: httpx2.Request) -> Any:
    if request.method != "POST":
        return None
    message = msgspec.json.decode(request.content)
    return message.get("id") if isinstance(message, dict) and "method" in message else None


def _reason(error: Exception) -> str:
    """Return what happened. Only texts that are known to hold no data of either side are told."""
    match error:
        case httpx2.ConnectTimeout():
            return f"no connection within {CONNECT_SECONDS:g} s"
        case httpx2.ConnectError() | AddressNotAllowedError() | CertificatesError():
            return f"no connection: {error}"[:300]
        case SecretNotFoundError() | SecretsUnavailableError():
            return f"no connection: the proxy of the server: {error}"[:300]
        case _:
            return f"the connection broke off ({type(error).__name__})"
