"""Random mutants: how many changes of the code do its tests notice? `make mutate WHERE=planning MUTANTS=60 SEED=1`.

Each mutant is one small change of a copy of the tree, which the tests of its part should notice; the tree itself is
not touched. Mutants that are not noticed are printed as diffs: each is equal to the code, or shows a test that is
missing or a line that is not needed.
"""

from __future__ import annotations

import argparse
import difflib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

from tests.mutation.mutations import Mutation, mutations
from tests.mutation.parts import PARTS, Part

ROOT = Path(__file__).parents[2]
TIMES, MORE = 4, 30.0
"""How many times longer a mutant's tests may take than those of the code as it is, and seconds more."""


@dataclass(frozen=True)
class Mutant:
    """A mutation of one file, by its path in the tree, as it was at the beginning."""

    file: Path
    source: str
    mutation: Mutation

    @property
    def mutated(self) -> str:
        """The file with the change."""
        return self.mutation.applied(self.source)

    @property
    def place(self) -> str:
        """The file and the line of the change."""
        return f"{self.file}:{self.source.count(chr(10), 0, self.mutation.start) + 1}"

    def diff(self) -> str:
        """What it changes."""
        before, after = (each.splitlines(keepends=True) for each in (self.source, self.mutated))
        return "".join(difflib.unified_diff(before, after, str(self.file), str(self.file), n=2))


@dataclass(frozen=True)
class Found:
    """What became of a mutant: the stage whose tests noticed it, or none."""

    mutant: Mutant
    stage: int | None
    how: str
    seconds: float


class Copy:
    """A copy of the tree in which tests run."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        listed = subprocess.run(
            ["git", "ls-files", "-coz", "--exclude-standard"], cwd=ROOT, check=True, capture_output=True, text=True
        )
        for name in filter(None, listed.stdout.split("\0")):
            if (ROOT / name).is_file():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, folder / name)
        path = os.pathsep.join([str(folder), str(folder / "clients" / "python")])
        self._environment = {**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}

    def judged(self, mutant: Mutant, part: Part, limits: Sequence[float]) -> Found:
        """Run the tests of the part on the mutant until one of them fails."""
        begun, target = time.monotonic(), self._folder / mutant.file
        target.write_text(mutant.mutated)
        try:
            for number, (stage, limit) in enumerate(zip(part.stages, limits, strict=True)):
                if how := self.fails(stage, limit):
                    return Found(mutant, number, how, time.monotonic() - begun)
            return Found(mutant, None, "", time.monotonic() - begun)
        finally:
            target.write_text(mutant.source)

    def fails(self, tests: Sequence[str], limit: float = 3_600) -> str:
        """Run tests; return the first one that fails, or what happens instead, and nothing when all pass."""
        files = [str(each.relative_to(self._folder)) for test in tests for each in _found(self._folder, test)]
        command = [sys.executable, "-m", "pytest", "-x", "-q", "--tb=no", "-p", "no:cacheprovider", "-p", "no:randomly"]
        process = subprocess.Popen(
            [*command, *files],
            cwd=self._folder,
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        try:
            said, _ = process.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            return f"over {limit:.0f} s"
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        if process.returncode == 0:
            return ""
        failed = [line for line in said.splitlines() if line.startswith(("FAILED", "ERROR"))]
        return failed[0].partition(" - ")[0] if failed else (said.strip().splitlines() or ["nothing"])[-1]


def _found(folder: Path, pattern: str) -> list[Path]:
    if not (found := sorted(folder.glob(pattern))):
        raise SystemExit(f"{pattern} is nowhere")
    return found


def mutants_of(part: Part) -> list[Mutant]:
    """All mutants of a part, in the same order each time."""
    files = sorted(each.relative_to(ROOT) for pattern in part.files for each in _found(ROOT, pattern))
    sources = ((file, (ROOT / file).read_text()) for file in files)
    return [Mutant(file, source, each) for file, source in sources for each in mutations(source)]


def run(name: str, count: int, seed: int, jobs: int, stages: int | None) -> float:
    """Judge a sample of the mutants of a part, by all stages or the first ones; return the share that was noticed."""
    part = Part(PARTS[name].files, PARTS[name].stages[:stages])
    every = mutants_of(part)
    sample = random.Random(seed).sample(every, min(count, len(every)))
    with tempfile.TemporaryDirectory(prefix="flowkeep-mutate-") as folder:
        copies = SimpleQueue[Copy]()
        for number in range(jobs):
            (Path(folder) / str(number)).mkdir()
            copies.put(Copy(Path(folder) / str(number)))
        limits = list[float]()
        for stage in part.stages:
            copy, begun = copies.get(), time.monotonic()
            if copy.fails(stage) and (how := copy.fails(stage)):  # once may be the machine's fault
                raise SystemExit(f"{name}: the code as it is fails {how}")
            limits.append(TIMES * (time.monotonic() - begun) + MORE)
            copies.put(copy)
        print(f"{name}: {len(sample)} of {len(every)} mutants, SEED={seed}", flush=True)

        def judged(mutant: Mutant) -> Found:
            copy = copies.get()
            try:
                return copy.judged(mutant, part, limits)
            finally:
                copies.put(copy)

        with ThreadPoolExecutor(jobs) as pool:
            found = list(pool.map(lambda mutant: _told(judged(mutant)), sample))
    killed = sum(each.stage is not None for each in found)
    print(f"{name}: {killed} of {len(found)} noticed, {killed / len(found):.0%}", flush=True)
    return killed / len(found)


def _told(found: Found) -> Found:
    what = f"noticed by {found.how}" if found.how else f"NOT NOTICED\n{found.mutant.diff()}"
    print(f"  {found.mutant.place} {found.seconds:.0f} s {what}", flush=True)
    return found


def main() -> None:
    """Judge samples of all parts, or of those that are named."""
    parser = argparse.ArgumentParser(prog="make mutate", description=__doc__)
    parser.add_argument("--where", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--mutants", type=int, default=40, help="of each part")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--stages", type=int, help="the first ones of the tests alone, which are quick")
    parser.add_argument("--least", type=float, default=0.85, help="the share that has to be noticed")
    asked = parser.parse_args()
    shares = [run(name, asked.mutants, asked.seed, asked.jobs, asked.stages) for name in asked.where]
    raise SystemExit(min(shares) < asked.least)


if __name__ == "__main__":
    main()
