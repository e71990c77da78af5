"""Secrets of a store: made once, random, and the same for all who ask."""

import asyncio

from persistence.repository import SECRET_BYTES, Repository


async def test_a_secret_is_made_once(repository: Repository):
    one, *same = await asyncio.gather(*(repository.secret("one") for _ in range(8)))
    assert len(one) == SECRET_BYTES
    assert {*same, await repository.secret("one")} == {one}
    assert await repository.secret("two") != one
