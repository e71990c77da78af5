"""What cannot go on is ended, whatever it holds."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest

from persistence.model import Event, ExecutionState, StepCounts, StepState
from persistence.repository import Repository
from persistence.transition import Closing, CommitResult
from tests.conformance.builders import OWNER, SCOPE, Keeper, parking, step, transition

FAILURE = {"code": "UNREADABLE_RECORD", "message": "lost"}


def end(closing: Closing) -> tuple[dict[str, Any], Event]:
    """The failure, and a last event that holds the state."""
    return FAILURE, Event(closing.seq, closing.seq, "finished", closing.time, closing.state.value.encode())


@pytest.mark.parametrize("is_cancelled", [False, True])
async def test_it_ends_with_all_that_is_open_and_nobody_owns_it(
    repository: Repository, keeper: Keeper, is_cancelled: bool
) -> None:
    row = await keeper.put()
    steps = [step("a", StepState.COMPLETED), step("b", StepState.FAILED), step("c", output={"half": 1}, iteration=2)]
    steps.append(step("c", StepState.FAILED))  # in an iteration that counts no more
    row = await keeper.commit(transition(row, 2, steps=steps, counts=StepCounts(4, completed=1, failed=1, running=1)))
    if is_cancelled:
        await repository.request_cancel(SCOPE, row.id, OWNER, "no longer")
    state = ExecutionState.CANCELLED if is_cancelled else ExecutionState.FAILED

    event = await repository.condemn(keeper.incarnation, row.id, end)

    assert event is not None and (event.seq, event.body) == (4, state.value.encode())
    detail = await keeper.read(row)
    after = detail.execution
    assert (after.state, after.failure, after.end_time, after.last_seq) == (state, FAILURE, event.time, 4)
    assert (after.incarnation, after.wake_time) == (None, None)
    assert after.counts == StepCounts(4, completed=1, failed=1, cancelled=2)
    *others, last = detail.steps
    assert [s.state for s in others] == [StepState.COMPLETED, StepState.FAILED, StepState.FAILED]
    assert (last.key, last.state) == (("c", 2), StepState.CANCELLED)
    assert (last.end_time, last.end_seq, last.output) == (event.time, 4, None)
    assert list(await repository.read_events(SCOPE, row.id, 3, 10)) == [event]
    assert await repository.submit(transition(row)) is CommitResult.FENCED


async def test_only_its_owner_ends_it(repository: Repository, keeper: Keeper) -> None:
    owned, parked = await keeper.put(), await keeper.put()
    parked = await keeper.commit(parking(parked, None))
    ended = await keeper.put_ended()
    assert await repository.condemn(uuid4(), owned.id, end) is None
    assert await repository.condemn(keeper.incarnation, parked.id, end) is None
    assert await repository.condemn(keeper.incarnation, ended.id, end) is None
    assert await repository.condemn(keeper.incarnation, uuid4(), end) is None
    for row in (owned, parked, ended):
        assert (await keeper.read(row)).execution == row
