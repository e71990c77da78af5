"""kill -9 in the middle of executions: each goes on by itself, and what was done is not done again.

Holds EX7, ST1, ST2, ST3, ST5, ST6, ST8, W1, W2, W3, W5, CA1.
"""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from flowkeep import Client, from_value
from flowkeep.v1.execution_pb2 import Execution
from tests.e2e.effects import EffectServer
from tests.e2e.history import Watcher, check_watch, paths
from tests.e2e.process import ServerProcess

COMPLETED = Execution.STATE_COMPLETED
TEN = [f"s{number}" for number in range(10)]


def call(effects: EffectServer, step: str, previous: str = "", **fields: Any) -> dict[str, Any]:
    """A step that calls the world, and passes on what the step before it was answered."""
    body = {"previous": f"${{ steps.{previous}.output.body.number }}"} if previous else {}
    params = {"url": f"{effects.url}/{step}", "method": "POST", "json": body}
    return {"id": step, "handler": "call_api", "params": params, **fields}


def ten_calls(effects: EffectServer, **fields: dict[str, Any]) -> dict[str, Any]:
    """A workflow of ten calls, one after the other; `fields` are added to the steps that they name."""
    steps = [call(effects, step, before, **fields.get(step, {})) for step, before in zip(TEN, ["", *TEN], strict=False)]
    return {"name": "ten", "steps": steps}


async def start(
    client: Client, definition: dict[str, Any], payload: dict[str, Any] | None = None, correlation_id: str = ""
) -> Watcher:
    """Start an execution of a new workflow, and watch it."""
    await client.create_workflow(definition)
    execution = await client.execute(definition["name"], payload or {}, correlation_id=correlation_id)
    return Watcher(client, execution.execution_id)


async def check_ten(client: Client, effects: EffectServer, watcher: Watcher) -> dict[str, int]:
    """Assert that ten effects happened, each under one key, and that each step saw what was recorded of the one before.

    Returns how often each step was called.
    """
    events = await check_watch(client, watcher)
    execution = await client.get_execution(watcher.execution_id)
    assert execution.state == COMPLETED
    assert (execution.progress_percent, execution.step_counts.completed, execution.last_seq) == (100, 10, len(events))
    assert paths(events, "step_completed") == TEN

    by_key = effects.by_key()
    assert [calls[0].path for calls in by_key.values()] == [f"/{step}" for step in TEN]
    for calls in by_key.values():
        assert len({each.path for each in calls}) == 1
        attempts = [each.attempt for each in calls]
        assert attempts == sorted(attempts)

    recorded = [from_value(step.output)["body"]["number"] for step in execution.steps]
    for number, calls, after in zip(recorded, by_key.values(), [*by_key.values()][1:], strict=False):
        assert number in [each.number for each in calls]
        assert {each.body["previous"] for each in after} == {number}
    return {calls[0].path[1:]: len(calls) for calls in by_key.values()}


@pytest.mark.parametrize("with_postgres", [False, True], ids=["server", "server-and-postgres"])
async def test_killed_while_a_call_is_in_flight(
    server: ServerProcess, client: Client, effects: EffectServer, with_postgres: bool
) -> None:
    cut = random.Random(f"in flight {with_postgres}").choice(TEN)
    gate = effects.hold(f"/{cut}")
    watcher = await start(client, ten_calls(effects))
    await gate.arrived.wait()
    await server.kill9(with_postgres=with_postgres)
    gate.opened.set()
    await server.restart()

    times_called = await check_ten(client, effects, watcher)
    # The server cannot know what became of the call that was in flight, and of no other.
    assert times_called == {step: 2 if step == cut else 1 for step in TEN}


@pytest.mark.parametrize("with_postgres", [False, True], ids=["server", "server-and-postgres"])
@pytest.mark.parametrize("seed", [1, 2])
async def test_killed_around_the_record_of_a_step(
    server: ServerProcess, client: Client, effects: EffectServer, seed: int, with_postgres: bool
) -> None:
    draw = random.Random(f"answered {seed} {with_postgres}")
    step, instant = draw.choice(TEN), draw.uniform(0, 0.004)
    watcher = await start(client, ten_calls(effects))
    await effects.answered(f"/{step}")
    await asyncio.sleep(instant)  # a random instant: before, in or after the commit of the step
    await server.kill9(with_postgres=with_postgres)
    await server.restart()

    times_called = await check_ten(client, effects, watcher)
    assert sorted(times_called.values()) in ([1] * 10, [1] * 9 + [2])


async def test_killed_again_and_again(server: ServerProcess, client: Client, effects: EffectServer) -> None:
    draw = random.Random("again and again")
    cuts = sorted(draw.sample(TEN, 3))
    gates = {cut: effects.hold(f"/{cut}") for cut in cuts}
    watcher = await start(client, ten_calls(effects))
    for gate in gates.values():
        await gate.arrived.wait()
        await server.kill9(with_postgres=draw.random() < 0.5)
        gate.opened.set()
        await server.restart()

    assert await check_ten(client, effects, watcher) == {step: 2 if step in cuts else 1 for step in TEN}


