"""DBOS Transact in a process of its own, for comparison; it comes with the extra `bench`."""

from __future__ import annotations

import asyncio
import importlib.util
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.folders import ROOT

PROGRAM = "tests.bench.dbos_program"


class DbosProcess:
    """Runs workflows of DBOS, as many as one says."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def executions(self, steps: int, count: int, width: int) -> float:
        """Return the seconds that workflows of so many steps take, `width` at a time, each awaited."""
        return await self._run(f"{steps} {count} {width}")

    async def starts(self, count: int, width: int) -> float:
        """Return the seconds that it takes to start workflows."""
        return await self._run(f"starts {count} {width}")

    async def _run(self, line: str) -> float:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n".encode())
        return float(await self.heard())

    async def heard(self) -> str:
        """Return the next line that it says."""
        assert self._process.stdout is not None
        line = (await self._process.stdout.readline()).decode().strip()
        assert line, "DBOS has ended; what it wrote on standard error says why"
        return line


@asynccontextmanager
async def dbos(dsn: str) -> AsyncIterator[DbosProcess | None]:
    """Run DBOS inside on a database of its own; None where it is not installed."""
    if importlib.util.find_spec("dbos") is None:
        print("DBOS is not installed, so nothing is compared with it: `make bench` brings it")
        yield None
        return
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", PROGRAM, dsn, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT
    )
    running = DbosProcess(process)
    try:
        assert await running.heard() == "ready"
        yield running
    finally:
        assert process.stdin is not None
        process.stdin.close()
        await process.wait()
