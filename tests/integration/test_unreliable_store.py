"""Two servers over a store of which every method fails now and then: all that was accepted ends, and ends right."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from typing import Any

import pytest

import flowkeep
from flowkeep.v1.execution_pb2 import Execution
from tests.integration.conftest import Log, Serve
from tests.integration.stage import Stage, kinds, made, step, wait_step
from tests.integration.unreliable import Unreliable
from tests.patience import PATIENCE

COUNT = 60


@pytest.mark.parametrize(("share", "seed"), [(0.01, 1), (0.05, 2)])
async def test_all_that_was_accepted_ends_right(
    serve: Serve, stage: Stage, mistakes: Log, share: float, seed: int
) -> None:
    stores: list[Unreliable] = []

    def wrap(repository: Any) -> Unreliable:
        stores.append(Unreliable(repository, 2 * seed + len(stores), share))
        return stores[-1]

    servers = [await serve(wrap=wrap, claim_interval=0.1, watch_poll=0.1) for _ in range(2)]
    steps = [step("a", "count"), wait_step("pause", 0.05), step("b", "fail", times=1, retry_policy={"max_attempts": 9})]
    workflow = await until_known(lambda: made(servers[0].client, *steps, name="w"))
    turns = itertools.cycle(servers)

    async def one(number: int) -> tuple[str, Execution, list[Any]]:
        served, request_id = next(turns), f"request-{number}"
        execution = await until_known(lambda: served.client.execute(workflow, request_id=request_id))
        async with asyncio.timeout(PATIENCE):
            events = [event async for event in next(turns).client.watch(execution.execution_id)]
        return (
            execution.execution_id,
            await until_known(lambda: served.client.get_execution(execution.execution_id)),
            events,
        )

    results = await asyncio.gather(*(one(number) for number in range(COUNT)))
    assert len({execution_id for execution_id, _, _ in results}) == COUNT
    for _, execution, events in results:
        assert execution.state == Execution.STATE_COMPLETED
        assert [event.seq for event in events] == list(range(1, execution.last_seq + 1))
        found = Counter(kinds(events))
        assert [found[f"step_completed {path}"] for path in ("a", "pause", "b")] == [1, 1, 1]
        assert found["finished"] == 1
    assert {len(tokens) for path, tokens in stage.tokens.items() if path in "ab"} == {COUNT}
    for store in stores:
        assert store.failures["executed and timeout"]
        assert store.failures["busy"]
    for served in servers:
        await served.stop()
    mistakes[:] = [mistake for mistake in mistakes if mistake["event"] != "claim failed"]


async def until_known(ask: Any) -> Any:
    """The answer, asked again for as long as there is none."""
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                return await ask()
            except flowkeep.UnavailableError:
                continue
