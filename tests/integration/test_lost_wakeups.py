"""No wake-up is lost in a healthy run: the process that something concerns is told of it, and no look finds more."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

import flowkeep
from service import app
from service.engine.running import finds
from service.engine.running.listener import Listener
from tests.integration.conftest import Log, Serve
from tests.integration.stage import Stage, ended, log, made, step, wait_step

State = flowkeep.Execution


@pytest.fixture
def engines(monkeypatch: pytest.MonkeyPatch) -> list[app.Engine]:
    """The engines of all servers that are started."""
    built: list[app.Engine] = []

    def build(*arguments: object, **named: object) -> app.Engine:
        built.append(before(*arguments, **named))  # type: ignore[arg-type]
        return built[-1]

    before = app.build_engine
    monkeypatch.setattr(app, "build_engine", build)
    monkeypatch.setattr(finds, "PATIENCE", 2.0)
    return built


def found(engines: list[app.Engine]) -> Counter[str]:
    """What was found without a reason, by all servers."""
    counts: Counter[str] = Counter()
    for engine in engines:
        counts += engine.runner.context.finds.counts
        counts["events"] += engine.hub.finds
    return +counts


async def test_a_healthy_run_finds_nothing_by_looking(
    serve: Serve, stage: Stage, engines: list[app.Engine], mistakes: Log
) -> None:
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
    # For a look that was quicker than its reason.
    await asyncio.sleep(finds.PATIENCE)
    assert found(engines) == {}


async def test_what_only_a_look_finds_is_counted(
    serve: Serve, stage: Stage, engines: list[app.Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finds, "PATIENCE", 0.0)
    monkeypatch.setattr(Listener, "_hear", lambda self, news: None)
    one, two = await serve(watch_poll=0.1), await serve(watch_poll=0.1)
    execution = await one.client.execute(await made(one.client, step("a", "gate")))
    await stage.called("a")
    await two.client.cancel(execution.execution_id)
    await log(two.client, execution.execution_id)
    assert found(engines).keys() >= {"messages", "events"}
