"""What was measured, as a table for people and as JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any


@dataclass(frozen=True, slots=True)
class Baseline:
    """What a measure is held against, with its own repetitions."""

    name: str
    values: Sequence[float]


@dataclass(frozen=True, slots=True)
class Row:
    """One measure: the values of its repetitions, of which the median stands for all."""

    name: str
    unit: str
    values: Sequence[float]
    baseline: Baseline | None = None

    @property
    def ratio(self) -> float | None:
        """How many times the baseline it is."""
        return median(self.values) / median(self.baseline.values) if self.baseline else None

    def as_json(self) -> dict[str, Any]:
        """Return it for programs."""
        return {
            "name": self.name,
            "value": median(self.values),
            "unit": self.unit,
            "baseline_name": self.baseline.name if self.baseline else None,
            "baseline_value": median(self.baseline.values) if self.baseline else None,
            "ratio": self.ratio,
            "min": min(self.values),
            "max": max(self.values),
            "repetitions": len(self.values),
        }


_HEAD = f"{'Measure':54} {'Median':>9}  {'Min to max':>17}  {'Unit':13}  {'Baseline':36} {'Its median':>10}  Ratio"


def table(rows: Sequence[Row]) -> str:
    """Return the rows under their titles."""
    return "\n".join([_HEAD, "-" * len(_HEAD), *map(_line, rows)])


def write(rows: Sequence[Row], path: Path) -> None:
    """Write the rows as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([row.as_json() for row in rows], indent=2) + "\n")


def _line(row: Row) -> str:
    spread = f"{_number(min(row.values))} to {_number(max(row.values))}"
    line = f"{row.name:54} {_number(median(row.values)):>9}  {spread:>17}  {row.unit:13}"
    if row.baseline is None:
        return line.rstrip()
    return f"{line}  {row.baseline.name:36} {_number(median(row.baseline.values)):>10}  {row.ratio:.3f}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
