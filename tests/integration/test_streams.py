"""How long a stream lives, and what rides along on it without being kept.

Holds W12 and W13 of the contract.
"""

import asyncio
import time
from types import SimpleNamespace

import grpc
import jwt
import pytest

from flowkeep.handlers import StepContext, handler
from flowkeep.v1 import execution_service_pb2 as pb
from service.api import identity, pipeline, streams
from tests.integration.stage import eventually, log, made, refusal, step
from tests.patience import PATIENCE
from tests.tokens import A_DAY

Code = grpc.StatusCode
SECRET = b"a secret of more than thirty-two bytes"


def opened(served, execution_id, after_seq=0, token=None):
    request = pb.WatchExecutionRequest(execution_id=execution_id, after_seq=after_seq)
    metadata = (("authorization", f"Bearer {token}"),) if token else ()
    return served.executions.WatchExecution(request, metadata=metadata)


async def rest_of(call):
    return [response async for response in call]


def events_of(responses):
    return [event for response in responses for event in response.events.events]


@handler("large")
async def large(size: int) -> str:
    """Give so many characters."""
    return "x" * size


async def with_large_history(client, size=200_000):
    """An execution of 12 MB, more than a connection takes that nobody reads from, and its events."""
    steps = (step(f"s{n}", "large", size=size) for n in range(12_000_000 // size))
    execution = await client.execute(await made(client, *steps))
    return execution, await log(client, execution.execution_id)


async def is_free(served, execution, last_seq):
    """Whether the one place for a stream is free: the stuck reader has lost it."""
    try:
        await rest_of(opened(served, execution.execution_id, last_seq - 1))
    except grpc.aio.AioRpcError:
        return False
    return True


@pytest.mark.parametrize("size", [200_000, 60_000], ids=["large first message", "many messages"])
async def test_a_reader_that_never_read_is_told_when_it_does(serve, size):
    """Also when it is the first message that cannot go out."""
    served = await serve(handlers=[large], watch_patience=1.0, max_streams=1)
    execution, whole = await with_large_history(served.client, size)
    stuck = opened(served, execution.execution_id)
    await stuck.initial_metadata()
    await eventually(lambda: is_free(served, execution, len(whole)))

    async def read_all():
        async for _ in stuck:
            pass

    error = await refusal(read_all())
    assert (error.code, error.reason) == (Code.UNAVAILABLE, "SLOW_CONSUMER")


async def test_a_reader_that_is_stuck_is_cut_off_and_goes_on_where_it_was(serve):
    served = await serve(handlers=[large], watch_patience=1.0, max_streams=1)
    execution, whole = await with_large_history(served.client)
    stuck = opened(served, execution.execution_id)
    first = await anext(aiter(stuck))
    await eventually(lambda: is_free(served, execution, len(whole)))
    read = [first]

    async def rest():
        async for response in stuck:
            read.append(response)

    error = await refusal(rest())
    assert (error.code, error.reason) == (Code.UNAVAILABLE, "SLOW_CONSUMER")
    events = events_of(read)
    assert 0 < len(events) < len(whole)
    assert events == whole[: len(events)]
    assert await log(served.client, execution.execution_id, events[-1].seq) == whole[len(events) :]


async def test_a_stuck_reader_may_leave_while_it_is_told(serve, monkeypatch, caplog):
    monkeypatch.setattr(pipeline, "LAST_WORD", PATIENCE)
    served = await serve(handlers=[large], watch_patience=1.0, max_streams=1)
    execution, whole = await with_large_history(served.client)
    stuck = opened(served, execution.execution_id)
    await stuck.initial_metadata()
    await eventually(lambda: is_free(served, execution, len(whole)))
    stuck.cancel()
    await served.stop()
    assert [record.message for record in caplog.records if record.name.startswith("grpc")] == []


async def test_a_slow_reader_who_uses_our_client_misses_nothing(serve):
    served = await serve(handlers=[large], watch_patience=0.2)
    execution, whole = await with_large_history(served.client)
    seen = []
    async with asyncio.timeout(PATIENCE):
        async for event in served.client.watch(execution.execution_id):
            seen.append(event)
            if len(seen) == 10:
                await asyncio.sleep(0.5)  # the reader is what is slow here
    assert seen == whole


async def test_there_are_no_more_streams_than_may_be(serve, stage):
    served = await serve(max_streams=1)
    execution = await served.client.execute(await made(served.client, step("a", "gate")))
    first = opened(served, execution.execution_id)
    await anext(aiter(first))

    error = await refusal(rest_of(opened(served, execution.execution_id)))
    assert (error.code, error.reason) == (Code.RESOURCE_EXHAUSTED, "TOO_MANY_STREAMS")
    assert error.retry_after == 1.0
    assert (await served.client.get_execution(execution.execution_id)).last_seq  # other calls go on

    following = asyncio.create_task(log(served.client, execution.execution_id))
    first.cancel()
    stage.open("gate")
    async with asyncio.timeout(PATIENCE):
        assert (await following)[-1].HasField("finished")  # our client came again


async def test_an_org_that_has_all_its_streams_leaves_room_to_others(serve, stage, tmp_path):
    key = tmp_path / "key"
    key.write_bytes(SECRET)
    served = await serve(max_streams_per_org=1, jwt_key_file=key, jwt_algorithm="HS256")
    orgs = {org: token_of(org, time.time() + A_DAY) for org in ("acme", "other")}
    executions = {}
    for org, token in orgs.items():
        async with served.client_with(token) as client:
            executions[org] = (await client.execute(await made(client, step("a", "gate")))).execution_id
    held = opened(served, executions["acme"], token=orgs["acme"])
    await anext(aiter(held))
    error = await refusal(rest_of(opened(served, executions["acme"], token=orgs["acme"])))
    assert error.reason == "TOO_MANY_STREAMS"
    assert (await anext(aiter(opened(served, executions["other"], token=orgs["other"])))).events


def token_of(org, expires):
    permissions = ["executions.read", "executions.execute", "workflows.write", "workflows.read"]
    return jwt.encode({"org": org, "sub": "alice", "permissions": permissions, "exp": expires}, SECRET, "HS256")


async def test_w13_a_stream_ends_when_its_token_has_expired(serve, stage, tmp_path, monkeypatch):
    monkeypatch.setattr(streams, "RECHECK", 0.0)
    key = tmp_path / "key"
    key.write_bytes(SECRET)
    served = await serve(jwt_key_file=key, jwt_algorithm="HS256", watch_bookmark=0.1)
    good = token_of("acme", time.time() + A_DAY)
    short = token_of("acme", time.time() + A_DAY / 2)
    async with served.client_with(good) as client:
        execution = await client.execute(await made(client, step("a", "gate")))
        call = opened(served, execution.execution_id, token=short)
        assert (await anext(aiter(call))).events
        monkeypatch.setattr(identity, "time", SimpleNamespace(time=lambda: time.time() + 0.75 * A_DAY))
        async with asyncio.timeout(PATIENCE):
            error = await refusal(rest_of(call))
        assert (error.code, error.reason) == (Code.UNAUTHENTICATED, "INVALID_TOKEN")
        other = opened(served, execution.execution_id, token=good)
        stage.open("gate")
        assert events_of(await rest_of(other))[-1].HasField("finished")


async def test_what_a_step_says_rides_along_and_is_not_kept(served, stage):
    execution = await served.client.execute(await made(served.client, step("a", "talk", texts=["one ", "two"])))
    await stage.called("a")
    seen: list[pb.WatchExecutionResponse] = []

    async def follow():
        async for response in served.client.watch_responses(execution.execution_id):
            seen.append(response)
            if response.HasField("events"):
                stage.open("talk")
            if "é" in response.output.text:
                stage.open("a")

    async with asyncio.timeout(PATIENCE):
        await follow()
    outputs = [response.output for response in seen if response.HasField("output")]
    assert {(output.path, output.attempt) for output in outputs} == {("a", 1)}
    assert "".join(output.text for output in outputs) == "one two\N{REPLACEMENT CHARACTER}é"
    assert seen[0].HasField("events")
    assert events_of(seen) == await log(served.client, execution.execution_id)
    again = [response async for response in served.client.watch_responses(execution.execution_id)]
    assert not any(response.HasField("output") for response in again)


async def test_a_flood_of_output_from_a_thread_holds_up_nobody(serve):
    @handler("shout")
    def shout(context: StepContext) -> int:
        """Say a great deal from a thread."""
        for n in range(100_000):
            context.emit(f"{n}\n")
        return 100_000

    served = await serve(handlers=[shout])
    execution = await served.client.execute(await made(served.client, step("a", "shout")))
    async with asyncio.timeout(PATIENCE):
        seen = [response async for response in served.client.watch_responses(execution.execution_id)]
    whole = events_of(seen)
    assert whole[-1].HasField("finished")
    assert max(len(response.output.text) for response in seen) <= 16_384
