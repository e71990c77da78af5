"""Random workflows from a seed: sequences and graphs of calls, waits, retries, conditions and handlers of our own."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tests.faults.harness.records import UNSET, VARIABLE, StepFacts

PARK_AFTER = 0.5
"""Seconds of waiting from which on the replicas put an execution down."""


@dataclass(frozen=True)
class Program:
    """A workflow and what the checker has to know of its steps."""

    definition: Mapping[str, Any]
    steps: Mapping[str, StepFacts]
    cap: int | None = None
    """How many of its steps may run at a time, where the order of the steps says so."""

    @property
    def name(self) -> str:
        """Name of the workflow."""
        name: str = self.definition["name"]
        return name


def programs(draw: random.Random, count: int, url: str) -> list[Program]:
    """Return this many different workflows, of 3 to 6 steps each, whose calls go to `url`."""
    return [_program(draw, f"chaos_{number}", url) for number in range(count)]


def _program(draw: random.Random, name: str, url: str) -> Program:
    shape = draw.random()
    if shape < 0.25:
        return _lanes(draw, name, url)
    is_graph = shape < 0.6
    ids = [f"s{number}" for number in range(draw.randint(3, 6))]
    steps: list[dict[str, Any]] = []
    facts: dict[str, StepFacts] = {}
    for number, step_id in enumerate(ids):
        step, fact = _step(draw, step_id, url)
        before = ids[:number]
        if is_graph and before and draw.random() < 0.8:
            step["depends_on"] = sorted(draw.sample(before, draw.randint(1, min(2, len(before)))))
        if before and draw.random() < 0.2:
            step["condition"] = f"input.number % {draw.randint(2, 3)} != 0"
        steps.append(step)
        facts[step_id] = fact
    if all(fact.handler != "call_api" for fact in facts.values()):
        # Without a call the world outside has nothing to say about the program.
        step, facts[ids[0]] = _call(draw, ids[0], url, AT_LEAST_ONCE)
        steps[0] = {**step, **{key: value for key, value in steps[0].items() if key == "depends_on"}}
    _assign(draw, steps)
    definition = {"name": name, "ordering": "GRAPH" if is_graph else "SEQUENTIAL", "timeout": 120, "steps": steps}
    return Program({**definition, "input_schema": INPUT_SCHEMA}, facts, cap=None if is_graph else 1)


def _lanes(draw: random.Random, name: str, url: str) -> Program:
    """Return one or two sequences beside each other, of calls that take a while."""
    count = draw.randint(1, 2)
    steps: list[dict[str, Any]] = []
    facts: dict[str, StepFacts] = {}
    for number in range(draw.randint(4, 6)):
        step, facts[f"s{number}"] = _call(draw, f"s{number}", url, AT_LEAST_ONCE, latency=draw.uniform(0.1, 0.4))
        if number >= count:
            step["depends_on"] = [f"s{number - count}"]
        steps.append(step)
    _assign(draw, steps)
    definition = {"name": name, "ordering": "GRAPH", "timeout": 120, "steps": steps, "input_schema": INPUT_SCHEMA}
    return Program(definition, facts, cap=count)


def _assign(draw: random.Random, steps: list[dict[str, Any]]) -> None:
    """Have one or two of the steps assign the variable, which so is one that callers may set."""
    for step in draw.sample(steps, draw.randint(1, 2)):
        step["assign"] = {VARIABLE: f"input.number + {steps.index(step)}"}


AT_LEAST_ONCE, AT_MOST_ONCE = "AT_LEAST_ONCE", "AT_MOST_ONCE"
INPUT_SCHEMA = {"type": "object", "required": ["number"], "properties": {"number": {"type": "integer"}}}
_KINDS = {"call": 5, "once": 2, "wait": 2, "toil": 2, "thread": 1, "transform": 1, "signal": 1}
SIGNAL = "go"
"""Name of the signals for which steps wait, a while."""
READ = f"${{ '{VARIABLE}' in vars ? vars.{VARIABLE} : {UNSET} }}"


def _step(draw: random.Random, step_id: str, url: str) -> tuple[dict[str, Any], StepFacts]:
    (kind,) = draw.choices(list(_KINDS), list(_KINDS.values()))
    if kind == "call":
        return _call(draw, step_id, url, AT_LEAST_ONCE)
    if kind == "once":
        return _call(draw, step_id, url, AT_MOST_ONCE)
    if kind == "wait":
        seconds = round(draw.choice((draw.uniform(0.05, 0.3), draw.uniform(PARK_AFTER + 0.2, PARK_AFTER + 1.5))), 3)
        return {"id": step_id, "handler": "wait", "params": {"duration": seconds}}, StepFacts("wait", seconds=seconds)
    if kind == "signal":
        params = {"name": SIGNAL, "timeout": round(draw.uniform(0.1, 2.0), 3), "on_timeout": "CONTINUE"}
        return {"id": step_id, "handler": "wait_signal", "params": params}, StepFacts("wait_signal")
    if kind == "transform":
        step = {"id": step_id, "handler": "transform", "params": {"expression": "input.number * 2"}}
        return step, StepFacts("transform")
    handler = "chaos_toil" if kind == "toil" else "chaos_thread"
    params = {"seconds": round(draw.uniform(0.01, 0.25), 3), "number": READ}
    return {"id": step_id, "handler": handler, "params": params}, StepFacts(handler, reads=True)


def _call(
    draw: random.Random, step_id: str, url: str, delivery: str, latency: float | None = None
) -> tuple[dict[str, Any], StepFacts]:
    if latency is None:
        latency = draw.choice((0.0, draw.uniform(0.02, 0.1), draw.uniform(0.1, 0.5)))
    failures = draw.choice((0, 0, 0, 1, 2)) if delivery == AT_LEAST_ONCE else 0
    params = {
        "url": f"{url}/work?latency={latency:.3f}&failures={failures}",
        "method": "POST",
        "json": {"execution": "${ execution.id }", "step": step_id, "number": READ},
        "timeout": 10,
    }
    step: dict[str, Any] = {"id": step_id, "handler": "call_api", "params": params, "delivery": delivery}
    if delivery == AT_LEAST_ONCE:
        step["retry_policy"] = {"max_attempts": 20, "initial_interval": 0.05, "max_interval": 1}
    else:
        step["on_error"] = draw.choice(("CONTINUE", "STOP"))
    return step, StepFacts("call_api", delivery, reads=True)
