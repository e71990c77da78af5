"""A TCP proxy that spoils the connection between two processes as it is told, by a seed."""

from __future__ import annotations

import asyncio
import random
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.faults.harness.http2 import GOAWAY, Frames
from tests.faults.harness.wire import READY, Conversation, is_executed, is_settled

_CHUNK = 1 << 16
_RESET = struct.pack("ii", 1, 0)


@dataclass(frozen=True)
class Weather:
    """How bytes travel. Held bytes arrive when the weather clears, as TCP sends again what was not acknowledged.

    `delay` and `jitter` in seconds, each way; `rate` in bytes per second, 0 for any. `lost_commits` is the share of
    writes that are executed, but whose answer is lost together with the connection. The answer to the write number
    `held_commit` from now on, 0 for none, is held until the weather changes, and what follows on its connection, too.
    Both are writes of sessions whose name begins with `session`.
    """

    delay: float = 0.0
    jitter: float = 0.0
    rate: float = 0.0
    holds_up: bool = False
    holds_down: bool = False
    lost_commits: float = 0.0
    held_commit: int = 0
    session: str = "flowkeep"


CLEAR = Weather()
BLACKHOLE = Weather(holds_up=True, holds_down=True)


class Proxy:
    """Listens on an address that stays, and forwards to `target`: host and port, or a unix socket.

    `follows`: it reads what Postgres and its client say, which losing commits needs.
    """

    def __init__(self, target: tuple[str, int] | Path, draw: random.Random, *, follows: bool = False) -> None:
        self.target = target
        self.follows = follows
        self.port = 0
        self.lost = 0
        """How many answers to commits were lost."""
        self.held = 0
        """How many were held."""
        self.opened = 0
        """How many connections there were."""
        self._draw = draw
        self._weather = CLEAR
        self._changed = asyncio.Event()
        self._commits = 0
        self._links: set[_Link] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def weather(self) -> Weather:
        """How bytes travel now."""
        return self._weather

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return len(self._links)

    def turn(self, weather: Weather) -> None:
        """Let bytes travel so from now on, on old connections and new ones."""
        self._weather = weather
        self._commits = 0
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def reset(self) -> int:
        """Break all connections with RST; returns how many."""
        links = list(self._links)
        for link in links:
            link.reset()
        return len(links)

    def cut_after(self, count: int) -> None:
        """Break each connection with RST when this many more bytes have come from the target, anywhere in a message."""
        for link in self._links:
            link.bytes_left = count

    def send_away(self) -> int:
        """Tell the client of each connection, of HTTP/2, to begin nothing more on it (GOAWAY); returns how many."""
        for link in self._links:
            link.send_away()
        return len(self._links)

    def is_losing(self, conversation: Conversation) -> bool:
        """Draw whether the answer to the statement that was just executed is lost."""
        return self._is_hit(conversation) and self._draw.random() < self._weather.lost_commits

    def held_until(self, conversation: Conversation) -> asyncio.Event | None:
        """Return what the answer to the statement that was just executed has to wait for, None if for nothing."""
        if not self._is_hit(conversation):
            return None
        self._commits += 1
        if self._commits != self._weather.held_commit:
            return None
        self.held += 1
        return self._changed

    def _is_hit(self, conversation: Conversation) -> bool:
        return conversation.is_writing and conversation.application.startswith(self._weather.session)

    async def passage(self, *, upwards: bool) -> None:
        """Return when bytes may travel this way."""
        while True:
            weather, changed = self._weather, self._changed
            if not (weather.holds_up if upwards else weather.holds_down):
                return
            await changed.wait()

    async def travel(self, count: int) -> None:
        """Take the time that `count` bytes need."""
        weather = self._weather
        pause = weather.delay + weather.jitter * self._draw.uniform(-1, 1)
        if weather.rate:
            pause += count / weather.rate
        if pause > 0:
            await asyncio.sleep(pause)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Forward one connection until either side ends it."""
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self.passage(upwards=True)
            far_reader, far_writer = await self._connect()
        except OSError:
            _abort(writer)
            self._tasks.discard(task)
            return
        except asyncio.CancelledError:  # by `close` alone
            _abort(writer)
            return
        link = _Link(self, writer, far_writer)
        self._links.add(link)
        self.opened += 1
        try:
            await link.forward(reader, far_reader)
        except asyncio.CancelledError:  # by `close` alone
            link.reset()
        finally:
            self._links.discard(link)
            self._tasks.discard(task)
            link.finish()

    async def close(self) -> None:
        """End all connections."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if isinstance(self.target, Path):
            return await asyncio.open_unix_connection(str(self.target))
        return await asyncio.open_connection(*self.target)


