"""The fault that takes the right time away."""

from __future__ import annotations

import asyncio
import shutil
import struct
import tempfile
from collections.abc import Mapping
from pathlib import Path

from tests.e2e.process import run_command
from tests.faults.checks.attempts import CLOCK_OF_POSTGRES, SETBACK
from tests.faults.harness.database import Postgres
from tests.faults.kinds.kind import Plain, Scene, VoidError


class Skewed(Plain):
    """K16: each replica has another time, up to five minutes wrong, and it jumps; that of Postgres is set back once."""

    name, meaning = "K16", "replica clocks +-300 s and jumping, the clock of Postgres back by 60 s and right again"
    RANGE = 300.0

    def __init__(self) -> None:
        self._folder = Path()
        self._library = Path()

    async def prepare(self) -> Mapping[str, str]:
        """See Kind."""
        compiler = shutil.which("cc")
        if compiler is None:
            raise VoidError("there is no C compiler for the library that shifts clocks")
        self._folder = Path(tempfile.mkdtemp(prefix="flowkeep-clock-"))
        self._folder.chmod(0o755)  # Postgres has another account
        self._library = self._folder / "clock.so"
        source = Path(__file__).with_name("clock.c")
        done = await run_command(compiler, "-O2", "-shared", "-fPIC", "-o", str(self._library), str(source), "-ldl")
        if done.code != 0:
            await self.clean_up()
            raise VoidError(f"the library that shifts clocks cannot be built: {done.err.strip()[:500]}")
        for group in ("replicas", "postgres"):
            (self._folder / group).mkdir(mode=0o755)
            self.set_clock(group, "default", 0.0)
        return self.environment("replicas")

    def make_postgres(self, folder: Path) -> Postgres:
        """See Kind."""
        return Postgres(folder, environment=self.environment("postgres"))

    async def clean_up(self) -> None:
        """See Kind."""
        shutil.rmtree(self._folder)

    def set_clock(self, group: str, process: str, offset: float, suspended: float = 0.0) -> None:
        """Shift the clock of a process by its id; of all of its group that have no shift of their own by `default`.

        `suspended`: for how long its machine seems to have been suspended.
        """
        beside = self._folder / group / f"{process}.new"
        beside.write_bytes(struct.pack("qq", int(offset * 1e9), int(suspended * 1e9)))
        beside.rename(self._folder / group / process)

    async def run(self, scene: Scene) -> None:
        """See Kind."""
        left = scene.until - asyncio.get_running_loop().time()
        try:
            await self._jump(scene, scene.until - 2 * left / 3)
            landing = await scene.land(CLOCK_OF_POSTGRES)
            self.set_clock("postgres", "default", -SETBACK)
            try:
                await self._jump(scene, scene.until - left / 3)
            finally:
                self.set_clock("postgres", "default", 0.0)
            scene.over(landing)
            await self._jump(scene, scene.until)
        finally:
            for replica in scene.cluster.replicas:
                self.set_clock("replicas", str(replica.server.pid), 0.0)

    async def _jump(self, scene: Scene, until: float) -> None:
        """Let the clocks of replicas jump until a time of the event loop."""
        while asyncio.get_running_loop().time() < until:
            victim = scene.victim()
            await scene.land("clock", victim)
            self.set_clock("replicas", str(victim.server.pid), scene.draw.uniform(-self.RANGE, self.RANGE))
            await scene.pause(0.5, 2.0)

    def environment(self, group: str) -> Mapping[str, str]:
        """Return what makes a process take its time from the clocks of a group."""
        return {"LD_PRELOAD": str(self._library), "CHAOS_CLOCKS": str(self._folder / group)}
