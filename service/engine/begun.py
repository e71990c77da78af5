"""Starts on their way: handed to the store, or refused unless they were kept before; and what becomes of them."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from persistence import failpoints
from persistence.errors import NotFoundError, RequestIdReusedError, UnreadableError
from persistence.model import Execution, Workflow
from persistence.transition import Created
from service.engine.definition import Definition
from service.engine.parsing import input_cost
from service.engine.payload import size
from service.engine.requests import StartRequest
from service.engine.violations import ValidationError

_COST, _STARTING, _BYTES_A_MICROSECOND = 60, 60, 20
"""Microseconds that an execution takes to be handed to the store, those that a start at once adds, and the bytes of
input that take one more."""

UNCLEAR = (ValidationError, NotFoundError, UnreadableError, RequestIdReusedError)
"""Refusals that do not hold if the same request was kept before."""


@dataclass(frozen=True, slots=True)
class Begun:
    """An execution that was handed to the store."""

    request: StartRequest
    workflow: Workflow
    definition: Definition
    kept: asyncio.Future[Created]


@dataclass(frozen=True, slots=True)
class Doubtful:
    """A request that is refused, unless the same request was kept when the workflow still took it."""

    request: StartRequest
    workflow: Workflow | None
    definition: Definition | None
    error: Exception


async def kept_or_refused(request: StartRequest, kept: asyncio.Future[Created]) -> Created:
    """Return what was kept. Raises what the store raises, and RequestIdReusedError."""
    created = await asyncio.shield(kept)
    await failpoints.reach("exec.after_commit_before_reply")
    if is_another(created.execution, request.workflow):
        raise RequestIdReusedError(request.request_id)
    return created


async def outcome_of(begun: Begun | Doubtful | Created | Exception) -> Begun | Doubtful | Created | Exception:
    """Return what became of a request, and itself where that is unclear until its request id was looked up."""
    if not isinstance(begun, Begun):
        return begun
    try:
        return await kept_or_refused(begun.request, begun.kept)
    except UNCLEAR:
        return begun
    except Exception as error:
        return error


def cost(begun: Begun | Doubtful) -> int:
    """Return about how many microseconds a request took until it was handed to the store, or refused."""
    payload = begun.request.input
    total = _COST + size(payload) // _BYTES_A_MICROSECOND + (0 if begun.request.start_delay else _STARTING)
    if begun.definition is not None:
        total += input_cost(begun.definition, payload, is_wrong=isinstance(begun, Doubtful))
    return total


def is_another(first: Execution, reference: str) -> bool:
    """Whether a workflow that is referred to by id is not the one of an execution, but took over its name."""
    return reference != first.workflow_name and reference != str(first.workflow_id)
