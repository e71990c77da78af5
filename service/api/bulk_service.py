"""The servicer of BulkService: reads the request, makes one call, builds the response."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any
from uuid import UUID

from flowkeep.v1 import bulk_service_pb2 as pb
from flowkeep.v1.bulk_pb2 import Bulk as BulkMessage
from flowkeep.v1.bulk_pb2 import BulkResult as ResultMessage
from flowkeep.v1.bulk_service_pb2_grpc import BulkServiceServicer
from persistence.bulks import BulkOutcome, BulkRepository, BulkState
from persistence.listing import PageKey
from persistence.model import Scope
from service.api.bulks import bulk_message, making_bulk_message, permission_of, result_message, wanted
from service.api.executions import execution_message
from service.api.identity import current_identity
from service.api.page_tokens import PageTokens
from service.api.paging import fitting, fitting_in_slices, page_limit
from service.api.pipeline import require
from service.engine.bulk.bulks import Bulks


class BulkServicer(BulkServiceServicer):
    """Operations in bulk over gRPC."""

    def __init__(self, bulks: Bulks, repository: BulkRepository, tokens: PageTokens) -> None:
        self._bulks = bulks
        self._repository = repository
        self._tokens = tokens

    async def StartBulk(self, request: pb.StartBulkRequest, context: Any) -> pb.StartBulkResponse:
        caller, asked = current_identity.get(), wanted(request)
        if not request.validate_only:
            require(caller, permission_of(asked.action))
            bulk = await self._bulks.start(caller.scope, caller.subject, asked, request.request_id)
            return pb.StartBulkResponse(bulk=bulk_message(bulk))
        matched = await self._bulks.preview(caller.scope, asked)
        sample = fitting(map(execution_message, matched.sample))
        return pb.StartBulkResponse(matched_count=matched.count, matched_at_least=matched.at_least, sample=sample)

    async def GetBulk(self, request: pb.GetBulkRequest, context: Any) -> pb.GetBulkResponse:
        bulk = await self._repository.get_bulk(_scope(), UUID(request.bulk_id))
        return pb.GetBulkResponse(bulk=bulk_message(bulk))

    async def ListBulks(self, request: pb.ListBulksRequest, context: Any) -> pb.ListBulksResponse:
        scope, limit = _scope(), page_limit(request.page_size)
        after = self._tokens.read(request.page_token, request, scope)
        states = [BulkState(BulkMessage.State.Name(each).removeprefix("STATE_")) for each in request.states]
        found = await self._repository.list_bulks(scope, states, after.id if after else None, limit + 1)
        response = pb.ListBulksResponse(bulks=await fitting_in_slices(map(making_bulk_message, found[:limit])))
        if len(found) > len(response.bulks):
            last = found[len(response.bulks) - 1]
            response.next_page_token = self._tokens.make(request, scope, PageKey(None, last.id))
        return response

    async def WatchBulk(self, request: pb.WatchBulkRequest, context: Any) -> AsyncIterator[pb.WatchBulkResponse]:
        async with aclosing(self._bulks.watch(_scope(), UUID(request.bulk_id))) as watch:
            async for bulk in watch:
                yield pb.WatchBulkResponse(bulk=bulk_message(bulk))

    async def StopBulk(self, request: pb.StopBulkRequest, context: Any) -> pb.StopBulkResponse:
        caller, bulk_id = current_identity.get(), UUID(request.bulk_id)
        before = await self._repository.get_bulk(caller.scope, bulk_id)
        require(caller, permission_of(before.action))
        return pb.StopBulkResponse(bulk=bulk_message(await self._bulks.stop(caller.scope, bulk_id, caller.subject)))

    async def ListBulkResults(self, request: pb.ListBulkResultsRequest, context: Any) -> pb.ListBulkResultsResponse:
        scope, limit = _scope(), page_limit(request.page_size)
        after = int(self._tokens.read_path(request.page_token, request, scope) or 0)
        outcomes = [BulkOutcome(ResultMessage.Outcome.Name(e).removeprefix("OUTCOME_")) for e in request.outcomes]
        found = await self._repository.list_bulk_results(scope, UUID(request.bulk_id), outcomes, after, limit + 1)
        response = pb.ListBulkResultsResponse(results=[result_message(each) for _, each in found[:limit]])
        if len(found) > limit:
            response.next_page_token = self._tokens.make_path(request, scope, str(found[limit - 1][0]))
        return response


def _scope() -> Scope:
    return current_identity.get().scope
