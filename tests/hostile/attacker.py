"""The attacker: a process of its own that gives way to all others, since in reality it is another machine."""

from __future__ import annotations

import asyncio
import base64
import os
import pickle
import sys
import threading
import traceback
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from tests.e2e.process import environment

IS_ALONE = "PYTEST_XDIST_WORKER" not in os.environ
"""Whether figures are worth something: beside other tests it is only seen that all are served."""
LONGEST = 180.0
"""Seconds after which an attack is over, however slow the machine: some last until the server has let go of all."""
END = None
"""What is sent instead of an attack to end the one that holds on."""


class Attacker:
    """The process of an attacker, which carries out one attack after the other."""

    def __init__(self) -> None:
        self._process: asyncio.subprocess.Process | None = None

    async def run(self, attack: Callable[..., Any], *arguments: Any) -> Any:
        """Carry out an attack, a function of a module, and return what it returns."""
        await self.start()
        return await self._answer((attack, arguments))

    @asynccontextmanager
    async def holding(
        self, attack: Callable[..., AbstractAsyncContextManager[Any]], *arguments: Any
    ) -> AsyncIterator[Any]:
        """Give what an attack gives that holds on to what it has until the end."""
        given = await self.run(attack, *arguments)
        try:
            yield given
        finally:
            await self._answer(END)

    async def start(self) -> None:
        """Have the process, which takes its time to load."""
        if self._process is None:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                __name__,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                limit=1 << 24,
                env=environment(),
                start_new_session=True,
            )
            await self._heard()

    async def close(self) -> None:
        """End it."""
        if self._process is not None:
            assert self._process.stdin is not None
            self._process.stdin.close()
            await self._process.wait()

    async def _answer(self, said: Any) -> Any:
        assert self._process is not None and self._process.stdin is not None
        self._process.stdin.write(_line(said))
        await self._process.stdin.drain()
        failed, given = await self._heard()
        assert not failed, given
        return given

    async def _heard(self) -> Any:
        assert self._process is not None and self._process.stdout is not None
        async with asyncio.timeout(LONGEST):
            return _meant(await self._process.stdout.readline())


def give_way() -> None:
    """Have this process, which leads a session, work only while no other process wants to, if this run is alone.

    Among several workers it would not get to attack at all, and no figure is worth anything there.
    """
    if not IS_ALONE:
        return
    os.nice(19)
    if sys.platform == "linux":
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    with suppress(OSError):  # Linux may share processors among sessions first, those of strangers too
        Path("/proc/self/autogroup").write_text("19")


@asynccontextmanager
async def busy() -> AsyncIterator[None]:
    """Attack nothing, and be as busy as with an attack."""
    over = threading.Event()

    def work() -> None:
        while not over.is_set():
            sum(range(1_000))

    threading.Thread(target=work, daemon=True).start()  # one that ends with the process, if that is told nothing more
    try:
        yield
    finally:
        over.set()


def _line(said: Any) -> bytes:
    return base64.b64encode(pickle.dumps(said)) + b"\n"


def _meant(line: bytes) -> Any:
    return pickle.loads(base64.b64decode(line))  # noqa: S301 - of our own processes


async def _serve() -> None:
    """Carry out what standard input names, and say on standard output what came of it."""
    give_way()
    sys.stdout.buffer.write(_line("ready"))
    sys.stdout.flush()
    held: AbstractAsyncContextManager[Any] | None = None
    while line := await asyncio.to_thread(sys.stdin.buffer.readline):
        try:
            if (said := _meant(line)) is END:
                assert held is not None
                given = await held.__aexit__(None, None, None)
            else:
                attack, arguments = said
                work = attack(*arguments)
                if isinstance(work, AbstractAsyncContextManager):
                    held = work
                    work = held.__aenter__()
                given = await work
            answer: Any = (False, given)
        except Exception:
            answer = (True, traceback.format_exc())
        sys.stdout.buffer.write(_line(answer))
        sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(_serve())
