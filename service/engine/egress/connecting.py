"""Connects to the addresses of a host that the guard allows, and to no others."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

import httpcore2

from service.engine.egress.guard import Guard
from service.engine.egress.named import Proxy
from service.engine.egress.stream import Stream
from service.engine.egress.tunnel import ProxyError, dig

HEAD_START = 0.25
"""Seconds after which the next address of a host is tried beside those that have not answered (RFC 8305)."""

MOST_TRIED = 8
"""Addresses of one host."""

Connect = Callable[[str, int], Awaitable[socket.socket]]


async def by_tcp(address: str, port: int) -> socket.socket:
    """Return a connection to an address. Raises OSError."""
    made = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
    try:
        made.setblocking(False)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await asyncio.get_running_loop().sock_connect(made, (address, port))
    except BaseException:
        made.close()
        raise
    return made


class Backend(httpcore2.AsyncNetworkBackend):
    """What httpcore connects with on behalf of one org, through a proxy if one is given.

    Raises AddressNotAllowedError beside its errors.
    """

    def __init__(self, org: str, guard: Guard, connect: Connect, proxy: Proxy | None = None) -> None:
        self._org = org
        self._guard = guard
        self._connect = connect
        self._proxy = proxy

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> Stream:
        """Return a connection to the host, whose name is looked up here and nowhere else."""
        limit = asyncio.timeout(timeout)
        try:
            async with limit:
                addresses = await self._guard.addresses(self._org, host, port)
                if self._proxy is not None:
                    return await self._through(self._proxy, addresses[:MOST_TRIED], port)
                return Stream(await self._first(addresses[:MOST_TRIED], port))
        except OSError as error:
            if limit.expired():
                raise httpcore2.ConnectTimeout from error
            raise httpcore2.ConnectError(_reason(error)) from error

    async def _through(self, proxy: Proxy, addresses: Sequence[str], port: int) -> Stream:
        """Return the first way that a proxy gives to one of the addresses. Raises ProxyError."""
        refusal: ProxyError | None = None
        for address in addresses:
            stream = await self._to(proxy)
            try:
                await dig(stream, proxy, address, port)
            except ProxyError as error:
                await stream.aclose()
                refusal = refusal or error
                if error.is_final:
                    break
            except BaseException:
                await stream.aclose()
                raise
            else:
                return stream
        assert refusal is not None  # noqa: S101 - a host has an address
        raise refusal

    async def _to(self, proxy: Proxy) -> Stream:
        """Return a connection to a proxy, wherever that is: the deployment has named it. Raises ProxyError."""
        try:
            found = await self._guard.lookups.find(self._org, proxy.host, proxy.port)
            return Stream(await self._first(found[:MOST_TRIED], proxy.port))
        except OSError as error:
            reason = _reason(error)
        # Not from that error, which tells of the proxy as if it were the other side.
        raise ProxyError(proxy.name, f"was not reached: {reason}", is_final=True)

    async def _first(self, addresses: Sequence[str], port: int) -> socket.socket:
        """Return the first connection that is made. Raises the error of the first address when none is."""
        errors: list[BaseException] = []
        trying: set[asyncio.Future[socket.socket]] = set()
        waiting = list(addresses)
        try:
            while waiting or trying:
                if waiting:
                    trying.add(asyncio.ensure_future(self._connect(waiting.pop(0), port)))
                ended, _ = await asyncio.wait(
                    trying, timeout=HEAD_START if waiting else None, return_when=asyncio.FIRST_COMPLETED
                )
                for each in ended:
                    trying.discard(each)
                    if (error := each.exception()) is None:
                        return each.result()
                    errors.append(error)
            raise errors[0]
        finally:
            await _abandon(trying)


async def _abandon(trying: Iterable[asyncio.Future[socket.socket]]) -> None:
    for each in trying:
        each.cancel()
    for found in await asyncio.gather(*trying, return_exceptions=True):
        if isinstance(found, socket.socket):
            found.close()


def _reason(error: OSError) -> str:
    """Return why there is no connection, without addresses."""
    if isinstance(error, socket.gaierror):
        return error.strerror or str(error)
    return os.strerror(error.errno) if error.errno else str(error)
