"""The fault that takes the disk away."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from tests.e2e.process import run_command
from tests.faults.harness.cluster import Cluster
from tests.faults.harness.database import Postgres
from tests.faults.kinds.kind import Plain, Scene, VoidError

_NO_SPACE = "No space left on device"


class DiskFull(Plain):
    """K15: the disk of Postgres fills up and is freed again."""

    name, meaning = "K15", "disk full on a 256 MiB tmpfs, then freed"

    def __init__(self) -> None:
        self._folder: Path | None = None

    def notes(self, cluster: Cluster) -> Mapping[str, object]:
        """See Kind."""
        return {"Postgres had no space": cluster.postgres.log.count(_NO_SPACE)}

    def make_postgres(self, folder: Path) -> Postgres:
        """See Kind."""
        return Postgres(self._folder or folder)

    async def prepare(self) -> Mapping[str, str]:
        """See Kind."""
        folder = Path(tempfile.mkdtemp(prefix="flowkeep-disk-", dir="/tmp"))
        done = await run_command("mount", "-t", "tmpfs", "-o", "size=256m,mode=711", "tmpfs", str(folder))
        if done.code != 0:
            shutil.rmtree(folder)
            raise VoidError(f"a tmpfs of our own cannot be mounted here: {done.err.strip()}")
        self._folder = folder
        return {}

    async def clean_up(self) -> None:
        """See Kind."""
        folder, self._folder = self._folder, None
        if folder is not None:
            await run_command("umount", str(folder))
            shutil.rmtree(folder)

    async def run(self, scene: Scene) -> None:
        """See Kind."""
        assert self._folder is not None
        ballast = self._folder / "ballast"
        postgres = scene.cluster.postgres
        while not scene.is_over:
            await scene.land("disk full")
            try:
                await asyncio.to_thread(_fill, ballast)
                await scene.pause(1.0, 2.0)
            finally:
                ballast.unlink(missing_ok=True)
                if postgres.has_gone:
                    await postgres.start()
            await postgres.ready()
            scene.accepting()
            scene.over()
            await scene.pause(1.0, 2.0)
        if _NO_SPACE not in postgres.log:
            raise VoidError("Postgres never noticed that the disk was full")


def _fill(ballast: Path) -> None:
    """Write until nothing more fits, with blocks that get smaller."""
    with ballast.open("wb", buffering=0) as file:
        for size in (1 << 20, 1 << 16, 1 << 12):
            with suppress(OSError):
                while True:
                    file.write(b"\0" * size)
