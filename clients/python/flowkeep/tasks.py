"""The calls of `Client` about tasks of people."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from typing import TypeAlias, TypedDict, Unpack

import grpc

from flowkeep.arguments import entries, flag, text, whole
from flowkeep.channel import call_metadata
from flowkeep.connection import Connection
from flowkeep.errors import from_rpc_error
from flowkeep.payload import Input, to_struct
from flowkeep.requests import RequestId, enum_number, request_text
from flowkeep.retry import Backoff, may_resume
from flowkeep.v1 import task_service_pb2 as pb
from flowkeep.v1.task_pb2 import Task

TaskState: TypeAlias = str | Task.State.ValueType
"""A state of a task: `"OPEN"` or `Task.STATE_OPEN`."""

# The server gives a sign of life every 10 s. A stream silent for this long hangs in a proxy or a stopped process.
_SILENCE_SECONDS = 35.0


class TaskFilters(TypedDict, total=False):
    """Which tasks are meant: all that is given must hold. `mine`: those that the caller could complete."""

    states: Iterable[TaskState]
    mine: bool
    group: str
    execution_id: str


class TaskCalls(Connection):
    """What people do with tasks.

    What the caller does not see raises NotFoundError, what is for others PermissionDeniedError (TASK_NOT_ASSIGNED), and
    what has ended, or is claimed by another, FailedPreconditionError (TASK_ENDED, TASK_CLAIMED).
    """

    async def get_task(self, task_id: str) -> Task:
        """Return a task with its description, form, values and comments."""
        request = pb.GetTaskRequest(task_id=text("task_id", task_id))
        return (await self._call(self._tasks.GetTask, request)).task

    async def list_tasks(self, *, page_size: int = 0, **filters: Unpack[TaskFilters]) -> AsyncIterator[Task]:
        """Yield the tasks that meet all filters, newest first. Pages are fetched as needed."""
        request = pb.ListTasksRequest(page_size=whole("page_size", page_size), filter=task_filter(**filters))
        while True:
            page = await self._call(self._tasks.ListTasks, request)
            for task in page.tasks:
                yield task
            request.page_token = page.next_page_token
            if not page.next_page_token:
                return

    async def watch_tasks(self, **filters: Unpack[TaskFilters]) -> AsyncGenerator[pb.WatchTasksResponse, None]:
        """Yield the newest 2,000 tasks that meet all filters, then what changes, through any broken connection.

        After a break all of them come again. It never ends by itself.
        """
        request, backoff = pb.WatchTasksRequest(filter=task_filter(**filters)), Backoff()
        while True:
            call = self._tasks.WatchTasks(request, metadata=call_metadata(self._token))
            responses, pause = aiter(call), None
            try:
                while pause is None:
                    try:
                        async with asyncio.timeout(_SILENCE_SECONDS):
                            response = await anext(responses)
                    except (TimeoutError, StopAsyncIteration):
                        pause = backoff.next()
                        continue
                    backoff.reset()
                    yield response
            except grpc.aio.AioRpcError as failure:
                error = from_rpc_error(failure)
                if not may_resume(error):
                    raise error from failure
                pause = backoff.after(error)
            finally:
                call.cancel()
            await asyncio.sleep(pause)

    async def claim_task(self, task_id: str, *, request_id: RequestId = None) -> Task:
        """Take a task, so that nobody else works on it, and return it."""
        request = pb.ClaimTaskRequest(task_id=text("task_id", task_id), request_id=request_text(request_id))
        return (await self._call(self._tasks.ClaimTask, request)).task

    async def release_task(self, task_id: str, *, request_id: RequestId = None) -> Task:
        """Give a claimed task back, and return it."""
        request = pb.ReleaseTaskRequest(task_id=text("task_id", task_id), request_id=request_text(request_id))
        return (await self._call(self._tasks.ReleaseTask, request)).task

    async def complete_task(
        self,
        task_id: str,
        outcome: str = "",
        values: Input | None = None,
        *,
        comment: str = "",
        request_id: RequestId = None,
    ) -> Task:
        """End a task with one of its outcomes, empty for the only one, and values that meet its form.

        Raises PayloadError for values that payloads cannot carry, InvalidArgumentError for those that the form refuses.
        """
        request = pb.CompleteTaskRequest(
            task_id=text("task_id", task_id),
            outcome=text("outcome", outcome),
            values=None if values is None else to_struct(values, "values"),
            comment=text("comment", comment),
            request_id=request_text(request_id),
        )
        return (await self._call(self._tasks.CompleteTask, request)).task

    async def delegate_task(
        self, task_id: str, assignee: str, *, comment: str = "", request_id: RequestId = None
    ) -> Task:
        """Hand a task to another subject, and return it."""
        request = pb.DelegateTaskRequest(
            task_id=text("task_id", task_id),
            assignee=text("assignee", assignee),
            comment=text("comment", comment),
            request_id=request_text(request_id),
        )
        return (await self._call(self._tasks.DelegateTask, request)).task

    async def comment_task(self, task_id: str, comment: str, *, request_id: RequestId = None) -> Task:
        """Add a comment to a task, and return it."""
        request = pb.CommentTaskRequest(
            task_id=text("task_id", task_id), text=text("comment", comment), request_id=request_text(request_id)
        )
        return (await self._call(self._tasks.CommentTask, request)).task


def task_filter(**filters: Unpack[TaskFilters]) -> pb.TaskFilter:
    """Return a filter of tasks.

    Raises TypeError for a filter that does not exist or is of another type, ValueError for a state that does not exist.
    """
    if unknown := filters.keys() - TaskFilters.__annotations__.keys():
        raise TypeError(f"there is no filter {', '.join(sorted(unknown))}")
    names = dict(Task.State.items())
    return pb.TaskFilter(
        states=[enum_number("states", names, "STATE_", each) for each in entries("states", filters.get("states", ()))],
        mine=flag("mine", filters.get("mine", False)),
        group=text("group", filters.get("group", "")),
        execution_id=text("execution_id", filters.get("execution_id", "")),
    )
