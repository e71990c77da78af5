"""What handlers are told by their context, and report through it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from enum import IntEnum
from fractions import Fraction
from typing import Any

import pytest

from flowkeep.handlers import StepContext
from tests.unit.attempts import NOW, Text, context, failed


class Number(IntEnum):
    TWO = 2


def heard(**fields: Any) -> tuple[StepContext, list[Any]]:
    """Return a context, and what is reported and emitted through it."""
    said: list[Any] = []
    step = context()
    changed = {"reporter": lambda *report: said.append(report), "emitter": said.append, **fields}
    return replace(step, **changed), said


def test_reports_and_outputs_are_passed_on_plain() -> None:
    step, said = heard()
    for percent in (0, 12.7, 101, -3, Fraction(1, 2)):
        step.report(percent, Text("m"))  # type: ignore[arg-type]
    step.emit(Text("text"))
    assert said == [(0, "m"), (12, "m"), (100, "m"), (0, "m"), (0, "m"), "text"]


def test_what_is_used_is_passed_on_plain() -> None:
    said: list[Any] = []
    step, _ = heard(meter=lambda *used: said.append(used))
    step.add_usage(input_tokens=3, cost_micros=10**12)
    step.add_usage(output_tokens=Number.TWO)
    assert said == [(3, 0, 10**12), (0, 2, 0)]
    assert type(said[1][1]) is int


@pytest.mark.parametrize(
    ("use", "message"),
    [
        (lambda step: step.report("50 %"), "context.report: percent must be a number, not str"),
        (lambda step: step.report(math.nan), "context.report: percent must be a finite number, not nan"),
        (lambda step: step.report(1, 2), "context.report: message must be text, not int"),
        (lambda step: step.emit(b"x"), "context.emit: text must be text, not bytes"),
        (
            lambda step: step.add_usage(input_tokens=1.5),
            "context.add_usage: input_tokens must be a whole number, not float",
        ),
        (
            lambda step: step.add_usage(output_tokens=True),
            "context.add_usage: output_tokens must be a whole number, not bool",
        ),
        (
            lambda step: step.add_usage(cost_micros=-1),
            "context.add_usage: cost_micros must be from 0 to 1,000,000,000,000",
        ),
    ],
)
async def test_a_report_that_is_wrong_fails_where_it_is_made(use: Callable[[Any], None], message: str) -> None:
    def function(step: StepContext) -> None:
        use(step)

    function.__annotations__["step"] = StepContext
    found = (await failed(function)).failure
    assert (found.code, found.message) == ("INVALID_OUTPUT", message)


def test_the_time_that_is_left_of_an_attempt() -> None:
    step, _ = heard(began=time.monotonic() - 10)
    assert step.deadline == NOW + timedelta(seconds=30)
    assert 0 < step.remaining <= 20
    assert heard(began=time.monotonic() - 31)[0].remaining == 0.0
    assert not step.cancelled
    step.stop.set()
    assert step.cancelled
