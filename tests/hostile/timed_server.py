"""`flowkeep` on a loop that tells how long it was held: the server of these tests.

Each callback of the loop is timed by the processor time that its thread used, so that other processes of a busy
machine do not count; where it is long, as seconds of a machine that does nothing else. For how long it was asleep, as
for a file or a lock, is told apart: time in which its thread neither ran nor was ready to, and no other machine had its
processor. A thread that lets no other
one run holds the loop without a callback, which one more thread sees.
The loop is asyncio's own, since nothing can time the callbacks of uvloop.

Asked on a unix socket it begins to measure, or tells what was seen since; asked for its memory it first gives back what
nothing refers to.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import json
import os
import selectors
import sys
import threading
import time
import traceback
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import uvloop

from tests.patience import PATIENCE
from tests.work import slowness

SOCKET = "HOSTILE_SOCKET"
"""The variable of the environment that names the socket."""
LOOK = 0.01
"""Seconds between looks of the other thread."""
LONG = 0.04
"""Seconds from which on is looked closer."""

_run_handle = asyncio.Handle._run


class Holds:
    """How long one loop was held at worst, and by what. Made in the thread of the loop."""

    def __init__(self) -> None:
        self._thread = threading.get_ident()
        self._schedule = f"/proc/self/task/{threading.get_native_id()}/schedstat"
        self._queued, self._stolen = _queued(self._schedule), _stolen()
        self._begun = self._turn_begun = 0.0
        self._seen = (0.0, "")
        self._looked = 0.0
        self._counts = True
        self.forget()

    def forget(self) -> None:
        """Begin anew; the callback that asks for it does not count."""
        self._counts = False
        self.told = dict.fromkeys(("callback", "asleep", "turn", "others"), 0.0)
        self.stacks = dict.fromkeys(self.told, "")

    def time(self, handle: asyncio.Handle) -> None:
        """Run a callback of the loop."""
        queued, stolen, clock = self._queued, self._stolen, time.monotonic()
        self._counts, self._begun = True, time.thread_time()
        begun = self._begun
        _run_handle(handle)
        spent, self._begun = time.thread_time() - begun, 0.0
        asleep = time.monotonic() - clock - spent
        if not self._counts:
            self.start_turn()
            return
        if spent >= LONG:
            spent /= slowness()
        if spent > self.told["callback"]:
            self._note("callback", spent, begun, handle)
        if asleep >= LONG:
            asleep -= _queued(self._schedule) - queued + _stolen() - stolen
            if asleep > self.told["asleep"]:
                self._note("asleep", asleep, begun, handle)

    def _note(self, what: str, seconds: float, begun: float, handle: asyncio.Handle) -> None:
        seen, stack = self._seen
        self.told[what], self.stacks[what] = seconds, stack if seen == begun else repr(handle)

    def start_turn(self) -> None:
        """Begin a turn of the loop: all that it does between two looks at what has come in."""
        self._turn_begun = time.thread_time()

    def end_turn(self) -> None:
        """End the turn."""
        self.told["turn"] = max(self.told["turn"], time.thread_time() - self._turn_begun)

    def look(self) -> None:
        """Look for ever; to be called in another thread."""
        own = f"/proc/self/task/{threading.get_native_id()}/schedstat"
        while True:
            begun, worked, queued = time.monotonic(), _worked(self._thread), _queued(own)
            self._queued, self._stolen = _queued(self._schedule), _stolen()
            time.sleep(LOOK)
            self._see_callback()
            # What this thread waited for, but for its turn on a processor, is that it may run Python.
            waited = time.monotonic() - begun - LOOK - (_queued(own) - queued)
            if waited >= LONG:
                self._see_others(waited - (_stolen() - self._stolen), worked)

    def _see_callback(self) -> None:
        begun = self._begun
        if begun and self._seen[0] != begun:
            if self._looked == begun:  # for a whole look
                self._seen = begun, _stack(self._thread)
            self._looked = begun

    def _see_others(self, waited: float, worked: dict[int, float]) -> None:
        now = _worked(self._thread)
        most = max((spent - worked[thread] for thread, spent in now.items() if thread in worked), default=0.0)
        if (held := min(waited, most)) > self.told["others"]:
            threads = [each for each in threading.enumerate() if each.native_id in now]
            stacks = (f"{each.name}:\n{_stack(each.ident or 0)}" for each in threads)
            self.told["others"], self.stacks["others"] = held, "\n".join(stacks)


def _worked(loop_thread: int) -> dict[int, float]:
    """Return for how many seconds each thread of Python but these two has worked, by the id that the system gave it."""
    found = {}
    for thread in threading.enumerate():
        if thread.ident not in (loop_thread, threading.get_ident()):
            with suppress(OSError, IndexError):
                found[thread.native_id or 0] = _scheduled(f"/proc/self/task/{thread.native_id}/schedstat")[0]
    return found


def _queued(schedule: str) -> float:
    """Return for how many seconds a thread has waited for a processor."""
    with suppress(OSError, IndexError):
        return _scheduled(schedule)[1]
    return 0.0


def _stolen() -> float:
    """Return for how many seconds other machines had the processors of this one."""
    with suppress(OSError, IndexError):
        return int(Path("/proc/stat").read_text().partition("\n")[0].split()[8]) / os.sysconf("SC_CLK_TCK")
    return 0.0


def _scheduled(path: str) -> list[float]:
    return [int(number) / 1e9 for number in Path(path).read_text().split()]


def _stack(thread: int) -> str:
    frame = sys._current_frames().get(thread)
    return "".join(traceback.format_list(traceback.extract_stack(frame)[-10:])) if frame else ""


class _Selector(selectors.DefaultSelector):
    def __init__(self, holds: Holds) -> None:
        super().__init__()
        self._holds = holds

    def select(self, timeout: float | None = None) -> Any:
        self._holds.end_turn()
        try:
            return super().select(timeout)
        finally:
            self._holds.start_turn()


def new_loop() -> asyncio.AbstractEventLoop:
    """Return a loop that is timed, and that tells of it once it runs."""
    holds = Holds()
    loop = asyncio.SelectorEventLoop(_Selector(holds))

    def run(handle: asyncio.Handle) -> None:
        if handle._loop is loop:  # type: ignore[attr-defined]
            holds.time(handle)
        else:
            _run_handle(handle)

    asyncio.Handle._run = run  # type: ignore[method-assign,assignment]
    threading.Thread(target=holds.look, name="holds", daemon=True).start()
    loop.call_soon(lambda: loop.create_task(_tell(holds)))
    return loop


async def _tell(holds: Holds) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked = (await reader.readline()).decode().strip()
        writer.write(json.dumps(_ANSWERS[asked](holds)).encode() + b"\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_unix_server(answer, os.environ[SOCKET])
    await server.serve_forever()


def _begin(holds: Holds) -> Any:
    gc.collect()  # what earlier tests left is none of what this one costs
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # the peak is what is used now
    holds.forget()
    return psutil.Process().memory_info().rss


def _memory(holds: Holds) -> Any:
    """Return the bytes in use, when what nothing refers to has been given back."""
    told, stacks = holds.told, holds.stacks
    gc.collect()
    with suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
    holds.forget()
    holds.told, holds.stacks = told, stacks
    return psutil.Process().memory_info().rss


def _told(holds: Holds) -> Any:
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {**holds.told, "stacks": holds.stacks, "peak": int(status["VmHWM"].split()[0]) * 1024}


_ANSWERS = {"begin": _begin, "memory": _memory, "told": _told}


def be_patient() -> None:
    """Answer a call however long it takes: beside other tests a machine may need seconds for what is much work."""
    from persistence.postgres import PostgresRepository
    from service.api import answering, sending  # noqa: F401 - which keeps its limit

    answering.LONGEST = PATIENCE
    patient = partial(PostgresRepository.open, command_timeout=PATIENCE, unknown_timeout=PATIENCE)
    PostgresRepository.open = patient  # type: ignore[method-assign]


if __name__ == "__main__":
    from service.cli.main import main

    uvloop.new_event_loop = new_loop  # type: ignore[assignment]
    be_patient()
    main()
