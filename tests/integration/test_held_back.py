"""What a paused workflow holds back starts once and not before the resume, whoever had it in hand when that came."""

from __future__ import annotations

import pytest

import flowkeep
from persistence import failpoints
from persistence.postgres.commit.session import CommitSession
from tests.integration.stage import Stage, ended, kinds, log, made, step
from tests.integration.test_workflow_pauses import log_so_far, start, state

State = flowkeep.Execution
SOON = 1.0
"""Seconds of a start delay that an execution is kept in memory for."""


async def in_hand(client: flowkeep.Client, name: str) -> str:
    """Start an execution that a server has in memory and will start soon: for a signal it had to look at."""
    execution_id = await start(client, name, start_delay=SOON)
    await client.signal(execution_id, "hello", {})
    return execution_id


async def test_what_is_in_hand_does_not_start_before_the_resume(client: flowkeep.Client, stage: Stage) -> None:
    name, other = await made(client, step("a")), await made(client, step("b"))
    execution_id = await in_hand(client, name)
    await client.pause_workflow(name)
    await ended(client, await in_hand(client, other))  # by then it would have started, too
    assert "started" not in kinds(await log_so_far(client, execution_id))
    assert await state(client, execution_id) == State.STATE_PENDING
    await client.resume_workflow(name)
    assert (await ended(client, execution_id)).state == State.STATE_COMPLETED
    assert stage.calls.count(("a", 1)) == 1


async def test_what_is_in_hand_ends_also_when_the_resume_comes_at_once(client: flowkeep.Client, stage: Stage) -> None:
    name = await made(client, step("a"))
    execution_id = await in_hand(client, name)
    await client.pause_workflow(name)
    await client.resume_workflow(name)
    assert (await ended(client, execution_id)).state == State.STATE_COMPLETED
    assert stage.calls == [("a", 1)]


async def test_a_creation_in_doubt_that_is_resumed_before_it_is_known_starts_once(
    client: flowkeep.Client, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = await made(client, step("a"), step("b"))
    await client.pause_workflow(name)
    read_back, resumed = CommitSession.read_back, list[str]()

    async def late(session, units):
        if not resumed:
            resumed.append(name)
            await client.resume_workflow(name)
        return await read_back(session, units)

    monkeypatch.setattr(CommitSession, "read_back", late)
    failpoints.arm({failpoints.SETTING: "flush.after_commit_before_ack=unknown@1", failpoints.ENVIRONMENT: "test"})
    try:
        execution_id = await start(client, name)
    finally:
        failpoints.arm({})
    assert (await ended(client, execution_id)).state == State.STATE_COMPLETED
    assert resumed == [name]
    assert stage.calls == [("a", 1), ("b", 1)]
    assert [each.step_started.path for each in await log(client, execution_id) if each.HasField("step_started")] == [
        "a",
        "b",
    ]
