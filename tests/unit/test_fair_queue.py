"""What waits by org: each has its turn, and its own order; and the gate that lets them in so."""

import asyncio

import pytest

from persistence.errors import QueueFullError, UnavailableError
from persistence.fair_queue import FairQueue
from persistence.gate import Gate


def test_orgs_have_their_turns_and_each_its_order():
    queue: FairQueue[str] = FairQueue()
    for item in ("a1", "a2", "a3", "b1", "a4", "c1", "b2"):
        queue.append(item[0], item)
    assert len(queue) == 7
    assert [queue.next() for _ in range(len(queue))] == ["a1", "b1", "c1", "a2", "b2", "a3", "a4"]
    assert not queue


def test_what_is_put_back_comes_next():
    queue: FairQueue[str] = FairQueue()
    for item in ("a1", "b1", "a2"):
        queue.append(item[0], item)
    first = queue.next()
    queue.put_back("a", first)
    queue.put_back("c", "c0")
    assert [queue.next() for _ in range(4)] == ["c0", "a1", "b1", "a2"]


def test_what_is_passed_keeps_its_turn_and_what_is_behind_it():
    queue: FairQueue[str] = FairQueue()
    for item in ("a1", "b1", "a2", "c1", "c2"):
        queue.append(item[0], item)
    assert [queue.next(lambda item: item == "a1") for _ in range(3)] == ["b1", "c1", "c2"]
    with pytest.raises(StopIteration):
        queue.next(lambda item: item == "a1")
    assert [queue.next() for _ in range(2)] == ["a1", "a2"]


def test_what_is_taken_out_leaves_the_others_as_they_were():
    queue: FairQueue[str] = FairQueue()
    for item in ("a1", "a2", "b1", "c1", "c2"):
        queue.append(item[0], item)
    assert queue.take_out(lambda item: item in ("a1", "b1")) == ["a1", "b1"]
    assert queue.take_out(lambda item: item == "b1") == []
    assert (len(queue), list(queue)) == (3, ["a2", "c1", "c2"])
    assert [queue.next() for _ in range(3)] == ["a2", "c1", "c2"]


class Room:
    """Who came in through a gate, and stays until the room is left."""

    def __init__(self, gate):
        self.gate, self.came, self.left = gate, [], asyncio.Event()

    async def enter(self, org):
        async with self.gate.place(org):
            self.came.append(org)
            await self.left.wait()

    def enter_soon(self, *orgs):
        return [asyncio.ensure_future(self.enter(org)) for org in orgs]


async def test_a_gate_lets_orgs_in_by_turns():
    room = Room(Gate(1, 10.0))
    calls = room.enter_soon(*["flood"] * 5, "polite")
    await asyncio.sleep(0)
    room.left.set()
    await asyncio.gather(*calls)
    assert room.came == ["flood", "flood", "polite", "flood", "flood", "flood"]


@pytest.mark.parametrize(("silence", "error"), [("", QueueFullError), ("nobody answers", UnavailableError)])
async def test_a_gate_refuses_who_finds_no_place_in_time(silence, error):
    room = Room(Gate(1, 0.01, silence))
    (inside,) = room.enter_soon("a")
    await asyncio.sleep(0)
    with pytest.raises(error):
        await room.enter("b")
    room.left.set()
    await inside
    await room.enter("b")


async def test_who_leaves_while_waiting_keeps_no_place():
    room = Room(Gate(1, 10.0))
    inside, *waiting = room.enter_soon("a", "b", "c")
    await asyncio.sleep(0)
    waiting[0].cancel()
    await asyncio.sleep(0)
    room.left.set()
    await inside
    waiting[1].cancel()  # it was let in at this moment
    await asyncio.gather(*waiting, return_exceptions=True)
    await room.enter("d")
    assert room.came[-1] == "d"
