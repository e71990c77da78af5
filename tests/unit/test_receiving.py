"""How many requests are received at a time, whoever comes."""

import asyncio

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


async def test_a_turn_that_is_taken_from_another_connection_makes_no_turn_more():
    receiving = Receiving(most=4, most_per_connection=2)

    async def arrive(connection):
        call = asyncio.ensure_future(receiving.request(Unsent(), connection))
        await asyncio.sleep(0)
        return call

    first, *others = [await arrive(connection) for connection in ("a", "a", "b", "b", "a")]
    last = await arrive("c")
    await asyncio.wait({first})
    assert isinstance(first.exception(), RefusedError)
    assert Unsent.now == 4
    for call in (*others, last):
        call.cancel()
    await asyncio.wait({*others, last})
    assert Unsent.now == 0
