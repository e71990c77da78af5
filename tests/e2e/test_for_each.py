"""Steps of a list's items: watched to the end, killed in the middle, listed by the numbers of their items."""

from __future__ import annotations

from flowkeep import Client, from_value
from flowkeep.requests import steps_request
from flowkeep.v1.execution_pb2 import Execution
from tests.e2e.effects import EffectServer
from tests.e2e.history import check_watch, paths
from tests.e2e.process import ServerProcess
from tests.e2e.test_crash import call, start

ITEMS = 12


async def test_killed_in_the_middle_of_a_list(server: ServerProcess, client: Client, effects: EffectServer) -> None:
    """Each item goes on from where it stood: what had completed is not called again."""
    body = [call(effects, "fetch"), {"id": "note", "handler": "transform", "params": {"value": "${ index }"}}]
    repeat = {"items": "input.names", "max_parallel": 1, "steps": body, "output": "${ item }-${ steps.note.output }"}
    definition = {"name": "each", "steps": [{"id": "all", "for_each": repeat}], "output": "${ steps.all.output }"}
    gate = effects.hold("/fetch")
    watcher = await start(client, definition, {"names": [f"n{n}" for n in range(ITEMS)]})
    await gate.arrived.wait()
    await server.kill9()
    gate.opened.set()
    await server.restart()

    events = await check_watch(client, watcher)
    execution = await client.get_execution(watcher.execution_id)
    assert execution.state == Execution.STATE_COMPLETED
    assert from_value(execution.result) == [f"n{n}-{n}" for n in range(ITEMS)]
    each = [path for n in range(ITEMS) for path in (f"all[{n}].fetch", f"all[{n}].note")]
    assert paths(events, "step_completed") == [*each, "all"]
    assert len(effects.by_key()) == ITEMS
    assert len(effects.of("/fetch")) == ITEMS + 1

    page = await client.steps_page(steps_request(watcher.execution_id, page_size=200))
    kinds = ("fetch", "note")
    assert [step.path for step in page.steps] == ["all", *(f"all[{n}].{kind}" for kind in kinds for n in range(ITEMS))]
    assert (await client.get_step(watcher.execution_id, "all[10].note")).step.output.number_value == 10
