"""Random mutants: how many changes of the code do its tests notice? `make mutate WHERE=planning MUTANTS=60 SEED=1`.

Each mutant is one small change of a copy of the tree, which the tests of its part should notice; the tree itself is
not touched. Mutants that are not noticed are printed as diffs: each is equal to the code, or shows a test that is
missing or a line that is not needed.
"""

from __future__ import annotations

import argparse
import difflib
import importlib.util
import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

from tests.mutation.mutations import Mutation, function_at, mutations
from tests.mutation.parts import ELSEWHERE, PARTS, TESTS
from tests.mutation.reach import RECORD, SELECT, Reach

ROOT = Path(__file__).parents[2]
BUILD = ROOT / "build" / "reach"
TIMES, MORE = 6, 60.0
"""How many times longer a mutant's tests may take than those of the code as it is, and seconds more."""


FIRST = 3
"""Files of tests that are run before the others."""


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

    @property
    def function(self) -> str:
        """The qualified name of the function that is changed, empty outside of all."""
        return function_at(self.source, self.mutation.start)

    def diff(self) -> str:
        """What it changes."""
        before, after = (each.splitlines(keepends=True) for each in (self.source, self.mutated))
        return "".join(difflib.unified_diff(before, after, str(self.file), str(self.file), n=2))


@dataclass(frozen=True)
class Found:
    """What became of a mutant: the test that noticed it, or what happened instead; nothing when all passed."""

    mutant: Mutant
    how: str
    tests: int
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
        self._environment = {**os.environ, "PYTHONPATH": path}

    def record(self, tests: str) -> Path:
        """Run tests of the code as it is; return the file that says which of them call which functions."""
        BUILD.mkdir(parents=True, exist_ok=True)
        record = BUILD / f"{tests.replace('/', '-')}.json"
        if how := self._fails([tests], 3_600, {RECORD: str(record)}):
            print(f"{tests}: the code as it is fails {how}, which is left out", flush=True)
        return record

    def judged(self, mutant: Mutant, reach: Reach, within: float) -> Found:
        """Run the tests that call what is changed, for about so many seconds, until one of them fails."""
        begun, target = time.monotonic(), self._folder / mutant.file
        compiled = Path(importlib.util.cache_from_source(str(target)))
        every = [str(each.relative_to(self._folder)) for test in TESTS for each in _test_files(self._folder / test)]
        known = reach.tests(mutant.file, mutant.function)
        costs = itertools.accumulate(map(reach.seconds, known))
        known = [test for test, cost in zip(known, costs, strict=True) if cost <= within]
        # To read all files takes longer than most mutants last: those that know the function best come first.
        best = {file for file, _ in Counter(map(_file_of, known)).most_common(FIRST)}
        first = [test for test in known if _file_of(test) in best]
        rest = [*reach.unknown(every), *(test for test in known if _file_of(test) not in best)]
        how = ""
        compiled.unlink(missing_ok=True)
        target.write_text(mutant.mutated)
        try:
            for names in filter(None, (first, rest, ELSEWHERE)):
                how = how or self._selection_fails(names, reach)
        finally:
            target.write_text(mutant.source)
            compiled.unlink(missing_ok=True)
        return Found(mutant, how, len(first) + len(rest) + len(ELSEWHERE), time.monotonic() - begun)

    def _selection_fails(self, names: Sequence[str], reach: Reach) -> str:
        selection = self._folder / "selection.json"
        selection.write_text(json.dumps(names))
        seconds = [reach.seconds(name) for name in names if "::" in name]
        limit, longest = 2 * MORE + TIMES * sum(seconds), MORE + TIMES * max(seconds, default=0.0)
        arguments = ["-x", "--tb=no", "-o", f"timeout={longest:.0f}", *dict.fromkeys(map(_file_of, names))]
        return self._fails(arguments, limit, {SELECT: str(selection)})

    def _fails(self, arguments: Sequence[str], limit: float, environment: Mapping[str, str]) -> str:
        """Run tests; return the first one that fails, or what happens instead, and nothing when all pass."""
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "tests.mutation.reach"]
        process = subprocess.Popen(
            [*command, *arguments],
            cwd=self._folder,
            env={**self._environment, **environment},
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


def _file_of(test: str) -> str:
    return test.partition("::")[0]


def _test_files(path: Path) -> list[Path]:
    return [path] if path.is_file() else sorted(path.rglob("test_*.py"))


def mutants_of(patterns: Sequence[str]) -> list[Mutant]:
    """All mutants of some files, in the same order each time."""
    files = sorted(each.relative_to(ROOT) for pattern in patterns for each in ROOT.glob(pattern))
    sources = ((file, (ROOT / file).read_text()) for file in files)
    return [Mutant(file, source, each) for file, source in sources for each in mutations(source)]


def run(name: str, asked: argparse.Namespace, copies: SimpleQueue[Copy], reach: Reach) -> float:
    """Judge a sample of the mutants of a part; return the share that was noticed."""
    every = mutants_of(PARTS[name])
    sample = random.Random(asked.seed).sample(every, min(asked.mutants, len(every)))
    print(f"{name}: {len(sample)} of {len(every)} mutants, SEED={asked.seed}", flush=True)

    def judged(mutant: Mutant) -> Found:
        copy = copies.get()
        try:
            return copy.judged(mutant, reach, asked.within)
        finally:
            copies.put(copy)

    with ThreadPoolExecutor(asked.jobs) as pool:
        found = list(pool.map(lambda mutant: _told(judged(mutant)), sample))
    killed = sum(bool(each.how) for each in found)
    print(f"{name}: {killed} of {len(found)} noticed, {killed / len(found):.0%}", flush=True)
    return killed / len(found)


def _told(found: Found) -> Found:
    what = f"noticed by {found.how}" if found.how else f"NOT NOTICED by {found.tests}\n{found.mutant.diff()}"
    print(f"  {found.mutant.place} {found.seconds:.0f} s {what}", flush=True)
    return found


def _recorded(copies: SimpleQueue[Copy], jobs: int, anew: bool) -> Reach:
    """Return what is known of the tests, which are run once for it."""

    def record(tests: str) -> Path:
        file = BUILD / f"{tests.replace('/', '-')}.json"
        if anew or not file.is_file():
            copy = copies.get()
            copy.record(tests)
            copies.put(copy)
        return file

    with ThreadPoolExecutor(jobs) as pool:
        return Reach(list(pool.map(record, TESTS)), ROOT)


def main() -> None:
    """Judge samples of all parts, or of those that are named."""
    parser = argparse.ArgumentParser(prog="make mutate", description=__doc__)
    parser.add_argument("--where", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--mutants", type=int, default=40, help="of each part")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--within", type=float, default=120, help="seconds of tests that a mutant has to survive")
    parser.add_argument("--anew", action="store_true", help="find out again which tests call what")
    parser.add_argument("--least", type=float, default=0.85, help="the share that has to be noticed")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="flowkeep-mutate-") as folder:
        copies = SimpleQueue[Copy]()
        for number in range(asked.jobs):
            (Path(folder) / str(number)).mkdir()
            copies.put(Copy(Path(folder) / str(number)))
        reach = _recorded(copies, asked.jobs, asked.anew)
        shares = [run(name, asked, copies, reach) for name in asked.where]
    raise SystemExit(min(shares) < asked.least)


if __name__ == "__main__":
    main()
