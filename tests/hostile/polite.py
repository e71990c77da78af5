"""A client that asks for little, in a process of its own: how long its calls take, alone and beside an attack."""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from typing import Any

import grpc

from flowkeep.channel import call_metadata, open_channel
from flowkeep.requests import execute_request
from flowkeep.v1.execution_service_pb2 import GetExecutionRequest
from flowkeep.v1.execution_service_pb2_grpc import ExecutionServiceStub
from tests.e2e.process import environment
from tests.hostile.attacker import IS_ALONE, Attacker, busy
from tests.patience import PATIENCE

WORKFLOW = "polite"
"""The workflow that it executes."""
PACE = 1 / 32
"""Seconds from the beginning of a call to that of the next one, also while others are open: each moment counts alike,
also those in which a server keeps all waiting, and what it serves beside an attack is as much as alone."""
OPEN = 8 if IS_ALONE else 2
"""Calls that may be open at a time. The next one begins late, and has waited since it should have begun; as many as
that may be late, and further ones are left out."""
ENOUGH = 128 if IS_ALONE else 12
"""Calls that a p99 needs, beside an attack and before it."""
LONGEST, BEFORE = 6.0, 1.4
"""Seconds after which calls beside an attack are measured by what there is of them, and those of each time before."""
TIMES = 3
"""The calls before this many attacks are what it has without one: a p99 of those before one is the slowest."""


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

    def ratio(self, share: float = 0.99) -> float:
        """By how much a percentile rose."""
        return self.times.percentile(share) / max(1e-4, self.alone.percentile(share))

    @property
    def as_bare(self) -> str:
        """What is told of it beside what is told of our server."""
        return f"{self.what}: {self.times}: x {self.ratio():.1f}"

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
        rose = f"x {self.ratio():.1f} (p50 x {self.ratio(0.5):.1f})"
        return f"{self.what}: {self.times}, alone {self.alone}: {rose} {self.times.errors or ''}"


class Polite:
    """The process of a polite client of one server, which calls only when it is asked to."""

    def __init__(self, target: str, token: str, attacker: Attacker) -> None:
        self._arguments = (target, token)
        self._attacker = attacker
        self._process: asyncio.subprocess.Process | None = None
        self._before = deque[Times](maxlen=TIMES)

    @asynccontextmanager
    async def beside(self, what: str) -> AsyncIterator[Beside]:
        """Have it call while the attack inside goes on; the result is filled in at the end.

        How long its calls take alone is measured just before: what earlier attacks have left is none of this one's.
        Meanwhile the attacker is as busy as one that attacks: what that costs is none of it either.
        """
        await self._attacker.start()
        if self._process is None:  # the first calls make connections, and have loaded what is loaded at its first use
            await self._alone(what)
        async with self._attacker.holding(busy) if IS_ALONE else nullcontext():
            for _ in range(max(1, TIMES - len(self._before)) if IS_ALONE else 1):
                self._before.append(await self._alone(what))
        alone = Times([each for times in self._before for each in times.seconds], {})
        async with self._calling(Beside(what, alone)) as result:
            yield result

    async def close(self) -> None:
        """End it."""
        if self._process is not None:
            assert self._process.stdin is not None
            self._process.stdin.close()
            await self._process.wait()

    async def _alone(self, what: str) -> Times:
        async with self._calling(Beside(what, Times([], {}))) as alone:
            await alone.enough(BEFORE if IS_ALONE else BEFORE / 4)
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
                start_new_session=True,  # where Linux shares processors among sessions, as the database has its own
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
    gc.disable()  # its own pauses are not the server's
    metadata = call_metadata(token)
    async with open_channel(target, False, ()) as channel:
        stub: Any = ExecutionServiceStub(channel)
        while await _line():
            caller = _Caller(stub, metadata, asyncio.ensure_future(_line()))
            await asyncio.gather(*(caller.call() for _ in range(OPEN)))
            _tell({"seconds": caller.seconds, "errors": caller.errors})


async def _line() -> str:
    return await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)


def _tell(what: Any) -> None:
    print(json.dumps(what), flush=True)


class _Caller:
    """Makes one call at each of its times until it is over; what it executes it gets."""

    def __init__(self, stub: Any, metadata: Any, over: asyncio.Future[str]) -> None:
        self._stub, self._metadata, self._over = stub, metadata, over
        self._next = time.perf_counter()
        self._executed = deque[str]()
        self.seconds = list[float]()
        self.errors = Counter[str]()

    async def call(self) -> None:
        """Make those calls for which there is a place here."""
        while True:
            now = time.perf_counter()
            since = due = max(self._next, now - OPEN * PACE)
            self._next = due + PACE
            if due > now:
                await asyncio.wait([self._over], timeout=due - now)
                # That this process is woken late on a busy machine is nothing that the server has kept it waiting for.
                since = time.perf_counter()
            if self._over.done() and self.seconds:
                return
            try:
                await self._one()
            except grpc.aio.AioRpcError as error:
                self.errors[f"{error.code().name}: {error.details()}"] += 1
            self.seconds.append(time.perf_counter() - since)
            if len(self.seconds) == ENOUGH:
                _tell("enough")

    async def _one(self) -> None:
        if self._executed:
            request = GetExecutionRequest(execution_id=self._executed.popleft())
            await self._stub.GetExecution(request, metadata=self._metadata, timeout=PATIENCE)
        else:
            answer = await self._stub.Execute(execute_request(WORKFLOW), metadata=self._metadata, timeout=PATIENCE)
            self._executed.append(answer.execution.execution_id)


if __name__ == "__main__":
    asyncio.run(_serve(*sys.argv[1:]))
