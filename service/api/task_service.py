"""The servicer of TaskService: reads the request, makes one call, builds the response."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any
from uuid import UUID

from flowkeep.v1 import task_service_pb2 as pb
from flowkeep.v1.task_pb2 import Task as TaskMessage
from flowkeep.v1.task_service_pb2_grpc import TaskServiceServicer
from persistence.listing import PageKey
from persistence.model import Scope
from persistence.people import Act, Claim, Delegate, Person, Release, Remark, TaskRepository
from service.api.identity import current_identity
from service.api.page_tokens import PageTokens
from service.api.paging import fitting, page_limit
from service.api.payloads import read_struct
from service.api.tasks import listed_task, person_of, task_filter, whole_task
from service.engine.people.people import People
from service.engine.slices import in_slices


class TaskServicer(TaskServiceServicer):
    """Tasks of people over gRPC."""

    def __init__(self, people: People, repository: TaskRepository, tokens: PageTokens) -> None:
        self._people = people
        self._repository = repository
        self._tokens = tokens

    async def GetTask(self, request: pb.GetTaskRequest, context: Any) -> pb.GetTaskResponse:
        task = await self._repository.get_task(_caller(), UUID(request.task_id))
        return pb.GetTaskResponse(task=await in_slices(whole_task(task)))

    async def ListTasks(self, request: pb.ListTasksRequest, context: Any) -> pb.ListTasksResponse:
        person, limit = _caller(), page_limit(request.page_size)
        scope = _page_scope(person)
        after = self._tokens.read(request.page_token, request, scope)
        where = task_filter(request.filter)
        found = await self._repository.list_tasks(person, where, after.id if after else None, limit + 1)
        response = pb.ListTasksResponse(tasks=fitting(map(listed_task, found[:limit])))
        if len(found) > len(response.tasks):
            last = found[len(response.tasks) - 1]
            response.next_page_token = self._tokens.make(request, scope, PageKey(None, last.id))
        return response

    async def WatchTasks(self, request: pb.WatchTasksRequest, context: Any) -> AsyncIterator[pb.WatchTasksResponse]:
        async with aclosing(self._people.watch(_caller(), task_filter(request.filter))) as watch:
            async for news in watch:
                gone, rest = [str(each) for each in news.gone], [listed_task(task) for task in news.tasks]
                while True:
                    page = fitting(rest)
                    yield pb.WatchTasksResponse(tasks=page, gone_task_ids=gone)
                    gone, rest = [], rest[len(page) :]
                    if not rest:
                        break

    async def ClaimTask(self, request: pb.ClaimTaskRequest, context: Any) -> pb.ClaimTaskResponse:
        return pb.ClaimTaskResponse(task=await self._acted(request.task_id, Claim(), request.request_id))

    async def ReleaseTask(self, request: pb.ReleaseTaskRequest, context: Any) -> pb.ReleaseTaskResponse:
        return pb.ReleaseTaskResponse(task=await self._acted(request.task_id, Release(), request.request_id))

    async def CompleteTask(self, request: pb.CompleteTaskRequest, context: Any) -> pb.CompleteTaskResponse:
        values = await in_slices(read_struct(request.values))
        task = await self._people.complete(
            _caller(), UUID(request.task_id), request.outcome, values, request.comment, request.request_id
        )
        return pb.CompleteTaskResponse(task=await in_slices(whole_task(task)))

    async def DelegateTask(self, request: pb.DelegateTaskRequest, context: Any) -> pb.DelegateTaskResponse:
        act = Delegate(request.assignee, request.comment)
        return pb.DelegateTaskResponse(task=await self._acted(request.task_id, act, request.request_id))

    async def CommentTask(self, request: pb.CommentTaskRequest, context: Any) -> pb.CommentTaskResponse:
        act = Remark(request.text)
        return pb.CommentTaskResponse(task=await self._acted(request.task_id, act, request.request_id))

    async def _acted(self, task_id: str, act: Act, request_id: str) -> TaskMessage:
        return await in_slices(whole_task(await self._people.act(_caller(), UUID(task_id), act, request_id)))


def _caller() -> Person:
    return person_of(current_identity.get())


def _page_scope(person: Person) -> Scope:
    """Return whose pages these are: what one sees of tasks is not what another does."""
    return Scope(person.org, None if person.sees_all else person.subject)
