"""The servicer of ExecutionService: reads the request, makes one call, builds the response."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from typing import Any, Protocol, TypeVar
from uuid import UUID

from flowkeep.v1 import execution_service_pb2 as pb
from flowkeep.v1.comparison_pb2 import CompareExecutionsRequest, CompareExecutionsResponse
from flowkeep.v1.execution_pb2 import EXECUTION_VIEW_BASIC, EXECUTION_VIEW_FULL, STEP_VIEW_FULL
from flowkeep.v1.execution_service_pb2_grpc import ExecutionServiceServicer
from persistence.errors import NotFoundError, QueueFullError, UnavailableError
from persistence.gate import Gate
from persistence.listing import ExecutionOrder, PageKey
from persistence.model import Execution, ExecutionDetail, Scope, StepKey
from persistence.repository import ExecutionRepository
from persistence.transition import Created
from service.api import batches
from service.api.answering import in_time
from service.api.claims import DEBUG, READ_WORKFLOWS
from service.api.comparisons import LARGEST_COMPARED, Pair, comparison_response
from service.api.control import ControlCalls
from service.api.definitions import EncodedDefinitions
from service.api.dry_runs import read_dry_run
from service.api.encoded import Encoded, tag
from service.api.errors import invalid
from service.api.event_reading import decode
from service.api.event_responses import NewestEvents, events_response
from service.api.executions import (
    LARGEST_STEPS,
    SMALL_STEPS,
    STEPS_SHOWN,
    EncodedDetail,
    cancel_response,
    encoded_detail,
    encoded_outcome,
    executed,
    execution_message,
)
from service.api.explanations import ExplainCalls
from service.api.filters import count_limit, execution_filter, execution_order, sort_kind, sort_value, step_filter
from service.api.forks import ForkCalls
from service.api.identity import current_identity
from service.api.large import Batch
from service.api.page_tokens import PageTokens, wrong_token
from service.api.paging import LARGEST_PAGE_BYTES, fitting, page_limit
from service.api.payloads import read_struct
from service.api.retries import read_retry
from service.api.signals import SignalCalls
from service.api.starts import start_request
from service.api.steps import Sight, add_steps
from service.api.stored_events import without_definition
from service.api.trials import TrialCalls
from service.engine.control import Control
from service.engine.debugging import Debugging
from service.engine.executions import Executions
from service.engine.explaining import Explaining
from service.engine.history import History
from service.engine.signal_starts import SignalStarts
from service.engine.signalling import Signalling
from service.engine.slices import in_slices
from service.engine.steps import StepNotFoundError, StepPage, Steps
from service.engine.violations import violations_under
from service.engine.watch import Bookmark, Output
from service.engine.workflows import Workflows

LARGEST_FULL_PAGE = 20

SMALL_DETAIL = 256 << 10
"""Characters of payloads up to which an execution is read at once."""

LARGE_AT_A_TIME = 1
"""Larger executions that are read and unfolded at a time: it is work for the processor, which all calls share."""

LARGE_PATIENCE = 2.0
"""Seconds that a call waits for its turn with one."""

ANSWER_MARGIN = 0.25
"""Seconds before the caller's deadline at which a waiting call answers, so that the answer arrives."""

_SNAPSHOT = tag(pb.WatchExecutionResponse, "snapshot")
_OF_SNAPSHOT = tag(pb.Snapshot, "execution")
_GOT, _LISTED = tag(pb.GetExecutionResponse, "execution"), tag(pb.ListExecutionsResponse, "executions")
_STEPS_LISTED, _STEP_GOT = tag(pb.ListStepsResponse, "steps"), tag(pb.GetStepResponse, "step")


class _HasOmitted(Protocol):
    """What was read of payloads."""

    @property
    def omitted(self) -> frozenset[StepKey]:
        """Keys of the steps whose payloads were not."""
        ...


Read = TypeVar("Read", bound=_HasOmitted)
Made = TypeVar("Made")


