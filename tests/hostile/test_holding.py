"""Connections that hold on to what they can get: streams, halves of requests, answers that they do not read."""

import asyncio
from contextlib import AsyncExitStack

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from flowkeep.v1 import execution_service_pb2 as pb
from tests.hostile import floods
from tests.hostile.attacked import MIB, SMALL, Attacked, token
from tests.hostile.cases import Case, each
from tests.hostile.holding import holder
from tests.hostile.http2 import message
from tests.integration.stage import eventually, step
from tests.patience import PATIENCE

EXECUTE, GET = (f"/flowkeep.v1.ExecutionService/{method}" for method in ("Execute", "GetExecution"))
HEALTH = "/grpc.health.v1.Health/"
CONNECTIONS, STREAMS = 13, 100
"""In all more streams than the server serves calls or receives requests."""

IDLE = (
    Case("watches of health", (HEALTH + "Watch", message(b"")), 100),
    Case("checks of health without a request", (HEALTH + "Check", b""), 1_100),
    Case("streams of reflection", ("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", b""), 5),
    Case("calls without a token and a request", (EXECUTE, b""), 0),
)
"""What may stay open of them at most."""


async def holders(stack: AsyncExitStack, attacked: Attacked, count: int):
    return [await stack.enter_async_context(holder(attacked.address)) for _ in range(count)]


async def is_well(attacked: Attacked):
    async with asyncio.timeout(PATIENCE), attacked.client() as client:
        assert await client.list_handlers()
    async with grpc.aio.insecure_channel(attacked.target, [("grpc.use_local_subchannel_pool", 1)]) as channel:
        health = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=PATIENCE)
        assert health.status == health_pb2.HealthCheckResponse.SERVING


@each(IDLE)
async def test_idle_streams_lock_nobody_out(attack, bare, case):
    attacked, (path, first) = await attack(**SMALL), case.given
    idle = attacked.address, path, first, CONNECTIONS, STREAMS, case.right
    async with attacked.beside(f"{CONNECTIONS * STREAMS} {case.name}") as seen:
        for _ in seen.rounds():
            async with attacked.attacker.holding(floods.idle_streams, *idle):
                await is_well(attacked)
    if case.right == 0:
        async with bare.beside() as seen:
            for _ in seen.rounds():
                async with attacked.attacker.holding(floods.idle_streams, bare.address, *idle[1:]):
                    pass
        attacked.figures.append(seen.as_bare)


@each([Case("without a token", "", 64), Case("with one", token(), 160)])
async def test_requests_that_never_end_hold_little_memory(attacked: Attacked, case):
    """300 requests of 4 MiB whose last bytes never come, on ten connections."""
    body = message(bytes(4 * MIB - 64))[:-100]
    requests = attacked.address, EXECUTE, case.given, body, 10, 30
    async with (
        attacked.beside(f"300 requests that never end, {case.name}"),
        attacked.attacker.holding(floods.endless_requests, *requests),
    ):
        await is_well(attacked)
    grown = (await attacked.told())["grown"] // MIB
    attacked.figures.append(f"grew by {grown} MiB at most")
    assert grown <= case.right


async def test_answers_that_nobody_reads_are_let_go(attack):
    """After patience all is gone, what gRPC kept for it too."""
    attacked = await attack(**SMALL)
    async with attacked.client() as client:
        steps = [step(f"s{n}", "transform", expression="input.x") for n in range(10)]
        await client.apply([{"name": "large", "steps": steps}])
        execution = (await client.execute("large", {"x": "y" * 200_000}, wait=True)).execution_id
    ask = message(pb.GetExecutionRequest(execution_id=execution).SerializeToString())
    async with AsyncExitStack() as stack:
        holding = await holders(stack, attacked, 4)
        for one in holding:
            (stream,) = await one.begin(GET, token())
            await one.data(stream, ask, end=True)
            await one.begin_of(stream)

        async def are_ended():
            await is_well(attacked)  # gRPC holds on to the last call until another one comes
            await asyncio.sleep(0.2)
            return all(one.ended for one in holding)

        await eventually(are_ended)
        assert all(one.received[1] < MIB for one in holding)
