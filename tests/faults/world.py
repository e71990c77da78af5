"""The world outside of a chaos run: an HTTP server that answers late, fails, and can be taken away."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.e2e.effects import Call, EffectServer
from tests.faults.records import Effect


class World(EffectServer):
    """Answers as the query of a call says: after `latency` seconds, the first `failures` calls of a key with 503."""

    def __init__(self) -> None:
        super().__init__()
        self.speaks = asyncio.Event()
        """Cleared, calls are taken and not answered."""
        self.speaks.set()
        self.is_confused = False
        """Whether answers are those of earlier calls."""
        self._port = 0
        self._server: asyncio.Server | None = None
        self._counts: Counter[str] = Counter()

    async def start(self) -> None:
        """Serve, on the same address each time."""
        self._server = await asyncio.start_server(self.serve, "127.0.0.1", self._port)
        self._port = self._server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self._port}"

    async def stop(self) -> None:
        """Vanish in the middle of all calls; what arrived stays known."""
        if self._server is not None:
            self._server.close()
            await self.close()
            await self._server.wait_closed()
            self._server = None

    async def reply(self, call: Call) -> tuple[int, Any]:
        """See EffectServer."""
        query = parse_qs(urlsplit(call.path).query)
        self._counts[call.key] += 1
        has_failed = self._counts[call.key] <= int(query["failures"][0])
        await asyncio.sleep(float(query["latency"][0]))
        await self.speaks.wait()
        number = max(1, call.number - 7) if self.is_confused else call.number
        return (503 if has_failed else 200), {"number": number}

    @property
    def effects(self) -> list[Effect]:
        """Every call that arrived."""
        return [
            Effect(call.key, call.body["execution"], call.body["step"], call.attempt, call.time) for call in self.calls
        ]
