"""A database that neither answers nor goes away: nobody waits for it, and what was on its way is not cut off.

Holds the 5 s of CONTRACT 2.5.
"""

import asyncio
from contextlib import contextmanager

import grpc
import psutil
import pytest

import flowkeep
from flowkeep.definition import definition as read_definition
from flowkeep.requests import execute_request
from flowkeep.v1 import execution_service_pb2 as pb
from flowkeep.v1 import workflow_service_pb2 as workflows_pb
from flowkeep.v1.execution_service_pb2_grpc import ExecutionServiceStub
from flowkeep.v1.workflow_service_pb2_grpc import WorkflowServiceStub
from service.api import answering
from tests.integration.stage import Store, ended, eventually, made, refusal, serving, step
from tests.patience import PATIENCE

Code = grpc.StatusCode
State = flowkeep.Execution

DEADLINE = PATIENCE
"""Seconds; the promise is 5, and of a busy machine it is only asked that no call waits for the database."""
POOL = 32
"""Connections, one for each call."""


@contextmanager
def frozen(postgres):
    """Postgres stands still inside: connections stay, and nothing answers."""
    postmaster = psutil.Process(postgres.pid)
    postmaster.suspend()  # or it would start more
    family = [postmaster, *postmaster.children(recursive=True)]
    for process in family:
        process.suspend()
    try:
        yield
    finally:
        for process in family:
            if process.is_running():
                process.resume()


async def test_every_call_is_answered_within_5_s_of_a_frozen_database(open_repository, postgres, stage, mistakes):
    reads = asyncio.Event()

    def noticed(real):
        def get_workflow(*arguments):
            reads.set()
            return real.get_workflow(*arguments)

        return Store(real, get_workflow=get_workflow)

    async with (
        open_repository(pool_size=POOL) as repository,
        serving(noticed(repository), stage.handlers()) as target,
        flowkeep.Client(target) as client,
        grpc.aio.insecure_channel(target) as channel,
    ):
        name, other = await made(client, step("a", "gate")), await made(client, step("b"))
        unread = await made(client, step("b"))  # one that this server must look up
        kept = (await client.execute(name)).execution_id
        await stage.called("a")
        # So that all of them have a connection: without one they were refused sooner.
        await asyncio.gather(*(client.get_execution(kept) for _ in range(2 * POOL)))
        with frozen(postgres):
            reads.clear()
            first = asyncio.ensure_future(refusal(executing(channel, unread, "first")))
            await reads.wait()
            # Who comes while a read is on its way waits for its end, and then for a read of its own.
            calls = [executing(channel, unread, "second"), *calls_of_all_kinds(channel, name, other, kept)]
            errors = [*await asyncio.gather(*map(refusal, calls)), await first]
        assert {(error.code, error.reason) for error in errors} == {(Code.UNAVAILABLE, "DATABASE_UNAVAILABLE")}
        assert all(error.retry_after for error in errors)

        # What became of them was unknown, and is no longer: repeated, each gives one execution.
        stage.open("gate")
        again = [await client.execute(name, request_id=f"r{n % 3}") for n in range(6)]
        assert [each.execution_id for each in again[:3]] == [each.execution_id for each in again[3:]]
        for execution in again:
            assert (await ended(client, execution.execution_id)).state == State.STATE_COMPLETED
    mistakes.clear()


def executing(channel, name, request_id, wait=False):
    request = execute_request(name, request_id=request_id, wait=wait)
    return ExecutionServiceStub(channel).Execute(request, timeout=DEADLINE)


