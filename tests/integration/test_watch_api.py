"""WatchExecution from end to end: every event once, in order, whatever the position and whatever breaks.

Holds W1 to W7, W9 and W10 of the contract.
"""

import asyncio
import random
from itertools import groupby

import grpc
import pytest

import flowkeep
from flowkeep.v1 import execution_service_pb2 as pb
from flowkeep.v1.execution_service_pb2_grpc import ExecutionServiceStub
from tests.integration.stage import Store, ended, eventually, kinds, log, made, refusal, step, wait_step
from tests.patience import PATIENCE

State = flowkeep.Execution
Code = grpc.StatusCode


async def watched(served, execution_id, after_seq=0, snapshot=False):
    """All messages of a stream that ends with OK."""
    request = pb.WatchExecutionRequest(execution_id=execution_id, after_seq=after_seq, snapshot=snapshot)
    async with asyncio.timeout(PATIENCE):
        return [response async for response in served.executions.WatchExecution(request)]


def events_of(responses):
    return [event for response in responses for event in response.events.events]


async def refused(served, execution_id, **request):
    call = served.executions.WatchExecution(pb.WatchExecutionRequest(execution_id=execution_id, **request))

    async def first():
        return await anext(aiter(call))

    return await refusal(first())


async def long_history(client, length=30):
    """A workflow whose executions have many events, some recorded together with others."""
    steps = (step(f"s{n}", "transform", value={"n": n}, assign={f"v{n}": "result.n"}) for n in range(length))
    return await made(client, *steps)


@pytest.mark.parametrize("when", ["after the end", "from the start"])
async def test_from_any_position_every_event_comes_once_and_in_order(served, when):
    name = await long_history(served.client)
    execution = await served.client.execute(name, wait=when == "after the end")
    whole = events_of(await watched(served, execution.execution_id))

    assert [event.seq for event in whole] == list(range(1, len(whole) + 1))  # W1, W2, W3
    assert kinds(whole)[-1] == "finished"
    for after_seq in range(len(whole) + 1):
        responses = await watched(served, execution.execution_id, after_seq)
        assert events_of(responses) == whole[after_seq:]  # W5
        assert responses[-1].bookmark.seq == len(whole)  # W6
        assert all(response.HasField("bookmark") is not response.HasField("events") for response in responses)


async def test_what_was_recorded_together_arrives_together(served):
    """W4, for watchers from the ring, from the table, and for those who begin inside of a transition."""
    name = await long_history(served.client)
    execution = await served.client.execute(name)
    for after_seq in range(0, 40):
        for response in await watched(served, execution.execution_id, after_seq):
            if not response.HasField("events"):
                continue
            events = response.events.events
            assert events[-1].seq == events[-1].transition_seq
            for end, together in groupby(events, lambda event: event.transition_seq):
                found = list(together)
                assert found[-1].seq == end
    whole = await log(served.client, execution.execution_id)
    assert any(event.seq != event.transition_seq for event in whole)


async def test_a_position_beyond_the_newest_event_is_refused_at_once(served, stage):
    """W7."""
    name = await made(served.client, step("a", "gate"))
    running = await served.client.execute(name)
    await stage.called("a")
    over = await served.client.execute(await made(served.client, step("b")), wait=True)
    for execution in (running, over):
        last_seq = (await served.client.get_execution(execution.execution_id)).last_seq
        for ahead in (last_seq + 1, last_seq + 50, 2**63 - 1):
            error = await refused(served, execution.execution_id, after_seq=ahead)
            assert (error.code, error.reason) == (Code.OUT_OF_RANGE, "CURSOR_AHEAD")
            assert error.metadata == {"after_seq": str(ahead), "last_seq": str(last_seq)}


async def test_a_snapshot_comes_first_and_what_follows_goes_on_from_it(served, stage):
    name = await made(served.client, step("a"), step("b", "gate"), step("c"))
    execution = await served.client.execute(name)
    await stage.called("b")
    request = pb.WatchExecutionRequest(execution_id=execution.execution_id, snapshot=True)
    responses = []
    async for response in served.executions.WatchExecution(request):
        responses.append(response)
        stage.open("gate")

    snapshot = responses[0].snapshot
    assert snapshot.execution.state == State.STATE_RUNNING
    assert [each.path for each in snapshot.execution.steps] == ["a", "b", "c"]
    assert snapshot.seq == snapshot.execution.last_seq
    whole = await log(served.client, execution.execution_id)
    assert events_of(responses) == whole[snapshot.seq :]
    assert len(events_of(responses)) > 2


