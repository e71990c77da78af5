"""HTTP for handlers in processes: the process asks the server, which calls by the guarded way out of the attempt."""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import httpx2

from service.engine.handlers.model import HandlerError, StepContext

LARGEST_BODY = 8 << 20
"""Bytes of the body of a request, and of an answer as it is sent: they pass the server in one piece."""

CONNECT_SECONDS = 10.0

Ask = Callable[[Mapping[str, Any]], Mapping[str, Any]]
"""Hands a request to the server and returns what that says."""


def headers_of(context: StepContext) -> dict[str, str]:
    """Return the headers by which a request says which attempt it is of."""
    return {
        "User-Agent": "flowkeep",
        "Idempotency-Key": context.idempotency_token,
        "X-Flowkeep-Execution": str(context.execution_id),
        "X-Flowkeep-Step": context.step_path,
        "X-Flowkeep-Attempt": str(context.attempt),
    }


class ProcessClients:
    """The clients of an attempt in a process. See `Connector`."""

    def __init__(self, ask: Ask, context: StepContext) -> None:
        self._ask = ask
        self._context = context
        self._sync: httpx2.Client | None = None

    @property
    def http(self) -> Any:
        """None: no function in a process is async."""
        raise RuntimeError("handlers in processes are not async, and have `context.sync_http`")

    @property
    def sync_http(self) -> httpx2.Client:
        """What sends requests by the server, one at a time; answers are read as a whole."""
        if self._sync is None:
            timeout = httpx2.Timeout(None, connect=CONNECT_SECONDS)
            self._sync = httpx2.Client(transport=_Bridge(self._ask), headers=headers_of(self._context), timeout=timeout)
        return self._sync


class _Bridge(httpx2.BaseTransport):
    def __init__(self, ask: Ask) -> None:
        self._ask = ask

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        body = request.read()
        if len(body) > LARGEST_BODY:
            text = f"the body has {len(body):,} bytes; handlers in processes may send {LARGEST_BODY:,}"
            raise httpx2.WriteError(text, request=request)
        answer = self._ask(
            {
                "method": request.method,
                "url": str(request.url),
                "headers": [[name.decode("latin-1"), value.decode("latin-1")] for name, value in request.headers.raw],
                "timeout": request.extensions.get("timeout", {}),
                "body": b64encode(body).decode(),
            }
        )
        if "code" in answer:
            raise HandlerError(answer["code"], answer["message"], retryable=answer["retryable"])
        if "error" in answer:
            kind: Any = getattr(httpx2, answer["error"], None)
            if not isinstance(kind, type) or not issubclass(kind, httpx2.RequestError):
                kind = httpx2.TransportError
            raise kind(answer["message"], request=request)
        headers = [(name, value) for name, value in answer["headers"]]
        return httpx2.Response(answer["status"], headers=headers, stream=httpx2.ByteStream(b64decode(answer["body"])))


async def answered(
    message: Mapping[str, Any], send: Callable[[httpx2.Request], Awaitable[httpx2.Response]]
) -> dict[str, Any]:
    """Return what the process is told of the request that it asks for; `send` goes by the guarded way out."""
    headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in message["headers"]]
    request = httpx2.Request(
        message["method"],
        message["url"],
        headers=headers,
        content=b64decode(message["body"]),
        extensions={"timeout": message["timeout"]},
    )
    try:
        response = await send(request)
        body = await _whole(response, request)
    except HandlerError as error:
        return {"code": error.code, "message": error.message, "retryable": error.retryable}
    except httpx2.RequestError as error:
        return {"error": type(error).__name__, "message": str(error)}
    told = [[name.decode("latin-1"), value.decode("latin-1")] for name, value in response.headers.raw]
    return {"status": response.status_code, "headers": told, "body": b64encode(body).decode()}


async def _whole(response: httpx2.Response, request: httpx2.Request) -> bytes:
    """Return the body as it was sent. Raises RequestError for one that is too large."""
    chunks, size = [], 0
    try:
        async for chunk in response.aiter_raw():
            chunks.append(chunk)
            size += len(chunk)
            if size > LARGEST_BODY:
                text = f"the body of the answer has more than the {LARGEST_BODY:,} bytes that a process may be given"
                raise httpx2.ReadError(text, request=request)
    finally:
        await response.aclose()
    return b"".join(chunks)
