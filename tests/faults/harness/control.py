"""Callers who steer what has been started: they pause and resume, retry, fork, signal, debug, and act in bulk.

And those who start an execution by a signal, where none goes on that it could be for.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from typing import Any
from uuid import uuid4

from flowkeep.bulk import bulk_request
from flowkeep.requests import signal_with_start_request
from flowkeep.v1.bulk_pb2 import Bulk
from flowkeep.v1.bulk_service_pb2 import GetBulkRequest, ListBulkResultsRequest
from flowkeep.v1.bulk_service_pb2_grpc import BulkServiceStub
from flowkeep.v1.execution_pb2 import Breakpoint, ExecutionView, StepExecution
from flowkeep.v1.execution_service_pb2 import (
    EditStepInputRequest,
    EditVariablesRequest,
    ForkExecutionRequest,
    GetExecutionRequest,
    PauseRequest,
    ResumeRequest,
    RetryRequest,
    SetBreakpointsRequest,
    SignalExecutionRequest,
)
from tests.faults.harness.caller import Called, Caller, History, facts_of
from tests.faults.harness.programs import SIGNAL
from tests.faults.harness.records import VARIABLE, Call, Outcome

LEAST, MOST = 0.1, 0.4
"""Seconds between two tries of a call."""
TRIES = 30
"""Of a retry, for which its execution has to end first."""
AT_ONCE = 5
"""Executions that are paused in bulk."""
HELD = 6
"""Looks at an execution that is debugged."""
EDITED = -1
"""A number that no execution has."""
VALUES = range(1 << 10, 1 << 30)
"""Of a variable that somebody sets: hardly ever the same, and none that a step assigns."""
GROUPS, TOGETHER = 3, 3
"""Correlation ids of a workflow for which signals are sent, and how many at once at most."""
STEERING = frozenset(
    {"Pause", "Resume", "Retry", "ForkExecution", "SignalExecution", "SetBreakpoints", "EditStepInput", "StartBulk"}
    | {"EditVariables", "SignalWithStart"}
)
"""Calls of those who steer."""
_FINAL = ("CANCELLED", "FAILED", "TIMED_OUT", "COMPLETED")


class Controller(Caller):
    """Steers executions; each call is repeated, under one request id, until its answer is definite."""

    def __init__(self, name: str, replicas: Sequence[Called], history: History, draw: random.Random) -> None:
        super().__init__(name, replicas, history)
        self._draw = draw
        self._bulks = {replica.name: BulkServiceStub(replica.channel()) for replica in replicas}

    async def steer(self, execution_id: str, content: str) -> None:
        """Do one of these things with an execution that has been started, as `content` says."""
        await asyncio.sleep(self._draw.uniform(0.0, 0.6))
        match self._draw.choice(("pause", "retry", "fork", "signal", "debug")):
            case "pause":
                await self._pause(execution_id)
            case "retry":
                await self._retry(execution_id)
            case "fork":
                await self._fork(execution_id, content)
            case "signal":
                await self._signal(execution_id)
            case "debug":
                await self._debug(execution_id)

    async def _pause(self, execution_id: str) -> None:
        pause = PauseRequest(execution_id=execution_id, hard=self._draw.random() < 0.5, request_id=str(uuid4()))
        await self._known("Pause", pause, execution_id=execution_id)
        await asyncio.sleep(self._draw.uniform(0.0, 1.0))
        if self._draw.random() < 0.5:
            await self._set_variable(execution_id)
        await self._resume(execution_id)

    async def _retry(self, execution_id: str) -> None:
        """Cancel it, and let it go on when it has ended."""
        while (await self.cancel(self._any, execution_id)).outcome is Outcome.UNKNOWN:
            await self._rest()
        for _ in range(TRIES):
            found = await self.get(self._any, execution_id)
            if found.state in _FINAL:
                break
            await self._rest()
        retry = RetryRequest(execution_id=execution_id, reason=str(uuid4()), request_id=str(uuid4()))
        await self._known("Retry", retry, execution_id=execution_id, detail=retry.reason)

    async def _fork(self, execution_id: str, content: str) -> None:
        step = self._draw.choice(("", "s0", "s1", "s2"))
        request = ForkExecutionRequest(execution_id=execution_id, request_id=str(uuid4()))
        if step:
            request.step_path = step
        await self._known("ForkExecution", request, request_id=request.request_id, content=content)

    async def _signal(self, execution_id: str) -> None:
        for _ in range(self._draw.randint(1, 2)):
            request = SignalExecutionRequest(execution_id=execution_id, name=SIGNAL, request_id=str(uuid4()))
            await self._known("SignalExecution", request, execution_id=execution_id)

    async def signal_together(self, workflow: str) -> None:
        """Send some signals at once to what goes on of a workflow with a correlation id, or start it so."""
        group = f"group-{self._draw.randrange(GROUPS)}"
        count = self._draw.randint(1, TOGETHER)
        await asyncio.gather(*(self._signal_with_start(workflow, group) for _ in range(count)))

    async def _signal_with_start(self, workflow: str, group: str) -> None:
        number = self._draw.randrange(1000)
        request = signal_with_start_request(workflow, group, SIGNAL, {"n": number}, input={"number": number})
        self._heard(await self._known("SignalWithStart", request, content=f"{workflow} {group}"), workflow)

    async def _debug(self, execution_id: str) -> None:
        """Hold it before the next steps, change there what they are called with and see, and let it go."""
        points = SetBreakpointsRequest(
            execution_id=execution_id, breakpoints=[Breakpoint(path="*")], request_id=str(uuid4())
        )
        await self._known("SetBreakpoints", points, execution_id=execution_id)
        for _ in range(HELD):
            state, held = await self._held(execution_id)
            if state in _FINAL:
                return
            if held is not None and "seconds" in held.input and self._draw.random() < 0.5:
                given = {"seconds": 0.01, "number": EDITED}
                edit = EditStepInputRequest(execution_id=execution_id, path=held.path, request_id=str(uuid4()))
                edit.input.update(given)
                await self._known("EditStepInput", edit, execution_id=execution_id, detail=held.path)
            if state == "PAUSED":
                if self._draw.random() < 0.7:
                    await self._set_variable(execution_id)
                await self._resume(execution_id, step_over=True)
            await self._rest()
        await self._set_breakpoints(execution_id)
        # A step may have been held before that was heard of.
        await self._go_on(execution_id)

    async def _set_variable(self, execution_id: str) -> None:
        value = self._draw.choice(VALUES)
        request = EditVariablesRequest(execution_id=execution_id, request_id=str(uuid4()))
        request.vars.update({VARIABLE: value})
        await self._known("EditVariables", request, execution_id=execution_id, detail=str(value))

    async def _go_on(self, execution_id: str) -> None:
        """See to it that an execution goes on to its end."""
        while (state := (await self._held(execution_id))[0]) not in _FINAL:
            if state == "PAUSED":
                await self._resume(execution_id)
            await self._rest()

    async def _set_breakpoints(self, execution_id: str, *points: Breakpoint) -> None:
        request = SetBreakpointsRequest(execution_id=execution_id, breakpoints=points, request_id=str(uuid4()))
        await self._known("SetBreakpoints", request, execution_id=execution_id)

    async def _held(self, execution_id: str) -> tuple[str, StepExecution | None]:
        """Return the state of an execution, empty where nobody answers, and the step that a breakpoint holds."""
        request = GetExecutionRequest(execution_id=execution_id, view=ExecutionView.EXECUTION_VIEW_FULL)
        found: list[StepExecution] = []

        def read(response: Any) -> dict[str, Any]:
            found.extend(step for step in response.execution.steps if step.wait.HasField("breakpoint"))
            return facts_of(response.execution)

        call = await self._call("GetExecution", self._any, request, read, execution_id=execution_id)
        held = next((step for step in found if step.state == StepExecution.STATE_WAITING), None)
        return call.state, held

    async def _resume(self, execution_id: str, **how: Any) -> None:
        resume = ResumeRequest(execution_id=execution_id, request_id=str(uuid4()), **how)
        await self._known("Resume", resume, execution_id=execution_id)

    async def pause_many(self, workflow: str) -> None:
        """Pause some executions of a workflow in bulk, and resume in bulk what is paused of it."""
        pause = await self._bulk(workflow, "pause", hard=self._draw.random() < 0.5, limit=AT_ONCE)
        await asyncio.sleep(self._draw.uniform(0.0, 1.0))
        await self._bulk(workflow, "resume")
        # Some hear of their pause after the look of the other operation.
        for execution_id in await self._come_to(pause):
            await self._go_on(execution_id)

    async def _bulk(self, workflow: str, action: str, **options: Any) -> str:
        """Return the id of an operation that has ended, empty for one that was refused."""
        request = bulk_request(action, workflow=workflow, **options)
        request.request_id = str(uuid4())
        found: dict[str, str] = {}

        def read(response: Any) -> dict[str, Any]:
            found["id"], found["state"] = response.bulk.bulk_id, Bulk.State.Name(response.bulk.state)
            return {"detail": response.bulk.bulk_id}

        await self._known("StartBulk", request, read)
        while found and found["state"] == "STATE_RUNNING":
            await self._rest()
            await self._known("GetBulk", GetBulkRequest(bulk_id=found["id"]), read)
        return found.get("id", "")

    async def _come_to(self, bulk_id: str) -> Sequence[str]:
        """Return the executions that an operation in bulk came to."""
        found: list[str] = []

        def read(response: Any) -> dict[str, Any]:
            found.extend(each.execution_id for each in response.results)
            return {}

        if bulk_id:
            await self._known("ListBulkResults", ListBulkResultsRequest(bulk_id=bulk_id, page_size=100), read)
        return found

    async def _known(
        self, method: str, request: Any, read: Callable[[Any], dict[str, Any]] | None = None, **facts: Any
    ) -> Call:
        """Call again and again until the answer is definite."""
        stubs = self._bulks if "Bulk" in method else None
        while True:
            call = await self._call(method, self._any, request, read or _read, stubs, **facts)
            if call.outcome is not Outcome.UNKNOWN and call.code != "RESOURCE_EXHAUSTED":
                return call
            await self._rest()

    async def _rest(self) -> None:
        await asyncio.sleep(self._draw.uniform(LEAST, MOST))

    @property
    def _any(self) -> Called:
        return self._draw.choice(list(self.replicas))


def _read(response: Any) -> dict[str, Any]:
    """Return what the answer says of its execution, and of the signal."""
    found = facts_of(response.execution)
    if "signal_id" in response.DESCRIPTOR.fields_by_name:
        found["detail"] = response.signal_id
    for name in ("created", "started"):
        if name in response.DESCRIPTOR.fields_by_name:
            found["created"] = getattr(response, name)
    return found
