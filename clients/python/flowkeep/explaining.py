"""The calls that explain why executions do not move."""

from __future__ import annotations

from flowkeep.arguments import text, whole
from flowkeep.connection import Connection
from flowkeep.v1 import explanation_pb2 as pb


class ExplainCalls(Connection):
    """What `Client` offers of ExecutionService to explain executions and queues."""

    async def explain_execution(self, execution_id: str) -> pb.ExplainExecutionResponse:
        """Return why an execution and each of its open steps do not move. Raises NotFoundError."""
        request = pb.ExplainExecutionRequest(execution_id=text("execution_id", execution_id))
        return await self._call(self._executions.ExplainExecution, request)

    async def explain_queue(self, workflow: str, *, page_size: int = 0) -> pb.ExplainQueueResponse:
        """Return why executions of a workflow, by name or id, wait for a server with room. Raises NotFoundError."""
        request = pb.ExplainQueueRequest(workflow=text("workflow", workflow), page_size=whole("page_size", page_size))
        return await self._call(self._executions.ExplainQueue, request)
