"""The error by which a handler fails under a code of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import timedelta
from enum import Enum
from typing import Any, TypeVar

from flowkeep.handlers import arguments

Value = TypeVar("Value")

HANDLER_ERROR = "HANDLER_ERROR"
INVALID_OUTPUT = "INVALID_OUTPUT"
MAX_CODE = 128


class HandlerError(Exception):
    """A handler failed: the step's failure gets `code`, `message` and `details`.

    `retryable` says whether another attempt may help, `retry_after` is the least pause before it, in seconds or as a
    timedelta. An argument that is not as it must be never hides the failure: it is left out, and the message says so.
    """

    def __init__(
        self,
        code: str,
        message: str = "",
        details: Mapping[str, Any] | None = None,
        retryable: bool = True,
        retry_after: float | timedelta | None = None,
    ) -> None:
        super().__init__(code, message, details, retryable, retry_after)  # all, so that it can be pickled
        wrong: list[str] = []

        def checked(name: str, check: Callable[[Any], Value], value: Any, otherwise: Value) -> Value:
            try:
                return check(value)
            except ValueError as error:
                wrong.append(f"{name} {error}")
                return otherwise

        self.code = checked("code", _code, code, _spoken(code)[:MAX_CODE] or HANDLER_ERROR)
        self.details: dict[Any, Any] = checked("details", _details, details, {"details": details})
        self.retryable = checked("retryable", arguments.flag, retryable, True)
        self.retry_after = checked("retry_after", _pause, retry_after, None)
        said = checked("message", arguments.text, message, _spoken(message))
        self.message = " ".join(filter(None, (said, f"(HandlerError: {'; '.join(wrong)})" if wrong else "")))

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"


def rebuilt(error: HandlerError) -> HandlerError:
    """Return the error with all checked again: attributes may be set, and a subclass may not have called ours."""
    given: dict[str, Any] = {"code": HANDLER_ERROR}
    for name in ("code", "message", "details", "retryable", "retry_after"):
        with suppress(BaseException):
            given[name] = getattr(error, name)
    return HandlerError(**given)


def invalid(what: str, check: Callable[[Any], Value], value: Any) -> Value:
    """Return the checked value, or fail the attempt as INVALID_OUTPUT with a message that names `what`."""
    try:
        return check(value)
    except ValueError as error:
        raise HandlerError(INVALID_OUTPUT, f"{what} {error}", retryable=False) from None


def _code(value: Any) -> str:
    code = arguments.storable(value.value if isinstance(value, Enum) else value)
    if not code.strip() or len(code) > MAX_CODE:
        raise ValueError(f"must have 1 to {MAX_CODE} characters, but has {len(code.strip())}")
    return code


def _pause(value: Any) -> float | None:
    return None if value is None else arguments.span(value)


def _details(value: Any) -> dict[Any, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise ValueError(f"must be a mapping, not {arguments.kind(value)}")
    try:
        return dict(value)
    except BaseException as error:
        raise ValueError(f"cannot be read: {type(error).__name__}") from None


def _spoken(value: Any) -> str:
    """Return the text of any object, if it has one."""
    try:
        return "" if value is None else str.__str__(str(value))
    except BaseException:  # whatever it raises, it is the text that fails, and not the handler
        return ""
