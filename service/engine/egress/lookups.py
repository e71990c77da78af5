"""Looks up the addresses of names, in threads of its own and in bounded time."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from service.engine.daemon_threads import DaemonThreads
from service.engine.egress.places import Places

PATIENCE = 5.0
"""Seconds that a look-up may take, with the wait for a thread."""

AT_ONCE, OF_ONE_ORG = 32, 8
"""Look-ups that run at a time. One whose name servers do not answer runs until the system gives it up."""

Resolve = Callable[[bytes, int], Sequence[tuple[Any, ...]]]


class LookupTimeoutError(OSError):
    """The addresses of a name were not found in time."""

    def __init__(self) -> None:
        super().__init__(f"the address of the host was not found within {PATIENCE:g} s")


def by_the_system(host: bytes, port: int) -> Sequence[tuple[Any, ...]]:
    """Return what the system knows of a name: its hosts file and its name servers. Raises OSError."""
    return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)


class Lookups:
    """The look-ups of one event loop.

    Not by the loop's own threads, of which there are few: names that are never answered would stop every other look-up
    with them, that of the database too.
    """

    def __init__(self, resolve: Resolve = by_the_system) -> None:
        self._resolve = resolve
        self._places = Places(AT_ONCE, OF_ONE_ORG)
        self._threads = DaemonThreads("flowkeep-lookup")

    async def find(self, org: str, host: str, port: int) -> list[str]:
        """Return the addresses of a name, in the order in which they are to be tried. Raises OSError."""
        try:
            async with asyncio.timeout(PATIENCE):
                give_back = await self._places.take(org)
                return await self._found(host.encode("ascii"), port, give_back)
        except TimeoutError:
            raise LookupTimeoutError from None

    async def _found(self, host: bytes, port: int, give_back: Callable[[], None]) -> list[str]:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[list[str]] = loop.create_future()

        def ended(found: list[str], error: Exception | None) -> None:
            give_back()
            if future.done():
                return
            if error is None:
                future.set_result(found)
            else:
                future.set_exception(error)

        def work() -> None:
            found: list[str] = []
            failed: Exception | None = None
            try:
                found = list(dict.fromkeys(str(each[4][0]) for each in self._resolve(host, port)))
            except Exception as error:
                failed = error
            with suppress(RuntimeError):  # of a loop that has been closed meanwhile
                loop.call_soon_threadsafe(ended, found, failed)

        self._threads.do(work)
        return await future
