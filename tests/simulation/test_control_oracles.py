"""Do the oracles of retries, forks and operations in bulk turn red, each for what it is there for?"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch
from uuid import UUID

import pytest
from msgspec import structs

from flowkeep.v1.event_pb2 import ExecutionEvent
from persistence.bulks import BulkOutcome, BulkResult, BulkState
from persistence.memory.tables import BulkRow, ExecutionRow
from persistence.transition import Created, NewExecution
from tests.simulation import test_oracles
from tests.simulation.checker import check
from tests.simulation.history import Answer
from tests.simulation.operators import GIVEN
from tests.simulation.scenario import BulkSpec, Fault, ForkSpec, OrderSpec, Request, RetrySpec, Scenario, Spec
from tests.simulation.test_oracles import LATER, add_call, calls_of, change_call, edit, row_of
from tests.simulation.world import World

STEPS = [
    {"id": "first", "handler": "effect", "params": {"takes": 0.5}},
    {"id": "second", "handler": "effect", "params": {"fatal": True}},
]
LONG = [{"id": "long", "handler": "effect", "params": {"takes": 20.0}}]
SKIPPED, EDITED, STOPPED = range(3)
SCENARIO = Scenario(
    seed=1,
    replicas=2,
    workflows=[
        Spec("acme", {"name": "retried", "steps": STEPS, "timeout": 30}),
        Spec("globex", {"name": "long", "steps": LONG, "timeout": 30}),
    ],
    orders=[
        OrderSpec(0, {}, retries=[RetrySpec(0.5, "skip")]),
        OrderSpec(0, {}, retries=[RetrySpec(0.5, "edit")], forks=[ForkSpec(6.0, 1)]),
        OrderSpec(1, {}),
    ],
    requests=[Request(0.1, 0, SKIPPED), Request(0.2, 1, EDITED), Request(0.1, 1, STOPPED)],
    faults=[Fault(3.0, "crash", 0, 0.5)],
    skews=[0.0, 0.0],
    bulks=[BulkSpec(8.0, "globex", "TERMINATE", stopped_after=5.0)],
)


def fork_of(world: World) -> ExecutionRow:
    """Return the row of the fork."""
    return next(row for row in world.database.tables.executions.values() if row.execution.lineage is not None)


def bulk_of(world: World) -> BulkRow:
    """Return the operation in bulk."""
    (row,) = world.database.tables.bulks.values()
    return row


def change(world: World, **changes: Any) -> None:
    """Let the operation in bulk say something else."""
    bulk_of(world).bulk = replace(bulk_of(world).bulk, **changes)


def started_again(messages: list[ExecutionEvent]) -> ExecutionEvent:
    """Return the start of the step that was edited."""
    return next(each for each in messages if each.step_started.iteration == 2)


def add_fork_call(world: World) -> None:
    """Let what the fork inherits have been called."""
    call = replace(calls_of(world, EDITED)[0], execution_id=fork_of(world).execution.id)
    world.history.calls.append(call)


def add_skipped_call(world: World) -> None:
    """Let what was skipped by hand have been called."""
    add_call(world, -1, SKIPPED, iteration=2, begun=LATER)


def inherit_otherwise(world: World) -> None:
    """Let the fork have inherited an output that was never recorded."""
    row = fork_of(world)
    row.steps["first", 1] = replace_step(row.steps["first", 1], output={"value": "other"})


def replace_step(step: Any, **changes: Any) -> Any:
    """Return a step of which something is otherwise."""
    return structs.replace(step, **changes)


def forget_result(world: World) -> None:
    """Let the operation in bulk have left out what it came to, which goes on."""
    bulk_of(world).results.clear()
    change(world, counts=dict.fromkeys(BulkOutcome, 0), state=BulkState.COMPLETED)
    writes = world.history.writes
    ours = world.clients.ids[STOPPED]
    world.history.writes = [w for w in writes if not (w.execution_id == ours and w.events[-1:] and w.consumed)]


def told(world: World, kind: str, outcome: str, detail: str, time: float = 60.0) -> None:
    """Let somebody have been told this."""
    world.history.answers.append(Answer(kind, EDITED, time, outcome, world.clients.ids[EDITED], detail))


SPOILT: dict[str, Callable[[World], object]] = {
    "RE1: was called in iteration 2 + ST5: + ST12:": lambda w: add_call(w, 0, EDITED, iteration=2),
    "RE1: was definite": lambda w: told(w, "retry", "definite", f"retry-{EDITED}-0"),
    "RE1: happened 0 times": lambda w: told(w, "retry", "ok", "retry-9-9"),
    "RE2: with what was edited": lambda w: edit(w, lambda m: started_again(m).step_started.input.update({"takes": 9})),
    "RE2: in place of what was edited": lambda w: change_call(w, EDITED, given={}),
    "RE2: was skipped by hand + ST5: + ST10: + ST12:": add_skipped_call,
    "RE3: made []": lambda w: told(w, "fork", "ok", "fork-9-9"),
    "RE4: was called + ST5: + ST12:": add_fork_call,
    "RE4: not recorded": inherit_otherwise,
    "RE4: payloads are shared": lambda w: setattr(fork_of(w), "input", row_of(w, EDITED).input),
    "CA8: there are 0 of it": lambda w: told(w, "bulk", "ok", "bulk-9"),
    "CA8: came 2 times + CA8: counts": lambda w: bulk_of(w).results.append(bulk_of(w).results[0]),
    "CA8: asked + CA8: after its stop": lambda w: w.history.bulk_messages.update(
        {(bulk_of(w).bulk.id, w.clients.ids[STOPPED]): [9.0, 60.0]}
    ),
    "CA8: under way for ever": lambda w: change(w, under_way=(UUID(int=1),)),
    "CA8: has not ended": lambda w: change(w, state=BulkState.RUNNING),
    "CA8: left out + I6: + I21:": forget_result,
}
"""What to spoil, under all that has to be reported then: rules, and no other ones, with words."""


@pytest.fixture
def world() -> Iterator[World]:
    """Return a sound world at its end."""
    world = World(SCENARIO)
    world.run()
    yield world
    world.close()


def test_a_sound_world_passes(world: World) -> None:
    assert check(world) == []
    assert row_of(world, EDITED).execution.run == 2
    assert row_of(world, SKIPPED).steps["second", 2].output == GIVEN
    assert bulk_of(world).results == [BulkResult(world.clients.ids[STOPPED], BulkOutcome.DONE)]
    assert fork_of(world).steps["first", 1].output == row_of(world, EDITED).steps["first", 1].output


@pytest.mark.parametrize("expected", SPOILT)
def test_a_wrong_world_is_seen(world: World, expected: str) -> None:
    SPOILT[expected](world)
    problems = check(world)
    reports = [report.partition(":")[::2] for report in expected.split(" + ")]
    for rule, words in reports:
        assert any(each.startswith(f"{rule}:") and words.strip() in each for each in problems), problems
    assert {each.split(":")[0] for each in problems} == {rule for rule, _ in reports}, problems


def test_whoever_changes_an_execution_by_a_fork_is_seen(world: World) -> None:
    fork = fork_of(world).execution

    def create(_: NewExecution) -> Any:
        row_of(world, EDITED).steps.clear()
        return SimpleNamespace(result=lambda: Created(fork, False))

    with patch.object(world.database.memory, "create", create):
        world.database.create(world.replicas[0].process, NewExecution(fork, {}, b""), 0.0)
    assert [each.split(":")[0] for each in world.history.problems] == ["RE3"]


def test_every_rule_was_red_once() -> None:
    judges = ("bulking", "cancelling", "checker", "clients", "database", "folding", "forking", "link", "retrying")
    sources = "".join(Path(__file__).with_name(f"{judge}.py").read_text() for judge in (*judges, "timing", "world"))
    red = str([*SPOILT, *test_oracles.SPOILT])
    assert set(re.findall(r'"([A-Z]+\d+): ', sources)) <= set(re.findall(r"([A-Z]+\d+):", red))
