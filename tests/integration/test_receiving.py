"""What is sent and read slowly, or not at all, costs others nothing: requests, answers, health and reflection."""

import asyncio
from functools import partial

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2
from hyperframe.frame import SettingsFrame

from flowkeep.handlers import handler
from flowkeep.v1 import execution_service_pb2 as pb
from service import app
from service import server as server_module
from service.api import probes, reflection, sending
from service.api.receiving import Receiving
from tests.hostile.holding import Holder, holder
from tests.hostile.http2 import message
from tests.integration.stage import eventually, made, refusal, step
from tests.patience import PATIENCE

Code = grpc.StatusCode
EXECUTE, GET = (f"/flowkeep.v1.ExecutionService/{method}" for method in ("Execute", "GetExecution"))
CHECK, WATCH = (f"/grpc.health.v1.Health/{method}" for method in ("Check", "Watch"))
REFLECTION = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
NO_ROOM = {SettingsFrame.INITIAL_WINDOW_SIZE: 0}
"""The setting of a client that takes no byte of any answer."""


def address(served):
    host, _, port = served.target.rpartition(":")
    return host, int(port)


def unsent(served, path=EXECUTE):
    """A call of which only the headers are sent."""
    call = served.channel.stream_unary(path)()
    return asyncio.ensure_future(refusal(call))


@pytest.fixture
def receiving(monkeypatch):
    """Has servers receive requests within these limits."""
    return lambda **limits: monkeypatch.setattr(app, "Receiving", partial(Receiving, **limits))


async def test_a_request_that_does_not_come_is_waited_for_only_so_long(serve, receiving):
    receiving(patience=0.3)
    served = await serve()
    error = await unsent(served)
    assert (error.code, error.reason) == (Code.RESOURCE_EXHAUSTED, "REQUEST_TOO_SLOW")
    assert error.metadata == {"seconds": "0.3"}
    assert error.retry_after == 1.0


async def test_requests_that_do_not_come_give_way_to_those_that_do(serve, receiving):
    """On one connection after a while, on another at once; what was there first is refused."""
    receiving(most=4, most_per_connection=4, patience=PATIENCE, give_way=0.2)
    served = await serve()
    idle = [unsent(served) for _ in range(20)]
    assert await served.client.list_handlers()
    done, _ = await asyncio.wait(idle, return_when=asyncio.FIRST_COMPLETED)  # in which order they came is gRPC's affair
    error = await done.pop()
    assert (error.code, error.reason, error.metadata) == (Code.RESOURCE_EXHAUSTED, "QUEUE_FULL", {"limit": "4"})
    assert error.retry_after == 1.0
    receiving(most=4, most_per_connection=4, patience=PATIENCE, give_way=PATIENCE)
    patient = await serve()
    async with holder(address(patient)) as held:
        streams = await held.begin(EXECUTE, count=4)
        assert await held.data(streams[-1], message(b"x" * 1_000_000)[:200_000])  # so much is taken of what is received
        async with asyncio.timeout(PATIENCE / 2):
            assert await patient.client.list_handlers()
    for call in idle:
        call.cancel()


async def test_a_request_that_is_whole_takes_its_turn_and_no_more(serve, receiving):
    receiving(most=1, most_per_connection=1)
    served = await serve()
    async with asyncio.timeout(PATIENCE):
        assert all(await asyncio.gather(*(served.client.list_handlers() for _ in range(50))))


async def test_a_call_that_ends_without_a_request_is_told(served):
    async def nothing():
        return
        yield b""

    error = await refusal(served.channel.stream_unary(EXECUTE)(nothing()))
    assert (error.code, error.reason) == (Code.INVALID_ARGUMENT, "MALFORMED_REQUEST")
    assert "without a request" in str(error)
    error = await refusal(served.channel.stream_unary(CHECK)(nothing()))
    assert error.code is Code.INVALID_ARGUMENT


async def test_who_has_no_token_is_refused_before_a_request_was_sent(serve, tmp_path):
    (tmp_path / "key").write_bytes(b"k" * 32)
    served = await serve(jwt_key_file=tmp_path / "key", jwt_algorithm="HS256")
    async with asyncio.timeout(PATIENCE):
        error = await unsent(served)
        watching = served.channel.stream_stream("/flowkeep.v1.ExecutionService/WatchExecution")()
        other = await refusal(watching.read())
    assert (error.code, other.code) == (Code.UNAUTHENTICATED, Code.UNAUTHENTICATED)


@pytest.mark.parametrize("path", [EXECUTE, CHECK])
async def test_a_second_request_of_a_call_is_not_read(served, path):
    async with holder(address(served)) as held:
        (stream,) = await held.begin(path)
        await held.data(stream, message(b"") + message(b"x" * 1_000))
        async with asyncio.timeout(PATIENCE):
            await held.end_of(stream)


async def test_a_connection_that_says_nothing_is_closed(serve, monkeypatch):
    options = [each for each in server_module.OPTIONS if each[0] != "grpc.server_handshake_timeout_ms"]
    assert len(options) == len(server_module.OPTIONS) - 1
    monkeypatch.setattr(server_module, "OPTIONS", [*options, ("grpc.server_handshake_timeout_ms", 300)])
    served = await serve()
    reader, writer = await asyncio.open_connection(*address(served))
    async with asyncio.timeout(PATIENCE):
        while await reader.read(100):
            pass
    writer.close()


