"""The world outside: an HTTP server that keeps every call, and answers as the test says."""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any


@dataclass(frozen=True)
class Call:
    """One call as it arrived; `number` counts all calls, and is what the answer says."""

    number: int
    path: str
    key: str
    attempt: int
    time: datetime
    body: Any


@dataclass
class Gate:
    """Holds the calls of a path: each `arrived`, and none is answered until `opened`."""

    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    opened: asyncio.Event = field(default_factory=asyncio.Event)


class EffectServer:
    """Keeps calls, and lets tests wait for them."""

    def __init__(self) -> None:
        self.url = ""
        self.calls: list[Call] = []
        self._gates: dict[str, Gate] = {}
        self._failures: dict[str, list[int]] = defaultdict(list)
        self._answered: dict[str, asyncio.Event] = defaultdict(asyncio.Event)
        self._connections: set[asyncio.Task[None]] = set()

    def hold(self, path: str) -> Gate:
        """Answer no call of this path until the gate is opened."""
        return self._gates.setdefault(path, Gate())

    def fail(self, path: str, *statuses: int) -> None:
        """Answer the next calls of this path with these statuses, then with 200."""
        self._failures[path] += statuses

    async def answered(self, path: str) -> None:
        """Return when an answer to a call of this path has been sent."""
        await self._answered[path].wait()

    def by_key(self) -> dict[str, list[Call]]:
        """Return the calls by their Idempotency-Key, in the order of the first of each."""
        calls: dict[str, list[Call]] = {}
        for call in self.calls:
            calls.setdefault(call.key, []).append(call)
        return calls

    def of(self, path: str) -> list[Call]:
        """Return the calls of a path."""
        return [call for call in self.calls if call.path == path]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the calls of a connection until it ends."""
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            while True:
                await self._answer(await self._read(reader), writer)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            return  # cancelled by `close` alone
        finally:
            writer.close()
            self._connections.discard(task)

    async def close(self) -> None:
        """End all connections."""
        for task in list(self._connections):
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _read(self, reader: asyncio.StreamReader) -> Call:
        request_line, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().strip().split("\r\n")
        headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        call = Call(
            number=len(self.calls) + 1,
            path=request_line.split(" ")[1],
            key=headers["idempotency-key"],
            attempt=int(headers["x-flowkeep-attempt"]),
            time=datetime.now(UTC),
            body=json.loads(body) if body else None,
        )
        self.calls.append(call)
        return call

    async def reply(self, call: Call) -> tuple[int, Any]:
        """Return the status and the body of the answer to a call, when it is to be sent."""
        if (gate := self._gates.get(call.path)) is not None:
            gate.arrived.set()
            await gate.opened.wait()
        status = self._failures[call.path].pop(0) if self._failures[call.path] else 200
        return status, {"number": call.number}

    async def _answer(self, call: Call, writer: asyncio.StreamWriter) -> None:
        status, content = await self.reply(call)
        body = json.dumps(content).encode()
        head = f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        await writer.drain()
        self._answered[call.path].set()


@asynccontextmanager
async def effect_server() -> AsyncIterator[EffectServer]:
    """Serve on a free port of this machine inside."""
    effects = EffectServer()
    server = await asyncio.start_server(effects.serve, "127.0.0.1", 0)
    effects.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield effects
    finally:
        server.close()
        await effects.close()
        await server.wait_closed()
