"""What a running attempt shows: text of one turn as one output, and nothing before its start is kept."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import pytest

from persistence.transition import CommitResult
from service.engine.running.output import MAX_OUTPUT, Emitter
from service.engine.watch import Output, WatchHub


async def turn() -> None:
    """Let the loop do what it has to do."""
    await asyncio.sleep(0)
    await asyncio.sleep(0)


async def test_what_comes_in_one_turn_is_one_output_of_which_the_end_is_shown() -> None:
    hub, execution_id = WatchHub(), uuid4()
    with hub.subscribe(execution_id) as watching:
        emit = Emitter(hub, execution_id, ("a", 2, 3))
        emit("one, ")
        emit("two")
        await turn()
        assert watching.outputs(0) == [Output("a", 3, "one, two", 2)]
        emit("x" + "y" * MAX_OUTPUT)
        await turn()
        assert watching.outputs(0) == [Output("a", 3, "y" * MAX_OUTPUT, 2)]
        await asyncio.to_thread(emit, "from a thread")
        await turn()
        assert [each.text for each in watching.outputs(0)] == ["from a thread"]


async def test_nobody_is_shown_later_what_nobody_watched() -> None:
    hub, execution_id = WatchHub(), uuid4()
    emit = Emitter(hub, execution_id, ("a", 1, 1))
    emit("unseen")
    with hub.subscribe(execution_id) as watching:
        emit("seen")
        await turn()
        assert [each.text for each in watching.outputs(0)] == ["seen"]


async def test_what_was_said_before_the_start_was_kept_is_shown_with_it() -> None:
    hub, execution_id = WatchHub(), uuid4()
    start: asyncio.Future[CommitResult] = asyncio.get_running_loop().create_future()
    with hub.subscribe(execution_id) as watching:
        emit = Emitter(hub, execution_id, ("a", 1, 1), start)
        emit("early, ")
        await turn()
        emit("and more")
        await turn()
        assert not watching.outputs(0)
        start.set_result(CommitResult.COMMITTED)
        await turn()
        assert [each.text for each in watching.outputs(0)] == ["early, and more"]
        emit("late")
        await turn()
        assert [each.text for each in watching.outputs(0)] == ["late"]


@pytest.mark.parametrize("how", [CommitResult.FENCED, OSError(), None])
async def test_nothing_is_shown_of_an_attempt_whose_start_was_not_kept(how: CommitResult | OSError | None) -> None:
    hub, execution_id = WatchHub(), uuid4()
    start: asyncio.Future[CommitResult] = asyncio.get_running_loop().create_future()
    with hub.subscribe(execution_id) as watching:
        emit = Emitter(hub, execution_id, ("a", 1, 1), start)
        emit("early")
        await turn()
        if how is None:
            start.cancel()
        elif isinstance(how, OSError):
            start.set_exception(how)
        else:
            start.set_result(how)
        await turn()
        emit("late")
        await turn()
        assert not watching.outputs(0)
