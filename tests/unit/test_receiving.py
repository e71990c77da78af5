"""How many requests are received at a time, whoever comes."""

import asyncio

import pytest

from service.api import receiving as receiving_module
from service.api.errors import RefusedError
from service.api.receiving import Receiving


class Unsent:
    """A call whose request does not come; it counts those that are being received."""

    now = 0

    async def read(self):
        Unsent.now += 1
        try:
            await asyncio.Event().wait()
        finally:
            Unsent.now -= 1


async def arrive(receiving, *party, call=None):
    arrival = asyncio.ensure_future(receiving.request(call or Unsent(), *party))
    await asyncio.sleep(0)
    return arrival


async def leave(*arrivals):
    for arrival in arrivals:
        arrival.cancel()
    await asyncio.wait(arrivals)


async def test_a_turn_that_is_taken_from_another_connection_makes_no_turn_more():
    receiving = Receiving(most=4, most_per_connection=2)
    first, *others = [await arrive(receiving, connection) for connection in ("a", "a", "b", "b", "a")]
    last = await arrive(receiving, "c")
    await asyncio.wait({first})
    assert isinstance(first.exception(), RefusedError)
    assert Unsent.now == 4
    await leave(*others, last)
    assert Unsent.now == 0


class Sent:
    """A call whose request is there."""

    async def read(self):
        return b"request"


@pytest.mark.parametrize("polite", [("b", "bob", "1"), ("a", "alice", "1")], ids=["another org", "another identity"])
async def test_however_many_connections_one_has_others_are_received(polite):
    receiving = Receiving(most=4, most_per_connection=2)
    crowd = [await arrive(receiving, "a", "mallory", str(number)) for number in range(20)]
    assert await receiving.request(Sent(), *polite) == b"request"
    # One that is under way keeps its turn, and one that waits is the next, although newer ones of the crowd wait.
    slow = [await arrive(receiving, *polite) for _ in range(2)]
    crowd += [await arrive(receiving, "a", "mallory", str(number)) for number in range(20, 40)]
    waiting = await arrive(receiving, *polite, call=Sent())
    assert not any(each.done() for each in (*slow, waiting))
    await leave(next(each for each in crowd if not each.done() and each not in slow))
    await leave(slow[0])
    assert await waiting == b"request"
    await leave(slow[1], *(each for each in crowd if not each.done()))
    assert {type(each.exception()) for each in crowd if not each.cancelled()} == {RefusedError}


async def test_of_many_that_wait_those_of_the_org_that_has_most_are_refused(monkeypatch):
    monkeypatch.setattr(receiving_module, "MOST_WAITING", 4)
    receiving = Receiving(most=1, most_per_connection=1)
    held = await arrive(receiving, "b", "bob", "1")
    polite = await arrive(receiving, "b", "bob", "2")
    crowd = [await arrive(receiving, "a", "mallory", str(number)) for number in range(10)]
    await asyncio.sleep(0)
    assert not polite.done()
    assert all(isinstance(each.exception(), RefusedError) for each in crowd[:7])
    assert not any(each.done() for each in crowd[7:])
    await leave(held, polite, *crowd[7:])
