"""Watches against a real gRPC server: streams break where it hurts, and nothing is lost or repeated.

Holds W2, W3 and W5 of the contract on the side of the client.
"""

import asyncio
import random
from contextlib import aclosing

import grpc
import pytest

import flowkeep
from flowkeep import retry, watch
from flowkeep.v1 import execution_service_pb2 as pb
from flowkeep.v1.execution_pb2 import Execution
from tests.integration.scripted_service import ID, RETRY_SOON, Script, breaking, history, serving, start
from tests.patience import PATIENCE

Code = grpc.StatusCode


@pytest.fixture(autouse=True)
def brief_pauses(monkeypatch):
    monkeypatch.setattr(watch, "Backoff", lambda: retry.Backoff(0.002, 0.05))


async def collect(events):
    async with aclosing(events):
        return [event async for event in events]


@pytest.mark.parametrize("after", [0, 1, 2, 3])
@pytest.mark.parametrize(
    ("code", "message", "details"),
    [
        (Code.UNAVAILABLE, "the server is shutting down", ()),
        (Code.UNAVAILABLE, "slow", [RETRY_SOON]),
        (Code.CANCELLED, "", ()),
        (Code.DEADLINE_EXCEEDED, "", ()),
        (Code.ABORTED, "", ()),
        (Code.RESOURCE_EXHAUSTED, "too many streams", [RETRY_SOON]),
        (Code.RESOURCE_EXHAUSTED, "Concurrent RPC limit exceeded!", ()),
        (Code.UNKNOWN, "Stream removed", ()),
        (Code.INTERNAL, "Received RST_STREAM with error code 2", ()),
        (Code.INTERNAL, "GOAWAY received", ()),
    ],
    ids=lambda value: value.name if isinstance(value, grpc.StatusCode) else "",
)
async def test_a_broken_stream_is_resumed_where_it_broke(code, message, details, after):
    script = Script(*[breaking(code, message, after, details)] * 2)
    async with serving(script) as client:
        events = await collect(client.watch(ID))

    assert events == script.events
    # The finished event is the end, whatever becomes of the stream after it.
    assert script.watches == {0: [(0, False)] * 3, 1: [(0, False), (3, False), (6, False)]}.get(
        after, [(0, False), (6, False)][: 4 - after]
    )


async def test_each_break_is_told_with_its_error():
    async def leaving_out(script, request, context):
        left_out = request.after_seq + 1
        yield pb.WatchExecutionResponse(events=pb.EventBatch(events=script.events[left_out : left_out + 1]))

    told: list[flowkeep.FlowkeepError] = []
    script = Script(breaking(Code.UNAVAILABLE, "away", after=1), breaking(Code.ABORTED, "busy"), leaving_out)
    async with serving(script) as client:
        async for response in client.watch_responses(ID, on_break=told.append):
            assert len(told) in (0, 3) or not response.HasField("events")

    assert [(error.code, error.message) for error in told] == [
        (Code.UNAVAILABLE, "away"),
        (Code.ABORTED, "busy"),
        (Code.DATA_LOSS, "the server sent event 5 where 4 was due"),
    ]


@pytest.mark.parametrize(
    ("code", "message", "kind"),
    [
        (Code.NOT_FOUND, "no", flowkeep.NotFoundError),
        (Code.OUT_OF_RANGE, "no", flowkeep.OutOfRangeError),
        (Code.INVALID_ARGUMENT, "no", flowkeep.InvalidArgumentError),
        (Code.UNAUTHENTICATED, "no", flowkeep.UnauthenticatedError),
        (Code.PERMISSION_DENIED, "no", flowkeep.PermissionDeniedError),
        (Code.RESOURCE_EXHAUSTED, "Received message larger than max", flowkeep.ResourceExhaustedError),
        (Code.INTERNAL, "no", flowkeep.FlowkeepError),
    ],
)
async def test_what_another_try_cannot_mend_is_raised_at_once(code, message, kind):
    script = Script(breaking(Code.UNAVAILABLE, after=1), breaking(code, message))
    async with serving(script) as client, aclosing(client.watch(ID)) as events:
        seen = [(await anext(events)).seq for _ in range(3)]
        with pytest.raises(kind, match=message):
            await anext(events)

    assert seen == [1, 2, 3]
    assert len(script.watches) == 2


