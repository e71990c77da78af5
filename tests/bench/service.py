"""What is measured of a server, through the generated stubs; each measure also checks what it was told."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import grpc
from google.protobuf.duration_pb2 import Duration

from flowkeep.definition import definition
from flowkeep.payload import to_struct
from flowkeep.requests import list_request
from flowkeep.v1 import execution_service_pb2 as pb
from flowkeep.v1.event_pb2 import ExecutionEvent
from flowkeep.v1.execution_pb2 import Execution
from flowkeep.v1.execution_service_pb2_grpc import ExecutionServiceStub
from flowkeep.v1.workflow_service_pb2 import CreateWorkflowRequest
from flowkeep.v1.workflow_service_pb2_grpc import WorkflowServiceStub
from tests.bench.flight import fly

if TYPE_CHECKING:
    from flowkeep.v1.execution_service_pb2_grpc import ExecutionServiceAsyncStub
    from flowkeep.v1.workflow_service_pb2_grpc import WorkflowServiceAsyncStub

INPUT = to_struct({"topic": "AI trends"})
DEADLINE = 60.0
LARGEST_PAGE = 200
EVENTS_AROUND = 3
"""Events of an execution beside those of its steps: created, started, finished."""
WAITS = 40
WAIT_SECONDS = 0.05


def _steps(count: int, **fields: Any) -> list[dict[str, Any]]:
    return [{"id": f"s{number}", **fields} for number in range(count)]


NOOP = {"handler": "noop", "params": {"a": 1}}
WORKFLOWS: Sequence[dict[str, Any]] = (
    {"name": "three", "steps": _steps(3, **NOOP)},
    {"name": "forty", "steps": _steps(40, **NOOP)},
    {"name": "transforms", "steps": _steps(3, handler="transform", params={"expression": "size(input.topic)"})},
    {"name": "waits", "steps": _steps(WAITS, handler="wait", params={"duration": WAIT_SECONDS})},
)
EVENTS = {"three": 2, "forty": 2, "transforms": 1, "waits": 2}
"""Events of each step: what begins and ends in one transition has but its end."""


class Service:
    """A server that is measured."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._workflows: WorkflowServiceAsyncStub = WorkflowServiceStub(channel)
        self._executions: ExecutionServiceAsyncStub = ExecutionServiceStub(channel)

    async def prepare(self) -> None:
        """Create the workflows."""
        for document in WORKFLOWS:
            await self._workflows.CreateWorkflow(CreateWorkflowRequest(definition=definition(document)))

    async def waited(self, workflow: str, count: int, width: int) -> float:
        """Return the seconds that executions take whose callers wait for the answer."""
        batch = str(uuid4())

        async def execute() -> Execution:
            return (await self._execute(workflow, correlation_id=batch, wait=True)).execution

        began = time.perf_counter()
        ended = await fly((execute() for _ in range(count)), width)
        took = time.perf_counter() - began
        for execution in ended:
            _check_ended(execution)
            assert execution.HasField("result")
        await self._check_kept(batch, ended)
        return took

    async def watched(self, workflow: str, count: int, width: int) -> float:
        """Return the seconds that executions take each of which is watched from its first event to its last."""
        batch, histories = str(uuid4()), dict[str, list[ExecutionEvent]]()

        async def execute() -> Execution:
            execution = (await self._execute(workflow, correlation_id=batch)).execution
            histories[execution.execution_id] = await self._history(execution.execution_id)
            return execution

        began = time.perf_counter()
        started = await fly((execute() for _ in range(count)), width)
        took = time.perf_counter() - began
        for execution in await self._check_kept(batch, started):
            history = histories[execution.execution_id]
            assert [event.seq for event in history] == list(range(1, execution.last_seq + 1))
            assert history[-1].finished.state == Execution.STATE_COMPLETED
            assert (history[-1].progress_percent, history[-1].step_counts) == (100, execution.step_counts)
        return took

    async def starts(self, count: int, width: int) -> float:
        """Return the seconds that it takes to accept executions that begin much later."""
        delay, batch = Duration(seconds=86_400), str(uuid4())

        async def execute() -> pb.ExecuteResponse:
            return await self._execute("three", correlation_id=batch, start_delay=delay)

        began = time.perf_counter()
        started = await fly((execute() for _ in range(count)), width)
        took = time.perf_counter() - began
        await self._check_started(batch, started)
        return took

    async def batches(self, count: int, size: int, width: int) -> float:
        """Return the seconds that it takes to accept as many executions in batches."""
        delay, batch = Duration(seconds=86_400), str(uuid4())

        async def execute() -> list[pb.ExecuteResponse]:
            requests = [_request("three", correlation_id=batch, start_delay=delay) for _ in range(size)]
            response = await self._executions.BatchExecute(pb.BatchExecuteRequest(requests=requests), timeout=DEADLINE)
            return [result.response for result in response.results]

        began = time.perf_counter()
        answers = await fly((execute() for _ in range(count // size)), width)
        took = time.perf_counter() - began
        await self._check_started(batch, [each for answer in answers for each in answer])
        return took

    async def fan_out(self, watchers: int) -> list[float]:
        """Return how many seconds each event of one execution took to each of its watchers, sorted.

        Counted from the moment when the server made the event, its commit included.
        """
        delay, latencies = Duration(seconds=1), list[float]()
        execution_id = (await self._execute("waits", start_delay=delay)).execution.execution_id

        async def watch() -> int:
            request = pb.WatchExecutionRequest(execution_id=execution_id)
            seen = 0
            async for response in self._executions.WatchExecution(request, timeout=DEADLINE):
                now = time.time()
                seen += len(response.events.events)
                latencies.extend(now - _seconds(event) for event in response.events.events if event.seq > 1)
            return seen

        seen = await fly((watch() for _ in range(watchers)), watchers)
        assert set(seen) == {WAITS * EVENTS["waits"] + EVENTS_AROUND}, seen
        return sorted(latencies)

    async def _execute(self, workflow: str, **fields: Any) -> pb.ExecuteResponse:
        return await self._executions.Execute(_request(workflow, **fields), timeout=DEADLINE)

    async def _history(self, execution_id: str) -> list[ExecutionEvent]:
        request = pb.WatchExecutionRequest(execution_id=execution_id)
        responses = self._executions.WatchExecution(request, timeout=DEADLINE)
        return [event async for response in responses for event in response.events.events]

    async def _check_started(self, batch: str, answers: Sequence[pb.ExecuteResponse]) -> None:
        """Assert that each answer made an execution, and that exactly these are kept, to begin later."""
        assert all(answer.created for answer in answers)
        assert all(answer.execution.state == Execution.STATE_PENDING for answer in answers)
        kept = [each.execution_id for each in await self._list(batch)]
        assert sorted(kept) == sorted(answer.execution.execution_id for answer in answers)

    async def _check_kept(self, batch: str, given: Sequence[Execution]) -> list[Execution]:
        """Assert that exactly the executions of a batch are kept and all have completed; return them."""
        kept = await self._list(batch)
        assert {each.execution_id for each in kept} == {each.execution_id for each in given}
        assert len(kept) == len(given)
        for execution in kept:
            _check_ended(execution)
        return kept

    async def _list(self, batch: str) -> list[Execution]:
        found: list[Execution] = []
        request = list_request(correlation_id=batch, page_size=LARGEST_PAGE, count_total=True)
        while True:
            page = await self._executions.ListExecutions(request, timeout=DEADLINE)
            found += page.executions
            request.page_token = page.next_page_token
            if not page.next_page_token:
                assert page.total_size == len(found)
                return found


def _request(workflow: str, **fields: Any) -> pb.ExecuteRequest:
    return pb.ExecuteRequest(workflow=workflow, input=INPUT, request_id=str(uuid4()), **fields)


def _check_ended(execution: Execution) -> None:
    counts = execution.step_counts
    assert execution.state == Execution.STATE_COMPLETED, execution
    assert (execution.progress_percent, counts.completed, counts.running) == (100, counts.total, 0), execution
    assert execution.last_seq == EVENTS[execution.workflow_name] * counts.total + EVENTS_AROUND, execution


def _seconds(event: ExecutionEvent) -> float:
    return event.time.seconds + event.time.nanos / 1e9
