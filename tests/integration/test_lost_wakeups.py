"""No wake-up is lost in a healthy run: the process that something concerns is told of it, and no look finds more."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest
from msgspec import structs

import flowkeep
from persistence import failpoints
from persistence.model import Message
from persistence.transition import Letter, Transition
from service.engine import finds
from service.engine.running import sweeper
from service.engine.running.listener import Listener
from service.engine.running.run import Run
from tests.integration.conftest import Engines, Serve, found
from tests.integration.stage import Stage, ended, eventually, log, made, step, wait_step

State = flowkeep.Execution


async def test_a_healthy_run_finds_nothing_by_looking(serve: Serve, stage: Stage, engines: Engines) -> None:
    one = await serve(park_after=0.2, watch_poll=2.0)
    two = await serve(park_after=0.2, watch_poll=2.0)
    lacking = await serve(handlers=[], park_after=0.2, watch_poll=2.0)
    short = await made(one.client, step("a"), wait_step("pause", 0.5), step("b"))
    plain = await made(one.client, wait_step("pause", 0.01), step("a"))
    gated = await made(one.client, step("a", "gate"), step("b"))
    parked = [await served.client.execute(short) for served in (one, two) for _ in range(5)]
    delayed = await two.client.execute(plain, start_delay=0.5)
    handed = [await lacking.client.execute(plain) for _ in range(3)]
    stopped = await one.client.execute(gated)
    await stage.called("a")
    watching = asyncio.create_task(log(two.client, stopped.execution_id))
    await two.client.cancel(stopped.execution_id)
    for execution in (*parked, delayed, *handed):
        assert (await ended(one.client, execution.execution_id)).state == State.STATE_COMPLETED
    await watching
    assert await found(engines) == {}


async def test_what_only_a_look_finds_is_counted(
    serve: Serve, stage: Stage, engines: Engines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finds, "PATIENCE", 0.0)
    monkeypatch.setattr(Listener, "_hear", lambda self, news: None)
    one, two = await serve(watch_poll=0.1), await serve(watch_poll=0.1)
    execution = await one.client.execute(await made(one.client, step("a", "gate")))
    await stage.called("a")
    watching = aiter(two.client.watch(execution.execution_id))
    await anext(watching)
    await two.client.cancel(execution.execution_id)
    assert [event async for event in watching]
    assert (await found(engines)).keys() >= {"messages", "events"}
    engines.clear()


@pytest.mark.parametrize("first", [step("a", "gate"), wait_step()], ids=["running", "parked"])
async def test_a_look_that_is_quicker_than_what_hands_a_message_in_hides_no_lost_wakeup(
    serve: Serve, engines: Engines, monkeypatch: pytest.MonkeyPatch, first: dict[str, Any]
) -> None:
    served = await serve()
    execution_id = (await served.client.execute(await made(served.client, first))).execution_id

    async def reach(name: str) -> None:
        if name == "message.after_commit_before_delivery":
            await ended(served.client, execution_id)

    monkeypatch.setattr(failpoints, "reach", reach)
    assert (await served.client.cancel(execution_id)).execution.state == State.STATE_CANCELLED
    assert await found(engines) == {}


async def test_a_letter_is_told_to_who_runs_here_and_to_who_is_parked(
    serve: Serve, stage: Stage, admin: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweeper, "SWEEP_INTERVAL", 1000.0)
    served = await serve(claim_interval=1000.0, park_after=0.0)
    gated = await made(served.client, step("a", "gate"))
    running = UUID((await served.client.execute(gated)).execution_id)
    parked = UUID((await served.client.execute(await made(served.client, wait_step()))).execution_id)
    await stage.called("a")

    async def is_parked() -> bool:
        return bool(await admin.fetchval("SELECT wake_time IS NOT NULL FROM executions WHERE id = $1", parked))

    await eventually(is_parked)
    message = Message(uuid4(), "CHILD_ENDED", datetime.now(UTC), "test", {})

    def sending(*arguments: Any, **named: Any) -> Transition:
        transition = before(*arguments, **named)
        if transition.execution_id in (running, parked) or not transition.events:
            return transition
        return structs.replace(transition, letters=[Letter(running, message), Letter(parked, message)])

    with monkeypatch.context() as patch:
        before = Run._transition
        patch.setattr(Run, "_transition", sending)
        await ended(served.client, (await served.client.execute(await made(served.client, step("b")))).execution_id)

    async def are_seen() -> bool:
        return not await admin.fetchval(
            "SELECT count(*) FROM messages WHERE execution_id = ANY ($1)", [running, parked]
        )

    await eventually(are_seen)
