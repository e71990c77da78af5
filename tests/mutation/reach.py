"""Which tests call which functions, as a plugin of pytest: it records that, or runs the tests that are named, in turn.

A mutant of a function is judged by the tests that call it, quick ones first: most take seconds then.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import threading
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import CodeType, FrameType

import pytest

RECORD, SELECT = "FLOWKEEP_REACH_RECORD", "FLOWKEEP_REACH_SELECT"
"""Variables of the environment: the file that is written, and the file that names tests."""


class Reach:
    """What recorded runs say of the tests that passed: their seconds, and which of them call each function."""

    def __init__(self, records: Sequence[Path], root: Path) -> None:
        self._seconds: dict[str, float] = {}
        self._callers = defaultdict[str, set[str]](set)
        self._changed = set[str]()
        for record in records:
            said = json.loads(record.read_text())
            self._seconds |= said["seconds"]
            self._changed |= {name for name, digest in said["digests"].items() if digest != digest_of(root / name)}
            for function, tests in said["callers"].items():
                self._callers[function].update(tests)

    def tests(self, file: Path, function: str) -> list[str]:
        """Return the tests that call a function, or any of the file if none is known; quick ones first."""
        name = f"{file}::{function}"
        called = [name] if name in self._callers else [each for each in self._callers if each.startswith(f"{file}::")]
        found = {
            test for each in called for test in self._callers[each] if test.partition("::")[0] not in self._changed
        }
        return sorted(found, key=self.seconds)

    def unknown(self, files: Sequence[str]) -> list[str]:
        """Return those of the files of tests that have changed since, or are new: they may call anything."""
        known = {test.partition("::")[0] for test in self._seconds} - self._changed
        return [file for file in files if file not in known]

    def seconds(self, test: str) -> float:
        """How long it took."""
        return self._seconds[test]


def digest_of(file: Path) -> str:
    """Return what tells a file from what it was; nothing without one."""
    return hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else ""


class _Recorder:
    def __init__(self, file: Path) -> None:
        self._file = file
        self._root = str(Path.cwd()) + os.sep
        self._called: dict[str, set[CodeType]] = {}
        self._seconds: dict[str, float] = defaultdict(float)
        self._codes: set[CodeType] = set()
        self._failed: set[str] = set()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        self._codes = self._called[item.nodeid] = set()
        threading.settrace(self._trace)
        sys.settrace(self._trace)
        try:
            return (yield)
        finally:
            sys.settrace(None)
            threading.settrace(None)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._seconds[report.nodeid] += report.duration
        if report.failed:
            self._failed.add(report.nodeid)

    def pytest_sessionfinish(self) -> None:
        callers = defaultdict[str, list[str]](list)
        for test, codes in self._called.items():
            for code in codes if test not in self._failed else ():
                if code.co_filename.startswith(self._root):
                    callers[f"{code.co_filename.removeprefix(self._root)}::{code.co_qualname}"].append(test)
        digests = {name: digest_of(Path(name)) for name in {test.partition("::")[0] for test in self._called}}
        self._file.write_text(json.dumps({"seconds": self._seconds, "callers": callers, "digests": digests}))

    def _trace(self, frame: FrameType, _: str, __: object) -> None:
        self._codes.add(frame.f_code)


class _Selection:
    def __init__(self, names: Sequence[str]) -> None:
        self._turns = {name: turn for turn, name in enumerate(names)}

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        turns = {item.nodeid: self._turn(item.nodeid) for item in items}
        items[:] = sorted((item for item in items if turns[item.nodeid] >= 0), key=lambda item: turns[item.nodeid])

    def _turn(self, test: str) -> int:
        return self._turns.get(test, self._turns.get(test.partition("::")[0], -1))


def pytest_configure(config: pytest.Config) -> None:
    """Record, or select."""
    if file := os.environ.get(RECORD):
        config.pluginmanager.register(_Recorder(Path(file)))
    if file := os.environ.get(SELECT):
        config.pluginmanager.register(_Selection(json.loads(Path(file).read_text())))
