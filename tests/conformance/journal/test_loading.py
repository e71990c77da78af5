"""What comes with an execution that is to be driven: no inputs of steps, and of large outputs what is asked for."""

from __future__ import annotations

import random
from typing import Any

import pytest

from persistence.errors import PersistenceError
from persistence.model import LOADED_AT_ONCE, UNREAD, ExecutionDetail, Step, StepKey, StepState, Wanted
from persistence.repository import Repository
from persistence.transition import CommitResult
from tests.conformance.builders import ORG, Keeper, after, ending, outcome, parking, step, transition

LARGE = random.Random(1).randbytes(LOADED_AT_ONCE // 2).hex()  # stores may compress what repeats itself
INPUTS = [{"a": 1}, {"large": LARGE}, None]


async def taken(repository: Repository, keeper: Keeper, *steps: Step) -> ExecutionDetail:
    """An execution with these steps, as it is when it is taken."""
    row = await keeper.put()
    assert await repository.submit(parking(row, None, steps=steps)) is CommitResult.COMMITTED
    [detail] = await repository.claim(keeper.incarnation, 1)
    return detail


def by_key(detail: ExecutionDetail) -> dict[StepKey, Step]:
    return {each.key: each for each in detail.steps}


@pytest.mark.parametrize("large", [False, True])
async def test_no_input_of_a_step_is_read_and_all_ways_to_take_an_execution_give_the_same(
    repository: Repository, keeper: Keeper, large: bool
) -> None:
    given: dict[str, Any] = {"failure": {"code": "X", "message": "m", "details": {"a": [1]}}}
    size = LARGE if large else ""
    steps = (
        step("a", StepState.COMPLETED, position=1, input=[size], output={"n": [size]}, assigned={"v": 1}),
        step("b", StepState.WAITING, position=2, input=1, output=2, failed_attempts=({"attempt": 1},), **given),
    )
    claimed = await taken(repository, keeper, *steps)
    loaded = await repository.load(keeper.incarnation, claimed.execution.id)
    assert loaded == claimed
    await repository.release(keeper.incarnation)
    one = await repository.claim_one(keeper.incarnation, ORG, claimed.execution.id)
    assert one is not None
    assert (one.steps, one.omitted) == (claimed.steps, claimed.omitted)
    assert all(each.input is UNREAD for each in claimed.steps)
    first, second = claimed.steps
    assert (first.output, first.assigned) == ((UNREAD, UNREAD) if large else ({"n": [""]}, {"v": 1}))
    assert claimed.omitted == ({("a", 1)} if large else frozenset())
    # What is open comes first, however the definition orders it.
    assert (second.output, second.failed_attempts, second.failure) == (2, ({"attempt": 1},), given["failure"])


async def test_what_is_omitted_is_read_when_it_is_asked_for_and_nothing_else(
    repository: Repository, keeper: Keeper
) -> None:
    failure = {"code": "X", "message": "m", "details": {"a": [1]}}
    steps = [
        step("a", StepState.COMPLETED, position=1, input=1, output=[LARGE], assigned={"v": 1}),
        step("b", StepState.COMPLETED, position=2, input=2, output=[2, LARGE], assigned={"w": LARGE}),
        step("c", StepState.FAILED, position=3, input=3, failure=failure, failed_attempts=({"attempt": 1},)),
        step("d", StepState.COMPLETED, position=4, input=4, output=None, iteration=1),
        step("d", StepState.COMPLETED, position=4, input=4, output=4, iteration=2),
    ]
    detail = await taken(repository, keeper, *steps)
    assert detail.omitted == {each.key for each in steps}
    assert {each.output for each in detail.steps} == {UNREAD}
    assert by_key(detail)["c", 1].failure == {"code": "X", "message": "m"}
    outputs, assigned = {("a", 1), ("c", 1), ("d", 2)}, {("b", 1), ("x", 1)}
    found = by_key(
        await repository.load_payloads(detail, Wanted(frozenset(outputs), frozenset(assigned), frozenset({("b", 1)})))
    )
    kept = {key: (each.output, each.assigned) for key, each in found.items()}
    assert kept == {
        ("a", 1): ([LARGE], UNREAD),
        ("b", 1): (UNREAD, {"w": LARGE}),
        ("c", 1): (None, UNREAD),
        ("d", 1): (UNREAD, UNREAD),
        ("d", 2): (4, UNREAD),
    }
    assert (found["c", 1].failure, found["c", 1].failed_attempts) == (failure, ({"attempt": 1},))
    assert {key: each.input for key, each in found.items() if each.input is not UNREAD} == {("b", 1): 2}


@pytest.mark.parametrize("given", INPUTS, ids=["small", "large", "none"])
@pytest.mark.parametrize("output", [None, [LARGE]], ids=["", "large output"])
async def test_a_step_that_is_written_without_its_input_keeps_it(
    repository: Repository, keeper: Keeper, given: Any, output: Any
) -> None:
    row = await keeper.put()
    row = await keeper.commit(transition(row, steps=[step("a", input=given)]))
    done = step("a", StepState.COMPLETED, input=UNREAD, output=output)
    row = await keeper.commit(transition(row, steps=[done]))
    [kept] = (await keeper.read(row)).steps
    assert (kept.input, kept.output) == (given, output)
    assert await repository.submit(ending(row)) is CommitResult.COMMITTED


async def test_in_one_flush_too_it_keeps_the_input_that_was_written_before_it(
    repository: Repository, keeper: Keeper
) -> None:
    row = await keeper.put()
    first = transition(row, steps=[step("a", input={"a": 1})])
    second = transition(after(row, first), steps=[step("a", StepState.COMPLETED, input=UNREAD)])
    pending = [repository.submit(first), repository.submit(second)]
    assert [await each for each in pending] == [CommitResult.COMMITTED] * 2
    [kept] = (await keeper.read(row)).steps
    assert (kept.state, kept.input) == (StepState.COMPLETED, {"a": 1})


@pytest.mark.parametrize("field", ["output", "assigned"])
async def test_what_was_not_read_is_no_value(repository: Repository, keeper: Keeper, field: str) -> None:
    row = await keeper.put()
    written = transition(row, steps=[step("a", StepState.COMPLETED, **{field: UNREAD})])
    assert isinstance(await outcome(repository.submit(written)), PersistenceError)
