"""Runs one attempt of a step and says what came of it."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from service.engine import payload
from service.engine.effects import StartAttempt
from service.engine.failure import (
    HANDLER_ERROR,
    HANDLER_NOT_FOUND,
    INVALID_OUTPUT,
    INVALID_PARAMS,
    MAX_MESSAGE,
    STEP_TIMEOUT,
    Failure,
)
from service.engine.handlers.registry import Handler, HandlerError, Registry, StepContext, Suspend
from service.engine.violations import ValidationError

MAX_CODE = 128
MAX_STACK_TRACE = 16_384


@dataclass(frozen=True, slots=True)
class Succeeded:
    """The handler gave this output."""

    output: Any


@dataclass(frozen=True, slots=True)
class Failed:
    """The attempt failed; `retry_after` is the least pause in seconds that the other side asked for."""

    failure: Failure
    retry_after: float | None = None


Outcome = Succeeded | Failed | Suspend


async def run_attempt(registry: Registry, effect: StartAttempt, begin: Callable[[], Awaitable[StepContext]]) -> Outcome:
    """Return what came of the attempt, which starts when `begin` returns. Raises nothing but CancelledError."""
    handler = registry.get(effect.handler)
    if handler is None:
        return Failed(
            Failure(HANDLER_NOT_FOUND, f"waits for a server that has the handler {effect.handler!r}", retryable=True)
        )
    if problems := handler.validate(effect.params):
        path, message = problems[0]
        return Failed(Failure(INVALID_PARAMS, f"{path or 'params'}: {message}"))
    limit = asyncio.timeout(None)
    try:
        # The time of an attempt begins when it can run, not while it waits for a thread.
        async with handler.slot(), limit:
            context = await begin()
            limit.reschedule(asyncio.get_running_loop().time() + effect.timeout)
            return _checked(await handler.run(effect.params, context))
    except HandlerError as error:
        return Failed(_named(error), error.retry_after)
    except ValidationError as error:
        return Failed(Failure(INVALID_OUTPUT, str(error)))
    except asyncio.CancelledError:
        raise
    except BaseException as error:  # neither sys.exit() nor KeyboardInterrupt of a handler may end the server
        if isinstance(error, TimeoutError) and limit.expired():
            return Failed(Failure(STEP_TIMEOUT, f"the attempt took longer than {effect.timeout:g} s", retryable=True))
        return Failed(_unnamed(handler, error))


def _checked(output: Any) -> Succeeded | Suspend:
    if isinstance(output, Suspend):
        return Suspend(output.until, payload.normalise(output.output, "output"), storable(output.reason, MAX_MESSAGE))
    return Succeeded(payload.normalise(output, "output"))


def storable(text: object, longest: int) -> str:
    """Return what a handler said, cut, and without the characters that can be neither kept nor sent."""
    return str(text)[:longest].replace("\0", "\N{REPLACEMENT CHARACTER}").encode(errors="replace").decode()


def _named(error: HandlerError) -> Failure:
    return Failure(
        storable(error.code, MAX_CODE) or HANDLER_ERROR,
        storable(error.message, MAX_MESSAGE),
        {} if payload.check(error.details) else error.details,
        retryable=bool(error.retryable),
    )


def _unnamed(handler: Handler, error: BaseException) -> Failure:
    # The text of the error may hold secrets; it stands in the stack trace, which only those permitted see.
    trace = "".join(traceback.format_exception(error))[-MAX_STACK_TRACE:]
    return Failure(
        HANDLER_ERROR,
        f"handler {handler.name!r} raised {type(error).__name__}; its stack trace tells more",
        retryable=True,
        stack_trace=storable(trace, MAX_STACK_TRACE),
    )
