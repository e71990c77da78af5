"""The traffic of a chaos run: executions at a rate, and watchers that come and go."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress

from tests.faults.harness.caller import Caller, History
from tests.faults.harness.cluster import Cluster
from tests.faults.harness.programs import Program
from tests.faults.harness.records import Call, Stream
from tests.faults.harness.starter import STEERED, Starter
from tests.faults.harness.watcher import Watcher

STARTERS = 8
WITH_CONNECTIONS = 20
"""Watchers with connections of their own."""
BULKS = (2.0, 4.0)
"""Seconds between two operations in bulk."""
SIGNALS = (0.8, 2.0)
"""Seconds between signals that start executions where none goes on."""
SIGNALLED, SIGNALLERS = 2, 2
"""Workflows that are started so, and by how many callers at once."""
_READ = 3000
"""Executions that are read again at the end."""


class Traffic:
    """Starts executions evenly over time until it is stopped."""

    def __init__(
        self,
        cluster: Cluster,
        programs: Sequence[Program],
        rate: float,
        draw: random.Random,
        watchers: int,
        is_steered: bool,
    ) -> None:
        self.history = History()
        self.started = 0
        self._programs = programs
        self._rate = rate
        self._draw = draw
        self._give_up, self._is_over = asyncio.Event(), asyncio.Event()
        self._starters = [Starter(f"starter {n}", cluster.replicas, self.history, draw) for n in range(STARTERS)]
        self._is_steered = is_steered
        for starter in self._starters:
            starter.steered = STEERED if is_steered else 0.0
        self._watchers = [
            Watcher(f"watcher {n}", cluster.replicas, self.history, draw)
            for n in range(min(watchers, WITH_CONNECTIONS))
        ]
        # More than these share their connections, as browser tabs behind one gateway do.
        self._watchers += [
            self._watchers[n % WITH_CONNECTIONS].beside(f"watcher {n}") for n in range(WITH_CONNECTIONS, watchers)
        ]
        self._last = Watcher("last", cluster.replicas, self.history, draw)
        self._judge = Caller("judge", cluster.replicas, self.history)
        self._under_way: set[asyncio.Task[None]] = set()
        self._pace: asyncio.Task[None] | None = None
        self._beside: list[asyncio.Task[None]] = []
        self._watching: list[asyncio.Task[None]] = []

    @property
    def calls(self) -> list[Call]:
        """Every call so far."""
        return self.history.calls

    @property
    def streams(self) -> list[Stream]:
        """Every stream that has ended."""
        return [stream for watcher in [*self._watchers, self._last] for stream in watcher.streams]

    def begin(self) -> None:
        """Start."""
        self._pace = asyncio.create_task(self._keep_pace())
        if self._is_steered:
            doing = [self._now_and_then(BULKS, self._starters[0].pause_many, self._programs)]
            for starter in self._starters[:SIGNALLERS]:
                doing.append(self._now_and_then(SIGNALS, starter.signal_together, self._programs[:SIGNALLED]))
            self._beside = [asyncio.create_task(each) for each in doing]
        self._watching = [asyncio.create_task(watcher.run()) for watcher in self._watchers]

    async def stop_starting(self, patience: float) -> None:
        """Start nothing more; return when every caller knows what became of its calls, or patience is over."""
        if self._pace is not None:
            self._pace.cancel()
            await asyncio.gather(self._pace, return_exceptions=True)
        self._is_over.set()
        self._under_way.update(self._beside)
        if self._under_way:
            await asyncio.wait(self._under_way, timeout=patience)
        self._give_up.set()

    async def end(self) -> None:
        """Send the watchers away, and wait for the callers."""
        for task in self._watching:
            task.cancel()
        await asyncio.gather(*self._watching, return_exceptions=True)
        results = await asyncio.gather(*self._under_way, return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result

    async def read_all(self, cluster: Cluster) -> None:
        """Get thousands of executions somewhere, watch some from the beginning, and ask every replica five times."""
        ids = sorted(self.history.acked)
        ids = self._draw.sample(ids, min(_READ, len(ids)))
        for number, execution_id in enumerate(ids):
            await self._judge.get(cluster.replicas[number % len(cluster.replicas)], execution_id, is_final=True)
        for execution_id in self._draw.sample(ids, min(30, len(ids))):
            await self._last.watch(execution_id, 0, 10.0, is_final=True)
        for replica in cluster.replicas:
            for execution_id in (ids * 5)[:5]:
                await self._judge.get(replica, execution_id, is_final=True)

    async def _keep_pace(self) -> None:
        loop = asyncio.get_running_loop()
        begun = loop.time()
        while True:
            await asyncio.sleep(max(0.0, begun + self.started / self._rate - loop.time()))
            starter = self._draw.choice(self._starters)
            program = self._draw.choice(self._programs)
            self.started += 1
            if len(self._under_way) < 500:
                task = asyncio.create_task(starter.start(program.name, self._give_up))
                self._under_way.add(task)
                task.add_done_callback(self._done)

    async def _now_and_then(
        self, between: tuple[float, float], act: Callable[[str], Awaitable[None]], programs: Sequence[Program]
    ) -> None:
        """Do something with a workflow now and then until it is over, one after the other, and the last to its end."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._draw.uniform(*between)):
                    await self._is_over.wait()
                return
            await act(self._draw.choice(programs).name)

    def _done(self, task: asyncio.Task[None]) -> None:
        if task.cancelled() or task.exception() is None:
            self._under_way.discard(task)


@asynccontextmanager
async def running_traffic(
    cluster: Cluster, programs: Sequence[Program], rate: float, draw: random.Random, watchers: int, is_steered: bool
) -> AsyncIterator[Traffic]:
    """Give traffic that has begun; it ends with the block at the latest."""
    traffic = Traffic(cluster, programs, rate, draw, watchers, is_steered)
    traffic.begin()
    try:
        yield traffic
    finally:
        await traffic.stop_starting(0.0)
        await traffic.end()
