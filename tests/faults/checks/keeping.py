"""Keeps what a failed run left, for whoever looks for the reason."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

from tests.faults.checks.checker import Verdict
from tests.faults.harness.records import Record
from tests.folders import ROOT

FOLDER = ROOT / "build" / "chaos"


def keep(record: Record, verdict: Verdict) -> Path:
    """Write logs, violations, the schedule of faults and the whole record into a folder of the run, and return it."""
    folder = FOLDER / f"{record.kind}-{record.seed}"
    folder.mkdir(parents=True, exist_ok=True)
    for name, log in record.logs.items():
        (folder / f"{name}.log").write_text(log)
    (folder / "violations.txt").write_text("".join(f"{violation}\n" for violation in verdict.violations))
    schedule = [
        {
            "kind": landing.kind,
            "time": landing.time.isoformat(),
            "victim": landing.victim,
            "hit": len(landing.in_flight),
        }
        for landing in record.landings
    ]
    (folder / "schedule.json").write_text(json.dumps(schedule, indent=2))
    (folder / "record.pickle").write_bytes(pickle.dumps(record))
    return folder


def kept(folder: Path) -> Record:
    """Return the record of a run that failed, to judge it again. Read only what you wrote yourself."""
    record = pickle.loads((folder / "record.pickle").read_bytes())  # noqa: S301 - our own file
    assert isinstance(record, Record)
    return record
