"""The calls that hold executions, let them go on, and end them at once."""

from __future__ import annotations

from flowkeep.arguments import flag, text
from flowkeep.connection import Connection
from flowkeep.requests import RequestId, request_text
from flowkeep.v1 import execution_service_pb2 as pb
from flowkeep.v1.execution_pb2 import Execution


class ControlCalls(Connection):
    """What `Client` offers of ExecutionService to control executions that run."""

    async def pause(
        self,
        execution_id: str,
        reason: str = "",
        *,
        hard: bool = False,
        stop_deadline: bool = False,
        request_id: RequestId = None,
    ) -> Execution:
        """Let nothing of an execution begin until it is resumed, and return it.

        With `hard` attempts that run are stopped, and made again after that; with `stop_deadline` the time until then
        does not count. Raises NotFoundError, FailedPreconditionError (EXECUTION_STATE, EXECUTION_FINISHED).
        """
        request = pb.PauseRequest(
            execution_id=text("execution_id", execution_id),
            reason=text("reason", reason),
            hard=flag("hard", hard),
            stop_deadline=flag("stop_deadline", stop_deadline),
            request_id=request_text(request_id),
        )
        return (await self._call(self._executions.Pause, request)).execution

    async def resume(self, execution_id: str, reason: str = "", *, request_id: RequestId = None) -> Execution:
        """Let a paused execution go on, and return it.

        Raises NotFoundError, FailedPreconditionError (EXECUTION_STATE, EXECUTION_FINISHED).
        """
        request = pb.ResumeRequest(
            execution_id=text("execution_id", execution_id),
            reason=text("reason", reason),
            request_id=request_text(request_id),
        )
        return (await self._call(self._executions.Resume, request)).execution

    async def terminate(self, execution_id: str, reason: str = "", *, request_id: RequestId = None) -> Execution:
        """End an execution at once, without waiting for what runs, and return it.

        What ran may still take effect. Raises NotFoundError, FailedPreconditionError (EXECUTION_FINISHED).
        """
        request = pb.TerminateRequest(
            execution_id=text("execution_id", execution_id),
            reason=text("reason", reason),
            request_id=request_text(request_id),
        )
        return (await self._call(self._executions.Terminate, request)).execution
