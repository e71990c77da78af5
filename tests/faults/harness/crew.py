"""Workers in three languages, which are processes that a run may kill, and the journals that they keep."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc

from flowkeep.v1.worker_service_pb2 import ListWorkersRequest, Worker
from flowkeep.v1.worker_service_pb2_grpc import WorkerServiceStub
from service.engine.waiting import within
from tests.clients.program import WORKERS
from tests.e2e.process import LOADED, environment
from tests.faults.harness.records import Effect
from tests.faults.harness.stints import JOURNAL
from tests.folders import ROOT

PYTHON = "python"
LANGUAGES = (PYTHON, *WORKERS)
ROOM = 8
"""Attempts that a worker runs at a time."""

_STINTS = Path(__file__).with_name("stints.py")


def there() -> list[str]:
    """Return the languages of which there is a worker on this machine."""
    return [language for language in LANGUAGES if language == PYTHON or WORKERS[language][0].exists()]


def handler(language: str) -> str:
    """Return the name of the handler that the workers in a language serve."""
    return f"stint_{language}"


@dataclass
class Member:
    """One worker, at the server with the address `target`."""

    name: str
    language: str
    target: str
    folder: Path
    kills: int = 0
    _process: asyncio.subprocess.Process | None = field(default=None, init=False)
    _started: float = field(default=0.0, init=False)

    @property
    def log(self) -> str:
        """What all its processes have said."""
        return self._log.read_text(errors="replace")

    @property
    def _log(self) -> Path:
        return self.folder / f"{self.name}.log"

    @property
    def _journal(self) -> Path:
        return self.folder / f"{self.name}.journal"

    async def start(self) -> None:
        """Begin a new process, which is another worker to the server."""
        settings = {JOURNAL: str(self._journal)}
        if self.language == PYTHON:
            options = ("--server", self.target, "--capacity", str(ROOM), "--name", self.name)
            command: Sequence[str] = (sys.executable, "-m", "flowkeep.worker", str(_STINTS), *options)
            settings |= {"PYTHONPATH": str(ROOT)}
        else:
            built, before, after = WORKERS[self.language]
            command = (*before, str(built), *after)
            settings |= {"FLOWKEEP_SERVE": "yes", "FLOWKEEP_TARGET": self.target, "FLOWKEEP_CAPACITY": str(ROOM)}
        self._started = time.time()
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *command, stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log, env=environment(settings)
            )

    async def kill(self) -> None:
        """Kill it and return when it is gone."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()

    async def come_back(self) -> None:
        """Start it again and return when it serves."""
        await self.start()
        await self.connected()

    async def end(self) -> None:
        """Let it stop in order; returns when it is gone, which it is not waited for without end."""
        assert self._process is not None
        with suppress(ProcessLookupError):
            self._process.terminate()
        await within(LOADED, self._process.wait())
        await self.kill()

    async def connected(self) -> None:
        """Return when its server has it, also if that is away for a while."""
        request = ListWorkersRequest(handler=handler(self.language))
        async with asyncio.timeout(2 * LOADED), grpc.aio.insecure_channel(self.target) as channel:
            stub: Any = WorkerServiceStub(channel)
            while True:
                with suppress(grpc.aio.AioRpcError):
                    found = (await stub.ListWorkers(request)).workers
                    # One that was killed may still be shown for a moment.
                    if any(each.server and self._is(each) for each in found):
                        return
                await asyncio.sleep(0.1)

    def _is(self, shown: Worker) -> bool:
        is_named = shown.name in (self.name, self.language)
        return is_named and shown.connect_time.ToNanoseconds() / 1e9 > self._started

    def effects(self) -> list[Effect]:
        """Return the attempts that have begun in all its processes, as they say themselves."""
        if not self._journal.exists():
            return []
        lines = map(json.loads, self._journal.read_text().splitlines())
        return [
            Effect("", line["execution_id"], line["path"], line["attempt"], datetime.fromtimestamp(line["time"], UTC))
            for line in lines
        ]
