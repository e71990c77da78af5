"""Health of the server and of its services, as load balancers and orchestrators ask for it.

The servicer that gRPC ships sends to one watcher after the other: one who does not read keeps the state from all.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

import grpc
from grpc import aio
from grpc_health.v1 import health
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

from service.api.pipeline import peer, refuse
from service.api.probes import Probes
from service.api.requests import check_read, decoder

LAST_WORD = 0.05
"""Seconds in which watchers hear that the server stops."""

State: TypeAlias = HealthCheckResponse.ServingStatus.ValueType


class Health:
    """What is known of the services, and those who watch it."""

    def __init__(self) -> None:
        self._states: dict[str, State] = {}
        self._watchers: set[asyncio.Event] = set()
        self._is_ending = False
        self._is_over = False

    def set(self, service: str, state: State) -> None:
        """Tell those who ask, and those who watch."""
        if not self._is_ending and self._states.get(service) != state:
            self._states[service] = state
            self._tell()

    def end(self) -> None:
        """Tell the watchers that no more calls are welcome, and a moment later let them go."""
        for service in self._states:
            self.set(service, HealthCheckResponse.NOT_SERVING)
        self._is_ending = True
        asyncio.get_running_loop().call_later(LAST_WORD, self._let_go)

    def _let_go(self) -> None:
        self._is_over = True
        self._tell()

    def _tell(self) -> None:
        for watcher in self._watchers:
            watcher.set()

    def add_to(self, server: aio.Server, probes: Probes) -> None:
        """Serve it, within the limits of a server."""
        read = decoder(HealthCheckRequest.FromString)
        methods: dict[str, Any] = {
            "Check": grpc.stream_unary_rpc_method_handler(_bounded("Check", self._check, probes), read),
            "Watch": grpc.stream_stream_rpc_method_handler(_bounded("Watch", self._watch, probes), read),
        }
        server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(health.SERVICE_NAME, methods)])

    async def _check(self, service: str, context: Any, probes: Probes) -> bytes:
        state = self._states.get(service)
        if state is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, "there is no such service")
        response = HealthCheckResponse(status=state).SerializeToString()
        return await probes.sending.answer(response, "")

    async def _watch(self, service: str, context: Any, probes: Probes) -> None:
        changed = asyncio.Event()
        with probes.health.opened(peer(context)):
            self._watchers.add(changed)
            try:
                await self._follow(service, context, changed)
            finally:
                self._watchers.discard(changed)

    async def _follow(self, service: str, context: Any, changed: asyncio.Event) -> None:
        told: State | None = None
        while not self._is_over:
            changed.clear()
            state = self._states.get(service, HealthCheckResponse.SERVICE_UNKNOWN)
            if state != told:
                await context.write(HealthCheckResponse(status=state).SerializeToString())
                told = state
            await changed.wait()
        await context.abort(grpc.StatusCode.UNAVAILABLE, "the server is shutting down")


def _bounded(method: str, inner: Callable[[str, Any, Probes], Awaitable[Any]], probes: Probes) -> Any:
    async def call(_: Any, context: Any) -> Any:
        started = time.perf_counter()
        try:
            request = await probes.receiving.request(context, peer(context))
            check_read(request)
            return await inner(request.service, context, probes)
        except aio.InternalError:  # the connection broke under a write
            return None
        except Exception as error:
            await refuse(error, f"/{health.SERVICE_NAME}/{method}", started, context, probes.sending)
            return None

    return call
