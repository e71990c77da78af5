"""Thousands of small worlds in virtual time, in which everything goes wrong and every promise holds."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.folders import ROOT
from tests.simulation.trial import REGRESSIONS

SEEDS = 25
"""A taste: CI runs 2,000 by `make simulate`, which take longer than every run of the tests should."""
DETERMINED = 7


def _simulation(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the simulation in a process whose hashes are fixed."""
    return subprocess.run(
        [sys.executable, "-m", "tests.simulation", "--workers=1", *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": "0"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_every_promise_holds_in_every_world() -> None:
    """I1-I12, I14, I19-I21, ST1, ST3, ST5, ST10, ST12, CA2-CA4, EX3, W1-W6, W9, W10, RE1-RE4, CA5, CA7-CA10,
    ST14, ST15."""
    done = _simulation(f"--seeds={SEEDS}")
    assert done.returncode == 0, done.stdout + done.stderr
    *_, summary = done.stdout.splitlines()
    passed = int(summary.split(": ")[1].split()[0])
    assert passed > SEEDS * 0.8, f"in too many worlds nothing went wrong: {summary}"


def test_a_seed_gives_the_same_trace_again() -> None:
    """A replay shows what happened, to the last callback."""
    once, again = (_simulation(f"--seed={DETERMINED}", "--seeds=1").stdout for _ in range(2))
    assert once == again
    assert len(once.splitlines()) > 20


@pytest.mark.parametrize("path", sorted(REGRESSIONS.glob("*.json")), ids=lambda path: path.stem)
def test_what_once_failed_holds(path: Path) -> None:
    """Scenarios that once showed a violation."""
    done = _simulation(f"--replay={path}")
    assert done.returncode == 0, done.stdout + done.stderr
