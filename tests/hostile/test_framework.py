"""What these tests rest on: what holds the loop, memory that does not come back and errors of bystanders are seen."""

import pytest

from tests.hostile.attacked import Attacked, Servers
from tests.hostile.attacker import busy
from tests.integration.stage import step


async def run(attacked: Attacked, handler_name: str, **params):
    async with attacked.client() as client:
        name = f"bad-{handler_name}"
        await client.apply([{"name": name, "steps": [step("one", handler_name, **params)]}])
        await client.execute(name, wait=True)


@pytest.mark.parametrize(
    ("handler_name", "params", "told"),
    [
        ("works", {"seconds": 1.5}, "callback: the loop was held for 0"),
        ("sleeps", {"seconds": 1.0}, "asleep: the loop was held for"),
        ("matches", {"length": 24}, "(asleep|others): the loop was held for"),
        ("keeps", {"mib": 100}, "grew from"),
        ("complains", {}, "it went wrong"),
    ],
)
async def test_what_is_wrong_is_told(servers: Servers, handler_name, params, told):
    attacked = await servers.with_settings({})
    with pytest.raises(AssertionError, match=told):
        async with attacked.watched(patience=0.5):
            await run(attacked, handler_name, **params)


async def test_a_polite_client_is_measured_beside_and_its_errors_are_told(attacked: Attacked):
    async with attacked.beside("nothing") as seen, attacked.attacker.holding(busy):
        await seen.enough()
    assert seen.times.seconds
    async with attacked.client("polite", "ann") as client:
        await client.delete_workflow("polite", force=True)
    with pytest.raises(AssertionError, match="NOT_FOUND"):
        async with attacked.beside("its workflow is deleted"):
            pass
    await attacked.make_workflows()
