"""Operations in bulk from end to end: each execution is asked once, by who started it, as its history says."""

import asyncio

import pytest

import flowkeep
from flowkeep.v1.bulk_pb2 import Bulk, BulkResult
from tests.integration.stage import log, made, step, wait_step

State = flowkeep.Execution
RUNNING, COMPLETED, STOPPED = Bulk.STATE_RUNNING, Bulk.STATE_COMPLETED, Bulk.STATE_STOPPED


async def some(client, count, *steps):
    """The name of a workflow, and the ids of so many executions of it, newest first."""
    name = await made(client, *(steps or (wait_step(),)))
    return name, [(await client.execute(name)).execution_id for _ in range(count)][::-1]


async def ended(client, bulk):
    """An operation at its end, with its results."""
    async for each in client.watch_bulk(bulk.bulk_id):
        bulk = each
    assert bulk == await client.get_bulk(bulk.bulk_id)
    found = [(each.execution_id, each.outcome) async for each in client.list_bulk_results(bulk.bulk_id, page_size=2)]
    return bulk, found


async def states(client, ids):
    return [(await client.get_execution(each)).state for each in ids]


def done(ids):
    return [(each, BulkResult.OUTCOME_DONE) for each in ids]


async def test_what_meets_the_filter_is_paused_resumed_and_cancelled(client):
    name, ids = await some(client, 5)
    other = (await client.execute((await some(client, 0))[0])).execution_id
    seen = await client.preview_bulk("pause", workflow=name, limit=4)
    assert (seen.matched_count, seen.matched_at_least) == (4, False)
    assert [each.execution_id for each in seen.sample] == ids[:4]
    assert await states(client, ids) == [State.STATE_RUNNING] * 5

    pause, found = await ended(client, await client.start_bulk("pause", workflow=name, stop_deadline=True, limit=4))
    assert (pause.state, pause.done_count, pause.matched_count, found) == (COMPLETED, 4, 4, done(ids[:4]))
    assert pause.action.pause.stop_deadline and pause.filter.workflow == name
    await asyncio.gather(*(reaches(client, each, "paused") for each in ids[:4]))
    resume, found = await ended(client, await client.start_bulk("resume", workflow=name, reason="on", rate=1_000))
    assert found == done(ids[:4])
    cancel, found = await ended(client, await client.start_bulk("cancel", workflow=name, reason="enough"))
    assert found == done(ids)
    for each in ids:
        events = await log(client, each)
        (cancelling,) = [event.cancelling for event in events if event.HasField("cancelling")]
        assert (cancelling.cancelled_by, cancelling.reason) == ("developer", "enough")
        assert cancelling.bulk_id == cancel.bulk_id
        told = [(e.paused.bulk_id, e.paused.stop_deadline) for e in events if e.HasField("paused")]
        assert told == ([(pause.bulk_id, True)] if each in ids[:4] else [])
        resumed = [(e.resumed.bulk_id, e.resumed.reason) for e in events if e.HasField("resumed")]
        assert resumed == ([(resume.bulk_id, "on")] if each in ids[:4] else [])
    assert await states(client, [*ids, other]) == [State.STATE_CANCELLED] * 5 + [State.STATE_RUNNING]
    listed = [each async for each in client.list_bulks(states=["COMPLETED"], page_size=2)]
    assert [each.bulk_id for each in listed][:3] == [cancel.bulk_id, resume.bulk_id, pause.bulk_id]


async def test_what_failed_is_retried(client, stage):
    name, ids = await some(client, 3, step("a", "fail", times=1, retryable=False))
    await asyncio.gather(*(reaches(client, each, "finished") for each in ids))
    bulk, found = await ended(client, await client.start_bulk("retry", workflow=name, timeout="1h", reason="mended"))
    assert found == done(ids) and bulk.action.retry.timeout.seconds == 3_600
    for each in ids:
        events = await log(client, each)
        (reopened,) = [event.reopened for event in events if event.HasField("reopened")]
        assert (reopened.reopened_by, reopened.reason, reopened.bulk_id) == ("developer", "mended", bulk.bulk_id)


async def test_a_request_starts_one_operation_which_can_be_stopped(client):
    name, ids = await some(client, 3)
    first = await client.start_bulk("terminate", workflow=name, rate=1, request_id="once")
    again = await client.start_bulk("terminate", workflow=name, rate=1, request_id="once")
    assert again.bulk_id == first.bulk_id
    with pytest.raises(flowkeep.AlreadyExistsError):
        await client.start_bulk("terminate", workflow=name, rate=2, request_id="once")
    await reaches(client, ids[0], "finished")
    stopped = await client.stop_bulk(first.bulk_id)
    assert (stopped.state, stopped.stopped_by) == (STOPPED, "developer")
    bulk, found = await ended(client, first)
    assert bulk == stopped and found == done(ids[: bulk.done_count])


async def test_what_cannot_be_meant_is_refused(client):
    for options, field in (
        ({"states": ["RUNNING"]}, "filter"),
        ({"workflow": "w", "states": ["COMPLETED"]}, "filter.states"),
        ({"workflow": "w", "limit": 100_001}, "limit"),
    ):
        with pytest.raises(flowkeep.InvalidArgumentError) as refused:
            await client.start_bulk("cancel", **options)
        assert [each.field for each in refused.value.violations] == [field]
    for call in (client.get_bulk, client.stop_bulk):
        with pytest.raises(flowkeep.NotFoundError, match="operation 01900000"):
            await call("01900000-0000-7000-8000-000000000000")
    with pytest.raises(TypeError, match="belong to pause"):
        await client.start_bulk("cancel", workflow="w", hard=True)


async def reaches(client, execution_id, kind):
    async for event in client.watch(execution_id):
        if event.HasField(kind):
            return
    raise AssertionError(f"{execution_id} has ended without {kind}")
