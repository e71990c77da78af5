"""FAULTS H6: nobody is known by a forged token, none costs more than another, and no provider feels them."""

import statistics
import time

import pytest

from tests.hostile import floods
from tests.hostile.attacked import Attacked, token
from tests.hostile.tokens import RS256, credentials, good, made
from tests.integration.calls import call
from tests.integration.web import Web

HANDLERS = "/flowkeep.v1.WorkflowService/ListHandlers"
AT_A_TIME = 16


async def answered(attacked: Attacked, *values: str):
    return await call(attacked.channel, HANDLERS, b"", tuple(("authorization", value) for value in values))


async def test_no_forged_token_is_taken(attacked: Attacked):
    assert (await answered(attacked, f"Bearer {made(RS256, good(permissions=['workflows.read']))}")).code == "OK"
    assert (await answered(attacked, f"bearer {made(RS256, good(permissions=['workflows.read']))}")).code == "OK"
    times = dict[str, float]()
    corpus = list(credentials())
    assert len({name for name, _, _ in corpus}) == len(corpus) > 200
    for name, values, told in corpus:
        async with attacked.case(name):
            began = time.perf_counter()
            answer = await answered(attacked, *values)
            times[name] = time.perf_counter() - began
            assert (answer.code, answer.reason, answer.error.message) == ("UNAUTHENTICATED", "INVALID_TOKEN", told)
            assert (answer.error.metadata, answer.error.violations) == ({}, [])
    slowest = max(times, key=times.__getitem__)
    attacked.figures.append(
        f"{len(corpus)} forged tokens: median {statistics.median(times.values()) * 1e3:.1f} ms, "
        f"slowest {times[slowest] * 1e3:.1f} ms ({slowest})"
    )


async def test_a_flood_of_unknown_key_ids_fetches_no_keys(attacked: Attacked, web: Web):
    def fetches() -> int:
        return sum(each.path == "/jwks" for each in web.calls)

    began, before = time.monotonic(), fetches()
    async with attacked.beside("unknown key ids"):
        sent, came = await attacked.attacker.run(floods.unknown_key_ids, attacked.target, HANDLERS, AT_A_TIME)
    assert came == {"UNAUTHENTICATED the token is not valid"}
    fetched = fetches() - before
    assert fetched <= 1 + (time.monotonic() - began) / 30
    attacked.figures.append(f"{sent} tokens with unknown key ids: {fetched} fetches of keys")


@pytest.mark.parametrize("size", [3_900, 4_090])
async def test_a_token_may_have_4096_bytes(attacked: Attacked, size: int):
    short = len(token(more=""))
    given = token(more="x" * ((size - short) * 3 // 4))
    assert size - 10 < len(given) <= 4_096
    assert (await attacked.send(HANDLERS, b"", given)).code == "OK"
