"""A client that asks for little, in a process of its own: how long its calls take, alone and beside an attack."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import grpc

from flowkeep.channel import call_metadata, open_channel
from flowkeep.requests import execute_request
from flowkeep.v1.execution_service_pb2 import GetExecutionRequest
from flowkeep.v1.execution_service_pb2_grpc import ExecutionServiceStub
from tests.e2e.process import environment
from tests.patience import PATIENCE

WORKFLOW = "polite"
"""The workflow that it executes."""
AT_A_TIME = 2
"""Calls that it has open at a time, one after the other without a pause: of few calls the p99 is the slowest one."""
ENOUGH = 30 if "PYTEST_XDIST_WORKER" in os.environ else 250
"""Calls that a p99 needs. Beside other tests it says little anyhow: there it is only seen that all calls are served."""
LONGEST, ALONE = 3.0, 0.3
"""Seconds after which calls beside an attack, and those before it, are measured by what there is of them."""


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
    """What a polite client sees beside an attack; the times are there when that is over."""

    what: str
    alone: Times
    times: Times = field(default_factory=lambda: Times([], {}))
    has_enough: asyncio.Event = field(default_factory=asyncio.Event)
    begun: float = field(default_factory=time.monotonic)

    @property
    def ratio(self) -> float:
        """By how much its p99 rose."""
        return self.times.percentile(0.99) / max(1e-4, self.alone.percentile(0.99))

    @property
    def as_bare(self) -> str:
        """What is told of it beside what is told of our server."""
        return f"{self.what}: {self.times}: x {self.ratio:.1f}"

    def rounds(self) -> Iterator[None]:
        """Repeat an attack that is over soon until enough calls have been made beside it."""
        yield
        while not self.has_enough.is_set() and time.monotonic() < self.begun + LONGEST:
            yield

    async def enough(self, patience: float = LONGEST) -> None:
        """Return when enough calls have been made, for one beside an attack that goes on by itself."""
        with suppress(TimeoutError):
            async with asyncio.timeout(patience):
                await self.has_enough.wait()

    def __str__(self) -> str:
        return f"{self.what}: {self.times}, alone {self.alone}: x {self.ratio:.1f} {self.times.errors or ''}"


class Polite:
    """The process of a polite client of one server, which calls only when it is asked to."""

    def __init__(self, target: str, token: str) -> None:
        self._arguments = (target, token)
        self._process: asyncio.subprocess.Process | None = None

    @asynccontextmanager
    async def beside(self, what: str) -> AsyncIterator[Beside]:
        """Have it call while the attack inside goes on; the result is filled in at the end.

        How long its calls take alone is measured just before: what earlier attacks have left is none of this one's.
        """
        if self._process is None:  # the first calls make connections, and have loaded what is loaded at its first use
            await self._alone(what, LONGEST)
        async with self._calling(Beside(what, await self._alone(what))) as result:
            yield result

    async def close(self) -> None:
        """End it."""
        if self._process is not None:
            assert self._process.stdin is not None
            self._process.stdin.close()
            await self._process.wait()

    async def _alone(self, what: str, patience: float = ALONE) -> Times:
        async with self._calling(Beside(what, Times([], {}))) as alone:
            await alone.enough(patience)
        return alone.times

    @asynccontextmanager
    async def _calling(self, result: Beside) -> AsyncIterator[Beside]:
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
        listening = asyncio.ensure_future(self._listen(result))
        try:
            yield result
        finally:
            self._say("stop")
            async with asyncio.timeout(2 * PATIENCE):
                await listening

    def _say(self, word: str) -> None:
        assert self._process is not None and self._process.stdin is not None
        self._process.stdin.write(f"{word}\n".encode())

    async def _listen(self, result: Beside) -> None:
        assert self._process is not None and self._process.stdout is not None
        while isinstance(heard := json.loads(await self._process.stdout.readline()), str):
            result.has_enough.set()
        result.times = Times(**heard)


async def _serve(target: str, token: str) -> None:
    """Call from each `go` on standard input to the `stop` after it, and then write what was seen."""
    metadata = call_metadata(token)
    async with open_channel(target, False, ()) as channel:
        stub: Any = ExecutionServiceStub(channel)
        while await _line():
            over = asyncio.ensure_future(_line())
            seconds, errors = list[float](), Counter[str]()
            await asyncio.gather(*(_call(stub, metadata, over, seconds, errors) for _ in range(AT_A_TIME)))
            _tell({"seconds": seconds, "errors": errors})
            await over


async def _line() -> str:
    return await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)


def _tell(what: Any) -> None:
    print(json.dumps(what), flush=True)


async def _call(
    stub: Any, metadata: Any, over: asyncio.Future[str], seconds: list[float], errors: Counter[str]
) -> None:
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
        if len(seconds) == ENOUGH:
            _tell("enough")


if __name__ == "__main__":
    asyncio.run(_serve(*sys.argv[1:]))
