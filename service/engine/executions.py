"""Executions: accepts, awaits and cancels them."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import datetime
from functools import partial
from uuid import UUID

from msgspec.structs import replace

from persistence import failpoints
from persistence.dry_runs import DryRun
from persistence.errors import (
    RequestIdReusedError,
    UnavailableError,
    WorkflowNotFoundError,
)
from persistence.model import (
    Event,
    Execution,
    ExecutionDetail,
    ExecutionOutcome,
    Scope,
    Workflow,
)
from persistence.repository import Repository
from persistence.requests import Method
from persistence.transition import Created
from service.engine.batches import READS, Meanings, Resolve, at_a_time
from service.engine.begun import UNCLEAR, Begun, Doubtful, cost, is_another, kept_or_refused, outcome_of
from service.engine.creations import Creations
from service.engine.debugging import check_points
from service.engine.definition import Definition
from service.engine.dry_runs import checking, normal
from service.engine.forks import Forks
from service.engine.ids import uuid7
from service.engine.parsing import check_input
from service.engine.payload import normalise, normalising
from service.engine.requests import StartRequest, asked, content_hash, equivalents
from service.engine.retries import Retries
from service.engine.running.runner import Runner
from service.engine.slices import Slicing, in_one_go, in_slices
from service.engine.trials import Trials
from service.engine.watch import Bookmark, Output, Pace, follow
from service.engine.workflow_breakpoints import NextBreakpoints
from service.engine.workflow_pauses import WorkflowPauses
from service.engine.workflows import Workflows


class Executions:
    """What the service does with executions, over one repository and one runner."""

    def __init__(
        self,
        repository: Repository,
        workflows: Workflows,
        runner: Runner,
        pace: Pace,
        new_id: Callable[[datetime], UUID] = uuid7,
        mended: Callable[[Event], Event] = lambda event: event,
    ) -> None:
        self._repository = repository
        self._workflows = workflows
        self._runner = runner
        self._hub = runner.context.hub
        self._pace = pace
        self._mended = mended
        self.retries = Retries(repository, workflows, runner)
        self.creations = Creations(runner, new_id)
        self.forks = Forks(repository, workflows, runner.name, self.creations)
        self.trials = Trials(workflows, runner)
        self.pauses = WorkflowPauses(repository, runner, new_id)
        self.next_breakpoints = NextBreakpoints(repository, workflows, runner, new_id)

    async def execute(self, scope: Scope, owner: str, request: StartRequest) -> Created:
        """Keep a new execution and drive it if there is room, or return the one that the request id started before.

        Raises ValidationError, WorkflowNotFoundError, RevisionNotFoundError, RequestIdReusedError, QueueFullError.
        """
        given = await in_slices(normalising(dict(request.input), "input"))
        dry_run = None if request.dry_run is None else await in_slices(normal(request.dry_run))
        request = replace(request, input=given, dry_run=dry_run)
        if (created := await self._create_from_memory(scope, owner, request)) is not None:
            return created
        return await self._created(scope, owner, await self._begin(scope, owner, request, self._workflows.resolve))

    async def execute_all(
        self, scope: Scope, owner: str, requests: Sequence[StartRequest | Exception]
    ) -> Sequence[Created | Exception]:
        """Do as `execute` does with each request, one after the other; return what each gave or raised.

        An exception among the requests stands for one that was refused before. All are handed to the store before the
        commit of the first is waited for, so that they share flushes.
        """
        begun = await self._begin_all(scope, owner, requests)
        ended: list[Created | Exception] = []
        unclear: dict[int, Begun | Doubtful] = {}
        for place, each in enumerate(begun):
            outcome = await outcome_of(each)
            if isinstance(outcome, Begun | Doubtful):
                unclear[place] = outcome
                outcome = UnavailableError("nobody looked")
            ended.append(outcome)

        async def look(place: int) -> None:
            try:
                ended[place] = await self._created(scope, owner, unclear[place])
            except Exception as error:
                ended[place] = error

        # It takes a read each, and a thousand of them one after the other took too long.
        await at_a_time(READS, unclear, look)
        return ended

    async def _begin_all(
        self, scope: Scope, owner: str, requests: Sequence[StartRequest | Exception]
    ) -> Sequence[Begun | Doubtful | Created | Exception]:
        meanings, slicing = Meanings(self._workflows.resolve), Slicing()
        await meanings.look_up(
            (scope, each.workflow, each.revision) for each in requests if isinstance(each, StartRequest)
        )
        ids = Counter(each.request_id for each in requests if isinstance(each, StartRequest))
        begun: list[Begun | Doubtful | Created | Exception] = []
        before: dict[str, Begun] = {}
        for given in requests:
            if isinstance(given, Exception):
                begun.append(given)
                continue
            try:
                request = _clean(given)
                each: Begun | Doubtful | Created = await self._begin(scope, owner, request, meanings.of)
                if isinstance(each, Doubtful) and ids[request.request_id] > 1:
                    # It is held against what the same request id started before it, and not against what comes after.
                    if request.request_id in before:
                        await asyncio.wait([before[request.request_id].kept])
                    each = await self._created(scope, owner, each)
            except Exception as error:
                begun.append(error)
                continue
            begun.append(each)
            if isinstance(each, Begun):
                before[request.request_id] = each
            if isinstance(each, Begun | Doubtful):
                await slicing.spend(cost(each))
        return begun

    async def _begin(self, scope: Scope, owner: str, request: StartRequest, resolve: Resolve) -> Begun | Doubtful:
        """Hand a new execution to the store."""
        workflow = definition = None
        try:
            workflow, definition = await resolve(scope, request.workflow, request.revision)
            dry_run = await self._checked(scope, definition, request)
            kept = await self._create(workflow, definition, owner, request, dry_run)
        except UNCLEAR as error:
            return Doubtful(request, workflow, definition, error)
        return Begun(request, workflow, definition, kept)

    async def _checked(self, scope: Scope, definition: Definition, request: StartRequest) -> DryRun | None:
        """Return how the execution runs if it is to send nothing. Raises ValidationError for what does not fit."""
        check_input(definition, request.input)
        if request.breakpoints:
            await in_slices(check_points(definition, request.breakpoints))
        if request.dry_run is None:
            return None
        return await in_slices(checking(definition, scope.org, self.creations.registry, request.dry_run))

    async def _create_from_memory(self, scope: Scope, owner: str, request: StartRequest) -> Created | None:
        """Do as `execute` does by what is known here of the workflow; None if that is not enough, or no longer true."""
        if (found := self._workflows.recalled(scope, request.workflow, request.revision)) is None:
            return None
        workflow, definition = found
        try:
            dry_run = await self._checked(scope, definition, request)
            kept = await self._create(workflow, definition, owner, request, dry_run, if_latest=not request.revision)
            return await kept_or_refused(request, kept)
        except WorkflowNotFoundError:
            self._workflows.refute(scope, request.workflow, request.revision, workflow)
        except UNCLEAR:
            pass  # perhaps not so by what the workflow is now
        return None

    async def _created(self, scope: Scope, owner: str, begun: Begun | Doubtful) -> Created:
        """Return what has been kept, or what the same request started before."""
        request = begun.request
        try:
            if isinstance(begun, Doubtful):
                raise begun.error
            return await kept_or_refused(request, begun.kept)
        except UNCLEAR:
            # The workflow may have changed since the same request was kept: then it is no less kept.
            if first := await self._first(scope, owner, request, begun.workflow, begun.definition):
                return Created(first, False)
            raise

    async def _create(
        self,
        workflow: Workflow,
        definition: Definition,
        owner: str,
        request: StartRequest,
        dry_run: DryRun | None,
        *,
        if_latest: bool = False,
    ) -> asyncio.Future[Created]:
        execution = self.creations.started(workflow, definition, owner, request)
        prepared = await self.creations.prepare(
            execution,
            definition,
            request.input,
            content_hash(owner, request, workflow) if request.request_id else b"",
            partial(self.creations.accepted, execution, definition, request.input, dry_run),
            if_latest=if_latest,
            dry_run=dry_run,
        )
        await failpoints.reach("exec.before_tx")
        return self.creations.hand_in(prepared)

    async def _first(
        self, scope: Scope, owner: str, request: StartRequest, workflow: Workflow | None, definition: Definition | None
    ) -> Execution | None:
        """Return the execution that the same request started, in whatever form it came; None when there is none.

        Raises RequestIdReusedError, ExecutionNotFoundError.
        """
        if not request.request_id:
            return None
        hashes = [content_hash(owner, request, workflow), *equivalents(owner, request, workflow, definition)]
        first = await self._repository.find_request(scope.org, request.request_id, frozenset(hashes))
        if first is not None and is_another(first, request.workflow):
            raise RequestIdReusedError(request.request_id)
        return first

    async def wait(self, scope: Scope, created: Created, timeout: float) -> ExecutionOutcome | None:
        """Return when the execution has ended, or after `timeout` seconds; with the outcome if that is known here.

        An end that this process brings about is known as soon as it is durable, of any other there is an event.
        """
        if created.outcome is not None:
            return created.outcome
        execution = created.execution
        run = self._runner.run_of(execution.id)
        try:
            async with asyncio.timeout(timeout):
                if run is not None:
                    await run.closed.wait()
                    if run.outcome is not None:
                        return run.outcome
                # An end is an event, so there is one to come after the event before the newest.
                async for _ in self.watch(scope, execution.id, max(0, execution.last_seq - 1)):
                    pass
        except TimeoutError:
            pass
        return None

    async def cancel(
        self, scope: Scope, execution_id: UUID, by: str, reason: str, request_id: str = "", *, first: int | None = None
    ) -> ExecutionDetail:
        """Keep the wish to cancel, let it take effect, and return the execution after it, its steps without payloads.

        With `first` only so many steps, as `get_detail` of the store gives them. A request id that was used so before
        changes nothing. Raises ExecutionNotFoundError, ExecutionFinishedError, RequestIdReusedError.
        """
        request = in_one_go(asked(Method.CANCEL, request_id, by, execution_id=str(execution_id), reason=reason))
        posted = await self._repository.request_cancel(scope, execution_id, by, reason, request)
        await failpoints.reach("message.after_commit_before_delivery")
        if not posted.execution.state.is_end:
            delivery = self._runner.hand_in(posted)
            # Whoever takes an execution has to drive it, also when the caller has gone in between.
            await asyncio.shield(self._runner.tasks.spawn(delivery, f"cancel {execution_id}"))
        return await self._repository.get_detail(scope, execution_id, most=0, first=first)

    async def delete_workflow(
        self, scope: Scope, reference: str, etag: str, force: bool, deleted_by: str, request_id: str = ""
    ) -> None:
        """Hide a workflow; with `force` its executions are cancelled. What it leaves is removed in the background.

        A request id that was used so before changes nothing. Raises WorkflowNotFoundError, EtagMismatchError,
        WorkflowInUseError, RequestIdReusedError.
        """
        asking = asked(Method.DELETE_WORKFLOW, request_id, deleted_by, workflow=reference, etag=etag, force=force)
        request = in_one_go(asking)
        workflow_id = await self._repository.delete_workflow(scope, reference, etag, force, deleted_by, request)
        self._runner.tasks.spawn(self._runner.clear_away(workflow_id), f"clear away {workflow_id}")

    def watch(
        self, scope: Scope, execution_id: UUID, after_seq: int
    ) -> AsyncIterator[Sequence[Event] | Bookmark | Output]:
        """Give every event after `after_seq`; see `follow`."""
        return follow(self._repository, self._hub, scope, execution_id, after_seq, self._pace, self._mended)


def _clean(request: StartRequest) -> StartRequest:
    """Return a request whose input can be kept. Raises ValidationError."""
    return replace(request, input=normalise(dict(request.input), "input"))
