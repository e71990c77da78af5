"""Is a kind of fault whose runs showed nothing run again, and no other?"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults import chaos_all
from tests.faults.checks.checker import Result, Verdict
from tests.faults.checks.violations import Violation
from tests.faults.harness.records import Record

VOID, PASS, FAIL = Result.VOID, Result.PASS, Result.FAIL


@pytest.mark.parametrize(
    ("comes", "seeds", "is_shown"),
    [
        ([PASS], [7], True),
        ([FAIL], [7], False),
        ([VOID, PASS], [7, 8], True),
        ([VOID, FAIL], [7, 8], False),
        ([VOID, VOID, VOID], [7, 8, 9], False),
    ],
)
def test_a_kind_is_run_until_it_shows_something(
    monkeypatch: pytest.MonkeyPatch, comes: list[Result], seeds: list[int], is_shown: bool
) -> None:
    results: Iterator[Result] = iter(comes)
    run = list[int]()

    def once(kind: str, seed: int, *_: float) -> tuple[Record, Verdict]:
        run.append(seed)
        result = next(results)
        return Record(kind, seed), Verdict(result, [Violation("I1", kind, "is lost")] * (result is FAIL))

    monkeypatch.setattr(chaos_all, "run_once", once)
    (tally,), _ = chaos_all.run_all(["K1"], 1, 7, 12.0, 15.0)
    assert (run, tally.is_shown) == (seeds, is_shown)


def test_what_a_machine_lacks_is_not_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    missing = Record("K16", 7, void_reason="no compiler"), Verdict(VOID, [], "no compiler")
    monkeypatch.setattr(chaos_all, "run_once", lambda *_: missing)
    (tally,), records = chaos_all.run_all(["K16"], 1, 7, 12.0, 15.0)
    assert (len(records), tally.is_shown) == (1, True)
