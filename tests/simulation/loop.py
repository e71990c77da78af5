"""An event loop in virtual time for several simulated processes at once.

Time passes only when nothing is left to do now, and then jumps to the next timer. Each process keeps the order that
asyncio promises inside a loop; which process goes next, and which of several timers that are due together, is drawn.
What runs is told apart by its context, so that a process can die between two of its callbacks, or stand still.
"""

from __future__ import annotations

import asyncio
import heapq
from asyncio import events
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context, ContextVar, copy_context
from itertools import count
from random import Random
from typing import Any, TypeVar, TypeVarTuple

_Answer = TypeVar("_Answer")
_Given = TypeVarTuple("_Given")

MOST_CALLBACKS = 2_000_000
"""More in one run means that something turns without end while no time passes."""


class DeadlockError(Exception):
    """Nothing is left to run and no timer is set, or no time passes any more."""


class Process:
    """What one process start runs. The world itself is one too, and never dies."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.is_dead = False
        self.is_frozen = False
        self.lateness = 0.0
        """Chance that one of its timers comes late."""
        self.ready: deque[asyncio.Handle] = deque()
        self.tasks: list[asyncio.Task[Any]] = []

    def __repr__(self) -> str:
        return self.name

    @property
    def open_tasks(self) -> list[asyncio.Task[Any]]:
        """Tasks that have not ended."""
        return [task for task in self.tasks if not task.done()]

    def context(self) -> Context:
        """Return a context in which everything belongs to this process."""
        context = _OUTSIDE.copy()
        context.run(_PROCESS.set, self)
        return context


WORLD = Process("world")
_PROCESS: ContextVar[Process] = ContextVar("process", default=WORLD)
_OUTSIDE = copy_context()


class _Task(asyncio.Task[Any]):
    """A task that sets order by its number, and not by where it lies in memory."""

    def __init__(self, number: int, *args: Any, **named: Any) -> None:
        self.number = number
        super().__init__(*args, **named)

    def __hash__(self) -> int:
        return self.number


class VirtualLoop(asyncio.BaseEventLoop):
    """The loop. `errors` holds what reached its exception handler."""

    def __init__(self, random: Random) -> None:
        self._is_running = False
        super().__init__()
        self.errors: list[str] = []
        self.callbacks = 0
        self._random = random
        self._clock = 0.0
        self._timers: list[tuple[float, float, int, asyncio.TimerHandle]] = []
        self._runnable: list[Process] = []
        self._numbers = count()
        self.set_task_factory(self._new_task)

    # --- what asyncio calls

    def time(self) -> float:
        """Return the virtual time in seconds."""
        return self._clock

    def call_soon(
        self, callback: Callable[[*_Given], object], *args: *_Given, context: Context | None = None
    ) -> asyncio.Handle:
        """See asyncio."""
        handle = asyncio.Handle(callback, args, self, context)
        self._enqueue(handle)
        return handle

    call_soon_threadsafe = call_soon

    def call_later(
        self,
        delay: float,
        callback: Callable[[*_Given], object],
        *args: *_Given,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        """See asyncio."""
        return self.call_at(self._clock + delay, callback, *args, context=context)

    def call_at(
        self,
        when: float,
        callback: Callable[[*_Given], object],
        *args: *_Given,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        """See asyncio; the timer may come late if its process is one that is slow."""
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        lateness = _process_of(handle).lateness
        if lateness and self._random.random() < lateness:
            when += self._random.random()
        heapq.heappush(self._timers, (max(when, self._clock), self._random.random(), next(self._numbers), handle))
        return handle

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Keep what went wrong."""
        error = context.get("exception")
        self.errors.append(f"{context.get('message')}: {error!r}" if error else str(context.get("message")))

    def is_running(self) -> bool:
        """See asyncio."""
        return self._is_running

    # --- what the simulation calls

    def spawn(self, process: Process, coroutine: Coroutine[Any, Any, _Answer], name: str) -> asyncio.Task[_Answer]:
        """Start a task in a process."""
        return self.create_task(coroutine, name=name, context=process.context())

    def call_world(self, delay: float, act: Callable[[], None]) -> None:
        """Do something outside all processes, later."""
        self.call_later(delay, act, context=_OUTSIDE)

    def kill(self, process: Process) -> None:
        """End a process between two of its callbacks: nothing of it runs any more, not even clean-up."""
        process.is_dead = True
        process.ready.clear()

    def freeze(self, process: Process) -> None:
        """Let a process stand still while time goes on."""
        process.is_frozen = True

    def thaw(self, process: Process) -> None:
        """Let a process go on, with all that became due in between."""
        process.is_frozen = False
        if process.ready and not process.is_dead and process not in self._runnable:
            self._runnable.append(process)

    def run(self, main: Coroutine[Any, Any, _Answer]) -> _Answer:
        """Run everything until `main`, which belongs to no process, has ended, and return its result."""
        events._set_running_loop(self)
        self._is_running = True
        try:
            task = self.spawn(WORLD, main, "main")
            while not task.done():
                self._turn()
            return task.result()
        finally:
            self._is_running = False
            events._set_running_loop(None)

    def forget(self) -> None:
        """Let go of what is left without a word: it belonged to processes that died."""
        for _, _, _, handle in self._timers:
            handle.cancel()
        self._timers.clear()
        for process in self._runnable:
            process.ready.clear()
        self.close()

    def _turn(self) -> None:
        if self._runnable:
            self._run_process(self._runnable.pop(int(self._random.random() * len(self._runnable))))
            return
        if not self._timers:
            raise DeadlockError("nothing is left to run, and no timer is set")
        self._clock = now = self._timers[0][0]
        while self._timers and self._timers[0][0] <= now:
            handle = heapq.heappop(self._timers)[3]
            if not handle.cancelled():
                self._enqueue(handle)

    def _run_process(self, process: Process) -> None:
        ready = process.ready
        for _ in range(len(ready)):
            if process.is_frozen or not ready:
                break
            handle = ready.popleft()
            if not handle.cancelled():
                self.callbacks += 1
                handle._run()
        if self.callbacks > MOST_CALLBACKS:
            raise DeadlockError(f"{MOST_CALLBACKS} callbacks, and no end")
        if ready and not process.is_frozen and process not in self._runnable:
            self._runnable.append(process)

    def _enqueue(self, handle: asyncio.Handle) -> None:
        process = _process_of(handle)
        if process.is_dead:
            return
        process.ready.append(handle)
        if not process.is_frozen and process not in self._runnable:
            self._runnable.append(process)

    def _new_task(self, loop: Any, coroutine: Any, context: Context | None = None) -> asyncio.Task[Any]:
        task = _Task(next(self._numbers), coroutine, loop=self, context=context)
        process = (context or copy_context()).get(_PROCESS, WORLD)
        if process is not WORLD:
            process.tasks.append(task)
        return task


def _process_of(handle: asyncio.Handle) -> Process:
    return handle._context.get(_PROCESS, WORLD)  # type: ignore[attr-defined, no-any-return]  # what makes it run
