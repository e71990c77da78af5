"""Sends executions signals: finds the one that is meant, and holds a payload against the step that waits for it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any
from uuid import UUID

from persistence.errors import NotFoundError
from persistence.listing import ExecutionFilter, ExecutionOrder, StepFilter
from persistence.model import FINAL_STATES, Execution, ExecutionState, MessageKind, Scope, Step, StepState
from persistence.posting import Posting
from persistence.repository import Repository
from persistence.requests import Asked, Method, Request
from persistence.signals import MOST_PAYLOAD_BYTES
from service.engine import awaited_signals, payload
from service.engine.control import Control
from service.engine.definition import Listen
from service.engine.planning.state import awaited_signals as awaited_names
from service.engine.repeats import unless_asked
from service.engine.requests import asked
from service.engine.schema import locate
from service.engine.slices import in_slices
from service.engine.steps import Steps
from service.engine.violations import ValidationError, Violation
from service.engine.workflows import Workflows

_OPEN = tuple(state for state in ExecutionState if state not in FINAL_STATES)
_WAITING = StepFilter(frozenset({StepState.WAITING}), Listen.handler)
_LOOKED_AT = 100
"""Steps that wait, of which the one is looked for that takes a signal."""

_READ = 1 << 20
"""Characters of what they wait for."""


class CorrelationNotFoundError(NotFoundError):
    """No execution of the workflow with the correlation id goes on, in the scope."""

    def __init__(self, workflow: str, correlation_id: str) -> None:
        super().__init__(f"no execution of {workflow!r} with the correlation id {correlation_id!r} goes on")
        self.workflow = workflow
        self.correlation_id = correlation_id


class CorrelationAmbiguousError(Exception):
    """Several executions of the workflow with the correlation id go on."""

    def __init__(self, workflow: str, correlation_id: str) -> None:
        super().__init__(
            f"several executions of {workflow!r} with the correlation id {correlation_id!r} go on; name one by its id"
        )
        self.workflow = workflow
        self.correlation_id = correlation_id


@dataclass(frozen=True, slots=True)
class Correlation:
    """What an execution belongs to."""

    workflow: str
    correlation_id: str


class Signalling:
    """Sends signals."""

    def __init__(
        self,
        repository: Repository,
        workflows: Workflows,
        control: Control,
    ) -> None:
        self._repository = repository
        self._control = control
        self._steps = Steps(repository, workflows)

    async def send(
        self,
        scope: Scope,
        target: UUID | Correlation,
        name: str,
        given: Mapping[str, Any],
        by: str,
        request_id: str = "",
    ) -> tuple[Execution, UUID]:
        """Keep a signal, let it take effect, and return the execution after it and the id of the signal.

        A request id that was used so before changes nothing. Raises ValidationError, ExecutionNotFoundError,
        CorrelationNotFoundError, CorrelationAmbiguousError, ExecutionFinishedError, ExecutionStateError,
        SignalsFullError, RequestIdReusedError.
        """
        sent, size = await self.sound(given)
        meant = str(target) if isinstance(target, UUID) else asdict(target)
        request = await in_slices(asked(Method.SIGNAL, request_id, by, [sent], name=name, target=meant))
        posting = self.posting(scope, name, sent, size, by, request_id)

        async def make() -> Execution:
            execution_id = target if isinstance(target, UUID) else await self.find(scope, target)
            if execution_id is None:
                assert isinstance(target, Correlation)  # noqa: S101 - what has an id is named by it
                raise CorrelationNotFoundError(target.workflow, target.correlation_id)
            return await self.post(scope, execution_id, posting, request)

        again = partial(self.sent_before, scope)
        return await unless_asked(self._repository, scope.org, request, make, again), posting.id

    async def sent_before(self, scope: Scope, first: Asked) -> Execution:
        """Return the execution that a signal was sent to under a request id. Raises ExecutionNotFoundError."""
        assert first.execution_id is not None  # noqa: S101 - a signal is sent to an execution
        return await self._repository.get_execution(scope, first.execution_id)

    async def sound(self, given: Mapping[str, Any]) -> tuple[dict[str, Any], int]:
        """Return a payload as it is kept, and how many bytes it has as JSON. Raises ValidationError."""
        sent = await in_slices(payload.normalising(dict(given), "payload"))
        size = payload.size(sent)
        if size > MOST_PAYLOAD_BYTES:
            text = f"has {size:,} bytes as JSON; a signal may have {MOST_PAYLOAD_BYTES:,}"
            raise ValidationError([Violation("payload", text)])
        return sent, size

    def posting(self, scope: Scope, name: str, sent: Mapping[str, Any], size: int, by: str, request_id: str) -> Posting:
        """Return the message that brings a signal with a sound payload; repeated by a request id, with the same id."""
        signal_id = _id_of(scope.org, request_id) if request_id else self._control.new_id()
        return Posting(signal_id, MessageKind.SIGNAL, by, {"name": name, "payload": sent, "size": size})

    async def post(self, scope: Scope, execution_id: UUID, posting: Posting, request: Request | None) -> Execution:
        """Keep a signal, let it take effect, and return the execution after it. Raises what `send` raises."""
        await self._check(scope, execution_id, posting.body["name"], posting.body["payload"])
        await self._control.send(scope, execution_id, posting, request)
        return await self._repository.get_execution(scope, execution_id)

    async def find(self, scope: Scope, target: Correlation) -> UUID | None:
        """Return the execution that goes on of a workflow with a correlation id, and is no dry run.

        Raises CorrelationAmbiguousError.
        """
        where = ExecutionFilter(
            workflow=target.workflow, states=_OPEN, correlation_id=target.correlation_id, is_dry_run=False
        )
        found = await self._repository.list_executions(scope, where, ExecutionOrder.NEWEST, None, 2)
        if len(found) > 1:
            raise CorrelationAmbiguousError(target.workflow, target.correlation_id)
        return found[0].id if found else None

    async def _check(self, scope: Scope, execution_id: UUID, name: str, given: Mapping[str, Any]) -> None:
        """Hold a payload against the step that has waited longest for such a signal; one that comes early is kept."""
        page = await self._steps.page(scope, execution_id, _WAITING, "", _LOOKED_AT, _READ)
        waiting = [step for _, step in page.steps if _is_for(step, name) and step.key not in page.omitted]
        if not waiting:
            return
        first = min(waiting, key=_since)
        schema = awaited_signals.read_again(first.input).schemas.get(name)
        problems = await in_slices(awaited_signals.judging_payload(schema, given))
        if problems:
            raise ValidationError([Violation(locate("payload", each.path), each.message) for each in problems])


def _since(step: Step) -> tuple[float, int]:
    return step.wait.start_time.timestamp() if step.wait else 0.0, step.position


def _is_for(step: Step, name: str) -> bool:
    return name in awaited_names(step) and isinstance(step.input, Mapping)


def _id_of(org: str, request_id: str) -> UUID:
    """Return the id of the signal that is sent under a request id: repeated, it is told again."""
    digest = bytearray(hashlib.sha256(f"{org}\0{request_id}".encode()).digest()[:16])
    digest[6] = digest[6] & 0x0F | 0x80
    digest[8] = digest[8] & 0x3F | 0x80
    return UUID(bytes=bytes(digest))
