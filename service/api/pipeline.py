"""What happens around every call: errors outermost, then identity, validation, logging."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import aclosing, suppress
from typing import Any
from urllib.parse import unquote
from uuid import uuid4

import grpc
import structlog
from google.protobuf.message import Message
from grpc import aio
from grpc_status import rpc_status

from flowkeep.v1.error_pb2 import ErrorReason
from flowkeep.v1.execution_service_pb2 import ExecuteRequest
from service.api.answering import in_time
from service.api.claims import Identity
from service.api.errors import Refusal, RefusedError, refusal_of, status
from service.api.identity import Authenticator, current_identity
from service.api.permissions import PERMISSIONS
from service.api.requests import Malformed, decoder, violations
from service.api.streams import Recheck, Streams
from service.engine.violations import ValidationError

log = structlog.get_logger(__name__)

OURS = "/flowkeep.v1."

LAST_WORD = 1.0
"""Seconds in which a status is usually sent."""


class Pipeline(aio.ServerInterceptor):
    """One interceptor for all of our calls; health and reflection pass through."""

    def __init__(self, authenticator: Authenticator, streams: Streams) -> None:
        self._authenticator = authenticator
        self._streams = streams

    async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        """Return the handler with everything around it."""
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None or not method.startswith(OURS):
            return handler
        if handler.unary_stream:
            return grpc.unary_stream_rpc_method_handler(
                self._stream(method, handler.unary_stream), decoder(handler), _serialize
            )
        return grpc.unary_unary_rpc_method_handler(
            self._unary(method, handler.unary_unary), decoder(handler), _serialize
        )

    def _unary(self, method: str, inner: Any) -> Any:
        async def call(request: Message | Malformed, context: Any) -> Any:
            started = time.perf_counter()
            try:
                await self._admit(method, request, context)
                work = inner(request, context)
                response = await (work if _bounds_itself(request) else in_time(work))
            except Exception as error:
                await refuse(error, method, started, context)
                return None
            _log(method, "OK", started)
            return response

        return call

    def _stream(self, method: str, inner: Any) -> Any:
        # It writes by itself: of a generator nobody could tell how long its last response waits to be read.
        async def call(request: Message | Malformed, context: Any) -> None:
            started = time.perf_counter()
            try:
                identity = await self._admit(method, request, context)
                recheck = Recheck(self._authenticator, _metadata(context), _peer(context))
                writer = self._streams.writer(context)
                with self._streams.opened(identity.org):
                    async with aclosing(inner(request, context)) as responses:
                        async for response in responses:
                            await writer.send(response)
                            await recheck()
            except aio.InternalError:  # the connection broke under a write
                _log(method, "CANCELLED", started)
                return
            except Exception as error:
                await refuse(error, method, started, context)
                return
            _log(method, "OK", started)

        return call

    async def _admit(self, method: str, request: Message | Malformed, context: Any) -> Identity:
        """Let a call in: its identity is known and may do this, and its request is sound."""
        structlog.contextvars.clear_contextvars()
        with structlog.contextvars.bound_contextvars(peer=_peer(context)):
            identity = await self._authenticator.identify(_metadata(context))
        current_identity.set(identity)
        structlog.contextvars.bind_contextvars(org=identity.org, subject=identity.subject)
        if not identity.may(PERMISSIONS[method]):
            raise RefusedError(_denied(PERMISSIONS[method]))
        if isinstance(request, Malformed):
            raise RefusedError(_malformed(request))
        if execution_id := getattr(request, "execution_id", ""):
            structlog.contextvars.bind_contextvars(execution_id=execution_id[:64])
        if found := violations(request):
            raise ValidationError(found)
        return identity


def check_permissions(methods: Sequence[str]) -> None:
    """Raise LookupError unless each of our methods has its line in the table of permissions."""
    if missing := [name for name in methods if name.startswith(OURS) and name not in PERMISSIONS]:
        raise LookupError(f"no permission is set for {', '.join(missing)}")


def _bounds_itself(request: Message | Malformed) -> bool:
    return isinstance(request, ExecuteRequest) and request.wait


def _serialize(response: Message | bytes) -> bytes:
    return response if isinstance(response, bytes) else response.SerializeToString()


def _peer(context: Any) -> str:
    """Return the address of the caller as people write it: gRPC escapes the brackets of IPv6."""
    return unquote(context.peer())


def _metadata(context: Any) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for key, value in context.invocation_metadata() or ():
        if isinstance(value, str):
            found.setdefault(key, []).append(value)
    return found


async def refuse(error: Exception, method: str, started: float, context: Any) -> None:
    """End the call with the status of the error; what the table does not know is ours and is not shown."""
    if isinstance(error, aio.AbortError):
        raise error
    refusal = refusal_of(error)
    if refusal is None:
        error_id = str(uuid4())
        log.error("call failed", method=method, error_id=error_id, exc_info=error)
        refusal = Refusal(
            grpc.StatusCode.INTERNAL,
            ErrorReason.ERROR_REASON_INTERNAL,
            f"the server made a mistake; its log has it under error_id {error_id}",
            {"error_id": error_id},
        )
    _log(method, refusal.code.name, started, reason=ErrorReason.Name(refusal.reason).removeprefix("ERROR_REASON_"))
    # Behind responses that nobody reads the status waits to be sent, and needs no task for that. Who leaves meanwhile
    # wants none.
    with suppress(TimeoutError, aio.InternalError):
        async with asyncio.timeout(LAST_WORD):
            await context.abort_with_status(rpc_status.to_status(status(refusal)))


def _log(method: str, code: str, started: float, **more: str) -> None:
    milliseconds = round((time.perf_counter() - started) * 1e3, 2)
    log.info("call", method=method.removeprefix(OURS), code=code, ms=milliseconds, **more)


def _denied(permission: str) -> Refusal:
    return Refusal(
        grpc.StatusCode.PERMISSION_DENIED,
        ErrorReason.ERROR_REASON_PERMISSION_MISSING,
        f"the identity lacks the permission {permission!r}",
        {"permission": permission},
    )


def _malformed(request: Malformed) -> Refusal:
    return Refusal(
        grpc.StatusCode.INVALID_ARGUMENT,
        ErrorReason.ERROR_REASON_MALFORMED_REQUEST,
        f"the request is no {request.type_name}: its bytes cannot be read, or it is nested too deep",
        {"type": request.type_name},
    )
