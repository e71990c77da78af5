"""The blocking client, against a real server in another thread's event loop."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Iterator
from typing import Any

import pytest

import flowkeep
from tests.integration.stage import Served
from tests.patience import PATIENCE

HELLO = {
    "name": "hello",
    "steps": [{"id": "greet", "handler": "transform", "params": {"value": "Hello ${ input.name }!"}}],
}
WAITING = {"name": "waiting", "steps": [{"id": "pause", "handler": "wait", "params": {"duration": "1h"}}]}


@pytest.fixture
def client(served: Served) -> Iterator[flowkeep.sync.Client]:
    """A blocking client of the server."""
    with flowkeep.sync.Client(served.target, timeout=f"{PATIENCE:g}s") as client:
        yield client


def methods(kind: type) -> set[str]:
    """The names of what callers use."""
    return {name for name, member in inspect.getmembers(kind, callable) if not name.startswith("_")}


def test_it_has_every_method_of_the_other_client():
    assert methods(flowkeep.sync.Client) == methods(flowkeep.Client)


async def test_workflows_and_executions_are_used_without_await(client: flowkeep.sync.Client):
    def use() -> None:
        (applied,) = client.apply(HELLO)
        assert applied.workflow.revision == 1
        assert client.run("hello", {"name": "you"}) == "Hello you!"
        execution = client.execute("hello", {"name": "me"})
        assert client.result(execution.execution_id) == "Hello me!"
        assert next(client.watch(execution.execution_id)).seq == 1
        (step,) = client.list_steps(execution.execution_id, view=flowkeep.StepView.STEP_VIEW_FULL, page_size=1)
        assert step == client.get_step(execution.execution_id, step.path).step
        assert len(list(client.list_executions(workflow="hello", created_from="2h", page_size=1))) == 2
        waited = client.execute("hello", {"name": "me"}, wait=True)
        assert (flowkeep.from_value(waited.result), list(waited.steps)) == ("Hello me!", [])
        view = flowkeep.ExecutionView.EXECUTION_VIEW_FULL
        whole = client.execute("hello", {"name": "me"}, request_id=waited.request_id, wait=True, view=view)
        assert (whole.execution_id, len(whole.steps)) == (waited.execution_id, 1)
        assert [workflow.name for workflow in client.list_workflows()] == ["hello"]
        with pytest.raises(flowkeep.NotFoundError):
            client.get_workflow("none")

    await asyncio.to_thread(use)


@pytest.mark.usefixtures("prompt")
async def test_a_watch_that_is_left_ends_its_stream(served: Served, client: flowkeep.sync.Client):
    def use() -> str:
        client.create_workflow(WAITING)
        execution_id = client.execute("waiting").execution_id
        for event in client.watch(execution_id):
            if event.HasField("step_waiting"):
                break
        client.cancel(execution_id)
        return execution_id

    execution_id = await asyncio.to_thread(use)
    execution = await served.client.get_execution(execution_id)
    assert execution.state == flowkeep.Execution.STATE_CANCELLED


async def test_threads_share_a_client(client: flowkeep.sync.Client):
    await asyncio.to_thread(client.apply, [HELLO])
    names = [str(number) for number in range(8)]
    greetings = await asyncio.gather(*(asyncio.to_thread(client.run, "hello", {"name": name}) for name in names))
    assert greetings == [f"Hello {name}!" for name in names]


async def test_closing_ends_the_thread_and_calls_under_way(served: Served):
    client = flowkeep.sync.Client(served.target)
    await asyncio.to_thread(client.create_workflow, WAITING)
    execution = await asyncio.to_thread(client.execute, "waiting")
    waiting = asyncio.create_task(asyncio.to_thread(client.result, execution.execution_id))
    async with asyncio.timeout(PATIENCE):
        async for event in served.client.watch(execution.execution_id):
            if event.HasField("step_waiting"):
                break
        await asyncio.to_thread(client.close)
        with pytest.raises((asyncio.CancelledError, flowkeep.FlowkeepError)):
            await waiting
    assert "flowkeep-client" not in {thread.name for thread in threading.enumerate()}
    client.close()


async def test_a_watch_that_is_left_while_the_client_closes_does_not_wait_for_it(
    served: Served, monkeypatch: pytest.MonkeyPatch
):
    client = flowkeep.sync.Client(served.target)
    await asyncio.to_thread(client.create_workflow, WAITING)
    execution = await asyncio.to_thread(client.execute, "waiting")
    events: Any = client.watch(execution.execution_id)
    await asyncio.to_thread(next, events)
    left = threading.Event()
    join = client._thread.join

    def leave() -> None:
        events.close()
        left.set()

    def join_and_leave() -> None:
        join()  # its loop runs no more, and is not closed yet
        threading.Thread(target=leave, daemon=True).start()
        assert left.wait(PATIENCE)

    monkeypatch.setattr(client._thread, "join", join_and_leave)
    await asyncio.to_thread(client.close)
