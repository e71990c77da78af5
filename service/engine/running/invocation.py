"""Runs one attempt of a step and says what came of it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from service.engine import payload
from service.engine.expressions import Allowance
from service.engine.failure import (
    INVALID_OUTPUT,
    INVALID_PARAMS,
    MAX_MESSAGE,
    STEP_TIMEOUT,
    Failure,
    storable,
)
from service.engine.handlers.attempt import Attempt
from service.engine.handlers.failures import failure_of
from service.engine.handlers.queues import Place
from service.engine.handlers.registry import Handler, Registry, StepContext, Suspend
from service.engine.handlers.threads import MOMENT
from service.engine.planning.effects import Answer, StartAttempt
from service.engine.planning.reasons import not_mocked
from service.engine.running.revealing import Revealing
from service.engine.turns import SHARE, in_turn
from service.engine.violations import ValidationError
from service.engine.wishes import NONE, Wishes
from service.engine.workers.model import NoWorkerError, WorkerFailureError, WorkerLostError


@dataclass(frozen=True, slots=True)
class Succeeded:
    """The handler gave this output."""

    output: Any


@dataclass(frozen=True, slots=True)
class Failed:
    """The attempt failed; `retry_after` is the least pause in seconds that the other side asked for."""

    failure: Failure
    retry_after: float | None = None


@dataclass(frozen=True, slots=True)
class Waits:
    """The attempt has not begun: it waits for a thread or a worker, in this place of the queue."""

    place: Place


@dataclass(frozen=True, slots=True)
class NoHandler:
    """The attempt has not begun: this process does not have its handler, or no worker that meets the wishes."""

    reason: str
    wishes: Wishes = NONE


@dataclass(frozen=True, slots=True)
class Lost:
    """The worker that ran the attempt is lost, and with it what came of it.

    `is_cut_off`: it has never come back to this process, or to another one that would say so.
    """

    reason: str
    is_cut_off: bool = False


Outcome = Succeeded | Failed | Suspend | Waits | NoHandler | Lost
Begin = Callable[[Handler], Awaitable[StepContext]]
Rejoin = Callable[[str, Mapping[str, Any], StepContext], Awaitable[Any]]


async def run_attempt(
    registry: Registry,
    effect: StartAttempt,
    attempt: Attempt,
    begin: Begin,
    place: Place | None = None,
    revealing: Revealing | None = None,
    wishes: Wishes = NONE,
) -> Outcome:
    """Return what came of the attempt, which starts when `begin` returns. Raises nothing but CancelledError.

    When its time is over, whoever counts it lets it expire, and cancels the task that runs this.
    `place` has the thread or the worker that was kept for it, if one was; it is given back. `revealing` has the secrets
    that belong into its params, if any do. `wishes` are those for a worker, if workers have the handler.

    What has an answer needs no handler, and calls none; but one that is here says what is wrong with the params.
    """
    try:
        handler = registry.get(effect.handler, attempt.org, wishes)
        if handler is not None and (problems := handler.validate(effect.params, revealing.paths if revealing else ())):
            path, message = problems[0]
            return Failed(Failure(INVALID_PARAMS, f"{path or 'params'}: {message}"))
        if effect.answer is not None:
            return _answered(effect.answer, attempt)
        if handler is None:
            return _missing(effect, wishes)
        if effect.is_dry and not handler.is_unseen:
            return Failed(not_mocked(effect.handler))
        if place is not None or not (handler.is_remote or handler.is_threaded):
            return await _run(handler, effect, attempt, begin, place, revealing, wishes)
    finally:
        if place is not None:
            place.close()
    place = handler.queue_up(wishes) if handler.queue_up is not None else handler.slots().queue_up()
    try:
        is_granted = await place.granted(MOMENT)
    except asyncio.CancelledError:
        place.close()
        raise
    if not is_granted:
        return Waits(place)
    with place:
        return await _run(handler, effect, attempt, begin, place, revealing, wishes)


def _answered(answer: Answer, attempt: Attempt) -> Outcome:
    attempt.has_returned = True
    return Succeeded(answer.output) if answer.failure is None else Failed(answer.failure)


async def resume_attempt(
    run: Rejoin, effect: StartAttempt, attempt: Attempt, begin: Begin, revealing: Revealing | None = None
) -> Outcome:
    """Return what came of an attempt that a worker runs already; `run` gives what it gives, as `Handler.run` does."""
    handler = Handler(effect.handler, partial(run, attempt.org))
    return await _run(handler, effect, attempt, begin, None, revealing, NONE)


def _missing(effect: StartAttempt, wishes: Wishes) -> NoHandler:
    if wishes == NONE:
        return NoHandler(f"waits for a server or a worker that has the handler {effect.handler!r}")
    return NoHandler(f"waits for a worker that has the handler {effect.handler!r}, with {wishes}", wishes)


async def _run(
    handler: Handler,
    effect: StartAttempt,
    attempt: Attempt,
    begin: Begin,
    place: Place | None,
    revealing: Revealing | None,
    wishes: Wishes,
) -> Outcome:
    if place is not None:
        place.bind()
    outcome = await _outcome(handler, effect, attempt, begin, revealing, wishes)
    # It may have noticed a moment before the event loop.
    return Failed(overdue(effect)) if attempt.is_late and not attempt.is_in_thread else outcome


async def _outcome(
    handler: Handler,
    effect: StartAttempt,
    attempt: Attempt,
    begin: Begin,
    revealing: Revealing | None,
    wishes: Wishes,
) -> Outcome:
    try:
        # The time of an attempt begins when it can run.
        context = await begin(handler)
        if revealing is not None and effect.resumed:
            await revealing.learn()
        params = (
            effect.params if revealing is None or effect.resumed else await revealing.filled(handler, effect.params)
        )
        output = await handler.run(params, context)
        attempt.has_returned = True
        return await _checked(output, revealing)
    except ValidationError as error:
        failure, retry_after = Failure(INVALID_OUTPUT, str(error)), None
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if attempt.has_expired and task is not None and task.uncancel() == 0:  # else it was cancelled, too
            return Failed(overdue(effect, "its thread" if attempt.is_in_thread else ""))
        raise
    except NoWorkerError:
        return _missing(effect, wishes)
    except WorkerLostError as error:
        return Lost(str(error), error.is_cut_off)
    except WorkerFailureError as error:
        failure, retry_after = error.failure, error.retry_after
    except BaseException as error:  # neither sys.exit() nor KeyboardInterrupt of a handler may end the server
        failure, retry_after = failure_of(error, handler.name)
    if revealing is not None:
        attempt.has_returned = True
        failure = await revealing.hidden_failure(failure)
    return Failed(failure, retry_after)


def overdue(effect: StartAttempt, left: str = "") -> Failure:
    """Return the failure of an attempt whose time is over; `left` is what still runs of it."""
    more = f"; {left} was told to stop and still runs: it may still take effect" if left else ""
    most = "it may" if effect.resumed else f"{effect.timeout:g} s"  # of which most had passed when it was resumed
    return Failure(STEP_TIMEOUT, f"the attempt took longer than {most}{more}", retryable=True)


async def _checked(output: Any, revealing: Revealing | None) -> Succeeded | Suspend:
    if isinstance(output, Suspend):
        reason = await revealing.hidden(output.reason) if revealing else output.reason
        return Suspend(output.until, await _kept(output.output, revealing), storable(reason, MAX_MESSAGE))
    return Succeeded(await _kept(output, revealing))


async def _kept(output: Any, revealing: Revealing | None) -> Any:
    """Return an output as it is kept: JSON, without secrets."""
    clean = await _clean(output)
    return clean if revealing is None else await _clean(await revealing.hidden(clean))


async def _clean(output: Any) -> Any:
    share = SHARE.get(None)
    if share is None or share.is_open:
        return payload.normalise(output, "output")  # its work is counted when it is recorded

    def clean(allowance: Allowance) -> Any:
        normal = payload.normalise(output, "output")
        allowance.count_value(normal, payload.size(normal))
        return normal

    return await in_turn(clean)
