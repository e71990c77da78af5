"""What happens around every call, in this order; errors are told outermost.

    headers      who calls, and whether this identity may do that: before a byte of the request is received
    receiving    the request is received, within limits of its own (receiving.py)
    a place      is taken among the calls that are served (admission.py), and given back when the status has gone out;
                 orgs and identities have shares of them
    the rules    of the request's fields
    the servicer
    sending      the answer waits until there is room for its bytes, and is given up when nobody reads it (sending.py)

The methods of gRPC's own kinds read the request before they call anything, so all of ours are of kinds that read by
themselves; on the wire these are the same.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

import grpc
import structlog
from google.protobuf.message import Message
from grpc import aio

from flowkeep.v1.error_pb2 import ErrorReason
from flowkeep.v1.execution_service_pb2 import ExecuteRequest
from flowkeep.v1.step_test_pb2 import TestStepRequest
from service.api.admission import Admission
from service.api.answering import in_time
from service.api.claims import Identity
from service.api.errors import Refusal, RefusedError, sent, told
from service.api.identity import Authenticator, current_identity
from service.api.large import Batch, reader, whole
from service.api.permissions import PERMISSIONS, also_needed
from service.api.receiving import Receiving, this_task
from service.api.repeated_lines import RepeatedLines
from service.api.requests import Judge, check_read
from service.api.sending import Sending
from service.api.streams import Recheck, Streams
from service.config import LARGEST_REQUEST
from service.engine.violations import ValidationError, Violation

log = structlog.get_logger(__name__)
_lines = RepeatedLines()

OURS = "/flowkeep.v1."

LAST_WORD = 1.0
"""Seconds in which a status is usually sent."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What calls may have of this process: to be received, to be served, to be sent, and as streams."""

    receiving: Receiving
    admission: Admission
    sending: Sending
    streams: Streams


class Pipeline(aio.ServerInterceptor):
    """One interceptor for all of our calls; health and reflection pass through."""

    def __init__(self, authenticator: Authenticator, limits: Limits) -> None:
        self._authenticator = authenticator
        self.limits = limits
        self._handlers: dict[str, Any] = {}

    async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        """Return the handler with everything around it."""
        method = handler_call_details.method
        if (known := self._handlers.get(method)) is not None:
            return known
        handler = await continuation(handler_call_details)
        if handler is None or not method.startswith(OURS):
            return handler
        if handler.unary_stream or handler.stream_stream:
            make: Callable[..., Any] = grpc.stream_stream_rpc_method_handler
            around = self._stream(method, handler.unary_stream or handler.stream_stream, goes_on=handler.stream_stream)
        else:
            make, around = grpc.stream_unary_rpc_method_handler, self._unary(method, handler.unary_unary)
        self._handlers[method] = make(around, reader(handler.request_deserializer))
        return self._handlers[method]

    def _unary(self, method: str, inner: Any) -> Any:
        async def call(_: Any, context: Any) -> bytes | None:
            started = time.perf_counter()
            try:
                identity, request = await self._admit(method, context)
                work = inner(request, context)
                response = await (work if _bounds_itself(request) else in_time(work))
                answer = await self.limits.sending.answer(serialized(response), identity.org)
            except Exception as error:
                await refuse(error, method, started, context, self.limits.sending)
                return None
            _log(method, "OK", started)
            return answer

        return call

    def _stream(self, method: str, inner: Any, *, goes_on: Any = None) -> Any:
        """Serve a method that answers with a stream. `goes_on`: what is asked is one, too."""

        # It writes by itself: of a generator nobody could tell how long its last response waits to be read.
        async def call(_: Any, context: Any) -> None:
            started = time.perf_counter()
            try:
                identity, request = await self._admit(method, context)
                recheck = Recheck(self._authenticator, _metadata(context), peer(context))
                writer = self.limits.streams.writer(context, identity.org, self.limits.sending)
                with self.limits.streams.opened(identity):
                    asked = _requests(request, context, recheck) if goes_on else request
                    async with aclosing(inner(asked, context)) as responses:
                        async for response in responses:
                            await writer.send(serialized(response))
                            await recheck()
            except aio.InternalError:  # the connection broke under a write
                _log(method, "CANCELLED", started)
                return
            except Exception as error:
                await refuse(error, method, started, context, self.limits.sending)
                return
            _log(method, "OK", started)

        return call

    async def _admit(self, method: str, context: Any) -> tuple[Identity, Message]:
        """Let a call in: its identity is known and may do this, and its request has arrived and is sound."""
        caller = peer(context)
        identity = await self._authenticator.identify(_metadata(context), caller)
        current_identity.set(identity)
        structlog.contextvars.bind_contextvars(org=identity.org, subject=identity.subject)
        if not identity.may(PERMISSIONS[method]):
            raise RefusedError(_denied(PERMISSIONS[method]))
        request = await self.limits.receiving.request(context, identity.org, identity.subject, caller)
        self.limits.admission.take(identity)
        request = await whole(request)
        if _bounds_itself(request):
            self.limits.admission.take_wait(identity)
        check_read(request)
        for permission in also_needed(request):
            if not identity.may(permission):
                raise RefusedError(_denied(permission))
        if execution_id := getattr(request, "execution_id", ""):
            structlog.contextvars.bind_contextvars(execution_id=execution_id[:64])
        if found := request.violations() if isinstance(request, Batch) else await Judge().violations(request):
            raise ValidationError(found)
        return identity, request


