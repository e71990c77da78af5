"""Executions hold what their definitions mean: an org starts no more than there is room for, and others do not wait."""

import gc

import pytest

import flowkeep
from service.engine import workflows
from tests.integration.stage import ended, eventually, made, step

State = flowkeep.Execution


@pytest.fixture
def room_for_two(monkeypatch):
    """No definition is kept, and two are as much as executions may hold."""
    monkeypatch.setattr(workflows, "_size", lambda definition: 1_000)
    monkeypatch.setattr(workflows, "KEPT_BYTES", 0)
    monkeypatch.setattr(workflows, "HELD_BYTES", 2_000)


@pytest.mark.usefixtures("room_for_two")
async def test_a_start_waits_while_others_of_its_org_hold_all_and_goes_on_after_them(serve, stage):
    client = (await serve(stage.handlers(), claim_interval=0.05)).client
    first = await client.execute(await made(client, step("a", "gate")))
    await stage.called("a")
    second = await client.execute(await made(client, step("b")))
    assert second.state == State.STATE_PENDING
    stage.open("gate")
    await ended(client, first.execution_id)

    async def has_ended():
        gc.collect()  # what an execution held may be part of a cycle
        return (await client.get_execution(second.execution_id)).state == State.STATE_COMPLETED

    await eventually(has_ended)