class _Link:
    """One connection through a proxy."""

    def __init__(self, proxy: Proxy, near: asyncio.StreamWriter, far: asyncio.StreamWriter) -> None:
        self.bytes_left: int | None = None
        self._proxy = proxy
        self._near = near
        self._far = far
        # Followed from the beginning or not at all.
        self._conversation = Conversation() if proxy.follows else None
        self._held = bytearray()
        self._held_until: asyncio.Event | None = None
        self._frames = Frames()
        self._owes_goaway = False
        self._is_over = False

    def reset(self) -> None:
        """Break both sides at once."""
        _abort(self._near)
        _abort(self._far)

    def send_away(self) -> None:
        """Put a GOAWAY where the next frame of the server may come; behind a cut, which is anywhere, none may."""
        if self._is_over:
            return
        if self._frames.is_between:
            self._near.write(GOAWAY)
        else:
            self._owes_goaway = True

    def finish(self) -> None:
        """End what is still open: in order, unless the connection was spoilt."""
        if self._is_over:
            self.reset()
        _finish(self._near)
        _finish(self._far)

    async def forward(self, near: asyncio.StreamReader, far: asyncio.StreamReader) -> None:
        """Return when either side has ended the connection and what it said has arrived."""
        pumps = [
            asyncio.create_task(self._pump(near, self._far, upwards=True)),
            asyncio.create_task(self._pump(far, self._near, upwards=False)),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, upwards: bool) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(_CHUNK):
                await self._proxy.passage(upwards=upwards)
                await self._proxy.travel(len(data))
                await self._proxy.passage(upwards=upwards)
                writer.write(self._passed(data, upwards=upwards))
                await writer.drain()
                if not upwards and self._held_until is not None:
                    await self._held_until.wait()
                    self._held_until = None
                    writer.write(self._held)
                    self._held = bytearray()
                if self._is_over:
                    return
            # Its last words may still be on their way, as on a real network.
            await self._proxy.passage(upwards=upwards)

    def _passed(self, data: bytes, *, upwards: bool) -> bytes:
        """Return what of the data goes on to the other side."""
        if upwards:
            if self._conversation is not None:
                self._conversation.heard_client(data)
            return data
        if self._conversation is not None:
            data = self._answers(self._conversation, data)
        elif isinstance(self._proxy.target, tuple):
            data = self._framed(data)
        if self.bytes_left is not None:
            data = data[: self.bytes_left]
            self.bytes_left -= len(data)
            self._is_over |= self.bytes_left == 0
        return data

    def _framed(self, data: bytes) -> bytes:
        """Return what the server sent, and what it is made to say."""
        passed = b""
        if self._owes_goaway:
            passed, data = self._frames.split(data)
            if self._frames.is_between:
                self._owes_goaway = False
                passed += GOAWAY
        self._frames.pass_by(data)
        return passed + data

    def _answers(self, conversation: Conversation, data: bytes) -> bytes:
        """Return the whole messages of the server, without those of a commit whose answer is lost or held.

        A statement's own answer comes before the commit, so it is held until the server says that no transaction is
        open any more; only then may both be lost, and the connection with them.
        """
        passed = bytearray()
        for tag, message in conversation.heard_server(data):
            if not self._held and not is_executed(tag):
                passed += message
                continue
            self._held += message
            if tag != READY or self._held_until is not None:
                continue
            if is_settled(tag, message):
                if self._proxy.is_losing(conversation):
                    self._proxy.lost += 1
                    self._is_over = True
                    break
                self._held_until = self._proxy.held_until(conversation)
                if self._held_until is not None:
                    continue
            passed += self._held
            self._held.clear()
        return bytes(passed)


def _abort(writer: asyncio.StreamWriter) -> None:
    """Close with RST: what is in flight is lost."""
    found = writer.get_extra_info("socket")
    if found is not None and found.family in (socket.AF_INET, socket.AF_INET6):
        with suppress(OSError):
            found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    writer.transport.abort()


def _finish(writer: asyncio.StreamWriter) -> None:
    """Close in order: what was written before still arrives."""
    with suppress(RuntimeError):
        writer.close()


@asynccontextmanager
async def fault_proxy(
    target: tuple[str, int] | Path, draw: random.Random, *, follows: bool = False
) -> AsyncIterator[Proxy]:
    """Serve on a free port of this machine inside."""
    proxy = Proxy(target, draw, follows=follows)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
        await proxy.close()
        await server.wait_closed()
