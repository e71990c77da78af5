"""kill -9 at the most delicate moments of what callers ask of executions: it happens once, and nothing done does again.

Holds CA5, CA6, CA7, CA8, CA10, RE1, RE2, RE3, RE4, ST14, ST15.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

import asyncpg
import pytest

from flowkeep import Client, ExecutionEvent, from_value
from flowkeep.v1.bulk_pb2 import Bulk, BulkResult
from flowkeep.v1.execution_pb2 import Execution
from tests.e2e.commands import shown
from tests.e2e.effects import EffectServer
from tests.e2e.history import fresh_watch, is_of, paths
from tests.e2e.process import ServerProcess
from tests.e2e.test_crash import call, start
from tests.patience import PATIENCE

PARKS = {"FLOWKEEP_PARK_AFTER": "0.1"}


def armed(failpoint: str) -> Mapping[str, str]:
    """Return the settings of a server that dies there."""
    return {**PARKS, "FLOWKEEP_FAILPOINTS": failpoint, "FLOWKEEP_ENVIRONMENT": "test"}


KEPT = "message.after_commit_before_delivery=crash"
"""What was asked for is kept, and nobody has heard of it."""
TAKEN = "flush.before_commit=crash"
"""The transition that it asks for is about to be committed."""
DONE = "flush.after_commit_before_ack=crash"
"""It is committed, and nobody has heard of it."""


async def until(client: Client, execution_id: str, kind: str, count: int = 1) -> None:
    """Return when so many events of a kind have come."""
    async with asyncio.timeout(PATIENCE):
        async for event in client.watch(execution_id):
            count -= kind_of(event) == kind
            if not count:
                return


async def parked(server: ServerProcess, execution_id: str) -> None:
    """Return when nobody drives an execution, so that the next commit is of what it is asked for."""
    connection = await asyncpg.connect(server.dsn)
    async with asyncio.timeout(PATIENCE):
        owner = "SELECT incarnation FROM executions WHERE id = $1::text::uuid"
        while await connection.fetchval(owner, execution_id):  # noqa: ASYNC110 - the other process signals nothing
            await asyncio.sleep(0.05)
    await connection.close()


def kind_of(event: ExecutionEvent) -> str:
    """Return the kind of an event, empty where a step assigns variables: nobody has asked for that."""
    return "" if event.variables_assigned.path else event.WhichOneof("kind") or ""


def kinds(events: list[ExecutionEvent]) -> Counter[str]:
    """Return how many events there are of each kind."""
    return Counter(map(kind_of, events))


@dataclass(frozen=True)
class Row:
    """What is asked of an execution, which event it gives, and what is done before it and after it until the end."""

    event: str
    ask: Callable[[Client, str], Awaitable[object]]
    before: Callable[[Client, str], Awaitable[object]] | None = None
    after: tuple[Callable[[Client, str], Awaitable[object]], ...] = ()
    end: Execution.State.ValueType = Execution.STATE_COMPLETED
    called: str = "/after"
    """What the last step calls."""


WORKFLOW, THING = "asked", "A-17"
"""Whose execution is asked, and what it belongs to."""
WAITS = {"id": "waits", "handler": "wait_signal", "params": {"name": "go"}}


async def go(client: Client, execution_id: str) -> None:
    """Send the signal that the execution waits for."""
    await client.signal(execution_id, "go", {"n": 7})


async def hold(client: Client, execution_id: str) -> None:
    """Hold the execution before its last step."""
    await client.set_breakpoints(execution_id, ["after"])
    await go(client, execution_id)
    await until(client, execution_id, "paused")


async def change(client: Client, execution_id: str) -> None:
    """Let the last step be called with something else."""
    step = (await client.get_step(execution_id, "after")).step
    await client.edit_step_input(execution_id, "after", {"method": "POST", "url": f"{step.input['url']}/edited"})


async def set_variable(client: Client, execution_id: str) -> None:
    """Set the variable that the last step is called with."""
    await client.edit_variables(execution_id, {"place": "after/edited"})


ROWS = {
    "signal": Row("signal_received", go),
    "signal-with-start": Row("signal_received", lambda c, _: c.signal_with_start(WORKFLOW, THING, "go", {"n": 7})),
    "pause": Row("paused", lambda c, e: c.pause(e, "lunch"), after=(lambda c, e: c.resume(e), go)),
    "resume": Row("resumed", lambda c, e: c.resume(e), before=lambda c, e: c.pause(e), after=(go,)),
    "edit": Row("step_edited", change, before=hold, after=(lambda c, e: c.resume(e),), called="/after/edited"),
    "variables": Row(
        *("variables_assigned", set_variable), before=hold, after=(lambda c, e: c.resume(e),), called="/after/edited"
    ),
    "terminate": Row("cancelling", lambda c, e: c.terminate(e), end=Execution.STATE_CANCELLED),
}


@pytest.mark.parametrize("server", [PARKS], indirect=True)
@pytest.mark.parametrize("failpoint", [KEPT, TAKEN, DONE], ids=["kept", "taken", "done"])
@pytest.mark.parametrize("asked", ROWS)
async def test_what_is_asked_of_an_execution_happens_once(
    server: ServerProcess, client: Client, effects: EffectServer, asked: str, failpoint: str
) -> None:
    row = ROWS[asked]
    waits = {**WAITS, "assign": {"place": "'after'"}}
    after = call(effects, "after", params={"url": f"{effects.url}/${{ vars.place }}", "method": "POST"})
    definition = {"name": WORKFLOW, "steps": [call(effects, "first"), waits, after]}
    watcher = await start(client, definition, correlation_id=THING)
    execution_id = watcher.execution_id
    await until(client, execution_id, "step_waiting")
    if row.before is not None:
        await row.before(client, execution_id)
    await parked(server, execution_id)
    await server.kill9()
    await server.restart(armed(failpoint))
    asking = asyncio.ensure_future(row.ask(client, execution_id))
    async with asyncio.timeout(PATIENCE):
        await server.death()
    await server.restart(PARKS)
    async with asyncio.timeout(PATIENCE):
        await asking  # the client has sent it again, under the same request id
    await until(client, execution_id, row.event)
    for follows in row.after:
        await follows(client, execution_id)

    events = await watcher.ended()
    assert events == await fresh_watch(client, execution_id)
    assert events[-1].finished.state == row.end
    assert kinds(events)[row.event] == 1
    is_gone_on = row.end == Execution.STATE_COMPLETED
    assert paths(events, "step_completed") == (["first", "waits", "after"] if is_gone_on else ["first"])
    assert [each.path for each in effects.calls] == ["/first", *[row.called] * is_gone_on]
    taken = [list(event.step_completed.signal_ids) for event in events if is_of(event, "step_completed", "waits")]
    assert [len(ids) for ids in taken] == [1] * is_gone_on


@pytest.mark.parametrize("failpoint", ["exec.after_insert_before_commit", "exec.after_commit_before_reply"])
async def test_a_signal_that_starts_an_execution_starts_one_and_comes_once(
    server: ServerProcess, client: Client, effects: EffectServer, failpoint: str
) -> None:
    await client.create_workflow({"name": WORKFLOW, "steps": [WAITS, {**WAITS, "id": "rests"}, call(effects, "after")]})
    await server.kill9()
    await server.restart(armed(f"{failpoint}=crash"))
    asking = asyncio.create_task(client.signal_with_start(WORKFLOW, THING, "go", {"n": 7}))
    async with asyncio.timeout(PATIENCE):
        await server.death()
    await server.restart(PARKS)
    async with asyncio.timeout(PATIENCE):
        sent = await asking  # the client has sent it again, under the same request id
    assert sent.started == (failpoint == "exec.after_insert_before_commit")
    execution_id = sent.execution.execution_id
    assert [each.execution_id async for each in client.list_executions()] == [execution_id]
    other = await client.signal_with_start(WORKFLOW, THING, "go", {"n": 8})
    assert (other.execution.execution_id, other.started) == (execution_id, False)
    await until(client, execution_id, "finished")
    events = await fresh_watch(client, execution_id)
    assert [kind_of(event) for event in events[:3]] == ["created", "signal_received", "started"]
    came = [event.signal_received.signal_id for event in events if is_of(event, "signal_received")]
    assert came == [sent.signal_id, other.signal_id]
    taken = [list(event.step_completed.signal_ids) for event in events if event.step_completed.signal_ids]
    assert taken == [[sent.signal_id], [other.signal_id]]
    assert paths(events, "step_completed") == ["waits", "rests", "after"]
    assert [each.path for each in effects.calls] == ["/after"]


async def failed(client: Client, effects: EffectServer) -> str:
    """Return an execution of which the last step has failed."""
    effects.fail("/last", 400)
    watcher = await start(client, {"name": "mended", "steps": [call(effects, "first"), call(effects, "last", "first")]})
    await watcher.ended()
    return watcher.execution_id


async def test_what_was_not_committed_of_a_retry_is_done_once_when_it_is_asked_again(
    server: ServerProcess, client: Client, effects: EffectServer
) -> None:
    execution_id = await failed(client, effects)
    before = await fresh_watch(client, execution_id)
    await server.kill9()
    await server.restart(armed("retry.before_commit=crash"))
    given = {"method": "POST", "url": f"{effects.url}/edited"}
    retrying = asyncio.create_task(client.retry(execution_id, "mended", edit=("last", given)))
    async with asyncio.timeout(PATIENCE):
        await server.death()
    await server.restart({})
    async with asyncio.timeout(PATIENCE):
        assert (await retrying).run == 2
    await until(client, execution_id, "finished", 2)
    events = await fresh_watch(client, execution_id)
    assert events[: len(before)] == before and events[-1].finished.state == Execution.STATE_COMPLETED
    assert kinds(events)["reopened"] == 1
    assert [len(effects.of(f"/{each}")) for each in ("first", "last", "edited")] == [1, 1, 1]


async def test_what_was_not_committed_of_a_fork_is_made_once_when_it_is_asked_again(
    server: ServerProcess, client: Client, effects: EffectServer
) -> None:
    source = await failed(client, effects)
    before = await client.get_execution(source)
    await server.kill9()
    await server.restart(armed("fork.before_commit=crash"))
    forking = asyncio.create_task(client.fork(source, "last"))
    async with asyncio.timeout(PATIENCE):
        await server.death()
    await server.restart({})
    async with asyncio.timeout(PATIENCE):
        fork = (await forking).execution.execution_id
    await until(client, fork, "finished")
    after = await client.get_execution(source)
    assert [each.execution_id for each in after.forks] == [fork]
    after.ClearField("forks")
    assert after == before
    made = await client.get_execution(fork)
    assert (made.state, from_value(made.steps[0].output)) == (
        Execution.STATE_COMPLETED,
        from_value(before.steps[0].output),
    )
    assert [len(effects.of(f"/{each}")) for each in ("first", "last")] == [1, 2]


MANY = 24
"""Executions: more than are in a step of an operation."""

BROKEN = "{name: broken, steps: [{id: divide, handler: transform, params: {expression: 1 / input.zero}}]}"
"""Fails for the input that there is none of, also when it is retried."""


@pytest.mark.parametrize("failpoint", ["bulk.before_step=crash@2", "bulk.after_step_before_delivery=crash@1"])
async def test_an_operation_in_bulk_retries_each_once_over_a_crash(
    server: ServerProcess, client: Client, failpoint: str
) -> None:
    """Whatever was retried before the crash and not recorded."""
    await shown(server.target, "apply", "-", given=BROKEN)
    ids = [(await client.execute("broken", {"zero": 0})).execution_id for _ in range(MANY)][::-1]
    for each in ids:
        await until(client, each, "finished")
    await server.kill9()
    await server.restart(armed(failpoint))
    bulk = await client.start_bulk("retry", workflow="broken")
    async with asyncio.timeout(PATIENCE):
        await server.death()
    await server.restart({})
    async with asyncio.timeout(PATIENCE):
        async for each_time in client.watch_bulk(bulk.bulk_id):
            bulk = each_time
    assert (bulk.state, bulk.done_count) == (Bulk.STATE_COMPLETED, MANY)
    results = [each async for each in client.list_bulk_results(bulk.bulk_id)]
    assert [each.execution_id for each in results] == ids
    assert {each.outcome for each in results} == {BulkResult.OUTCOME_DONE}
    for each in ids:
        await until(client, each, "finished", 2)
        assert kinds(await fresh_watch(client, each))["reopened"] == 1
