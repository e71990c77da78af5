"""Bytes to and from another machine, over TCP alone or with TLS.

Nothing is read before it is asked for, so that what came unasked can be told from what belongs to an answer.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import httpcore2

Result = TypeVar("Result")

_PIECE = 16 << 10


class Stream(httpcore2.AsyncNetworkStream):
    """A TCP connection. `began` is called when the next bytes come."""

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        self._loop = asyncio.get_running_loop()
        self.began: Callable[[], None] | None = None

    @property
    def has_input(self) -> bool:
        """Whether bytes have come that nobody has read, or the other side has hung up."""
        try:
            self._socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError:
            pass
        return True

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Return what has come, empty at the end."""
        async with _bounded(timeout, httpcore2.ReadTimeout, httpcore2.ReadError):
            data = await self._receive(max_bytes)
        # What has come already is there at once: a flood would leave no turn of the loop to others.
        await asyncio.sleep(0)
        if self.began is not None:
            self.began()
            self.began = None
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Send all of it."""
        async with _bounded(timeout, httpcore2.WriteTimeout, httpcore2.WriteError):
            await self._send(buffer)

    async def aclose(self) -> None:
        """Hang up."""
        self._socket.close()

    async def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> Stream:
        """Return the same with TLS, to a side that has shown to be the one of this name."""
        secured = _TlsStream(self._socket, ssl_context, server_hostname)
        try:
            async with _bounded(timeout, httpcore2.ConnectTimeout, httpcore2.ConnectError):
                await secured.shake_hands()
        except BaseException:
            self._socket.close()
            raise
        return secured

    def get_extra_info(self, info: str) -> Any:
        """Return what httpcore asks for: whether it must not be used again for what came after its last answer."""
        return self.has_input if info == "is_readable" else None

    async def _receive(self, max_bytes: int) -> bytes:
        return await self._loop.sock_recv(self._socket, max_bytes)

    async def _send(self, data: bytes) -> None:
        await self._loop.sock_sendall(self._socket, data)


class _TlsStream(Stream):
    def __init__(self, connected: socket.socket, context: ssl.SSLContext, name: str | None) -> None:
        super().__init__(connected)
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=name)
        self._ahead = b""

    async def shake_hands(self) -> None:
        await self._carried(self._tls.do_handshake)

    @property
    def has_input(self) -> bool:
        # A readable socket says nothing: it may be about keys. So that is read here, and bytes are kept for their turn.
        try:
            self._take(self._socket.recv(_PIECE))
        except BlockingIOError:
            pass
        except OSError:
            return True
        try:
            self._ahead += self._tls.read(_PIECE)
        except ssl.SSLWantReadError:
            return bool(self._ahead)
        except ssl.SSLError:
            pass
        return True

    async def _receive(self, max_bytes: int) -> bytes:
        if self._ahead:
            data, self._ahead = self._ahead[:max_bytes], self._ahead[max_bytes:]
            return data
        try:
            return await self._carried(lambda: self._tls.read(max_bytes))
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
            return b""

    async def _send(self, data: bytes) -> None:
        await self._carried(lambda: self._tls.write(data))

    async def _carried(self, call: Callable[[], Result]) -> Result:
        """Return what a call of the TLS object gives, with all that it wants to send sent, and to receive received."""
        while True:
            try:
                result = call()
            except ssl.SSLWantReadError:
                await self._flush()
                self._take(await self._loop.sock_recv(self._socket, _PIECE))
            except ssl.SSLError:
                await self._flush()  # the alert that says why
                raise
            else:
                await self._flush()
                return result

    async def _flush(self) -> None:
        if self._outgoing.pending:
            await self._loop.sock_sendall(self._socket, self._outgoing.read())

    def _take(self, data: bytes) -> None:
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()


@asynccontextmanager
async def _bounded(
    timeout: float | None, late: type[httpcore2.TimeoutException], broken: type[httpcore2.NetworkError]
) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(timeout):
            yield
    except TimeoutError as error:  # also the system's own
        raise late(str(error)) from error
    except OSError as error:
        raise broken(str(error)) from error