async def test_events_that_come_again_are_dropped():
    async def overlapping(script, request, context):
        for event in script.events[max(0, request.after_seq - 2) : request.after_seq + 2]:
            yield pb.WatchExecutionResponse(events=pb.EventBatch(events=[event]))
        await context.abort(Code.UNAVAILABLE, "again")

    async def overlapping_messages(script, request, context):
        for message in script.messages(max(0, request.after_seq - 4)):
            yield message

    script = Script(*[overlapping] * 3, overlapping_messages)
    async with serving(script) as client:
        responses = [response async for response in client.watch_responses(ID)]

    assert [event.seq for response in responses for event in response.events.events] == list(range(1, 10))
    assert [after_seq for after_seq, _ in script.watches] == [0, 2, 4, 6]
    assert all(response.HasField("events") for response in responses)


async def test_a_gap_is_asked_for_again():
    async def leaving_out(script, request, context):
        yield pb.WatchExecutionResponse(events=pb.EventBatch(events=script.events[:2]))
        yield pb.WatchExecutionResponse(events=pb.EventBatch(events=script.events[3:5]))

    async def running_ahead(script, request, context):
        yield pb.WatchExecutionResponse(bookmark=pb.Bookmark(seq=2))
        yield pb.WatchExecutionResponse(bookmark=pb.Bookmark(seq=3))

    script = Script(leaving_out, running_ahead)
    async with serving(script) as client:
        events = await collect(client.watch(ID))

    assert events == script.events
    assert [after_seq for after_seq, _ in script.watches] == [0, 2, 2]


async def test_a_gap_that_stays_is_an_error():
    script = Script(events=history()[:2] + history()[3:])
    async with serving(script) as client:
        with pytest.raises(flowkeep.FlowkeepError, match="event 4 where 3 was due") as caught:
            await collect(client.watch(ID, after_seq=2))

    assert caught.value.code is Code.DATA_LOSS


async def test_the_snapshot_comes_once_and_events_go_on_from_it():
    snapshot = pb.WatchExecutionResponse(
        snapshot=pb.Snapshot(seq=4, execution=Execution(execution_id=ID, state=Execution.STATE_RUNNING))
    )

    async def with_snapshot(script, request, context):
        yield snapshot
        await context.abort(Code.UNAVAILABLE, "after the snapshot")

    script = Script(breaking(Code.UNAVAILABLE), with_snapshot)
    async with serving(script) as client:
        responses = [response async for response in client.watch_responses(ID, snapshot=True)]

    assert responses[0] == snapshot
    assert [event.seq for response in responses for event in response.events.events] == [5, 6, 7, 8, 9]
    assert script.watches == [(0, True), (0, True), (4, False)]
    assert responses[-1].bookmark.seq == 9


async def test_a_snapshot_of_the_end_is_the_end():
    async def ended(script, request, context):
        execution = Execution(execution_id=ID, state=Execution.STATE_FAILED)
        yield pb.WatchExecutionResponse(snapshot=pb.Snapshot(seq=9, execution=execution))
        await context.abort(Code.UNAVAILABLE, "shutting down")

    script = Script(ended)
    async with serving(script) as client:
        assert await collect(client.watch(ID, snapshot=True)) == []

    assert len(script.watches) == 1


async def test_output_of_steps_is_passed_on_and_hidden_from_watch():
    async def talking(script, request, context):
        yield pb.WatchExecutionResponse(output=pb.StepOutput(path="s2", attempt=1, text="hel"))
        async for response in script.honest(script, request, context):
            yield response

    script = Script(talking, talking)
    async with serving(script) as client:
        responses = [response async for response in client.watch_responses(ID)]
        assert responses[0].output.text == "hel"
        assert await collect(client.watch(ID)) == script.events


async def test_random_cuts_give_the_same_bytes_as_none():
    draw = random.Random(20261121)
    script = Script(events=history(200))

    async def cut(script, request, context):
        backwards = draw.choice([0, 0, 1, 5])
        count = draw.randint(0, 12)
        for message in script.messages(max(0, request.after_seq - backwards)):
            if not count:
                await context.abort(draw.choice([Code.UNAVAILABLE, Code.CANCELLED]), "cut")
            count -= 1
            yield message

    script.scenes = [cut] * 60
    async with serving(script) as client:
        events = await collect(client.watch(ID))

    assert [event.SerializeToString(deterministic=True) for event in events] == [
        event.SerializeToString(deterministic=True) for event in script.events
    ]
    assert len(script.watches) > 8


