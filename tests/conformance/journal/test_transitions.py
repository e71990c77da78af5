"""Transitions: whole or not at all, in order, and only by the owner at the right position."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from msgspec.structs import replace

from persistence.errors import PersistenceError
from persistence.model import Ending, Event, Execution, ExecutionState, Pause, StepCounts, StepState, Wait, WaitKind
from persistence.repository import Repository
from persistence.transition import CommitResult, Transition
from persistence.usage import MOST, Usage
from tests.conformance.builders import (
    BEFORE,
    BEYOND,
    MOMENT,
    SCOPE,
    Keeper,
    after,
    chain,
    ending,
    events,
    execution,
    in_seconds,
    new,
    now,
    outcome,
    parking,
    seen,
    step,
    transition,
)
from tests.conformance.conftest import OpenRepository

COMMITTED, FENCED = CommitResult.COMMITTED, CommitResult.FENCED
WAIT = Wait(WaitKind.TIMER, MOMENT, MOMENT, "until it is null")


async def submit_all(repository: Repository, *written: Transition) -> list[Any]:
    """Submit them in this order, all in flight at once; return the answers."""
    pending = [repository.submit(each) for each in written]
    return [await outcome(each) for each in pending]


async def seqs(repository: Repository, row: Execution) -> list[int]:
    return [event.seq for event in await repository.read_events(SCOPE, row.id, 0, 10_000)]


async def test_a_transition_changes_row_steps_and_events_together(repository: Repository, keeper: Keeper) -> None:
    row = await keeper.put(priority=3, tags=("a",), labels={"a": "b"}, correlation_id="c", request_id="r")
    counts = StepCounts(total=9, completed=1, failed=2, skipped=1, running=2, cancelled=3)
    changes: dict[str, Any] = {
        "state": ExecutionState.PAUSED,
        "counts": counts,
        "progress": 40,
        "start_time": MOMENT,
        "deadline_time": MOMENT + timedelta(hours=1),
        "failure": {"code": "X"},
        "ending": Ending(ExecutionState.CANCELLED, {"code": "Y"}),
        "pause": Pause("ann", "a null pointer", MOMENT, is_hard=True, stops_deadline=True),
        "usage": Usage(7, MOST, 1),
    }
    steps = (
        step("a", StepState.COMPLETED, output={"n": 1}, usage=Usage(output_tokens=2)),
        step("b", StepState.WAITING, wait=WAIT),
    )
    written = transition(row, 3, steps=steps, **changes)
    assert await repository.submit(written) is COMMITTED
    detail = await keeper.read(row)
    assert detail.execution == replace(row, last_seq=4, **changes)
    assert detail.steps == steps
    assert tuple(await repository.read_events(SCOPE, row.id, 1, 10)) == written.events


@pytest.mark.parametrize(
    "state", [ExecutionState.COMPLETED, ExecutionState.FAILED, ExecutionState.CANCELLED, ExecutionState.TIMED_OUT]
)
async def test_an_end_releases_the_execution(repository: Repository, keeper: Keeper, state: ExecutionState) -> None:
    row = await keeper.put()
    ended = await keeper.commit(ending(row, state, end_time=MOMENT, result={"a": 1}, failure={"code": "X"}))
    assert (ended.state, ended.end_time, ended.failure) == (state, MOMENT, {"code": "X"})
    assert (ended.incarnation, ended.wake_time, ended.epoch) == (None, None, row.epoch)
    assert (await keeper.read(row)).result == {"a": 1}
    assert not await repository.claim(keeper.incarnation, 10)


async def test_nothing_follows_an_end(repository: Repository, keeper: Keeper) -> None:
    row = await keeper.put()
    ended = await keeper.commit(ending(row))
    late = [
        transition(row),
        transition(replace(row, last_seq=2)),
        ending(replace(row, last_seq=2), ExecutionState.FAILED),
        ending(replace(row, last_seq=2), ExecutionState.CANCELLED, **seen(row)),
    ]
    for each in late:
        assert await repository.submit(each) is FENCED
    assert (await keeper.read(row)).execution == ended
    assert await seqs(repository, row) == [1, 2]


FENCES: dict[str, dict[str, Any]] = {
    "another incarnation": {"incarnation": uuid4()},
    "an earlier epoch": {"epoch": 1},
    "a later epoch": {"epoch": 3},
    "an earlier seq": {"base_seq": 0, "events": events(0)},
    "a later seq": {"base_seq": 2, "events": events(2)},
    "another org": {"org": "globex"},
    "another execution": {"execution_id": uuid4()},
}


@pytest.mark.parametrize("fence", FENCES)
async def test_a_fenced_transition_writes_nothing(repository: Repository, keeper: Keeper, fence: str) -> None:
    row = await keeper.put(epoch=2)
    before = await keeper.read(row)
    written = transition(row, steps=[step()], progress=50)
    assert await repository.submit(replace(written, **FENCES[fence])) is FENCED
    assert await keeper.read(row) == before
    assert await seqs(repository, row) == [1]
    assert await repository.submit(written) is COMMITTED


async def test_a_transition_behind_one_of_another_org_is_fenced_with_it(repository: Repository, keeper: Keeper) -> None:
    row = await keeper.put()
    foreign = transition(row, org="globex")
    assert await submit_all(repository, foreign, transition(after(row, foreign))) == [FENCED, FENCED]
    assert await seqs(repository, row) == [1]


async def test_a_free_execution_takes_no_transition(repository: Repository, keeper: Keeper) -> None:
    row = await keeper.put_free(wake_time=in_seconds(60))
    assert await repository.submit(transition(row, incarnation=keeper.incarnation)) is FENCED
    assert (await keeper.read(row)).execution == row


async def test_the_same_transition_twice_is_written_once(repository: Repository, keeper: Keeper) -> None:
    row = await keeper.put()
    written = transition(row, steps=[step()])
    assert await submit_all(repository, written, written) == [COMMITTED, FENCED]
    assert await repository.submit(written) is FENCED
    assert await seqs(repository, row) == [1, 2]


async def test_of_two_at_the_same_position_one_is_written(repository: Repository, keeper: Keeper) -> None:
    row = await keeper.put()
    rivals = [transition(row, steps=[step(f"s{number}")]) for number in range(8)]
    answers = await submit_all(repository, *rivals)
    assert answers == [COMMITTED] + [FENCED] * 7
    assert [each.path for each in (await keeper.read(row)).steps] == ["s0"]


async def test_transitions_in_flight_are_written_in_order(repository: Repository, keeper: Keeper) -> None:
    """Many of the same execution merge into one flush and still are all there."""
    row = await keeper.put()
    chained = [
        replace(each, steps=[step("same", progress=number), step(f"s{number}")], progress=number)
        for number, each in enumerate(chain(row, 50))
    ]
    assert await submit_all(repository, *chained) == [COMMITTED] * 50
    detail = await keeper.read(row)
    assert (detail.execution.last_seq, detail.execution.progress) == (51, 49)
    assert {each.path for each in detail.steps} == {"same"} | {f"s{number}" for number in range(50)}
    assert next(each for each in detail.steps if each.path == "same").progress == 49
    assert await seqs(repository, row) == list(range(1, 52))


async def test_start_and_end_of_a_step_in_one_flight(repository: Repository, keeper: Keeper) -> None:
    row = await keeper.put()
    first, second, third = chain(row, 3)
    done = step(state=StepState.COMPLETED, output={"n": 1}, end_seq=3)
    answers = await submit_all(
        repository,
        replace(first, steps=[step()], counts=StepCounts(3, running=1)),
        replace(second, steps=[done, step("next")], counts=StepCounts(3, completed=1, running=1)),
        replace(third, state=ExecutionState.COMPLETED, end_time=MOMENT, result={"ok": True}, progress=100),
    )
    assert answers == [COMMITTED] * 3
    detail = await keeper.read(row)
    assert (detail.execution.state, detail.execution.end_time, detail.result) == (
        ExecutionState.COMPLETED,
        MOMENT,
        {"ok": True},
    )
    assert detail.steps == (done, step("next"))


async def test_what_is_behind_a_fenced_one_is_fenced(repository: Repository, keeper: Keeper) -> None:
    row = await keeper.put()
    first, second, third, fourth = chain(row, 4)
    stale = replace(second, epoch=row.epoch + 7)
    assert await submit_all(repository, first, stale, third, fourth) == [COMMITTED, FENCED, FENCED, FENCED]
    assert (await keeper.read(row)).execution.last_seq == 2
    # What stands is not stuck: the position after the first is still good.
    assert await submit_all(repository, second, third) == [COMMITTED, COMMITTED]


async def test_what_is_behind_an_end_is_fenced(repository: Repository, keeper: Keeper) -> None:
    row = await keeper.put()
    first = ending(row)
    assert await submit_all(repository, first, transition(after(row, first))) == [COMMITTED, FENCED]
    assert await seqs(repository, row) == [1, 2]


async def test_what_is_behind_a_release_is_fenced(repository: Repository, keeper: Keeper) -> None:
    row = await keeper.put()
    first = parking(row, in_seconds(60))
    assert await submit_all(repository, first, transition(after(row, first))) == [COMMITTED, FENCED]
    assert await seqs(repository, row) == [1, 2]


async def test_a_fence_of_one_is_no_fence_of_another(repository: Repository, keeper: Keeper) -> None:
    rows = [await keeper.put() for _ in range(20)]
    written = [transition(row, epoch=row.epoch + number % 2) for number, row in enumerate(rows)]
    assert await submit_all(repository, *written) == [COMMITTED, FENCED] * 10


async def test_many_executions_at_once(repository: Repository, keeper: Keeper) -> None:
    rows = [await keeper.put() for _ in range(40)]
    chains = [chain(row, 10) for row in rows]
    interleaved = [each for group in zip(*chains, strict=True) for each in group]
    assert await submit_all(repository, *interleaved) == [COMMITTED] * 400
    for row in rows:
        assert await seqs(repository, row) == list(range(1, 12))


async def test_a_transition_without_events_changes_the_row(repository: Repository, keeper: Keeper) -> None:
    row = await keeper.put()
    first = transition(row, 0, steps=[step(progress=10)], progress=10)
    second = transition(row, 0, steps=[step(progress=20)], progress=20)
    assert await submit_all(repository, first, second) == [COMMITTED, COMMITTED]
    detail = await keeper.read(row)
    assert (detail.execution.last_seq, detail.execution.progress, detail.steps[0].progress) == (1, 20, 20)


async def test_what_is_recorded_by_one_transition_stays_unless_another_changes_it(
    repository: Repository, keeper: Keeper
) -> None:
    row = await keeper.put()
    first = transition(row, steps=[step("a"), step("b")], start_time=MOMENT, deadline_time=MOMENT)
    second = transition(after(row, first), steps=[step("b", StepState.FAILED)], start_time=MOMENT)
    assert await submit_all(repository, first, second) == [COMMITTED, COMMITTED]
    detail = await keeper.read(row)
    assert detail.steps == (step("a"), step("b", StepState.FAILED))
    assert (detail.execution.start_time, detail.execution.deadline_time) == (MOMENT, None)


@pytest.mark.parametrize(
    "end", [StepState.COMPLETED, StepState.FAILED, StepState.SKIPPED, StepState.CANCELLED, StepState.COMPENSATED]
)
async def test_a_step_that_has_ended_is_never_overwritten(
    repository: Repository, keeper: Keeper, end: StepState
) -> None:
    row = await keeper.put()
    done = step(state=end, output={"first": True})
    first = transition(row, steps=[done])
    await repository.submit(first)
    for late in (step(), step(state=StepState.COMPLETED, output={"second": True}, attempt=2)):
        await outcome(repository.submit(transition(await repository.get_execution(SCOPE, row.id), steps=[late])))
        assert (await keeper.read(row)).steps == (done,)


async def test_a_step_that_has_ended_is_not_overwritten_in_flight_either(
    repository: Repository, keeper: Keeper
) -> None:
    row = await keeper.put()
    done = step(state=StepState.COMPLETED, output={"first": True})
    first, second, third = chain(row, 3)
    await submit_all(
        repository,
        replace(first, steps=[step()]),
        replace(second, steps=[done]),
        replace(third, steps=[step(attempt=2)]),
    )
    assert (await keeper.read(row)).steps == (done,)


async def test_only_a_completed_step_is_compensated(repository: Repository, keeper: Keeper) -> None:
    row = await keeper.put()
    first = transition(row, steps=[step(state=StepState.COMPLETED, output=1)])
    undone = step(state=StepState.COMPENSATED, output=1)
    second = transition(after(row, first), steps=[undone])
    assert await submit_all(repository, first, second) == [COMMITTED, COMMITTED]
    assert (await keeper.read(row)).steps == (undone,)


BROKEN: dict[str, dict[str, Any]] = {
    "ended without end time": {"state": ExecutionState.COMPLETED},
    "end time without end": {"end_time": now()},
    "progress": {"progress": 101},
    "all done but not completed": {"progress": 100},
    "counts": {"counts": StepCounts(total=1, completed=2)},
    "ended step without end time": {"steps": [step(state=StepState.COMPLETED, end_time=None)]},
    "running step with end time": {"steps": [step(end_time=MOMENT)]},
    "an ending of what has ended": {
        "state": ExecutionState.FAILED,
        "end_time": now(),
        "ending": Ending(ExecutionState.FAILED, {}),
    },
    "cancelling to no end": {"state": ExecutionState.CANCELLING},
    "a step that waits for nothing": {"steps": [step(state=StepState.WAITING, wait=None)]},
    "a running step that waits": {"steps": [step(wait=WAIT)]},
    "a step that has waited": {"steps": [step(state=StepState.COMPLETED, wait=WAIT)]},
    "step progress": {"steps": [step(progress=101)]},
    "NUL in an output": {"steps": [step(output={"a": ["\0"]})]},
    "NUL in a key": {"steps": [step(output={"\0": 1})]},
    "NUL in a text": {"steps": [step(skip_reason="a\0")]},
    "half of a pair": {"steps": [step(output="\ud800")]},
    "NUL in a failure": {"failure": {"message": "\0"}},
    "NUL in an ending": {"ending": Ending(ExecutionState.FAILED, {"message": "\0"})},
    "NUL in what a step waits for": {"steps": [step(state=StepState.WAITING, wait=replace(WAIT, reason="\0"))]},
    "an iteration before the first": {"steps": [step(iteration=0)]},
    "NUL in a result": {"state": ExecutionState.FAILED, "end_time": now(), "result": "\0"},
    "NUL in a path": {"steps": [step(path="a\0")]},
    "a path without end": {"steps": [step(path="x" * 1025)]},
    "a deadline beyond the calendar": {"deadline_time": BEYOND},
    "a timer beyond the calendar": {"release": True, "wake_time": BEYOND},
    "a step that waits beyond the calendar": {
        "steps": [step(state=StepState.WAITING, wait=replace(WAIT, wake_time=BEYOND))]
    },
    "a step that started before the calendar": {"steps": [step(start_time=BEFORE)]},
    "a time without a zone": {"deadline_time": datetime(2030, 1, 1)},
}


@pytest.mark.parametrize("name", BROKEN)
async def test_what_cannot_be_kept_is_refused_and_harms_none_beside_it(
    repository: Repository, keeper: Keeper, name: str
) -> None:
    row, others = await keeper.put(), [await keeper.put() for _ in range(6)]
    first, second, third = chain(row, 3)
    bad = replace(second, **BROKEN[name])
    beside = [transition(other) for other in others]
    answers = await submit_all(repository, *beside[:3], first, bad, third, *beside[3:])
    assert isinstance(answers[4], PersistenceError)
    assert answers[:4] + answers[5:] == [COMMITTED] * 4 + [FENCED] + [COMMITTED] * 3
    assert (await keeper.read(row)).execution.last_seq == 2
    assert (await keeper.read(row)).steps == ()
    assert await seqs(repository, row) == [1, 2]
    # The execution is not stuck.
    assert await submit_all(repository, second, third) == [COMMITTED, COMMITTED]


async def test_a_large_flight(repository: Repository, keeper: Keeper) -> None:
    """Outputs at the size limit, many of them in one flight."""
    rows = [await keeper.put() for _ in range(16)]
    output = {"text": "🐳" * 60_000}
    written = [transition(row, steps=[step(state=StepState.COMPLETED, output=output)]) for row in rows]
    assert await submit_all(repository, *written) == [COMMITTED] * 16
    for row in rows:
        assert (await keeper.read(row)).steps[0].output == output


async def test_events_of_merged_transitions_keep_their_own_ends(repository: Repository, keeper: Keeper) -> None:
    row = await keeper.put()
    first = transition(row, 2)
    second = transition(after(row, first), 3)
    await submit_all(repository, first, second)
    page = await repository.read_events(SCOPE, row.id, 0, 100)
    assert [event.transition_seq for event in page] == [1, 3, 3, 6, 6, 6]
    assert list(page)[1:] == [*first.events, *second.events]


async def test_close_finishes_what_was_submitted(open_repository: OpenRepository, keeper: Keeper) -> None:
    leaving = await open_repository()
    row = await keeper.put()
    new_one = execution(keeper.workflow, keeper.incarnation)
    pending: list[Any] = [leaving.submit(each) for each in chain(row, 20)]
    pending.append(leaving.create(new(new_one)))
    await leaving.close()
    answers = await asyncio.gather(*pending)
    assert answers[:-1] == [COMMITTED] * 20
    assert answers[-1].created
    assert await seqs(keeper.repository, row) == list(range(1, 22))


async def test_an_event_without_body_or_in_the_past_is_no_matter(repository: Repository, keeper: Keeper) -> None:
    row = await keeper.put()
    odd = Event(2, 2, "k" * 64, MOMENT.replace(year=1970), b"")
    await keeper.commit(transition(row, events=(odd,)))
    assert list(await repository.read_events(SCOPE, row.id, 1, 1)) == [odd]
