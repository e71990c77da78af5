"""Bugs of FAULTS in what is done with workers: each turns the test red that is there for it."""

from __future__ import annotations

import asyncio

import grpc
import pytest

import flowkeep
from flowkeep.v1 import worker_service_pb2 as pb
from flowkeep.v1.worker_service_pb2_grpc import WorkerServiceStub
from service.engine.workers.model import Answer, AttemptId, Completed, Settle
from service.engine.workers.pool import Workers, WorkerSilentError
from service.engine.workers.worker import Worker
from tests.integration import test_workers, test_workers_lost
from tests.integration.conftest import Serve
from tests.integration.raw_worker import RawWorker, working
from tests.integration.stage import Served, ended, eventually, made, step
from tests.integration.test_workers_lost import SOON, given_to
from tests.patience import PATIENCE


@pytest.fixture
def m20(monkeypatch: pytest.MonkeyPatch) -> None:
    """M20: the result of an attempt that has been superseded counts as that of the attempt which runs."""

    def answered(self: Workers, worker: Worker, attempt: AttemptId, answer: Answer) -> None:
        step = attempt.execution_id, attempt.path
        for each in self.all:
            for running in list(each.assigned):
                if (running.execution_id, running.path) == step and running.number > attempt.number:
                    before(self, each, running, answer)
                    assert worker.link is not None
                    worker.link.tell(Settle(attempt, is_recorded=True))
                    return
        before(self, worker, attempt, answer)

    before = Workers.answered
    monkeypatch.setattr(Workers, "answered", answered)


@pytest.fixture
def m21(monkeypatch: pytest.MonkeyPatch) -> None:
    """M21: nobody asks whether it is the worker that was given the attempt who speaks of it."""

    def answered(self: Workers, worker: Worker, attempt: AttemptId, answer: Answer) -> None:
        owner = next((each for each in self.all if attempt in each.assigned), worker)
        before(self, owner, attempt, answer)
        if owner is not worker and worker.link is not None:
            worker.link.tell(Settle(attempt, is_recorded=True))

    before = Workers.answered
    monkeypatch.setattr(Workers, "answered", answered)


@pytest.fixture
def m22(monkeypatch: pytest.MonkeyPatch) -> None:
    """M22: a worker that was silent for too long keeps what it runs."""

    def lose(self: Workers, worker: Worker) -> None:
        link, worker.link = worker.link, None
        if link is not None:
            link.end(WorkerSilentError("nothing was heard"))

    monkeypatch.setattr(Workers, "_lose", lose)


@pytest.fixture
def m23(monkeypatch: pytest.MonkeyPatch) -> None:
    """M23: a worker is given more attempts than it has room for."""
    monkeypatch.setattr(Worker, "room", property(lambda self: int(self.is_available)))


@pytest.fixture
def m24(monkeypatch: pytest.MonkeyPatch) -> None:
    """M24: what a worker runs is forgotten when it drains."""

    def drain_worker(self: Workers, worker: Worker) -> None:
        before(self, worker)
        worker.assigned.clear()

    before = Workers.drain_worker
    monkeypatch.setattr(Workers, "drain_worker", drain_worker)


@pytest.fixture
def m25(monkeypatch: pytest.MonkeyPatch) -> None:
    """M25: what workers run is lost when their server drains, and counts as done."""

    def drain(self: Workers, grace: float) -> None:
        before(self, grace)
        for worker in self.all:
            for assignment in list(worker.assigned.values()):
                self._answer(worker, assignment, Completed(b"null"))

    before = Workers.drain
    monkeypatch.setattr(Workers, "drain", drain)


async def reason_of_the_end(worker: RawWorker) -> str:
    """Why the server ends the stream of a worker, which it may answer heartbeats of before."""
    async with asyncio.timeout(PATIENCE):
        try:
            while await worker.call.read() is not grpc.aio.EOF:
                pass
        except grpc.aio.AioRpcError as error:
            return error.details() or ""
    raise AssertionError("the stream ended well")


async def test_a_silent_worker_that_comes_back_has_lost_its_attempts(serve: Serve):
    """Even before the next attempt of them has begun, and though nobody else has taken them."""
    served = await serve(**SOON)
    async with working(served.channel, "work") as silent:
        _, attempt = await given_to(silent, served)
        assert "was heard" in await reason_of_the_end(silent)
    async with working(served.channel, "work", worker_id=silent.worker_id, attempts=[attempt]) as again:
        assert attempt in again.registered.unwanted


async def test_no_worker_runs_more_than_its_capacity(served: Served):
    stub = WorkerServiceStub(served.channel)
    async with working(served.channel, "work", capacity=1):
        name = await made(served.client, step("a", "work"), step("b", "work"), ordering="GRAPH")
        execution_id = (await served.client.execute(name)).execution_id

        async def have_come() -> bool:
            """Whether each step is with the worker or in line for it."""
            (shown[:],) = [(await stub.ListWorkers(pb.ListWorkersRequest())).workers]
            steps = (await served.client.get_execution(execution_id)).steps
            waiting = [each for each in steps if each.wait.WhichOneof("kind") == "slot"]
            return shown[0].running + len(waiting) == len(steps) == 2

        shown: list[pb.Worker] = []
        await eventually(have_come)
    assert shown[0].running <= shown[0].capacity


async def test_what_workers_run_outlives_a_server_that_drains(serve: Serve):
    """By the attempt that runs, or by another one: the step has the output that a worker gave."""
    first, second = await serve(), await serve()
    async with working(first.channel, "work") as worker:
        execution_id, attempt = await given_to(worker, first)
        await first.stop()
    kept = await second.client.get_execution(execution_id)
    assert kept.state == flowkeep.Execution.STATE_RUNNING, "what ran is lost"
    async with working(second.channel, "work", worker_id=worker.worker_id, attempts=[attempt]) as again:
        if attempt in again.registered.unwanted:
            attempt = (await again.hear("assignment")).attempt
        await again.complete(attempt, "done")
        assert (await again.hear("settled")).is_recorded
        execution = await ended(second.client, execution_id)
    assert flowkeep.from_value(execution.steps[0].output) == "done"


@pytest.mark.usefixtures("m20")
async def test_m20_turns_its_oracle_red(serve: Serve):
    with pytest.raises(AssertionError, match="is_recorded"):
        await test_workers_lost.test_the_attempt_of_a_lost_worker_is_made_again_and_costs_no_retry(serve)


@pytest.mark.usefixtures("m21")
async def test_m21_turns_its_oracle_red(served: Served):
    with pytest.raises(AssertionError, match="is_recorded"):
        await test_workers_lost.test_nobody_speaks_for_another_worker(served)


@pytest.mark.usefixtures("m22")
async def test_m22_turns_its_oracle_red(serve: Serve):
    with pytest.raises(AssertionError, match="unwanted"):
        await test_a_silent_worker_that_comes_back_has_lost_its_attempts(serve)


@pytest.mark.usefixtures("m23")
async def test_m23_turns_its_oracle_red(served: Served):
    with pytest.raises(AssertionError, match="capacity"):
        await test_no_worker_runs_more_than_its_capacity(served)


@pytest.mark.usefixtures("m24")
async def test_m24_turns_its_oracle_red(served: Served):
    with pytest.raises(AssertionError, match="is_recorded"):
        await test_workers.test_a_worker_that_drains_is_given_nothing_more(served)


@pytest.mark.usefixtures("m25")
async def test_m25_turns_its_oracle_red(serve: Serve):
    with pytest.raises(AssertionError, match="what ran is lost"):
        await test_what_workers_run_outlives_a_server_that_drains(serve)