@pytest.mark.parametrize("kind", ["unix", "tcp"])
async def test_a_server_that_goes_and_comes_back_is_resumed(kind, tmp_path):
    at_pause = asyncio.Event()

    async def pausing(script, request, context):
        yield next(script.messages(request.after_seq))
        at_pause.set()
        await asyncio.Event().wait()  # until the server stops, or the caller leaves

    script = Script(pausing, pausing)
    server, port = await start(script, f"unix:{tmp_path}/s" if kind == "unix" else "localhost:0")
    target = f"unix:{tmp_path}/s" if kind == "unix" else f"localhost:{port}"
    async with flowkeep.Client(target) as client:
        watching = asyncio.create_task(collect(client.watch(ID)))
        for _ in range(2):
            await at_pause.wait()
            at_pause.clear()
            await server.stop(0)
            server, _ = await start(script, target)
        events = await asyncio.wait_for(watching, PATIENCE)
    await server.stop(0)

    assert events == script.events
    assert script.watches == [(0, False), (3, False), (6, False)]


class TornProxy:
    """Passes bytes between unix sockets until it tears all connections apart, without a word of HTTP/2."""

    def __init__(self, target):
        self._target = target
        self._writers = []
        self._tasks = []

    async def connect(self, reader, writer):
        self._tasks.append(asyncio.current_task())
        server_reader, server_writer = await asyncio.open_unix_connection(self._target)
        pairs = [(reader, server_writer), (server_reader, writer)]
        await asyncio.gather(*(self._forward(*pair) for pair in pairs), return_exceptions=True)

    async def _forward(self, reader, writer):
        self._writers.append(writer)
        while data := await reader.read(65536):
            writer.write(data)

    async def tear(self):
        for writer in self._writers:
            writer.transport.abort()
        await asyncio.gather(*self._tasks)
        self._writers, self._tasks = [], []


async def test_a_connection_that_is_torn_apart_is_resumed(tmp_path):
    async def pausing(script, request, context):
        yield next(script.messages(request.after_seq))
        await asyncio.Event().wait()  # until the server stops, or the caller leaves

    script = Script(pausing, pausing)
    server, _ = await start(script, f"unix:{tmp_path}/s")
    proxy = TornProxy(f"{tmp_path}/s")
    events = []
    async with await asyncio.start_unix_server(proxy.connect, f"{tmp_path}/p"):
        async with flowkeep.Client(f"unix:{tmp_path}/p") as client, aclosing(client.watch(ID)) as watching:
            async for event in watching:
                events.append(event)
                if event.seq in (3, 6):
                    await proxy.tear()
        await proxy.tear()
    await server.stop(0)

    assert events == script.events
    assert script.watches == [(0, False), (3, False), (6, False)]


async def test_a_silent_stream_is_given_up(monkeypatch):
    monkeypatch.setattr(watch, "_SILENCE_SECONDS", 2.0)

    async def silent(script, request, context):
        yield next(script.messages(request.after_seq))
        await asyncio.Event().wait()  # until the server stops, or the caller leaves

    script = Script(silent)
    async with serving(script) as client:
        assert await collect(client.watch(ID)) == script.events

    assert [after_seq for after_seq, _ in script.watches] == [0, 3]
    await asyncio.wait_for(script.cancelled.wait(), PATIENCE)


async def test_leaving_early_ends_the_stream_on_the_server():
    async def endless(script, request, context):
        yield next(script.messages(0))
        await asyncio.Event().wait()  # until the server stops, or the caller leaves

    script = Script(endless)
    async with serving(script) as client:
        async with aclosing(client.watch(ID)) as events:
            assert (await anext(events)).seq == 1
        await asyncio.wait_for(script.cancelled.wait(), PATIENCE)


async def test_a_watch_to_the_end_is_not_cancelled_on_the_server():
    async def slow_end(script, request, context):
        for message in script.messages(request.after_seq):
            yield message
        await asyncio.sleep(0.05)

    script = Script(slow_end)
    async with serving(script) as client:
        assert await collect(client.watch(ID)) == script.events

    assert not script.cancelled.is_set()


async def test_a_watch_from_the_end_ends():
    script = Script()
    async with serving(script) as client:
        assert await collect(client.watch(ID, after_seq=9)) == []
