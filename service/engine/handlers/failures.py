"""What a failure says of what a handler raised: any code, text and value becomes one that can be kept and sent."""

from __future__ import annotations

import math
import traceback
from collections import deque
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

from pydantic_core import to_jsonable_python

from service.engine import payload
from service.engine.failure import HANDLER_ERROR, MAX_MESSAGE, Failure, storable
from service.engine.handlers.model import HandlerError, rebuilt

MAX_CODE = 128
MAX_STACK_TRACE = 16_384

# Of what led to an error, and of a group of them, so many have their stack shown.
_CHAIN = 20
_GROUP = 200
_OF_LARGE_GROUP = 10

# Of details that are too much: a text of each of so many.
_MEMBERS = 100
_MEMBER_TEXT = 300
_KEY = 64
_DEPTH = payload.MAX_DEPTH - 2


class ToldError(Exception):
    """Carries the failure that an error was, as the process tells it in which that was raised."""

    def __init__(self, failure: Failure, retry_after: float | None) -> None:
        super().__init__(failure.code)
        self.failure = failure
        self.retry_after = retry_after


def failure_of(error: BaseException, handler: str) -> tuple[Failure, float | None]:
    """Return the failure that an error of a handler is, and the least pause in seconds that it asks for.

    Whatever the error does when it is looked at, one is returned: an error is code of anybody.
    """
    try:
        return _failure_of(error, handler)
    except BaseException:
        text = f"handler {handler!r} raised an error that cannot be read"
        return Failure(HANDLER_ERROR, storable(text, MAX_MESSAGE), retryable=True), None


def _failure_of(error: BaseException, handler: str) -> tuple[Failure, float | None]:
    if isinstance(error, HandlerError):
        return _named(error)
    if isinstance(error, ToldError):
        return error.failure, error.retry_after
    leaves = list(_leaves(error))
    named = [leaf for leaf in leaves if isinstance(leaf, HandlerError)]
    if named and len(named) == len(leaves):  # raised in tasks of the handler: the first is as good as any
        return _named(named[0])
    return _unnamed(_cause(error), handler), None


def _named(error: HandlerError) -> tuple[Failure, float | None]:
    clean = rebuilt(error)
    code, message = storable(clean.code, MAX_CODE), storable(clean.message, MAX_MESSAGE)
    return Failure(code, message, kept(clean.details), retryable=clean.retryable), clean.retry_after


def _unnamed(error: BaseException, handler: str) -> Failure:
    # The text of the error may hold secrets; it stands in the stack trace, which only those permitted see.
    try:
        trace = _trace(error)
    except BaseException:  # of an exception that overrides how it is looked at
        trace = "the stack trace cannot be had"
    return Failure(
        HANDLER_ERROR,
        storable(f"handler {handler!r} raised {type(error).__name__}; its stack trace tells more", MAX_MESSAGE),
        retryable=True,
        stack_trace=storable(trace[-MAX_STACK_TRACE:], MAX_STACK_TRACE),
    )


def _trace(error: BaseException) -> str:
    """Return the stack trace of an error, and of as many others as led to it."""
    leaves = list(islice(_leaves(error), _GROUP + 1))
    if len(leaves) > _GROUP:
        shown = "\n".join(map(_trace, leaves[:_OF_LARGE_GROUP]))
        return f"Traceback of {type(error).__name__}, the first of more than {_GROUP}:\n{shown}"
    chain = list(islice(_chain(error), _CHAIN + 1))
    if len(chain) > _CHAIN:
        shown = "\n".join("".join(traceback.format_tb(each.__traceback__)) + repr(each) for each in chain[:_CHAIN])
        return f"Traceback of {type(error).__name__}, and what led to it, the last {_CHAIN}:\n{shown}"
    return "".join(traceback.format_exception(error))


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error, what it was raised from or because of, and so on."""
    each: BaseException | None = error
    while each is not None:
        yield each
        each = each.__cause__ or each.__context__


def _leaves(error: BaseException) -> Iterator[BaseException]:
    pending = deque([error])
    while pending:
        each = pending.popleft()
        if isinstance(each, BaseExceptionGroup):
            pending.extend(each.exceptions)
        elif each is not error:
            yield each


def _cause(error: BaseException) -> BaseException:
    """Return the StopIteration that Python makes a RuntimeError as it leaves a coroutine, else the error itself."""
    cause = error.__cause__
    return cause if type(error) is RuntimeError and isinstance(cause, StopIteration | StopAsyncIteration) else error


def kept(details: Mapping[Any, Any]) -> dict[str, Any]:
    """Return details as JSON: what is none is kept as text."""
    if len(details) > payload.MAX_NODES:
        details = dict(islice(details.items(), _MEMBERS))
    found = {_text(key)[: payload.MAX_PAYLOAD_BYTES]: _json(value) for key, value in details.items()}
    if payload.check(found):
        cut = list(found.items())[:_MEMBERS]
        return {storable(key, _KEY): storable(_text(value), _MEMBER_TEXT) for key, value in cut}
    return found


def _json(value: Any) -> Any:
    if payload.has_too_many_values(value):
        return f"<{type(value).__name__}>"
    try:
        plain = to_jsonable_python(value, fallback=_text)
    except BaseException:  # it refers to itself, or is code of anybody
        plain = _text(value)
    fit = _fit(plain, _DEPTH)
    return storable(_text(fit), MAX_MESSAGE) if payload.check({"": fit}) else fit


def _fit(value: Any, depth: int) -> Any:
    """Return JSON with the texts of what the limits on numbers, characters and depth exclude."""
    match value:
        case dict() if depth:
            return {_text(key): _fit(member, depth - 1) for key, member in value.items()}
        case list() if depth:
            return [_fit(member, depth - 1) for member in value]
        case bool() | None:
            return value
        case int() if abs(value) <= payload.MAX_INTEGER:
            return value
        case float() if math.isfinite(value) and not payload.check(value):
            return value
    return _text(value)


def _text(value: Any) -> str:
    try:
        text = str(value)
    except BaseException:  # its text is code of anybody
        text = f"<{type(value).__name__}>"
    return storable(text, payload.MAX_PAYLOAD_BYTES)
