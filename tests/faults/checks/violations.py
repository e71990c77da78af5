"""What a check finds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tests.faults.harness.records import Record


@dataclass(frozen=True)
class Violation:
    """One promise that was broken: the id of the invariant or promise, whom it hit, and how."""

    rule: str
    subject: str
    text: str

    def __str__(self) -> str:
        return f"{self.rule} {self.subject}: {self.text}"


Check = Callable[[Record], Iterator[Violation]]

FINAL = frozenset({"COMPLETED", "FAILED", "CANCELLED", "TIMED_OUT"})
FINAL_STEPS = frozenset({"COMPLETED", "FAILED", "SKIPPED", "CANCELLED"})
ENDS_OF_STEPS = {
    "step_completed": "COMPLETED",
    "step_failed": "FAILED",
    "step_skipped": "SKIPPED",
    "step_cancelled": "CANCELLED",
}