@handler("large")
async def large(size: int) -> str:
    """Give so many characters."""
    return "x" * size


async def asked(held: Holder, execution_id):
    """Ask for an execution and leave the answer unread."""
    (stream,) = await held.begin(GET)
    await held.data(stream, message(pb.GetExecutionRequest(execution_id=execution_id).SerializeToString()), end=True)
    return stream


async def test_an_answer_that_nobody_reads_is_given_up_and_others_have_its_room(serve, monkeypatch):
    monkeypatch.setattr(app, "Sending", partial(sending.Sending, most=9_000_000, most_per_org=6_000_000))
    monkeypatch.setattr(sending, "LONGEST", 0.05)
    monkeypatch.setattr(sending, "LEAST_PACE", 1 << 40)
    served = await serve(handlers=[large], watch_patience=6.0, max_concurrent_rpcs=3)
    steps = (step(f"s{n}", "large", size=200_000) for n in range(17))
    execution = (await served.client.execute(await made(served.client, *steps), wait=True)).execution_id
    async with holder(address(served)) as held:
        stream = await asked(held, execution)
        await eventually(lambda: asyncio.sleep(0, stream in held.begun))
        error = await refusal(served.executions.GetExecution(pb.GetExecutionRequest(execution_id=execution)))
        assert (error.code, error.reason) == (Code.RESOURCE_EXHAUSTED, "QUEUE_FULL")
        assert "wait to be read" in str(error)
        async with asyncio.timeout(PATIENCE):
            await held.end_of(stream)
        assert held.received[stream] < 4_000_000
    assert len((await served.client.get_execution(execution)).steps) == 17


async def test_calls_whose_small_answers_are_not_read_keep_their_places_only_so_long(serve):
    served = await serve(watch_patience=4.0, max_concurrent_rpcs=2)
    assert await served.client.list_handlers()  # gRPC keeps the first call of a server for ever
    async with holder(address(served), NO_ROOM) as held:
        streams = await held.begin("/flowkeep.v1.WorkflowService/ListHandlers", count=2)
        for stream in streams:
            await held.data(stream, message(b""), end=True)
        await eventually(lambda: asyncio.sleep(0, held.begun.issuperset(streams)))
        error = await refusal(served.executions.Execute(pb.ExecuteRequest(workflow="w")))
        assert error.reason == "QUEUE_FULL"
        async with asyncio.timeout(PATIENCE):
            for stream in streams:
                await held.end_of(stream)
        assert await served.client.list_handlers()


async def test_health_and_reflection_have_limits_of_their_own(serve, monkeypatch):
    few = partial(probes.Bounded, most=2, most_per_address=1)
    monkeypatch.setattr(probes, "Bounded", lambda kind, **_: few(kind))
    served = await serve(max_concurrent_rpcs=1)
    stub = health_pb2_grpc.HealthStub(served.channel)
    first = stub.Watch(health_pb2.HealthCheckRequest())
    assert (await first.read()).status == health_pb2.HealthCheckResponse.SERVING
    question = reflection_pb2.ServerReflectionRequest(list_services="").SerializeToString()
    asking = served.channel.stream_stream(REFLECTION)()
    await asking.write(question)
    assert await asking.read()
    for call in (stub.Watch(health_pb2.HealthCheckRequest()), served.channel.stream_stream(REFLECTION)()):
        error = await refusal(call.read())
        assert (error.code, error.reason, error.retry_after) == (Code.RESOURCE_EXHAUSTED, "TOO_MANY_STREAMS", 1.0)
        assert "this address has 1" in str(error)
    assert (await stub.Check(health_pb2.HealthCheckRequest())).status == health_pb2.HealthCheckResponse.SERVING
    assert await served.client.list_handlers()
    first.cancel()
    await eventually(lambda: _is_served(stub))


async def _is_served(stub):
    call = stub.Watch(health_pb2.HealthCheckRequest())
    try:
        return bool(await call.read())
    except grpc.aio.AioRpcError:
        return False


async def test_reflection_that_asks_nothing_is_ended(serve, monkeypatch):
    monkeypatch.setattr(reflection, "IDLE", 0.2)
    served = await serve()
    error = await refusal(served.channel.stream_stream(REFLECTION)().read())
    assert (error.code, error.reason) == (Code.RESOURCE_EXHAUSTED, "REQUEST_TOO_SLOW")


async def test_a_watcher_of_health_that_does_not_read_keeps_nothing_from_others(serve):
    served = await serve(stop_grace=0.3)
    stub = health_pb2_grpc.HealthStub(served.channel)
    async with holder(address(served), NO_ROOM) as held:
        (stream,) = await held.begin(WATCH)
        await held.data(stream, message(b""), end=True)
        watch = stub.Watch(health_pb2.HealthCheckRequest())
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
        async with asyncio.timeout(PATIENCE):
            stopping = asyncio.ensure_future(served.stop())
            assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
            await stopping


async def test_a_method_that_does_not_exist_takes_no_place(serve):
    served = await serve(max_concurrent_rpcs=1)
    calls = [unsent(served, f"/flowkeep.v1.ExecutionService/No{n}") for n in range(20)]
    async with asyncio.timeout(PATIENCE):
        assert {(await call).code for call in calls} == {Code.UNIMPLEMENTED}
    assert await served.client.list_handlers()
