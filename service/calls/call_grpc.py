"""The handler `call_grpc`: one method of another gRPC service, unary or server-streaming."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import grpc

from service.calls.answers import Answer
from service.calls.bounds import DescriptorsError
from service.calls.channels import MAX_SENT, Channels
from service.calls.descriptors import Method, Schema, UnknownMethodError, of_set
from service.calls.failures import METHOD_NOT_FOUND, Told, error_of, secrets_of, status_code
from service.calls.messages import encoded
from service.calls.params import PARAMS, Asked, asked, check, credentials
from service.calls.reflection import NoReflectionError, fetch
from service.calls.schemas import Schemas, key_of_set
from service.engine.egress.egress import CertificatesError
from service.engine.egress.guard import AddressNotAllowedError
from service.engine.egress.routes import RouteError
from service.engine.failure import INVALID_PARAMS
from service.engine.handlers.http_answer import CONNECTION_FAILED, INVALID_RESPONSE
from service.engine.handlers.http_line import ADDRESS_NOT_ALLOWED
from service.engine.handlers.model import Effect, Handler, StepContext

DESCRIPTION = """\
Calls a method of a gRPC service. Gives {message, metadata}; of a server-streaming method {messages, complete,
metadata}, where complete is false if the call was ended at `max_messages`. Each message of a stream is shown to
watchers as it comes.

Messages are JSON by the mapping of protobuf: lowerCamelCase names, 64-bit integers as text, bytes in base64. Fields
without a value are given with their default. What the method takes is asked of the server (reflection, v1 or v1alpha;
kept for 5 min), or told by `descriptor_set`. Methods that take a stream of messages cannot be called.

Hosts are called at public addresses only, unless the server's setting FLOWKEEP_HTTP_ALLOW names others; proxies of the
environment are not used, nor are service configs. A cancel reaches the other side. A message that is sent has at most
256 KiB, one that comes 512 KiB, the output 256 KiB as JSON.

Fails with these codes; details hold method and target, and of a status its message and the details of google.rpc:
GRPC_<STATUS>, as GRPC_NOT_FOUND: the call ended with this status. Retried: UNAVAILABLE, RESOURCE_EXHAUSTED, ABORTED,
DEADLINE_EXCEEDED, CANCELLED, UNKNOWN and INTERNAL; the pause of a RetryInfo is waited for, at most an hour.
CONNECTION_FAILED: no connection, or none up to the end of the answer. Retried.
ADDRESS_NOT_ALLOWED: the host has an address that workflows may not call. Nothing was sent. Not retried.
METHOD_NOT_FOUND: no such method, one that takes a stream, or a server without reflection. Not retried.
INVALID_RESPONSE: what came is not what the method gives, or its description cannot be used. Not retried.
RESPONSE_TOO_LARGE: a message or an output over its limit. Not retried.
INVALID_OUTPUT: an answer that cannot be kept as the output of a step, for what it is made of. Not retried.
INVALID_PARAMS: params that are wrong once their templates are filled in, or a `message` that the method does not take.
Not retried."""


def call_grpc(channels: Channels) -> Handler:
    """Return the handler, which calls over `channels`."""
    caller = _Caller(channels)
    return Handler(
        name="call_grpc",
        description=DESCRIPTION,
        params_schema=PARAMS,
        effect=Effect.EXTERNAL,
        run=caller.run,
        check=check,
        credentials=credentials,
        close=caller.close,
    )


class _Caller:
    """Makes calls, each over the channels of its org."""

    def __init__(self, channels: Channels) -> None:
        self._channels = channels
        self._schemas = Schemas()

    async def run(self, params: Mapping[str, Any], context: StepContext) -> Any:
        call = asked(params)
        told = Told(call.path, call.target.name, secrets_of(call.metadata))
        limit = asyncio.timeout(call.timeout)
        try:
            async with limit:
                method = await self._method(call, context.org, told)
                request = await _request(call, method, told)
                async with self._connected(call, context.org, told) as channel:
                    left = (limit.when() or 0.0) - asyncio.get_running_loop().time()
                    metadata = (
                        *call.metadata,
                        ("idempotency-key", context.idempotency_token),
                        ("x-flowkeep-attempt", str(context.attempt)),
                    )
                    # A unary method is called likewise: on the wire both are the same.
                    stub: Any = channel.unary_stream(f"/{call.path}")
                    rpc = stub(request, timeout=left, metadata=metadata)
                    try:
                        return await Answer(method, call.max_messages, told).read(rpc, context.emit)
                    finally:
                        rpc.cancel()
        except TimeoutError:
            if not limit.expired():
                raise
            text = f"no complete answer within {call.timeout:g} s"
            code = status_code(grpc.StatusCode.DEADLINE_EXCEEDED)
            raise told.error(code, text, retryable=True, status=grpc.StatusCode.DEADLINE_EXCEEDED.name) from None

    async def close(self) -> None:
        await self._schemas.close()
        await self._channels.close()

    async def _method(self, call: Asked, org: str, told: Told) -> Method:
        """Return what a method takes and gives, by the params or by the server."""
        key = key_of_set(org, call.descriptor_set) if call.descriptor_set else (org, call.target, call.service)

        async def read() -> Schema:
            if call.descriptor_set:
                return await of_set(call.descriptor_set)
            async with self._connected(call, org, told) as channel:
                return await fetch(channel, call.service, call.metadata)

        try:
            schema = await self._schemas.get(key, read)
            return await schema.method(call.service, call.method)
        except UnknownMethodError as error:
            self._schemas.forget(key)  # it may come with the next release of the server
            raise told.error(METHOD_NOT_FOUND, str(error)) from None
        except NoReflectionError:
            text = "the server has no reflection to ask what the method takes; descriptor_set tells it"
            raise told.error(METHOD_NOT_FOUND, text) from None
        except DescriptorsError as error:
            if call.descriptor_set:
                raise told.error(INVALID_PARAMS, f"descriptor_set: {error}") from None
            raise told.error(INVALID_RESPONSE, f"what the server tells of the method cannot be used: {error}") from None

    @asynccontextmanager
    async def _connected(self, call: Asked, org: str, told: Told) -> AsyncIterator[grpc.aio.Channel]:
        """Give a channel to the target. What fails on it becomes a HandlerError."""
        try:
            async with self._channels.channel(org, call.target) as found:
                try:
                    yield found.channel
                except grpc.aio.AioRpcError as error:
                    failure = await error_of(error, told)
                    if failure.code == CONNECTION_FAILED:
                        self._channels.leave(org, call.target, found)  # the next call looks the host up again
                    raise failure from None
        except AddressNotAllowedError as error:
            raise told.error(ADDRESS_NOT_ALLOWED, str(error)) from None
        except RouteError as error:
            raise told.error(INVALID_PARAMS, str(error)) from None
        except CertificatesError as error:
            raise told.error(CONNECTION_FAILED, str(error), retryable=True) from None
        except OSError as error:
            text = error.strerror if isinstance(error, socket.gaierror) else str(error)
            raise told.error(CONNECTION_FAILED, f"no connection: {text}", retryable=True) from None


async def _request(call: Asked, method: Method, told: Told) -> bytes:
    try:
        request = await encoded(call.message, method.request, method.pool)
    except ValueError as error:
        raise told.error(INVALID_PARAMS, f"message: {error}") from None
    if len(request) > MAX_SENT:
        raise told.error(INVALID_PARAMS, f"message: has {len(request)} bytes encoded; at most {MAX_SENT} are sent")
    return request
