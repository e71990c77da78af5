"""What people are shown of workers, and of how far they are."""

from __future__ import annotations

import asyncio

import pytest

from flowkeep.v1 import worker_service_pb2 as pb
from flowkeep.v1.worker_service_pb2_grpc import WorkerServiceStub
from service.api import workers
from tests.integration.raw_worker import working
from tests.integration.stage import Served, eventually, made, step


async def test_a_worker_that_says_only_what_it_does_is_as_far_as_it_last_said(served: Served):
    told: list[tuple[int, str]] = []
    async with working(served.channel, "work") as worker:
        execution_id = (await served.client.execute(await made(served.client, step("a", "work")))).execution_id
        given = await worker.hear("assignment")
        await worker.say(progress=pb.AttemptProgress(attempt=given.attempt, progress_percent=40, message="reading"))

        async def write() -> bool:
            await worker.say(progress=pb.AttemptProgress(attempt=given.attempt, message="writing"))
            return len(told) > 1  # not all of it is recorded

        writing = asyncio.create_task(eventually(write))
        async for event in served.client.watch(execution_id):
            if event.HasField("step_progressed"):
                told.append((event.step_progressed.progress_percent, event.step_progressed.message))
                if len(told) == 2:
                    await writing
                    await worker.complete(given.attempt)
    assert {percent for percent, _ in told} == {40} and told[-1][1] == "writing"


async def test_so_many_attempts_are_listed_as_an_answer_may_have(served: Served, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(workers, "MOST_ATTEMPTS_OF_ONE", 2)
    monkeypatch.setattr(workers, "MOST_ATTEMPTS", 3)
    stub = WorkerServiceStub(served.channel)
    async with working(served.channel, "one", name="a") as first, working(served.channel, "two", name="b") as second:
        for worker, handler in ((first, "one"), (second, "two")):
            steps = [step(f"s{number}", handler) for number in range(3)]
            await served.client.execute(await made(served.client, *steps, ordering="GRAPH"))
            for _ in steps:
                await worker.hear("assignment")
        found = (await stub.ListWorkers(pb.ListWorkersRequest())).workers
    assert [(each.name, each.running, len(each.attempts)) for each in found] == [("a", 3, 2), ("b", 3, 1)]
