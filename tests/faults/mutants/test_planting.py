"""Bugs for server processes, which no run of the tests starts, fit the code that they spoil."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.folders import ROOT

# Read, for a process that imports it has its bug.
BUGS = re.findall(r'^    "(M\d+)": _', Path(__file__).with_name("planted.py").read_text(), re.MULTILINE)


@pytest.mark.parametrize("bug", BUGS)
def test_a_bug_can_be_planted(bug: str) -> None:
    environment = {**os.environ, "CHAOS_MUTANT": bug}
    command = [sys.executable, "-c", "import tests.faults.mutants.planted"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
