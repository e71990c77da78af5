"""The fault that an upgrade is: replicas are replaced one by one, and the schema changes under them."""

from __future__ import annotations

import io
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path

from persistence.postgres.migrate import migrate
from persistence.postgres.revisions import VERSIONS
from tests.e2e.process import FLOWKEEP, run_command
from tests.faults.checks.aftermath import VERSION_BEFORE
from tests.faults.harness.cluster import Cluster, Replica
from tests.faults.harness.database import Postgres
from tests.faults.kinds.kind import Plain, Scene, VoidError
from tests.folders import ROOT

_CHOICE = """import pathlib, sys
sys.path[:0] = pathlib.Path(__file__).with_name("version").read_text().splitlines()
"""


class Rolled(Plain):
    """K17: replicas of the version before run on its schema, which is then migrated, and are replaced one by one."""

    name, meaning = "K17", "rolling SIGTERM, the version before mixed with this one, migration in the middle"

    def __init__(self) -> None:
        self._folder = Path()
        self._before: Path | None = None
        self._missing = ""
        self._versions: list[str] = []

    def notes(self, cluster: Cluster) -> Mapping[str, object]:
        """See Kind."""
        return {"versions": ", ".join(self._versions)}

    async def prepare(self) -> Mapping[str, str]:
        """See Kind."""
        self._folder = Path(tempfile.mkdtemp(prefix="flowkeep-versions-"))
        # Read once, when a process begins, so that one that runs is not given another version's modules.
        (self._folder / "sitecustomize.py").write_text(_CHOICE)
        try:
            self._before = _checked_out(self._folder / VERSION_BEFORE)
        except LookupError as error:
            self._missing = str(error)
        self._choose(self._before)
        return {"PYTHONPATH": str(self._folder)}

    def make_postgres(self, folder: Path) -> Postgres:
        """See Kind."""
        return Postgres(folder, migrate=self._migrate)

    async def clean_up(self) -> None:
        """See Kind."""
        shutil.rmtree(self._folder)

    async def run(self, scene: Scene) -> None:
        """See Kind."""
        replicas = scene.cluster.replicas
        self._versions.append("all before")
        if self._before is not None:
            await self._roll(scene, replicas[0])
            await scene.land("migrate")
            self._choose(None)
            await self._migrate(scene.cluster.postgres.dsn)
            scene.over()
            self._versions.append("schema migrated")
            await scene.pause(2.0, 3.0)
        number = 0
        while not scene.is_over or number < len(replicas):
            await self._roll(scene, replicas[number % len(replicas)])
            number += 1
            self._versions.append(f"{min(number, len(replicas))} of {len(replicas)} new")
            await scene.pause(0.5, 1.5)
        if self._before is None:
            raise VoidError(f"only this version was rolled: {self._missing}")

    async def _roll(self, scene: Scene, victim: Replica) -> None:
        await scene.land("terminate", victim)
        await victim.terminate()
        await victim.restart()

    def _choose(self, version: Path | None) -> None:
        """Let processes that begin from now on be of a version, None for this one."""
        source = version or ROOT
        (self._folder / "version").write_text(f"{source}\n{source / 'clients' / 'python'}")

    async def _migrate(self, dsn: str) -> None:
        """Do what an operator does, with the program of the version that is chosen."""
        if self._before is None:
            await migrate(dsn)
            return
        settings = {"FLOWKEEP_DATABASE_URL": dsn, "PYTHONPATH": str(self._folder)}
        done = await run_command(*FLOWKEEP, "migrate", settings=settings)
        assert done.code == 0, done


def _checked_out(folder: Path) -> Path:
    """Return the folder with the code of the version before. Raises LookupError without one that can be mixed.

    That is the oldest whose migrations are all among this one's: the last that has changed one, and not only added it.
    """
    before = _git("log", "-1", "--format=%h", "--diff-filter=M", "--", str(VERSIONS)).decode().strip()
    if not before:
        raise LookupError("no version before is in this copy's history")
    with tarfile.open(fileobj=io.BytesIO(_git("archive", before, "service", "persistence", "clients"))) as archive:
        archive.extractall(folder)  # noqa: S202 - of our own history; early releases of Python 3.11 have no filters
    for theirs in (folder / VERSIONS.relative_to(ROOT)).glob("[0-9]*"):
        ours = VERSIONS / theirs.name
        if not ours.exists() or ours.read_bytes() != theirs.read_bytes():
            raise LookupError(f"{before} has another schema, {theirs.stem}, whose data this version cannot read")
    return folder


def _git(*arguments: str) -> bytes:
    try:
        return subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        raise LookupError(f"this copy has no history: {error}") from None
