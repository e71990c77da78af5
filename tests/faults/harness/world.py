"""The world outside of a chaos run: an HTTP server that answers late, fails, and can be taken away."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import UUID, uuid5

from tests.e2e.effects import Call, EffectServer
from tests.faults.harness.records import Effect, Pause, name_of

_ITERATIONS = 10
"""More than any step has."""

LOOK = 0.02
"""Seconds between looks: whether a caller has gone, and whether this process itself stood still."""
LARGEST = 0.05
"""Seconds of lateness of this process that make no difference."""


class World(EffectServer):
    """Answers as the query of a call says: after `latency` seconds, the first `failures` calls of a key with 503."""

    def __init__(self) -> None:
        super().__init__()
        self.speaks = asyncio.Event()
        """Cleared, calls are taken and not answered."""
        self.speaks.set()
        self.is_confused = False
        """Whether answers are those of earlier calls."""
        self.stalls: list[Pause] = []
        """When this process stood still, so that what arrived is known later than it came."""
        self._port = 0
        self._server: asyncio.Server | None = None
        self._feeling: asyncio.Task[None] | None = None
        self._counts: Counter[str] = Counter()
        self._readers: dict[int, asyncio.StreamReader] = {}
        self._ended: dict[int, datetime] = {}

    @property
    def port(self) -> int:
        """Where it listens."""
        return self._port

    async def start(self) -> None:
        """Serve, on the same address each time."""
        self._server = await asyncio.start_server(self.serve, "127.0.0.1", self._port)
        self._feeling = asyncio.create_task(self._feel())
        self._port = self._server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self._port}"

    async def stop(self) -> None:
        """Vanish in the middle of all calls; what arrived stays known."""
        if self._feeling is not None:
            self._feeling.cancel()
        if self._server is not None:
            self._server.close()
            await self.close()
            await self._server.wait_closed()
            self._server = None

    async def _feel(self) -> None:
        """Write down when this process stood still, until cancelled."""
        while True:
            before = datetime.now(UTC)
            await asyncio.sleep(LOOK)
            now = datetime.now(UTC)
            if (now - before).total_seconds() > LOOK + LARGEST:
                self.stalls.append(Pause(before, now))

    async def reply(self, call: Call) -> tuple[int, Any]:
        """See EffectServer."""
        query = parse_qs(urlsplit(call.path).query)
        self._counts[call.key] += 1
        has_failed = self._counts[call.key] <= int(query["failures"][0])
        due = asyncio.get_running_loop().time() + float(query["latency"][0])
        try:
            await self._until(call, lambda: asyncio.get_running_loop().time() >= due)
            await self._until(call, self.speaks.is_set)
        finally:
            self._ended[call.number] = datetime.now(UTC)
        number = max(1, call.number - 7) if self.is_confused else call.number
        return (503 if has_failed else 200), {"number": number}

    async def _read(self, reader: asyncio.StreamReader) -> Call:
        call = await super()._read(reader)
        self._readers[call.number] = reader
        return call

    async def _until(self, call: Call, is_due: Callable[[], bool]) -> None:
        """Return when it is, or the caller has gone."""
        reader = self._readers[call.number]
        while not is_due() and not reader.at_eof():  # noqa: ASYNC110 - who reads nothing is not told of the end
            await asyncio.sleep(LOOK)

    @property
    def effects(self) -> list[Effect]:
        """Every call that arrived."""
        return [
            Effect(
                call.key,
                call.body["execution"],
                _name(call),
                call.attempt,
                call.time,
                self._ended.get(call.number),
            )
            for call in self.calls
        ]


def _name(call: Call) -> str:
    """Return what the step of a call is called, by its token: that tells the iteration."""
    path, execution_id = call.body["step"], UUID(call.body["execution"])
    names = (name_of(path, iteration) for iteration in range(1, _ITERATIONS))
    return next((name for name in names if str(uuid5(execution_id, name)) == call.key), path)