async def test_a_snapshot_of_an_end_is_all_there_is(served):
    execution = await served.client.execute(await made(served.client, step("a")), wait=True)
    first, last = await watched(served, execution.execution_id, snapshot=True)
    assert first.snapshot.execution == await served.client.get_execution(execution.execution_id)
    assert last.bookmark.seq == first.snapshot.seq == first.snapshot.execution.last_seq


async def test_a_snapshot_excludes_a_position(served):
    execution = await served.client.execute(await made(served.client, step("a")), wait=True)
    error = await refused(served, execution.execution_id, after_seq=1, snapshot=True)
    assert (error.code, [violation.field for violation in error.violations]) == (Code.INVALID_ARGUMENT, ["after_seq"])


async def test_what_does_not_exist_cannot_be_watched(served):
    for request in ({}, {"snapshot": True}, {"after_seq": 5}):
        error = await refused(served, "01930000-0000-7000-8000-000000000000", **request)
        assert (error.code, error.reason) == (Code.NOT_FOUND, "EXECUTION_NOT_FOUND")


async def test_a_silent_stream_gives_signs_of_life(serve, stage):
    """W6."""
    served = await serve(watch_bookmark=0.05)
    name = await made(served.client, step("a", "gate"))
    execution = await served.client.execute(name)
    await stage.called("a")
    seen: list[int] = []
    bookmarks: list[int] = []
    async for response in served.executions.WatchExecution(
        pb.WatchExecutionRequest(execution_id=execution.execution_id)
    ):
        seen += [event.seq for event in response.events.events]
        if response.HasField("bookmark"):
            assert response.bookmark.seq == seen[-1]
            bookmarks.append(response.bookmark.seq)
        if len(bookmarks) == 4:
            stage.open("gate")
    assert len(bookmarks) >= 5
    assert bookmarks[3] == bookmarks[0]
    assert bookmarks[-1] == seen[-1] == len(seen)


async def test_fifty_watchers_see_the_same_bytes(served, stage):
    """W10: whoever watches, from where and through which server, a seq has the same bytes."""
    name = await made(served.client, step("a", "gate"), *(step(f"s{n}", "transform", value=n) for n in range(30)))
    execution = await served.client.execute(name)
    await stage.called("a")
    request = pb.WatchExecutionRequest(execution_id=execution.execution_id).SerializeToString()
    everybody = asyncio.Semaphore(0)
    method = served.channel.unary_stream("/flowkeep.v1.ExecutionService/WatchExecution")

    async def raw():
        bodies: dict[int, bytes] = {}
        async for message in method(request):
            for event in pb.WatchExecutionResponse.FromString(message).events.events:
                bodies[event.seq] = event.SerializeToString(deterministic=True)
                assert bodies[event.seq] in message
            everybody.release()
        return bodies

    async with asyncio.TaskGroup() as watchers:
        tasks = [watchers.create_task(raw()) for _ in range(50)]
        for _ in tasks:
            await everybody.acquire()
        stage.open("gate")
    seen = [task.result() for task in tasks]
    assert all(bodies == seen[0] for bodies in seen)
    assert list(seen[0]) == list(range(1, len(seen[0]) + 1))
    assert await raw() == seen[0]


async def test_a_reader_who_reconnects_at_random_sees_the_same(served, stage):
    """W5."""
    name = await made(served.client, *(step(f"s{n}", "gate") for n in range(25)))
    execution = await served.client.execute(name)

    async def wander():
        seen: list[flowkeep.ExecutionEvent] = []
        while not seen or not seen[-1].HasField("finished"):
            request = pb.WatchExecutionRequest(
                execution_id=execution.execution_id, after_seq=seen[-1].seq if seen else 0
            )
            call = served.executions.WatchExecution(request)
            left = random.randint(1, 4)
            async for response in call:
                seen += response.events.events
                left -= 1
                if not left:
                    break
            call.cancel()
        return seen

    readers = [asyncio.create_task(wander()) for _ in range(10)]
    await stage.called("s0")
    stage.open("gate")
    whole = await log(served.client, execution.execution_id)
    async with asyncio.timeout(PATIENCE):
        assert all(seen == whole for seen in await asyncio.gather(*readers))