class ExecutionServicer(ControlCalls, SignalCalls, ExplainCalls, ForkCalls, TrialCalls, ExecutionServiceServicer):
    """Executions over gRPC."""

    def __init__(
        self,
        executions: Executions,
        workflows: Workflows,
        repository: ExecutionRepository,
        tokens: PageTokens,
        wait_limit: float,
        control: Control,
        debugging: Debugging,
        signalling: Signalling,
        signal_starts: SignalStarts,
        explaining: Explaining,
    ) -> None:
        self._executions = executions
        self._control, self._debugging = control, debugging
        self._workflows = workflows
        self._definitions = EncodedDefinitions()
        self._repository = repository
        self._tokens = tokens
        self._wait_limit = wait_limit
        self._signalling, self._signal_starts = signalling, signal_starts
        self._explaining = explaining
        self._steps = Steps(repository, workflows)
        self._history = History(repository, workflows, decode)
        self._large = Gate(LARGE_AT_A_TIME, LARGE_PATIENCE)
        self._newest = NewestEvents()

    async def Execute(  # type: ignore[override]  # what is large is put together from bytes
        self, request: pb.ExecuteRequest, context: Any
    ) -> bytes:
        if request.wait:
            return await self._execute_and_wait(request, context)
        created = await self._created(request)
        if request.view == EXECUTION_VIEW_FULL:
            return executed(await self._full_after(created), created)
        return executed(execution_message(created.execution), created)

    async def _execute_and_wait(self, request: pb.ExecuteRequest, context: Any) -> bytes:
        """Bound all but the waiting, which takes as long as the caller gave."""
        created = await in_time(self._created(request))
        scope = Scope(created.execution.org, created.execution.owner)
        outcome = await self._executions.wait(scope, created, self._time_to_wait(context))
        if request.view == EXECUTION_VIEW_FULL:
            return executed(await in_time(self._full_after(created)), created)
        if outcome is None:
            outcome = await in_time(self._repository.get_outcome(scope, created.execution.id))
        return executed(encoded_outcome(outcome), created)

    async def _full_after(self, created: Created) -> Encoded:
        execution = created.execution
        try:
            return (await self._full(Scope(execution.org, execution.owner), execution.id, SMALL_STEPS)).message
        except QueueFullError as error:  # which would say that nothing was done
            told = "the execution is there, and there is too much to read to show it"
            raise UnavailableError(f"{told}: {error}", told) from None

    async def _created(self, request: pb.ExecuteRequest) -> Created:
        caller = current_identity.get()
        given = await in_slices(read_struct(request.input))
        dry_run = await read_dry_run(request.dry_run) if request.HasField("dry_run") else None
        return await self._executions.execute(caller.scope, caller.subject, start_request(request, given, dry_run))

    async def BatchExecute(  # type: ignore[override]  # its requests are yet to be read, each by itself
        self, request: Batch, context: Any
    ) -> bytes:
        caller = current_identity.get()
        starts = await batches.start_requests(request, start_request)
        return await batches.response(await self._executions.execute_all(caller.scope, caller.subject, starts))

    async def GetExecution(  # type: ignore[override]
        self, request: pb.GetExecutionRequest, context: Any
    ) -> pb.GetExecutionResponse | bytes:
        scope, execution_id = current_identity.get().scope, UUID(request.execution_id)
        if request.at_seq:
            return await self._as_it_was(scope, execution_id, request)
        if request.view == EXECUTION_VIEW_BASIC:
            message = execution_message(await self._repository.get_execution(scope, execution_id))
            return pb.GetExecutionResponse(execution=message)
        full = await self._full(scope, execution_id)
        return _around(_GOT, await self._with_forks(full.message, scope, execution_id))

    async def _as_it_was(
        self, scope: Scope, execution_id: UUID, request: pb.GetExecutionRequest
    ) -> pb.GetExecutionResponse | bytes:
        is_full = request.view != EXECUTION_VIEW_BASIC
        async with AsyncExitStack() as places:

            async def wait_for_turn() -> None:
                await places.enter_async_context(self._large.place(scope.org))

            detail = await self._history.at(
                scope, execution_id, request.at_seq, has_steps=is_full, small=SMALL_DETAIL, beyond=wait_for_turn
            )
            if not is_full:
                return pb.GetExecutionResponse(execution=execution_message(detail.execution))
            return _around(_GOT, (await self._encoded(detail, LARGEST_STEPS)).message)

    async def ListExecutions(  # type: ignore[override]
        self, request: pb.ListExecutionsRequest, context: Any
    ) -> pb.ListExecutionsResponse | bytes:
        with violations_under("filter"):
            where = execution_filter(request.filter)
        scope, order = current_identity.get().scope, execution_order(request)
        is_full = request.view == EXECUTION_VIEW_FULL
        limit = page_limit(request.page_size, LARGEST_FULL_PAGE) if is_full else page_limit(request.page_size)
        after = self._tokens.read(request.page_token, request, scope, sort_kind(order))
        found = await self._repository.list_executions(scope, where, order, after, limit + 1)
        page, seen = Encoded(), min(limit, len(found))
        if is_full:
            seen = await self._add_full(page, scope, found[:limit])
        else:
            shown = fitting(execution_message(each) for each in found[:limit])
            page.add(pb.ListExecutionsResponse(executions=shown))
            seen = len(shown)
        rest = pb.ListExecutionsResponse()
        if seen < len(found):
            rest.next_page_token = self._tokens.make(request, scope, _position(order, found[seen - 1]))
        if request.count_total:
            rest.total_size = await self._repository.count_executions(scope, where, order, count_limit())
        page.add(rest)
        return page.serialized()

    async def _add_full(self, page: Encoded, scope: Scope, found: Sequence[Execution]) -> int:
        """Add as many of the executions as fit, one at least, and return how many were looked at."""
        for seen, each in enumerate(found):
            left = LARGEST_PAGE_BYTES - page.size
            try:
                full = await self._full(scope, each.id, min(SMALL_STEPS, max(1, left)))
            except NotFoundError:  # removed since the list was read
                continue
            # One that has not all that it may have comes first on the next page.
            if page.size and (full.message.size > left or (left < SMALL_STEPS and not full.is_whole)):
                return seen
            page.add_field(_LISTED, full.message)
        return len(found)

    async def ListSteps(  # type: ignore[override]
        self, request: pb.ListStepsRequest, context: Any
    ) -> pb.ListStepsResponse | bytes:
        scope, execution_id, where = current_identity.get().scope, UUID(request.execution_id), step_filter(request)
        limit, is_full = page_limit(request.page_size), request.view == STEP_VIEW_FULL
        after = self._tokens.read_path(request.page_token, request, scope)

        def read(most: int) -> Awaitable[StepPage]:
            return self._steps.page(scope, execution_id, where, after, limit, most)

        response = Encoded()
        try:
            following, gaps = await self._within(
                scope.org,
                LARGEST_PAGE_BYTES if is_full else 0,
                read,
                lambda page: add_steps(response, _STEPS_LISTED, page, _sight(), is_full=is_full),
            )
        except StepNotFoundError:
            raise wrong_token() from None
        rest = pb.ListStepsResponse(unreadable=gaps, definition_withheld=not _sight().definition)
        if following:
            rest.next_page_token = self._tokens.make_path(request, scope, following)
        response.add(rest)
        return response.serialized()

    async def GetStep(self, request: pb.GetStepRequest, context: Any) -> pb.GetStepResponse | bytes:  # type: ignore[override]
        scope, execution_id, response = current_identity.get().scope, UUID(request.execution_id), Encoded()
        _, gaps = await self._within(
            scope.org,
            LARGEST_STEPS,
            lambda most: self._steps.get(scope, execution_id, request.path, most, request.iteration),
            lambda page: add_steps(response, _STEP_GOT, page, _sight(), is_full=True),
        )
        response.add(pb.GetStepResponse(unreadable=gaps, definition_withheld=not _sight().definition))
        return response.serialized()

    async def CompareExecutions(  # type: ignore[override]
        self, request: CompareExecutionsRequest, context: Any
    ) -> CompareExecutionsResponse | bytes:
        scope = current_identity.get().scope

        async def read(most: int) -> Pair:
            ids = request.execution_id, request.other_execution_id
            found = [await self._repository.get_detail(scope, UUID(each), most, first=STEPS_SHOWN + 1) for each in ids]
            return Pair(*found)

        return await self._within(
            scope.org, LARGEST_COMPARED, read, lambda pair: comparison_response(pair, self._workflows, _sight())
        )

    async def Cancel(self, request: pb.CancelRequest, context: Any) -> pb.CancelResponse:
        caller = current_identity.get()
        detail = await self._executions.cancel(
            caller.scope,
            UUID(request.execution_id),
            caller.subject,
            request.reason,
            request.request_id,
            first=STEPS_SHOWN + 1,
        )
        definition, _ = await self._workflows.shown(detail)
        return await cancel_response(detail, definition)

    async def Retry(self, request: pb.RetryRequest, context: Any) -> pb.RetryResponse:
        caller = current_identity.get()
        execution = await self._executions.retries.retry(
            caller.scope, UUID(request.execution_id), caller.subject, await read_retry(request), request.request_id
        )
        return pb.RetryResponse(execution=execution_message(execution))

    async def WatchExecution(  # type: ignore[override]  # stored bytes pass through unparsed
        self, request: pb.WatchExecutionRequest, context: Any
    ) -> AsyncIterator[pb.WatchExecutionResponse | bytes]:
        scope, execution_id, after_seq = current_identity.get().scope, UUID(request.execution_id), request.after_seq
        if request.snapshot:
            if after_seq:
                raise invalid("after_seq", "must be 0 with snapshot: events follow the snapshot's own seq")
            full = await self._full(scope, execution_id, SMALL_STEPS)
            after_seq, snapshot = full.last_seq, Encoded()
            snapshot.add(pb.Snapshot(seq=after_seq))
            snapshot.add_field(_OF_SNAPSHOT, full.message)
            yield _around(_SNAPSHOT, snapshot)
        is_whole = _sight().definition
        async for page in self._executions.watch(scope, execution_id, after_seq):
            match page:
                case Bookmark():
                    yield pb.WatchExecutionResponse(bookmark=pb.Bookmark(seq=page.seq))
                case Output():
                    output = pb.StepOutput(
                        path=page.path, attempt=page.attempt, text=page.text, iteration=page.iteration
                    )
                    yield pb.WatchExecutionResponse(output=output)
                case _ if is_whole:
                    yield self._newest.response(page)
                case _:
                    yield events_response([without_definition(event) for event in page])

    def _time_to_wait(self, context: Any) -> float:
        remaining: float | None = context.time_remaining()
        return (
            self._wait_limit
            if remaining is None
            else max(0.0, remaining - max(ANSWER_MARGIN, min(1.0, remaining / 20)))
        )

    async def _full(self, scope: Scope, execution_id: UUID, largest: int = LARGEST_STEPS) -> EncodedDetail:
        """Return an execution with payloads; one that is large waits for its turn, and no small one waits for it."""
        return await self._within(
            scope.org,
            largest,
            lambda most: self._repository.get_detail(scope, execution_id, most, first=STEPS_SHOWN + 1),
            lambda detail: self._encoded(detail, largest),
        )

    async def _within(
        self,
        org: str,
        largest: int,
        read: Callable[[int], Awaitable[Read]],
        encode: Callable[[Read], Awaitable[Made]],
    ) -> Made:
        """Return what is made of payloads that are read, up to `largest` characters of them."""
        found = await read(min(largest, SMALL_DETAIL))
        if found.omitted and largest > SMALL_DETAIL:
            async with self._large.place(org):
                return await encode(await read(largest))
        return await encode(found)

    async def _encoded(self, detail: ExecutionDetail, largest: int) -> EncodedDetail:
        definition, is_defined = await self._workflows.shown(detail)
        return await encoded_detail(
            detail, definition, _sight(), self._definitions, largest=largest, is_defined=is_defined
        )


def _sight() -> Sight:
    caller = current_identity.get()
    return Sight(traces=caller.may(DEBUG), definition=caller.may(READ_WORKFLOWS))


def _position(order: ExecutionOrder, execution: Execution) -> PageKey:
    return PageKey(sort_value(order, execution), execution.id)


def _around(field: bytes, content: Encoded) -> bytes:
    """Return the serialized response that has a field with this content."""
    response = Encoded()
    response.add_field(field, content)
    return response.serialized()
