"""Mutants are judged by the tests that call what is changed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.mutation.reach import RECORD, SELECT, Reach

ROOT = Path(__file__).parents[2]
CODE = "class C:\n    def called(self): return 1\n    def other(self): return 2\n"
TESTS = "import code_of_ours\n" + "".join(
    f"def test_{name}():\n    {does}\n"
    for name, does in {
        "both": "code_of_ours.C().called(); code_of_ours.C().other()",
        "quick": "assert code_of_ours.C().called() == 1",
        "none": "pass",
        "broken": "assert code_of_ours.C().called() == 2",
    }.items()
)


def ran(folder: Path, **environment: str) -> str:
    """What pytest says of the tests of a folder."""
    command = [sys.executable, "-m", "pytest", "-v", "-p", "tests.mutation.reach", "-p", "no:cacheprovider"]
    path = os.pathsep.join([str(folder), str(ROOT)])
    done = subprocess.run(
        [*command, "test_it.py"], cwd=folder, env={**os.environ, "PYTHONPATH": path, **environment},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.stdout


def test_what_passes_is_recorded_by_what_it_calls_and_selected_in_turn(tmp_path: Path) -> None:
    (tmp_path / "code_of_ours.py").write_text(CODE)
    (tmp_path / "test_it.py").write_text(TESTS)
    record, selection = tmp_path / "record.json", tmp_path / "selection.json"
    ran(tmp_path, **{RECORD: str(record)})
    said = json.loads(record.read_text())
    assert all(seconds > 0 for seconds in said["seconds"].values())
    # How long each took is the machine's affair.
    said["seconds"] |= {"test_it.py::test_quick": 0.1, "test_it.py::test_both": 0.2}
    record.write_text(json.dumps(said))
    reach = Reach([record], tmp_path)
    called = reach.tests(Path("code_of_ours.py"), "C.called")
    assert called == ["test_it.py::test_quick", "test_it.py::test_both"]
    assert reach.tests(Path("code_of_ours.py"), "C.other") == ["test_it.py::test_both"]
    assert reach.tests(Path("code_of_ours.py"), "") == called  # what no function holds is anybody's
    assert reach.unknown(["test_it.py", "test_new.py"]) == ["test_new.py"]

    selection.write_text(json.dumps(called))
    shown = ran(tmp_path, **{SELECT: str(selection)})
    assert shown.index("test_quick PASSED") < shown.index("test_both PASSED")
    assert "test_none" not in shown

    (tmp_path / "test_it.py").write_text(TESTS + "\n")
    changed = Reach([record], tmp_path)
    assert changed.unknown(["test_it.py"]) == ["test_it.py"] and not changed.tests(Path("code_of_ours.py"), "C.called")
