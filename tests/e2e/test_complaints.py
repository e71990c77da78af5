"""What tests of servers take for a complaint in a log."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.e2e.process import ServerProcess

FIND = {"what": "events", "count": 1, "event": "found without being told", "level": "info"}
TIMERS = FIND | {"what": "timers"}
LATE = {"seconds": 0.3, "event": "the event loop was held up", "level": "warning"}
ERROR = {"event": "it went wrong", "level": "error"}


@pytest.mark.parametrize(
    ("entries", "complaints"),
    [
        ([FIND], [FIND]),
        ([TIMERS], []),
        ([LATE], []),
        ([FIND, LATE], []),
        ([ERROR, LATE], [ERROR]),
    ],
    ids=["a find", "timers", "a machine that is busy", "a find on a machine that is busy", "an error"],
)
def test_what_a_healthy_server_does_not_write(folder: Path, entries: list[object], complaints: list[object]) -> None:
    (folder / "server.log").write_text("".join(f"{json.dumps(entry)}\n" for entry in entries))
    assert [json.loads(line) for line in ServerProcess(folder).complaints] == complaints