@pytest.mark.parametrize("length", [7, 12])
async def test_large_events_come_in_messages_that_can_be_received(served, stage, length):
    """A reader who is late finds much to read at once, at hand or in the table, and a message holds 4 MiB."""
    copies = (step(f"s{n}", "transform", value="${input.x}", assign={"v": "result"}) for n in range(length))
    name = await made(served.client, step("a", "gate"), *copies, output="small")
    execution = await served.client.execute(name, {"x": "x" * 250_000})
    await stage.called("a")
    request = pb.WatchExecutionRequest(execution_id=execution.execution_id)
    # Nothing is read ahead, so that the server has to wait for this reader.
    options = (("grpc.http2.bdp_probe", 0), ("grpc.use_local_subchannel_pool", 1))
    async with grpc.aio.insecure_channel(served.target, options) as channel:
        late = ExecutionServiceStub(channel).WatchExecution(request)
        responses = [await anext(aiter(late))]
        stage.open("gate")
        whole = await log(served.client, execution.execution_id)
        responses += [response async for response in late]

    assert events_of(responses) == whole
    assert max(response.ByteSize() for response in responses) < 2 << 20
    batches = [response.events.events for response in responses if response.HasField("events")]
    assert all(batch[-1].seq == batch[-1].transition_seq for batch in batches)
    assert events_of(await watched(served, execution.execution_id)) == whole


async def test_a_server_that_stops_ends_its_streams_and_the_client_goes_on(serve, stage):
    """W9: a stop is no end. The next server on the same address continues the same history."""
    first = await serve(stop_grace=5.0)
    name = await made(first.client, step("a"), step("b", "gate"), wait_step(seconds=0.2), step("c"))
    execution = await first.client.execute(name)
    await stage.called("b")
    raw = first.executions.WatchExecution(pb.WatchExecutionRequest(execution_id=execution.execution_id))
    seen: list[flowkeep.ExecutionEvent] = []
    started = asyncio.Event()

    async def follow():
        async for event in first.client.watch(execution.execution_id):
            seen.append(event)
            started.set()

    following = asyncio.create_task(follow())
    await started.wait()
    assert (await anext(aiter(raw))).HasField("events")

    async def rest():
        return [response async for response in raw]

    refused = asyncio.create_task(refusal(rest()))  # gRPC drops what is not read when the connection breaks
    await first.stop()
    error = await refused
    assert (error.code, error.reason) == (Code.UNAVAILABLE, "SHUTTING_DOWN")
    second = await serve(listen=first.target)
    stage.open("gate")
    async with asyncio.timeout(PATIENCE):
        await following
    whole = await log(second.client, execution.execution_id)
    assert seen == whole
    assert [event.seq for event in seen] == list(range(1, len(seen) + 1))
    assert kinds(seen)[-1] == "finished"


async def test_nobody_can_begin_to_watch_a_server_that_stops(serve, stage):
    served = await serve(stop_grace=5.0)
    execution = await served.client.execute(await made(served.client, step("a", "gate")))
    await stage.called("a")
    waiting = served.executions.Execute(pb.ExecuteRequest(workflow=execution.workflow_id, wait=True))
    await stage.called("a", 2)
    await served.stop()
    error = await refusal(waiting)
    assert (error.code, error.reason) == (Code.UNAVAILABLE, "SHUTTING_DOWN")


async def test_a_watcher_who_leaves_is_forgotten(serve, stage):
    reads = 0

    def counting(repository):
        async def read_events(*arguments):
            nonlocal reads
            reads += 1
            return await repository.read_events(*arguments)

        return Store(repository, read_events=read_events)

    async def is_quiet():
        before = reads
        await asyncio.sleep(0.02)
        return reads == before

    served = await serve(wrap=counting, watch_poll=0.002)
    execution = await served.client.execute(await made(served.client, step("a", "gate")))
    await stage.called("a")
    for _ in range(20):
        async with asyncio.timeout(PATIENCE):
            async for _ in served.client.watch(execution.execution_id):
                break
    calls = [
        served.executions.WatchExecution(pb.WatchExecutionRequest(execution_id=execution.execution_id))
        for _ in range(20)
    ]
    for call in calls:
        await anext(aiter(call))
        call.cancel()
    await eventually(is_quiet)
    stage.open("gate")
    assert (await ended(served.client, execution.execution_id)).state == State.STATE_COMPLETED


async def test_a_cursor_before_what_is_kept_is_refused(served, admin):
    """W8."""
    execution = await served.client.execute(await made(served.client, step("a")), wait=True)
    await admin.execute("DELETE FROM transitions WHERE seq <= 3")
    for after_seq in (0, 2):
        request = pb.WatchExecutionRequest(execution_id=execution.execution_id, after_seq=after_seq)
        error = await refusal(served.executions.WatchExecution(request).read())
        assert (error.code, error.reason) == (grpc.StatusCode.OUT_OF_RANGE, "CURSOR_EXPIRED")
        assert error.metadata["oldest_seq"] == "4"
    events = [event async for event in served.client.watch(execution.execution_id, 3)]
    assert events[0].seq == 4