def calls_of_all_kinds(channel, name, other, execution_id):
    """Unary calls that need the database, several of those that many make at once."""
    executions, workflows = ExecutionServiceStub(channel), WorkflowServiceStub(channel)
    new = read_definition({"name": "new", "steps": [step("b")]})
    changed = read_definition({"name": other, "steps": [step("c")]})
    for n in range(3):
        yield executing(channel, name, f"r{n}")
        yield executions.GetExecution(pb.GetExecutionRequest(execution_id=execution_id), timeout=DEADLINE)
        yield executions.ListExecutions(pb.ListExecutionsRequest(count_total=True), timeout=DEADLINE)
        yield executions.Cancel(pb.CancelRequest(execution_id=execution_id), timeout=DEADLINE)
    yield executing(channel, name, "waits", wait=True)
    yield workflows.CreateWorkflow(workflows_pb.CreateWorkflowRequest(definition=new), timeout=DEADLINE)
    yield workflows.UpdateWorkflow(
        workflows_pb.UpdateWorkflowRequest(workflow=other, definition=changed), timeout=DEADLINE
    )
    yield workflows.ApplyWorkflows(workflows_pb.ApplyWorkflowsRequest(definitions=[new, changed]), timeout=DEADLINE)
    yield workflows.GetWorkflow(workflows_pb.GetWorkflowRequest(workflow=name), timeout=DEADLINE)
    yield workflows.ListWorkflows(workflows_pb.ListWorkflowsRequest(), timeout=DEADLINE)
    yield workflows.DeleteWorkflow(workflows_pb.DeleteWorkflowRequest(workflow=other), timeout=DEADLINE)


class Stalled:
    """Methods of a store that reach it, and give their answers only when the test lets them."""

    def __init__(self):
        self.reached, self.goes_on, self.gone_on = asyncio.Event(), asyncio.Event(), asyncio.Event()

    def before(self, method):
        """The method, which waits before it begins."""

        async def stalled(*arguments):
            self.reached.set()
            await self.goes_on.wait()
            answer = await method(*arguments)
            self.gone_on.set()
            return answer

        return stalled


@pytest.fixture
def stalled(monkeypatch):
    monkeypatch.setattr(answering, "LONGEST", 1.0)
    return Stalled()


async def test_a_write_that_takes_too_long_is_not_cut_off(serve, stalled):
    served = await serve(wrap=lambda real: Store(real, create_workflow=stalled.before(real.create_workflow)))
    definition = read_definition({"name": "late", "steps": [step("a")]})
    error = await refusal(served.workflows.CreateWorkflow(workflows_pb.CreateWorkflowRequest(definition=definition)))
    assert (error.code, error.reason) == (Code.UNAVAILABLE, "DATABASE_UNAVAILABLE")
    assert stalled.reached.is_set()
    assert not stalled.goes_on.is_set()

    stalled.goes_on.set()
    async with asyncio.timeout(PATIENCE):
        await stalled.gone_on.wait()
    assert (await served.client.get_workflow("late")).revision == 1


async def test_a_caller_who_went_away_is_worked_for_no_longer(serve, stalled, monkeypatch):
    monkeypatch.setattr(answering, "LONGEST", 4.5)
    served = await serve(wrap=lambda real: Store(real, list_workflows=stalled.before(real.list_workflows)))
    call = served.workflows.ListWorkflows(workflows_pb.ListWorkflowsRequest())
    async with asyncio.timeout(PATIENCE):
        await stalled.reached.wait()
    call.cancel()

    async def is_over():
        return not answering._late

    await eventually(is_over)
    assert not stalled.gone_on.is_set()


async def test_execute_with_wait_takes_as_long_as_it_takes(serve, stage, stalled):
    """Only its waiting does: a call that came later is given up before it."""
    served = await serve(wrap=lambda real: Store(real, list_workflows=stalled.before(real.list_workflows)))
    name = await made(served.client, step("a", "gate"))
    waiting = asyncio.ensure_future(served.executions.Execute(pb.ExecuteRequest(workflow=name, wait=True)))
    await stage.called("a")
    for _ in range(2):
        error = await refusal(served.workflows.ListWorkflows(workflows_pb.ListWorkflowsRequest()))
        assert error.code is Code.UNAVAILABLE
    assert not waiting.done()
    stage.open("gate")
    assert (await waiting).execution.state == State.STATE_COMPLETED
    stalled.goes_on.set()
