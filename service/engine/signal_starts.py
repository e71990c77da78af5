"""Signals that start the execution which they are for, where it does not go on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any
from uuid import UUID
from weakref import WeakValueDictionary

from msgspec.structs import replace

from persistence import failpoints
from persistence.errors import ExecutionFinishedError, ExecutionNotFoundError
from persistence.model import Execution, Message, Scope, Workflow
from persistence.posting import Posting
from persistence.repository import Repository
from persistence.requests import Asked, Method, Request
from persistence.transition import Created
from service.engine.creations import Creations, RaceLostError
from service.engine.debugging import check_points
from service.engine.definition import Definition
from service.engine.parsing import check_input
from service.engine.payload import normalising
from service.engine.planning import happenings, planner
from service.engine.planning.planner import Plan
from service.engine.repeats import unless_asked
from service.engine.requests import StartRequest, asked, content_hash
from service.engine.signalling import Correlation, Signalling
from service.engine.slices import in_slices
from service.engine.violations import violations_under
from service.engine.workflows import Workflows

_TRIES = 20
"""Executions that end between the look at them and the signal, after which a caller is told to try again."""


@dataclass(frozen=True, slots=True)
class Sent:
    """The execution that a signal was sent to, the id of the signal, and whether this call started the execution."""

    execution: Execution
    signal_id: UUID
    started: bool


@dataclass(frozen=True, slots=True)
class _Asking:
    """What one call asks for: who starts what, with which signal."""

    scope: Scope
    by: str
    start: StartRequest
    posting: Posting
    request: Request | None


class SignalStarts:
    """Sends signals to the executions that go on of a workflow with a correlation id, or starts these."""

    def __init__(
        self, repository: Repository, workflows: Workflows, signalling: Signalling, creations: Creations
    ) -> None:
        self._repository = repository
        self._workflows = workflows
        self._signalling = signalling
        self._creations = creations
        # One start at a time of this process for each: the others would wait for its lock in the store, with a
        # connection each.
        self._starting: WeakValueDictionary[tuple[UUID, str], asyncio.Lock] = WeakValueDictionary()

    async def send(
        self,
        scope: Scope,
        by: str,
        start: StartRequest,
        name: str,
        given: Mapping[str, Any],
        request_id: str = "",
    ) -> Sent:
        """Send a signal to the execution that goes on of a workflow with a correlation id, or start one that has it.

        The execution and the signal are kept together, and of several calls at once one starts an execution. A request
        id that was used so before changes nothing. What is wrong with the start is told in either case. Raises
        ValidationError, WorkflowNotFoundError, RevisionNotFoundError, CorrelationAmbiguousError, ExecutionStateError,
        SignalsFullError, RequestIdReusedError, RaceLostError.
        """
        sent, size = await self._signalling.sound(given)
        with violations_under("start"):
            start = replace(start, input=await in_slices(normalising(dict(start.input), "input")))
        start = replace(start, request_id=request_id)
        asked_for = {"name": name, "start": content_hash(by, start).hex()}
        request = await in_slices(asked(Method.SIGNAL, request_id, by, [sent], **asked_for))
        posting = self._signalling.posting(scope, name, sent, size, by, request_id)
        asking = _Asking(scope, by, start, posting, request)
        for _ in range(_TRIES):
            if (done := await self._once(asking)) is not None:
                return done
        raise RaceLostError(
            f"executions of {start.workflow!r} with the correlation id {start.correlation_id!r} ended each time just"
            " before they could be signalled; send it again"
        )

    async def _once(self, asking: _Asking) -> Sent | None:
        """Send the signal, unless it was sent before; None where what was found had changed before that."""

        async def again(first: Asked) -> Sent:
            return self._sent(asking, await self._signalling.sent_before(asking.scope, first))

        make = partial(self._send, asking)
        return await unless_asked(self._repository, asking.scope.org, asking.request, make, again)

    async def _send(self, asking: _Asking) -> Sent | None:
        scope, start, request = asking.scope, asking.start, asking.request
        workflow, definition = await self._workflows.resolve(scope, start.workflow, start.revision)
        with violations_under("start"):
            check_input(definition, start.input)
            await in_slices(check_points(definition, start.breakpoints))
        target = Correlation(str(workflow.id), start.correlation_id)
        if (found := await self._signalling.find(scope, target)) is None:
            async with self._starting.setdefault((workflow.id, start.correlation_id), asyncio.Lock()):
                if await self._signalling.find(scope, target) is not None:
                    return None
                created = await self._start(asking, workflow, definition)
            return self._sent(asking, created.execution, started=True) if created.created else None
        try:
            return self._sent(asking, await self._signalling.post(scope, found, asking.posting, request))
        except (ExecutionFinishedError, ExecutionNotFoundError):
            return None

    def _sent(self, asking: _Asking, execution: Execution, *, started: bool = False) -> Sent:
        return Sent(execution, asking.posting.id, started)

    async def _start(self, asking: _Asking, workflow: Workflow, definition: Definition) -> Created:
        """Keep a new execution together with the signal, unless another one goes on."""
        start = asking.start
        with violations_under("start"):
            execution = self._creations.started(workflow, definition, asking.by, start)
        prepared = await self._creations.prepare(
            execution,
            definition,
            start.input,
            asking.request.content_hash if asking.request is not None else b"",
            self._signalled(execution, definition, start.input, asking.posting),
            method=Method.SIGNAL,
            alone_in=asking.scope,
        )
        await failpoints.reach("exec.before_tx")
        created = await asyncio.shield(self._creations.hand_in(prepared))
        await failpoints.reach("exec.after_commit_before_reply")
        return created

    def _signalled(
        self, execution: Execution, definition: Definition, given: Mapping[str, Any], posting: Posting
    ) -> Callable[[], Plan]:
        """Return what gives the acceptance of an execution that has been sent a signal before it starts."""

        def accept() -> Plan:
            accepted, now = self._creations.accepted(execution, definition, given), execution.create_time
            message = Message(posting.id, posting.kind, now, posting.sender, posting.body)
            heard = planner.apply(definition, accepted.state, happenings.MessageCame(now, message))
            # Nothing is consumed by it: the message was never in an inbox.
            return Plan(heard.state, accepted.events + heard.events, accepted.steps + heard.steps)

        return accept
