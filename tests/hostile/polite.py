"""A client that asks for little, in a process of its own: how long its calls take, alone and beside an attack."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc

from flowkeep.channel import call_metadata, open_channel
from flowkeep.requests import execute_request
from flowkeep.v1.execution_service_pb2 import GetExecutionRequest
from flowkeep.v1.execution_service_pb2_grpc import ExecutionServiceStub
from tests.e2e.process import environment

WORKFLOW = "polite"
"""The workflow that it executes."""
PAUSE = 0.01
"""Seconds between its calls."""
PATIENCE = 10.0
"""Seconds after which a call has failed."""
ALONE = 0.5
"""Seconds for which it is measured alone."""


@dataclass(frozen=True)
class Times:
    """Seconds that its calls took, and the errors among them."""

    seconds: list[float]
    errors: dict[str, int]

    def percentile(self, share: float) -> float:
        """Return what that share of the calls took at most."""
        ordered = sorted(self.seconds)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0

    def __str__(self) -> str:
        return f"p50 {1e3 * self.percentile(0.5):.1f} p99 {1e3 * self.percentile(0.99):.1f} ms of {len(self.seconds)}"


@dataclass
class Beside:
    """What a polite client saw beside an attack, when that is over."""

    what: str
    alone: Times
    times: Times = field(default_factory=lambda: Times([], {}))

    @property
    def ratio(self) -> float:
        """By how much its p99 rose."""
        return self.times.percentile(0.99) / max(1e-4, self.alone.percentile(0.99))

    def __str__(self) -> str:
        return f"{self.what}: {self.times}, alone {self.alone}: x {self.ratio:.1f} {self.times.errors or ''}"


class Polite:
    """The process of a polite client of one server, which calls only when it is asked to."""

    def __init__(self, target: str, token: str) -> None:
        self._arguments = (target, token)
        self._process: asyncio.subprocess.Process | None = None
        self._alone: Times | None = None

    @asynccontextmanager
    async def beside(self, what: str) -> AsyncIterator[Beside]:
        """Have it call while the attack inside goes on; the result is filled in at the end."""
        if self._alone is None:
            await self._calls(0.2)  # the first calls make connections
            self._alone = await self._calls(ALONE)
        result = Beside(what, self._alone)
        self._say("go")
        try:
            yield result
        finally:
            self._say("stop")
            result.times = await self._heard()

    async def close(self) -> None:
        """End it."""
        if self._process is not None:
            assert self._process.stdin is not None
            self._process.stdin.close()
            await self._process.wait()

    async def _calls(self, seconds: float) -> Times:
        if self._process is None:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                __name__,
                *self._arguments,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                limit=1 << 24,
                env=environment(),
            )
        self._say("go")
        await asyncio.sleep(seconds)
        self._say("stop")
        return await self._heard()

    def _say(self, word: str) -> None:
        assert self._process is not None and self._process.stdin is not None
        self._process.stdin.write(f"{word}\n".encode())

    async def _heard(self) -> Times:
        assert self._process is not None and self._process.stdout is not None
        async with asyncio.timeout(3 * PATIENCE):
            return Times(**json.loads(await self._process.stdout.readline()))


async def _serve(target: str, token: str) -> None:
    """Call from each `go` on standard input to the `stop` after it, and then write what was seen."""
    metadata = call_metadata(token)
    async with open_channel(target, False, ()) as channel:
        stub: Any = ExecutionServiceStub(channel)
        while await _line():
            over = asyncio.ensure_future(_line())
            seconds, errors = await _call(stub, metadata, over)
            print(json.dumps({"seconds": seconds, "errors": errors}), flush=True)
            await over


async def _line() -> str:
    return await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)


async def _call(stub: Any, metadata: Any, over: asyncio.Future[str]) -> tuple[list[float], Counter[str]]:
    seconds, errors = [], Counter[str]()
    execution_id = ""
    while not over.done():
        begun = time.perf_counter()
        try:
            if execution_id:
                request = GetExecutionRequest(execution_id=execution_id)
                await stub.GetExecution(request, metadata=metadata, timeout=PATIENCE)
                execution_id = ""
            else:
                answer = await stub.Execute(execute_request(WORKFLOW), metadata=metadata, timeout=PATIENCE)
                execution_id = answer.execution.execution_id
        except grpc.aio.AioRpcError as error:
            errors[f"{error.code().name}: {error.details()}"] += 1
        seconds.append(time.perf_counter() - begun)
        await asyncio.wait([over], timeout=PAUSE)
    return seconds, errors


if __name__ == "__main__":
    asyncio.run(_serve(*sys.argv[1:]))
