"""Are the generated programs the same for a seed, of every kind, and such that the service takes them?"""

from __future__ import annotations

import json
import random

from service.engine.handlers.registry import Registry
from service.engine.parsing import Defaults, parse
from tests.faults.harness.cluster import HANDLERS
from tests.faults.harness.programs import PARK_AFTER, programs

URL = "http://127.0.0.1:1"


def test_a_seed_gives_the_same_programs() -> None:
    first, again, other = (programs(random.Random(seed), 20, URL) for seed in (1, 1, 2))
    assert first == again != other
    assert json.dumps([program.definition for program in first])


def test_every_kind_of_step_comes_up() -> None:
    made = programs(random.Random(1), 60, URL)
    facts = [fact for program in made for fact in program.steps.values()]
    assert {fact.handler for fact in facts} == {
        "call_api",
        "wait",
        "transform",
        "chaos_toil",
        "chaos_thread",
        "wait_signal",
    }
    assert {fact.delivery for fact in facts} == {"AT_LEAST_ONCE", "AT_MOST_ONCE"}
    waits = [fact.seconds for fact in facts if fact.handler == "wait"]
    assert min(waits) < PARK_AFTER < max(waits)
    steps = [step for program in made for step in program.definition["steps"]]
    assert any("condition" in step for step in steps) and any("retry_policy" in step for step in steps)
    assert all(any("assign" in step for step in program.definition["steps"]) for program in made)
    assert any(fact.reads for fact in facts)
    assert {program.definition["ordering"] for program in made} == {"GRAPH", "SEQUENTIAL"}
    assert {len(program.steps) for program in made} == {3, 4, 5, 6}
    assert all(any(fact.handler == "call_api" for fact in program.steps.values()) for program in made)


def test_every_program_is_sound() -> None:
    registry = Registry.with_builtins()
    registry.load([str(HANDLERS)])
    for program in programs(random.Random(2), 60, URL):
        parse(program.definition, registry, Defaults())
