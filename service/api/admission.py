"""How many calls are served at a time."""

from __future__ import annotations

import time
from typing import Any

import grpc
from grpc import aio

from flowkeep.v1.error_pb2 import ErrorReason
from service.api.errors import Refusal, RefusedError
from service.api.pipeline import OURS, refuse


class Admission(aio.ServerInterceptor):
    """Refuses our calls when as many are served as may be, before anything was done; health checks still pass.

    gRPC has such a limit too, but tells callers neither why nor when to come back.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._served = 0

    async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        """Return the handler, counted while it runs."""
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None or not method.startswith(OURS):
            return handler
        if handler.unary_stream:
            make, inner = grpc.unary_stream_rpc_method_handler, handler.unary_stream
        else:
            make, inner = grpc.unary_unary_rpc_method_handler, handler.unary_unary
        return make(self._counted(method, inner), handler.request_deserializer, handler.response_serializer)

    def _counted(self, method: str, inner: Any) -> Any:
        async def call(request: Any, context: Any) -> Any:
            if self._served >= self._most:
                await refuse(_too_many(self._most), method, time.perf_counter(), context)
                return None
            self._served += 1
            try:
                return await inner(request, context)
            finally:
                self._served -= 1

        return call


def _too_many(most: int) -> RefusedError:
    text = f"this server serves {most} calls, as many as it may; try again later"
    reason = ErrorReason.ERROR_REASON_QUEUE_FULL
    return RefusedError(
        Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, reason, text, {"limit": str(most)}, retry_after=1.0)
    )
