"""The programs behind the targets of make that no run of the tests calls."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from tests.folders import ROOT

PROGRAMS = sorted(set(re.findall(r"-m (tests\.\S+)", (ROOT / "Makefile").read_text())))


def test_there_are_some() -> None:
    assert {"tests.bench.run", "tests.simulation", "tests.faults.chaos"} <= set(PROGRAMS)


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_program_starts(program: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", program, "--help"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
