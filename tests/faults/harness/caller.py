"""One client of a chaos run: each attempt of an RPC is made once and written down, whatever became of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import grpc
import grpc.aio

from flowkeep.errors import FlowkeepError, from_rpc_error
from flowkeep.v1.execution_pb2 import Execution, ExecutionView
from flowkeep.v1.execution_service_pb2 import (
    CancelRequest,
    ExecuteRequest,
    GetExecutionRequest,
    ListExecutionsRequest,
)
from flowkeep.v1.execution_service_pb2_grpc import ExecutionServiceStub
from tests.faults.harness.records import Call, Outcome

DEADLINE = 8.0
"""Seconds that a caller gives an RPC."""

_DEFINITE = frozenset(
    {
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.UNAUTHENTICATED,
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.ALREADY_EXISTS,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.OUT_OF_RANGE,
        grpc.StatusCode.UNIMPLEMENTED,
    }
)


def outcome_of(error: FlowkeepError) -> Outcome:
    """Return what a caller knows after an error: EX4."""
    return Outcome.DEFINITE if error.code in _DEFINITE else Outcome.UNKNOWN


class Called(Protocol):
    """A server that clients call."""

    @property
    def name(self) -> str:
        """What the record calls it."""
        ...

    def channel(self) -> grpc.aio.Channel:
        """Return a connection of one client's own."""
        ...


@dataclass
class History:
    """What all clients saw, in the order of the answers."""

    calls: list[Call] = field(default_factory=list)
    acked: dict[str, str] = field(default_factory=dict)
    """The program of each execution that was acknowledged."""
    recent: list[str] = field(default_factory=list)
    """The executions in the order of their acknowledgements."""
    known_seq: dict[str, int] = field(default_factory=dict)
    """A position of each execution that some client has surely seen."""

    def saw(self, execution: Execution) -> None:
        """Take note of an execution in an answer."""
        known = self.known_seq.get(execution.execution_id, 0)
        self.known_seq[execution.execution_id] = max(known, execution.last_seq)


class Caller:
    """Makes calls over connections of its own to every replica."""

    def __init__(self, name: str, replicas: Sequence[Called], history: History) -> None:
        self.name = name
        self.history = history
        self.replicas = replicas
        self._stubs = {replica.name: ExecutionServiceStub(replica.channel()) for replica in replicas}

    async def execute(self, replica: Called, request: ExecuteRequest, content: str) -> Call:
        """Execute once."""

        def read(response: Any) -> dict[str, Any]:
            self.history.saw(response.execution)
            return {**facts_of(response.execution), "created": response.created}

        call = await self._call(
            "Execute", replica, request, read, request_id=request.request_id, content=content, execution_id=""
        )
        self._heard(call, request.workflow)
        return call

    def _heard(self, call: Call, workflow: str) -> None:
        """Take note of an execution that somebody has started, if the call says so."""
        if call.outcome is Outcome.OK and call.execution_id not in self.history.acked:
            self.history.acked[call.execution_id] = workflow
            self.history.recent.append(call.execution_id)

    async def get(self, replica: Called, execution_id: str, *, is_final: bool = False) -> Call:
        """Get an execution with its steps once."""
        request = GetExecutionRequest(execution_id=execution_id, view=ExecutionView.EXECUTION_VIEW_FULL)

        def read(response: Any) -> dict[str, Any]:
            self.history.saw(response.execution)
            steps = {step.path: _name(step.State.Name(step.state)) for step in response.execution.steps}
            return {**facts_of(response.execution), "step_states": steps}

        return await self._call("GetExecution", replica, request, read, execution_id=execution_id, is_final=is_final)

    async def list(self, replica: Called) -> Call:
        """List a page once."""
        request = ListExecutionsRequest(page_size=20)
        return await self._call("ListExecutions", replica, request, lambda response: {})

    async def cancel(self, replica: Called, execution_id: str) -> Call:
        """Cancel an execution once."""
        request = CancelRequest(execution_id=execution_id, reason="chaos")
        return await self._call(
            "Cancel", replica, request, lambda response: facts_of(response.execution), execution_id=execution_id
        )

    async def _call(
        self,
        method: str,
        replica: Called,
        request: Any,
        read: Callable[[Any], dict[str, Any]],
        stubs: Mapping[str, Any] | None = None,
        **facts: Any,
    ) -> Call:
        invoked = time.monotonic()
        try:
            response = await getattr((stubs or self._stubs)[replica.name], method)(request, timeout=DEADLINE)
        except grpc.aio.AioRpcError as failure:
            error = from_rpc_error(failure)
            result = {"outcome": outcome_of(error), "code": error.code.name, "reason": error.reason}
        else:
            result = {"outcome": Outcome.OK, **read(response)}
        call = Call(
            self.name, method, replica.name, invoked, time.monotonic(), deadline=DEADLINE, **{**facts, **result}
        )
        self.history.calls.append(call)
        return call


def facts_of(execution: Execution) -> dict[str, Any]:
    """Return what an answer says of an execution."""
    return {
        "execution_id": execution.execution_id,
        "state": _name(Execution.State.Name(execution.state)),
        "last_seq": execution.last_seq,
    }


def _name(state: str) -> str:
    return state.removeprefix("STATE_")
