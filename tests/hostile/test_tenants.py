"""An org that wants all leaves some: of calls, waits, streams and places to run, and of what reads take."""

import asyncio
from collections import Counter

import grpc

import flowkeep
from flowkeep.channel import call_metadata
from flowkeep.requests import execute_request
from flowkeep.v1 import execution_service_pb2 as pb
from flowkeep.v1.execution_service_pb2_grpc import ExecutionServiceStub
from tests.hostile import executing
from tests.hostile.attacked import BYSTANDER, ECHO, SMALL, token
from tests.hostile.polite import WORKFLOW
from tests.integration.stage import step
from tests.patience import PATIENCE

CROWD = SMALL["max_concurrent_rpcs"] + 10
SLOW = {"name": "slow", "steps": [step("one", "wait", duration=6)]}
LASTING = {"name": "lasting", "steps": [step("one", "wait", duration=500)]}
"""They stay in memory all the time; the end of the last is not awaited."""


class Crowd:
    """Calls of one identity that stay open, and what became of those that did not."""

    def __init__(self, stub, who):
        self.stub, self.metadata = stub, call_metadata(who)
        self.calls: list[asyncio.Future[None]] = []
        self.ended: Counter[str] = Counter()

    def add(self, make, count):
        self.calls += [asyncio.ensure_future(self._watch(make(self.stub, self.metadata))) for _ in range(count)]

    async def _watch(self, call):
        try:
            await (call.read() if hasattr(call, "read") else call)
        except grpc.aio.AioRpcError as error:
            self.ended[error.code().name] += 1
            return
        if hasattr(call, "read"):
            await asyncio.get_running_loop().create_future()

    async def settled(self, refused):
        """Return when so many at least were refused."""
        async with asyncio.timeout(PATIENCE):
            while sum(self.ended.values()) < refused:  # noqa: ASYNC110 - nothing tells when the server has decided
                await asyncio.sleep(0.02)

    async def leave(self):
        for call in self.calls:
            call.cancel()
        await asyncio.gather(*self.calls, return_exceptions=True)


def waiting(stub, metadata):
    return stub.Execute(execute_request("slow", wait=True), metadata=metadata, timeout=60)


async def test_calls_that_wait_leave_places_to_others(attack):
    """Of 2,100 waiting calls of one org the others got QUEUE_FULL for every call."""
    attacked = await attack(**SMALL)
    async with attacked.client() as client:
        await client.apply([SLOW])
        crowd = Crowd(ExecutionServiceStub(attacked.channel), token())
        async with attacked.beside(f"{CROWD} waiting calls") as seen:
            crowd.add(waiting, CROWD)
            await crowd.settled(20)
            await seen.enough()
        assert set(crowd.ended) == {"RESOURCE_EXHAUSTED"}
        # Also those of the same identity that do not wait, and of another identity that do.
        assert (await client.get_workflow("slow")).name == "slow"
        # Its execution runs next: what is looked for is a place for the call, not one to run beside slow ones.
        answer = await crowd.stub.Execute(
            execute_request(ECHO, {}, wait=True, priority=9), metadata=call_metadata(token(subject="mallory"))
        )
        assert answer.execution.state == flowkeep.Execution.STATE_COMPLETED
        await crowd.leave()
        await client.delete_workflow("slow", force=True)


async def test_executions_that_take_long_leave_places_to_others(attack):
    attacked = await attack(**SMALL)
    async with attacked.client() as client, attacked.client(BYSTANDER, "ann") as bystander:
        await client.apply([LASTING])
        for _ in range(60):
            await client.execute("lasting")
        for _ in range(5):
            async with asyncio.timeout(PATIENCE):
                execution = await bystander.execute(WORKFLOW, wait=True)
            assert execution.state == flowkeep.Execution.STATE_COMPLETED
        running = await client.list_page(states=["RUNNING"], count_total=True)
        assert 10 <= running.total_size < 20
        await client.delete_workflow("lasting", force=True)


async def test_streams_leave_places_to_others(attack):
    attacked = await attack(**SMALL)
    async with attacked.client() as client, attacked.client(BYSTANDER, "ann") as bystander:
        await client.apply([SLOW])
        watched = (await client.execute("slow")).execution_id
        crowd = Crowd(ExecutionServiceStub(attacked.channel), token())
        crowd.add(
            lambda stub, who: stub.WatchExecution(pb.WatchExecutionRequest(execution_id=watched), metadata=who), 40
        )
        await crowd.settled(12)
        execution = await bystander.execute(WORKFLOW)
        async with asyncio.timeout(PATIENCE):
            assert [event.seq async for event in bystander.watch(execution.execution_id)]
        assert set(crowd.ended) == {"RESOURCE_EXHAUSTED"}
        await crowd.leave()
        await client.delete_workflow("slow", force=True)


async def test_large_executions_are_listed_page_by_page_and_nobody_waits_for_them(attacked):
    """FULL over executions of 30 MB always failed as DATABASE_UNAVAILABLE, and the calls of all others with it."""
    copies = [step(f"s{n}", "transform", expression=f"input.text + '{n}'") for n in range(12)]
    text = "".join(f"{n:05d}" for n in range(48_000))
    async with attacked.client() as client:
        await client.apply([{"name": "large", "steps": copies}])
        ids = [(await client.execute("large", {"text": text})).execution_id for _ in range(3)]
        for execution_id in ids:
            await client.result(execution_id)
        reading = executing.read_large, attacked.target, token(), "large", ids[0], 5
        async with attacked.beside("large executions"):
            pages, answers = await attacked.attacker.run(*reading)
    assert [execution.execution_id for page in pages for execution in page.executions] == ids[::-1]
    for page in pages:
        assert page.ByteSize() < 4 << 20
        for each in page.executions:
            omitted = [step.payloads_omitted for step in each.steps]
            assert omitted == sorted(omitted)
            assert 0 < sum(omitted) < len(copies)
            assert all(step.HasField("output") is not step.payloads_omitted for step in each.steps)
    assert set(answers) <= {"OK", "RESOURCE_EXHAUSTED"}
    assert answers["OK"]
