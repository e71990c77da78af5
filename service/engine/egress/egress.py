"""The way out for all that calls on behalf of workflows: guarded, and with connections of each org's own."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

import httpx2

from service.engine.egress.connecting import Backend, Connect, by_tcp
from service.engine.egress.guard import Guard
from service.engine.egress.http11 import Pool
from service.engine.egress.places import Places

CALLS, CALLS_OF_ONE_ORG = 1_000, 250
"""Calls under way at a time; more wait."""

IDLE = 5.0
"""Seconds after which a connection without a call is closed."""

IDLE_CONNECTIONS = 10
"""Of one org."""

MOST_ORGS = 64
"""Orgs whose connections are kept, besides those that have calls under way."""


class CertificatesError(Exception):
    """What other sides show cannot be judged."""

    def __init__(self) -> None:
        super().__init__("the server cannot read the certificates that its SSL_CERT_FILE or SSL_CERT_DIR names")


class Egress:
    """Makes calls. What one org's calls leave behind, be it bytes or a connection, no other org's calls meet with."""

    def __init__(self, guard: Guard, connect: Connect = by_tcp) -> None:
        self.guard = guard
        self._connect = connect
        self._places = Places(CALLS, CALLS_OF_ONE_ORG)
        self._ways: dict[str, _Way] = {}
        """By org, the one that was used last at the end."""
        self._tls: ssl.SSLContext | None = None

    @asynccontextmanager
    async def transport(self, org: str) -> AsyncIterator[httpx2.AsyncBaseTransport]:
        """Give what sends the requests of an org, one at a time inside. It neither follows redirects nor keeps cookies.

        Sending raises AddressNotAllowedError and httpx2.RequestError. Raises CertificatesError.
        """
        async with self._places.place(org):
            if self._tls is None:
                self._tls = await _tls()
            way = await self._way(org, self._tls)
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
            await self._close([org for org, way in self._ways.items() if not way.calls and way.idle_since < since])

    async def close(self) -> None:
        """Close all connections. They are made again when there are more calls."""
        await self._close(list(self._ways))

    async def _way(self, org: str, tls: ssl.SSLContext) -> _Way:
        if org not in self._ways and len(self._ways) >= MOST_ORGS:
            await self._close([other for other, way in self._ways.items() if not way.calls][:1])
        way = self._ways.pop(org, None) or _Way(Backend(org, self.guard, self._connect), tls)
        self._ways[org] = way
        return way

    async def _close(self, orgs: Iterable[str]) -> None:
        ways = [self._ways.pop(org) for org in orgs]
        for way in ways:
            await way.pool.aclose()


class _Way:
    """The connections of an org, and how many calls are under way on them."""

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
