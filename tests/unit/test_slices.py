"""Long work in slices: it yields by what it costs, and all of it together takes one slice per turn of the loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import pairwise

import pytest
from google.protobuf.struct_pb2 import Struct

from service.api.paging import fitting_in_slices
from service.engine import slices
from service.engine.slices import SLICE, Work, in_one_go, in_slices


def work(name: str, pieces: int, cost: int, log: list[str]) -> Work[str]:
    for _ in range(pieces):
        log.append(name)
        yield cost
    return name


async def test_short_work_is_done_in_one_go() -> None:
    log: list[str] = []
    asyncio.get_running_loop().call_soon(log.append, "other")
    assert await in_slices(work("short", 5, SLICE // 10, log)) == "short"
    assert log == ["short"] * 5


async def test_others_have_their_turn_between_slices() -> None:
    log: list[str] = []
    longs = [asyncio.create_task(in_slices(work(name, 4, SLICE, log))) for name in "ab"]
    done = asyncio.gather(*longs)
    turns = 0
    while not done.done():
        before = len(log)
        await asyncio.sleep(0)
        turns += 1
        # Both begin at once; from then on there is one slice in a turn.
        assert len(log) - before <= (2 if turns == 1 else 1)
    assert await done == ["a", "b"]
    assert sorted(log) == ["a"] * 4 + ["b"] * 4
    assert log[2:] == ["a", "b"] * 3


async def test_a_turn_is_counted_from_the_beginning_of_a_slice_also_for_work_that_is_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(slices, "SLICE", 500_000)
    monkeypatch.setattr(slices, "TURN", 0.6)
    loop = asyncio.get_running_loop()
    now = loop.time()
    begun: list[float] = []

    def later(delay: float, call: Callable[[], None]) -> asyncio.Handle:
        nonlocal now
        now += delay
        return loop.call_soon(call)

    def alone() -> Work[None]:
        nonlocal now
        for _ in range(5):
            begun.append(now)
            now += 0.5
            yield slices.SLICE

    monkeypatch.setattr(loop, "time", lambda: now)
    monkeypatch.setattr(loop, "call_later", later)
    await in_slices(alone())
    # From its end it would be 1.1 s.
    assert [after - before for before, after in pairwise(begun)] == [pytest.approx(0.6)] * 4


async def test_one_that_is_given_up_does_not_keep_the_others_from_their_turn() -> None:
    log: list[str] = []
    given_up = asyncio.create_task(in_slices(work("a", 9, SLICE, log)))
    other = asyncio.create_task(in_slices(work("b", 3, SLICE, log)))
    await asyncio.sleep(0)
    given_up.cancel()
    assert await other == "b"
    assert log.count("a") == 1


def test_in_one_go_it_gives_the_same() -> None:
    log: list[str] = []
    assert in_one_go(work("a", 3, 10 * SLICE, log)) == "a"


async def test_what_work_raises_is_raised() -> None:
    def wrong() -> Work[None]:
        yield 1
        raise ValueError("wrong")

    with pytest.raises(ValueError, match="wrong"):
        await in_slices(wrong())


async def test_rows_of_a_page_that_are_short_are_long_together() -> None:
    log: list[str] = []

    def row(name: str) -> Work[Struct]:
        log.append(name)
        yield SLICE // 3 + 1
        return Struct()

    asyncio.get_running_loop().call_soon(log.append, "other")
    assert len(await fitting_in_slices(map(row, "abcdef"))) == 6
    assert log == ["a", "b", "c", "other", "d", "e", "f"]