async def test_killed_while_branches_run_in_parallel(
    server: ServerProcess, client: Client, effects: EffectServer
) -> None:
    draw = random.Random("parallel")
    branches = range(6)
    steps = [call(effects, "root")]
    for branch in branches:
        steps.append(call(effects, f"a{branch}", "root", depends_on=["root"]))
        steps.append(call(effects, f"b{branch}", f"a{branch}", depends_on=[f"a{branch}"]))
    steps.append(call(effects, "join", depends_on=[f"b{branch}" for branch in branches]))
    held = [f"{draw.choice('ab')}{branch}" for branch in draw.sample(branches, draw.randint(2, 5))]
    gates = [effects.hold(f"/{step}") for step in held]

    watcher = await start(client, {"name": "branches", "ordering": "GRAPH", "steps": steps})
    for gate in gates:
        await gate.arrived.wait()
    for branch in branches:
        if not {f"a{branch}", f"b{branch}"} & set(held):
            await watcher.until("step_completed", f"b{branch}")
    await server.kill9()
    for gate in gates:
        gate.opened.set()
    await server.restart()

    events = await check_watch(client, watcher)
    assert events[-1].finished.state == COMPLETED
    assert sorted(paths(events, "step_completed")) == sorted(step["id"] for step in steps)
    called = {calls[0].path[1:]: len(calls) for calls in effects.by_key().values()}
    assert called == {step["id"]: 2 if step["id"] in held else 1 for step in steps}


@pytest.mark.parametrize("server", [{}, {"FLOWKEEP_PARK_AFTER": "0.5"}], ids=["kept", "parked"], indirect=True)
@pytest.mark.parametrize("with_postgres", [False, True], ids=["server", "server-and-postgres"])
async def test_killed_during_a_durable_wait(
    server: ServerProcess, client: Client, effects: EffectServer, with_postgres: bool
) -> None:
    pause = {"id": "pause", "handler": "wait", "params": {"duration": 3}}
    steps = [call(effects, "before"), pause, call(effects, "after", "before")]
    watcher = await start(client, {"name": "pausing", "steps": steps})
    wake_time = (await watcher.until("step_waiting", "pause")).step_waiting.wait.wake_time
    await server.kill9(with_postgres=with_postgres)
    await server.restart()

    events = await check_watch(client, watcher)
    assert events[-1].finished.state == COMPLETED
    assert paths(events, "step_waiting") == ["pause"]
    assert [each.path for each in effects.calls] == ["/before", "/after"]
    assert effects.of("/after")[0].time.timestamp() >= wake_time.ToMilliseconds() / 1000


async def test_killed_during_the_pause_before_a_retry(
    server: ServerProcess, client: Client, effects: EffectServer
) -> None:
    policy = {"retry_policy": {"max_attempts": 3, "initial_interval": 3, "jitter": 0}}
    effects.fail("/s4", 503)
    watcher = await start(client, ten_calls(effects, s4=policy))
    retry_time = (await watcher.until("step_retrying", "s4")).step_retrying.retry_time
    await server.kill9()
    await server.restart()

    times_called = await check_ten(client, effects, watcher)
    assert times_called == {step: 2 if step == "s4" else 1 for step in TEN}
    first, second = effects.of("/s4")
    assert (first.key, first.attempt, second.attempt) == (second.key, 1, 2)
    assert second.time.timestamp() >= retry_time.ToMilliseconds() / 1000


async def test_a_stop_in_the_middle_is_quick_and_nothing_is_lost(
    server: ServerProcess, client: Client, effects: EffectServer
) -> None:
    gate = effects.hold("/s5")
    watcher = await start(client, ten_calls(effects))
    await gate.arrived.wait()
    async with asyncio.timeout(25):
        code, said = await server.terminate()
    assert (code, said.splitlines()[-1]) == (0, "Stopped.")
    gate.opened.set()
    await server.restart()

    assert await check_ten(client, effects, watcher) == {step: 2 if step == "s5" else 1 for step in TEN}


async def test_a_step_that_must_run_once_is_not_started_again(
    server: ServerProcess, client: Client, effects: EffectServer
) -> None:
    gate = effects.hold("/s3")
    watcher = await start(client, ten_calls(effects, s3={"delivery": "AT_MOST_ONCE"}))
    await gate.arrived.wait()
    await server.kill9()
    gate.opened.set()
    await server.restart()

    events = await check_watch(client, watcher)
    assert events[-1].finished.state == Execution.STATE_FAILED
    assert (await watcher.until("step_failed", "s3")).step_failed.failure.code == "OUTCOME_UNKNOWN"
    assert [each.path for each in effects.calls] == ["/s0", "/s1", "/s2", "/s3"]


async def test_a_cancel_that_was_acknowledged_survives_a_kill(
    server: ServerProcess, client: Client, effects: EffectServer
) -> None:
    gate = effects.hold("/s3")
    watcher = await start(client, ten_calls(effects))
    await gate.arrived.wait()
    await client.cancel(watcher.execution_id, "changed my mind")
    await server.kill9(with_postgres=True)
    gate.opened.set()
    await server.restart()

    finished = (await check_watch(client, watcher))[-1].finished
    assert finished.state == Execution.STATE_CANCELLED
    assert [each.path for each in effects.calls] == ["/s0", "/s1", "/s2", "/s3"]
