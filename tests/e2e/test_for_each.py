"""Steps of a list's items: watched to the end, killed in the middle, listed by the numbers of their items."""

from __future__ import annotations

import asyncio

import pytest

from flowkeep import Client, from_value
from flowkeep.requests import steps_request
from flowkeep.v1.execution_pb2 import Execution
from tests.e2e.effects import EffectServer
from tests.e2e.history import check_watch, paths
from tests.e2e.process import ServerProcess
from tests.e2e.test_crash import call, start

ITEMS = 12


def armed(failpoint: str) -> dict[str, str]:
    """Settings of a server that crashes there; the last item ends with the flush after that of the creation and of
    each item before it."""
    return {"FLOWKEEP_FAILPOINTS": f"{failpoint}=crash@{1 + ITEMS}", "FLOWKEEP_ENVIRONMENT": "test"}


@pytest.mark.parametrize(
    ("server", "max_parallel", "held", "again"),
    [
        pytest.param({}, 1, [0], [0], id="in the first item"),
        pytest.param({}, 4, [5, 6, 7, 8], [5, 6, 7, 8], id="with several in work"),
        pytest.param(armed("flush.before_commit"), 1, [], [ITEMS - 1], id="after the last item"),
        pytest.param(armed("flush.after_commit_before_ack"), 1, [], [], id="as the list has ended"),
    ],
    indirect=["server"],
)
async def test_killed_in_the_middle_of_a_list(
    server: ServerProcess, client: Client, effects: EffectServer, max_parallel: int, held: list[int], again: list[int]
) -> None:
    """Each item goes on from where it stood: only what was in work is called `again`."""
    fetch = call(effects, "fetch")
    fetch["params"]["url"] = f"{effects.url}/${{ item }}"
    body = [fetch, {"id": "note", "handler": "transform", "params": {"value": "${ index }"}}]
    output = "${ item }-${ steps.note.output }"
    repeat = {"items": "input.names", "max_parallel": max_parallel, "steps": body, "output": output}
    definition = {"name": "each", "steps": [{"id": "all", "for_each": repeat}], "output": "${ steps.all.output }"}
    gates = [effects.hold(f"/n{n}") for n in held]
    watcher = await start(client, definition, {"names": [f"n{n}" for n in range(ITEMS)]})
    if gates:
        await asyncio.gather(*(gate.arrived.wait() for gate in gates))
        await server.kill9()
    else:
        await server.death()
    for gate in gates:
        gate.opened.set()
    await server.restart()

    events = await check_watch(client, watcher)
    execution = await client.get_execution(watcher.execution_id)
    assert execution.state == Execution.STATE_COMPLETED
    assert from_value(execution.result) == [f"n{n}-{n}" for n in range(ITEMS)]
    each = [path for n in range(ITEMS) for path in (f"all[{n}].fetch", f"all[{n}].note")]
    completed = paths(events, "step_completed")
    assert (sorted(completed), completed[-1]) == (sorted([*each, "all"]), "all")
    assert max_parallel > 1 or completed == [*each, "all"]
    assert len(effects.by_key()) == ITEMS
    assert [len(effects.of(f"/n{n}")) for n in range(ITEMS)] == [1 + (n in again) for n in range(ITEMS)]

    page = await client.steps_page(steps_request(watcher.execution_id, page_size=200))
    assert [step.path for step in page.steps] == ["all", *each]
    assert (await client.get_step(watcher.execution_id, "all[10].note")).step.output.number_value == 10
