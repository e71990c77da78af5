"""Whether what a soak used stayed flat."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, linear_regression, median

from tests.faults.harness.records import Sample

_WARM_UP = 60.0
"""Seconds that caches and pools have to fill up, or a fifth of a shorter soak."""
_MEMORY_SHARE = 1.10
_FLAT_SHARE = 1.10
FLAT = {"descriptors": 25, "threads": 4, "tasks": 40, "connections": 3, "connections of all": 9, "in flight": 60}
"""Measures that must not rise, and by how much they may differ as more or fewer things happen to be under way.

A burst after a fault is no rise: it is the medians that count.
"""
MEMORY = "memory MiB"


@dataclass(frozen=True)
class Course:
    """One measure over time, without the warm-up: medians of thirds, means of halves, the slope over ten minutes."""

    name: str
    count: int
    thirds: tuple[float, float, float]
    halves: tuple[float, float]
    largest: float
    slope: float

    @property
    def trouble(self) -> str:
        """How it broke its limit, or nothing."""
        if self.name == MEMORY and self.halves[1] > _MEMORY_SHARE * self.halves[0]:
            return f"rose by {self.halves[1] / self.halves[0] - 1:.0%}, more than {_MEMORY_SHARE - 1:.0%}"
        if self.name in FLAT and self.thirds[2] > _FLAT_SHARE * self.thirds[0] + FLAT[self.name]:
            return f"rose from {self.thirds[0]:g} to {self.thirds[2]:g}"
        return ""

    @property
    def line(self) -> str:
        """A line of the table."""
        limit = self.trouble or ("flat" if self.name in (*FLAT, MEMORY) else "")
        figures = "".join(f"{value:10.1f}" for value in (*self.thirds, self.largest, self.slope))
        return f"{self.name:28}{figures}  {limit}"


HEAD = f"{'measure':28}{'first':>10}{'middle':>10}{'last':>10}{'max':>10}{'per 10min':>10}"


def courses(samples: Sequence[Sample]) -> list[Course]:
    """Return that of each measure of which there are six samples at least."""
    if not samples:
        return []
    end = samples[-1].time
    begin = min(_WARM_UP, end / 5)
    names = dict.fromkeys(name for sample in samples for name in sample.values)
    found = (_course(name, [s for s in samples if s.time >= begin and name in s.values]) for name in names)
    return [course for course in found if course is not None]


def _course(name: str, samples: Sequence[Sample]) -> Course | None:
    times, values = [sample.time for sample in samples], [sample.values[name] for sample in samples]
    count = len(values)
    if count < 6:
        return None
    first, second = count // 3, 2 * count // 3
    return Course(
        name,
        count,
        (median(values[:first]), median(values[first:second]), median(values[second:])),
        (fmean(values[: count // 2]), fmean(values[count // 2 :])),
        max(values),
        600 * linear_regression(times, values).slope,
    )
