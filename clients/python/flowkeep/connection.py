"""What every call goes through: the channel, its token, and when a call is sent again."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self, TypeVar

import grpc
from google.protobuf.message import Message

from flowkeep.channel import Token, call_metadata, checked_target, checked_tls, open_channel
from flowkeep.durations import Span, to_seconds
from flowkeep.errors import from_rpc_error
from flowkeep.retry import Backoff, Judge, may_repeat
from flowkeep.v1.bulk_service_pb2_grpc import BulkServiceStub
from flowkeep.v1.execution_service_pb2_grpc import ExecutionServiceStub
from flowkeep.v1.notification_service_pb2_grpc import NotificationServiceStub
from flowkeep.v1.task_service_pb2_grpc import TaskServiceStub
from flowkeep.v1.worker_service_pb2_grpc import WorkerServiceStub
from flowkeep.v1.workflow_service_pb2_grpc import WorkflowServiceStub

if TYPE_CHECKING:  # these classes exist in the stubs only
    from flowkeep.v1.bulk_service_pb2_grpc import BulkServiceAsyncStub
    from flowkeep.v1.execution_service_pb2_grpc import ExecutionServiceAsyncStub
    from flowkeep.v1.notification_service_pb2_grpc import NotificationServiceAsyncStub
    from flowkeep.v1.task_service_pb2_grpc import TaskServiceAsyncStub
    from flowkeep.v1.worker_service_pb2_grpc import WorkerServiceAsyncStub
    from flowkeep.v1.workflow_service_pb2_grpc import WorkflowServiceAsyncStub

Request = TypeVar("Request", bound=Message)
Response = TypeVar("Response", bound=Message)


class Connection:
    """A channel to the service, opened by its first call; `Client` says what it is given and how calls repeat."""

    def __init__(
        self,
        target: str = "localhost:50051",
        *,
        token: Token = None,
        tls: bool | grpc.ChannelCredentials = False,
        options: Sequence[tuple[str, Any]] = (),
        timeout: Span = 30.0,
    ) -> None:
        self.target = checked_target(target)
        if not callable(token):
            call_metadata(token)
        self._token = token
        self._tls = checked_tls(tls)
        self._options = options
        self._timeout = to_seconds(timeout)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection. Calls and watches under way are cancelled."""
        if "_channel" in self.__dict__:
            await self._channel.close()

    @cached_property
    def _channel(self) -> grpc.aio.Channel:
        return open_channel(self.target, self._tls, self._options)

    @cached_property
    def _workflows(self) -> WorkflowServiceAsyncStub:
        return WorkflowServiceStub(self._channel)

    @cached_property
    def _executions(self) -> ExecutionServiceAsyncStub:
        return ExecutionServiceStub(self._channel)

    @cached_property
    def _notifications(self) -> NotificationServiceAsyncStub:
        return NotificationServiceStub(self._channel)

    @cached_property
    def _tasks(self) -> TaskServiceAsyncStub:
        return TaskServiceStub(self._channel)

    @cached_property
    def _bulks(self) -> BulkServiceAsyncStub:
        return BulkServiceStub(self._channel)

    @cached_property
    def _workers(self) -> WorkerServiceAsyncStub:
        return WorkerServiceStub(self._channel)

    async def _call(
        self,
        method: grpc.aio.UnaryUnaryMultiCallable[Request, Response],
        request: Request,
        *,
        may_repeat: Judge = may_repeat,
        timeout: float | None = None,
    ) -> Response:
        clock = asyncio.get_running_loop().time
        deadline = clock() + (timeout or self._timeout)
        backoff = Backoff()
        while True:
            try:
                return await method(request, timeout=deadline - clock(), metadata=call_metadata(self._token))
            except grpc.aio.AioRpcError as failure:
                error = from_rpc_error(failure)
                pause = backoff.after(error)
                if not may_repeat(error) or clock() + pause >= deadline:
                    raise error from failure
            await asyncio.sleep(pause)
