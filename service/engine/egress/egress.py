"""The way out for all that calls on behalf of workflows: guarded, and with connections of each org's own."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import TypeAlias

import httpx2

from service.engine.egress.connecting import Backend, Connect, by_tcp
from service.engine.egress.guard import Guard
from service.engine.egress.http11 import Pool
from service.engine.egress.places import Places
from service.engine.egress.routes import DIRECT, Route, Routes

CALLS, CALLS_OF_ONE_ORG = 1_000, 250
"""Calls under way at a time; more wait."""

IDLE = 5.0
"""Seconds after which a connection without a call is closed."""

IDLE_CONNECTIONS = 10
"""Of one org."""

MOST_WAYS = 64
"""Orgs and routes whose connections are kept, besides those that have calls under way."""

_Key: TypeAlias = tuple[str, Route]
"""An org, and the route of its calls."""


class CertificatesError(Exception):
    """What other sides show cannot be judged."""

    def __init__(self) -> None:
        super().__init__("the server cannot read the certificates that its SSL_CERT_FILE or SSL_CERT_DIR names")


class Egress:
    """Makes calls. What one org's calls leave behind, be it bytes or a connection, no other org's calls meet with."""

    def __init__(self, guard: Guard, connect: Connect = by_tcp, routes: Routes | None = None) -> None:
        self.guard = guard
        self.routes = routes or Routes()
        self._connect = connect
        self._places = Places(CALLS, CALLS_OF_ONE_ORG)
        self._ways: dict[_Key, _Way] = {}
        """The one that was used last at the end."""
        self._tls: ssl.SSLContext | None = None

    @asynccontextmanager
    async def transport(self, org: str, route: Route = DIRECT) -> AsyncIterator[httpx2.AsyncBaseTransport]:
        """Give what sends the requests of an org, one at a time inside. It neither follows redirects nor keeps cookies.

        Requests that go out by different routes share no connection.

        Sending raises AddressNotAllowedError and httpx2.RequestError. Raises CertificatesError, and what finding the
        secrets raises that the proxy of the route names.
        """
        async with self._places.place(org):
            if self._tls is None and route.tls is None:
                self._tls = await _tls()
            way = await self._way(org, await self.routes.revealed(org, route))
            way.calls += 1
            try:
                yield way.transport
            finally:
                way.calls -= 1
                way.idle_since = time.monotonic()

    async def tend(self) -> None:
        """Close what is idle, until cancelled."""
        while True:
            await asyncio.sleep(IDLE)
            since = time.monotonic() - IDLE
            await self._close([key for key, way in self._ways.items() if not way.calls and way.idle_since < since])

    async def close(self) -> None:
        """Close all connections. They are made again when there are more calls."""
        await self._close(list(self._ways))

    async def _way(self, org: str, route: Route) -> _Way:
        key = org, route
        if key not in self._ways and len(self._ways) >= MOST_WAYS:
            await self._close([other for other, way in self._ways.items() if not way.calls][:1])
        if (way := self._ways.pop(key, None)) is None:
            tls = self._tls if route.tls is None else route.tls.context
            assert tls is not None  # noqa: S101 - it was made before
            way = _Way(Backend(org, self.guard, self._connect, route.proxy), tls)
        self._ways[key] = way
        return way

    async def _close(self, keys: Iterable[_Key]) -> None:
        ways = [self._ways.pop(key) for key in keys]
        for way in ways:
            await way.pool.aclose()


class _Way:
    """The connections of an org by one route, and how many calls are under way on them."""

    def __init__(self, backend: Backend, tls: ssl.SSLContext) -> None:
        self.pool = Pool(
            ssl_context=tls,
            max_connections=CALLS_OF_ONE_ORG,
            max_keepalive_connections=IDLE_CONNECTIONS,
            keepalive_expiry=IDLE,
            network_backend=backend,
        )
        self.transport = _Transport(self.pool)
        self.calls = 0
        self.idle_since = 0.0


class _Transport(httpx2.AsyncHTTPTransport):
    """Translates between httpx and a pool of ours, which httpx offers no other way to name."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool


async def _tls() -> ssl.SSLContext:
    """Return what to judge certificates by. Of the environment only SSL_CERT_FILE and SSL_CERT_DIR are looked at."""
    try:
        return await asyncio.to_thread(httpx2.create_ssl_context, trust_env=True)  # it takes long
    except OSError:
        raise CertificatesError from None