async def _requests(
    first: Message, context: Any, recheck: Recheck
) -> AsyncIterator[tuple[Message, Sequence[Violation]]]:
    """Yield the requests of a stream, each with the rules that it breaks: the first one breaks none.

    Raises RefusedError for bytes that are no request, and UnauthenticatedError once the token is no longer good: what
    is said may need no answer for as long as the stream stands.
    """
    yield first, ()
    while (read := await context.read()) is not aio.EOF:
        await recheck()
        request = await whole(read, LARGEST_REQUEST)  # a result that is too large is the servicer's to refuse
        check_read(request)
        yield request, await Judge().violations(request)


def require(identity: Identity, permission: str) -> None:
    """Raise RefusedError unless a caller has a permission that only the request tells."""
    if not identity.may(permission):
        raise RefusedError(_denied(permission))


def check_permissions(methods: Sequence[str]) -> None:
    """Raise LookupError unless each of our methods has its line in the table of permissions."""
    if missing := [name for name in methods if name.startswith(OURS) and name not in PERMISSIONS]:
        raise LookupError(f"no permission is set for {', '.join(missing)}")


def _bounds_itself(request: Any) -> bool:
    return isinstance(request, TestStepRequest) or (isinstance(request, ExecuteRequest) and request.wait)


def serialized(response: Message | bytes) -> bytes:
    """Return the bytes of a response, which may be those that are stored."""
    return response if isinstance(response, bytes) else response.SerializeToString()


def peer(context: Any) -> str:
    """Return the address of the caller as people write it: gRPC escapes the brackets of IPv6."""
    return unquote(context.peer())


def _metadata(context: Any) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for key, value in context.invocation_metadata() or ():
        if isinstance(value, str):
            found.setdefault(key, []).append(value)
    return found


async def refuse(error: Exception, method: str, started: float, context: Any, sending: Sending) -> None:
    """End the call with the status of the error; what the table does not know is ours and is not shown."""
    if isinstance(error, aio.AbortError):
        _loosen(error)
        raise error
    refusal = told(error, method)
    # What breaks off the call keeps this error until the collector of garbage comes, and its frames all that they hold.
    error.__traceback__ = None
    _log(method, refusal.code.name, started, reason=ErrorReason.Name(refusal.reason).removeprefix("ERROR_REASON_"))
    # Behind responses that nobody reads the status waits to be sent, and needs no task for that, but an end. Who leaves
    # meanwhile wants none.
    try:
        async with asyncio.timeout(LAST_WORD):
            await context.abort_with_status(sent(refusal))
    except aio.AbortError as aborted:
        _loosen(aborted)
        raise
    except TimeoutError:
        sending.leave()
    except aio.InternalError:
        pass


def _loosen(aborted: aio.AbortError) -> None:
    """Have the call not kept by its own error, whose way it is on, until garbage is collected: a flood makes much."""

    def loosen(_: asyncio.Task[Any]) -> None:
        aborted.__traceback__ = aborted.__context__ = None

    this_task().add_done_callback(loosen)


def _log(method: str, code: str, started: float, **more: str) -> None:
    # A line for each call that went well costs as much as keeping a row: it is for those who ask for it.
    say = log.debug if code == "OK" else log.info
    if code != "OK" and not _lines.passes("call", method, code, *more.values()):
        return
    milliseconds = round((time.perf_counter() - started) * 1e3, 2)
    say("call", method=method.removeprefix(OURS), code=code, ms=milliseconds, **more)


def _denied(permission: str) -> Refusal:
    return Refusal(
        grpc.StatusCode.PERMISSION_DENIED,
        ErrorReason.ERROR_REASON_PERMISSION_MISSING,
        f"the identity lacks the permission {permission!r}",
        {"permission": permission},
    )
