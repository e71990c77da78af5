"""Those who let executions go on after their end, make others of them, and act on many at a time."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Coroutine
from random import Random
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID

from persistence.bulks import Bulk, BulkAction, BulkState
from persistence.errors import PersistenceError
from persistence.listing import ExecutionFilter
from persistence.model import Execution, ExecutionState, MessageKind, Scope, Workflow
from service.engine.bulk.bulks import Wanted
from service.engine.creations import RaceLostError
from service.engine.forks import Forked, ForkRequest
from service.engine.requests import StartRequest
from service.engine.retries import Change, Retry
from service.engine.signal_starts import Sent
from service.engine.signalling import CorrelationAmbiguousError
from service.engine.violations import ValidationError
from tests.simulation.clients import LOOK, OWNER, UNKNOWN, Clients, rest
from tests.simulation.history import Answer
from tests.simulation.scenario import BulkSpec, ForkSpec, HaltSpec, OrderSpec, RetrySpec, SignalStartSpec
from tests.simulation.signalling import GROUP, NAME

if TYPE_CHECKING:
    from tests.simulation.world import World

NEXT_RUN = 6.0
"""Seconds that each run may take after the first."""

LEFT_PAUSED = 1.0
"""Seconds after which somebody resumes what a retry or an operation in bulk has left paused."""

GIVEN = {"value": 7, "token": "given"}
"""An output in the place of one that was recorded."""


_Given = TypeVar("_Given")


class Operators:
    """Ask for retries, forks and operations in bulk, each under one request id until the answer is definite."""

    def __init__(self, world: World, clients: Clients, random: Random) -> None:
        self._world = world
        self._clients = clients
        self._random = random

    async def retry(self, number: int, spec: OrderSpec) -> None:
        """Retry an execution after each of its ends that allows it, and see to it that it goes on."""
        await self._clients.known(number)
        if number not in self._clients.ids:
            return
        execution_id = self._clients.ids[number]
        for place, each in enumerate(spec.retries):
            await self._until_end(execution_id, resumes=place > 0)
            await asyncio.sleep(each.after)
            if not await self._retried(number, execution_id, each, f"retry-{number}-{place}"):
                return
        await self._until_end(execution_id, resumes=True)

    async def _retried(self, number: int, execution_id: UUID, spec: RetrySpec, name: str) -> bool:
        row = self._world.database.tables.executions[execution_id]
        if (row.execution.failure or {}).get("code") == "POISONED":
            return False  # it would do the same to others
        retry = Retry(name, NEXT_RUN, self._change(execution_id, spec))
        scope = Scope(row.execution.org)

        def ask(replica: Any) -> Coroutine[Any, Any, Execution]:
            return replica.executions.retries.retry(scope, execution_id, OWNER, retry, name)  # type: ignore[no-any-return]

        answer = Answer("retry", number, 0.0, "", execution_id, name)
        return await self._ask(answer, ask) is not None

    def _change(self, execution_id: UUID, spec: RetrySpec) -> Change | None:
        """Return what is to be otherwise for the first step that failed or was cancelled, if there is one."""
        steps = self._world.database.tables.executions[execution_id].steps
        newest = {path: steps[path, iteration] for path, iteration in sorted(steps)}
        undone = [step for step in newest.values() if step.state.value in ("FAILED", "CANCELLED")]
        if spec.change == "edit":
            undone = [step for step in undone if step.handler in ("effect", "pure")]
        if not undone or not spec.change:
            return None
        if spec.change == "skip":
            return Change(undone[0].path, GIVEN, is_skip=True)
        return Change(undone[0].path, {"takes": 0.1, "value": "edited"})

    async def fork(self, number: int, spec: ForkSpec, place: int) -> None:
        """Make an execution of another one, wherever that stands by then."""
        await self._clients.known(number)
        if number not in self._clients.ids:
            return
        await asyncio.sleep(spec.at)
        source = self._world.database.tables.executions[self._clients.ids[number]].execution
        document = self._world.scenario.workflows[source.workflow_id.int - 1].document
        paths = [step["id"] for step in document["steps"]]
        path = "" if spec.step < 0 else paths[spec.step % len(paths)]
        outputs = {paths[0]: GIVEN} if spec.gives and path not in ("", paths[0]) else {}
        asks = ForkRequest({"n": 5} if spec.changes else None, None, path, outputs=outputs)
        scope, request_id = Scope(source.org), f"fork-{number}-{place}"

        def ask(replica: Any) -> Coroutine[Any, Any, Forked]:
            return replica.executions.forks.fork(scope, source.id, OWNER, asks, request_id)  # type: ignore[no-any-return]

        answer = Answer("fork", number, 0.0, "", source.id, request_id)
        forked = await self._ask(answer, ask)
        if forked is not None:
            assert forked.execution is not None
            answer.execution_id = forked.execution.id

    async def act(self, spec: BulkSpec, place: int) -> None:
        """Act on all executions of an org, and resume in the end what was paused."""
        await self._world.until(spec.time)
        await self._act(spec, f"bulk-{place}")
        for again in itertools.count():
            rows = list(self._world.database.tables.executions.values())
            if spec.action != BulkAction.PAUSE or all(r.execution.state.is_end for r in rows):
                return
            await asyncio.sleep(LEFT_PAUSED)
            if any(r.execution.state is ExecutionState.PAUSED for r in rows if r.execution.org == spec.org):
                await self._act(BulkSpec(0.0, spec.org, BulkAction.RESUME), f"bulk-{place}-resume-{again}")

    async def _act(self, spec: BulkSpec, request_id: str) -> None:
        action, scope, options = BulkAction(spec.action), Scope(spec.org), dict[str, Any]()
        if action is BulkAction.RETRY:
            options = {"timeout": NEXT_RUN}
        where = ExecutionFilter()
        wanted = Wanted(action, where, {}, options, request_id, spec.limit, spec.rate, match_all=True)

        def ask(replica: Any) -> Coroutine[Any, Any, Bulk]:
            return replica.bulks.start(scope, OWNER, wanted, request_id)  # type: ignore[no-any-return]

        bulk = await self._ask(Answer("bulk", -1, 0.0, "", None, request_id), ask)
        if bulk is None:
            return
        if spec.stopped_after is not None:
            await asyncio.sleep(spec.stopped_after)
            answer = Answer("stop bulk", -1, 0.0, "", None, str(bulk.id))
            await self._ask(answer, lambda replica: replica.bulks.stop(scope, bulk.id, OWNER))
        kept = self._world.database.tables.bulks[bulk.id]
        await self._until(lambda: kept.bulk.state is not BulkState.RUNNING and not kept.bulk.under_way)
        if action is BulkAction.RETRY:
            for row in list(self._world.database.tables.executions.values()):
                if row.execution.org == spec.org and row.execution.run > 1:
                    await self._until_end(row.execution.id, resumes=True)

    async def signal(self, spec: SignalStartSpec, place: int) -> None:
        """Send a signal to what goes on of a workflow for a correlation id, or start an execution with it."""
        await self._world.until(spec.time)
        workflow = self._world.scenario.workflows[spec.workflow]
        scope, request_id = Scope(workflow.org), f"signal-start-{place}"
        start = StartRequest(workflow.document["name"], input=spec.input, correlation_id=f"{GROUP}{spec.group}")

        def ask(replica: Any) -> Coroutine[Any, Any, Sent]:
            return replica.signal_starts.send(scope, OWNER, start, NAME, {}, request_id)  # type: ignore[no-any-return]

        # Two go on where somebody has retried in bulk what had ended, and the signal is for neither.
        answer = Answer("signal", -1, 0.0, "", None, request_id)
        sent = await self._ask(answer, ask)
        if sent is not None:
            answer.execution_id, answer.detail = sent.execution.id, str(sent.signal_id)

    async def halt(self, spec: HaltSpec) -> None:
        """Pause a workflow for a while."""
        await self._world.until(spec.time)
        workflow = self._world.scenario.workflows[spec.workflow]
        scope, name, request_id = Scope(workflow.org), workflow.document["name"], f"halt-{spec.workflow}"

        def pause(replica: Any) -> Coroutine[Any, Any, Workflow]:
            return replica.executions.pauses.pause(  # type: ignore[no-any-return]
                scope, name, OWNER, "halt", request_id, pauses_running=spec.pauses_running
            )

        def resume(replica: Any) -> Coroutine[Any, Any, Workflow]:
            return replica.executions.pauses.resume(  # type: ignore[no-any-return]
                scope, name, OWNER, "over", f"{request_id}-over"
            )

        await self._ask(Answer("halt", -1, 0.0, ""), pause)
        told = self._world.loop.time()
        await asyncio.sleep(spec.span)
        self._world.history.halts.append((spec.workflow, told, self._world.loop.time()))
        await self._ask(Answer("halt", -1, 0.0, ""), resume)

    async def _until(self, is_so: Callable[[], bool]) -> None:
        for _ in itertools.count():
            if is_so():
                return
            await asyncio.sleep(LOOK)

    async def _until_end(self, execution_id: UUID, *, resumes: bool = False) -> None:
        """Wait for the end of an execution, which may be paused with nobody left to resume it."""
        row = self._world.database.tables.executions[execution_id]
        while not row.execution.state.is_end:
            await asyncio.sleep(LEFT_PAUSED if resumes else LOOK)
            if resumes and row.execution.state is ExecutionState.PAUSED:
                scope = Scope(row.execution.org)
                name = f"go-on-{execution_id}-{row.execution.last_seq}"

                def ask(replica: Any, scope: Scope = scope, name: str = name) -> Coroutine[Any, Any, Execution]:
                    return replica.control.ask(  # type: ignore[no-any-return]
                        scope, execution_id, MessageKind.RESUME, OWNER, {}, name
                    )

                await self._ask(Answer("go on", -1, 0.0, "", execution_id), ask)

    async def _ask(self, answer: Answer, make: Callable[[Any], Coroutine[Any, Any, _Given]]) -> _Given | None:
        """Ask, any replica each time, until the answer is definite; None where it is a refusal."""
        while True:
            at = self._random.randrange(self._world.scenario.replicas)
            try:
                given: _Given = await self._clients.ask(at, make)
            except UNKNOWN:
                await rest(self._random)
                continue
            except (PersistenceError, ValidationError, CorrelationAmbiguousError, RaceLostError) as error:
                answer.outcome = "definite"
                self._clients.told(answer)
                self._world.history.note(answer.time, "client", answer.kind, repr(error))
                return None
            answer.outcome = "ok"
            self._clients.told(answer)
            return given
