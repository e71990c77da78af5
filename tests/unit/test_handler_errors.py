"""What handlers raise, a HandlerError or anything else, and what an attempt makes of it."""

from __future__ import annotations

import asyncio
import copy
import math
import pickle
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import Enum, StrEnum
from fractions import Fraction
from typing import Any
from uuid import UUID

import pytest

from flowkeep.handlers import HandlerError
from tests.unit.attempts import Text, failed, raising
from tests.work import at_most


class Codes(StrEnum):
    BUSY = "BUSY"


class OtherCodes(Enum):
    BUSY = "BUSY"


class Mute:
    def __str__(self) -> str:
        raise RuntimeError

    __repr__ = __str__


@pytest.mark.parametrize(
    ("arguments", "code", "message", "pause"),
    [
        ({}, "BUSY", "later", None),
        ({"code": Codes.BUSY}, "BUSY", "later", None),
        ({"code": Text("BUSY"), "message": Text("later")}, "BUSY", "later", None),
        ({"code": OtherCodes.BUSY}, "BUSY", "later", None),
        ({"retry_after": 2}, "BUSY", "later", 2.0),
        ({"retry_after": Fraction(1, 2)}, "BUSY", "later", 0.5),
        ({"retry_after": timedelta(minutes=1)}, "BUSY", "later", 60.0),
        ({"retry_after": "2"}, "BUSY", "later (HandlerError: retry_after must be seconds as a number, or a time", None),
        ({"retry_after": math.nan}, "BUSY", "later (HandlerError: retry_after must be a finite number, not nan)", None),
        ({"retry_after": math.inf}, "BUSY", "later (HandlerError: retry_after must be a finite number, not inf)", None),
        ({"retry_after": 10**400}, "BUSY", "later (HandlerError: retry_after must be a finite number", None),
        ({"retry_after": -1}, "BUSY", "later (HandlerError: retry_after must not be negative, but is -1 s)", None),
        ({"retry_after": True}, "BUSY", "later (HandlerError: retry_after must be a number, not bool)", None),
        ({"retryable": "no"}, "BUSY", "later (HandlerError: retryable must be True or False, not str)", None),
        ({"message": None}, "BUSY", "(HandlerError: message must be text, not None)", None),
        ({"message": 17}, "BUSY", "17 (HandlerError: message must be text, not int)", None),
        ({"message": Mute()}, "BUSY", "(HandlerError: message must be text, not Mute)", None),
        ({"details": "x"}, "BUSY", "later (HandlerError: details must be a mapping, not str)", None),
        ({"code": 404}, "404", "later (HandlerError: code must be text, not int)", None),
        ({"code": None}, "HANDLER_ERROR", "later (HandlerError: code must be text, not None)", None),
        ({"code": " "}, " ", "later (HandlerError: code must have 1 to 128 characters", None),
        ({"code": "C" * 200}, "C" * 128, "later (HandlerError: code must have 1 to 128 characters", None),
        ({"code": "A\0B"}, "A\N{REPLACEMENT CHARACTER}B", "later (HandlerError: code must not contain the char", None),
    ],
)
async def test_an_argument_that_is_wrong_hides_no_failure(
    arguments: dict[str, Any], code: str, message: str, pause: float | None
) -> None:
    found = await failed(raising(HandlerError(**{"code": "BUSY", "message": "later", **arguments})))
    assert (found.failure.code, found.retry_after, found.failure.retryable) == (code, pause, True)
    assert found.failure.message.startswith(message)


async def test_attributes_are_checked_too() -> None:
    class Mine(HandlerError):
        def __init__(self) -> None:  # does not call ours
            self.code = "MINE"

        message = property(lambda self: 1 / 0)
        retry_after = "soon"  # type: ignore[assignment]

    found = await failed(raising(Mine()))
    assert (found.failure.code, found.retry_after) == ("MINE", None)
    assert "retry_after must be" in found.failure.message


def test_an_error_passes_between_processes() -> None:
    error = HandlerError("BUSY", "later", {"a": 1}, False, timedelta(seconds=2))
    for each in (copy.copy(error), pickle.loads(pickle.dumps(error))):  # noqa: S301 - its own
        assert vars(each) == vars(error)
        assert str(each) == "BUSY: later"


async def test_details_that_are_no_json_are_kept_as_text() -> None:
    loop: dict[str, Any] = {}
    loop["loop"] = loop
    details = {
        "json": {"a": [1, 2.5, True, None, "x"]},
        "when": datetime(2030, 1, 31, 9, tzinfo=UTC),
        "id": UUID(int=7),
        "amount": Decimal("1.50"),
        "big": {"ids": [2**60]},
        "nan": math.nan,
        "bytes": b"\xff",
        "object": Mute(),
        "nul": "\0",
        "deep": [[[[[[[[[[[[[[[[[[[[[[[[[[[[["x"]]]]]]]]]]]]]]]]]]]]]]]]]]]]],
        "loop": loop,
        7: "key",
    }
    kept = (await failed(raising(HandlerError("BUSY", "later", details)))).failure.details  # type: ignore[arg-type]
    assert {name: kept[name] for name in ("json", "when", "id", "amount", "big", "nan", "7")} == {
        "json": {"a": [1, 2.5, True, None, "x"]},
        "when": "2030-01-31T09:00:00Z",
        "id": "00000000-0000-0000-0000-000000000007",
        "amount": "1.50",
        "big": {"ids": [str(2**60)]},
        "nan": "nan",
        "7": "key",
    }
    assert kept["object"] == "<Mute>"
    assert kept.keys() == {str(key) for key in details}

    much = {f"k{n}": "é" * 10_000 for n in range(1000)}
    cut = (await failed(raising(HandlerError("BUSY", "later", much)))).failure.details
    assert cut["k0"] == "é" * 300


# --- whatever else is raised


class Unprintable(Exception):
    def __str__(self) -> str:
        raise SystemExit


class Odd(BaseException):
    pass


@pytest.mark.parametrize("is_async", [True, False])
@pytest.mark.parametrize(
    ("error", "name"),
    [
        (ValueError("x"), "ValueError"),
        (Unprintable(), "Unprintable"),
        (Odd(), "Odd"),
        (StopIteration(3), "StopIteration"),
        (StopAsyncIteration(), "StopAsyncIteration"),
        (GeneratorExit(), "GeneratorExit"),
        (SystemExit(3), "SystemExit"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
        (TimeoutError(), "TimeoutError"),
        (ExceptionGroup("both", [ValueError(), HandlerError("A", "a")]), "ExceptionGroup"),
        (BaseExceptionGroup("one", [SystemExit()]), "BaseExceptionGroup"),
    ],
    ids=lambda case: type(case).__name__,
)
async def test_whatever_is_raised_fails_the_attempt_under_its_name(
    error: BaseException, name: str, is_async: bool
) -> None:
    async def function() -> None:
        raise error

    found = (await failed(function if is_async else raising(error))).failure
    assert (found.code, found.retryable) == ("HANDLER_ERROR", True)
    assert found.message == f"handler 'f' raised {name}; its stack trace tells more"
    assert "Traceback" in found.stack_trace


class Ends(Exception):
    """Ends the process of whoever looks at it, in a way of its own."""


def ending(name: str) -> BaseException:
    def end(self: Any) -> Any:
        raise SystemExit

    made: BaseException = type(f"Ends{name}", (Ends,), {name: property(end)})()
    return made


class Endless(str):
    def __str__(self) -> str:
        raise SystemExit


@pytest.mark.parametrize("is_async", [True, False])
@pytest.mark.parametrize("name", ["__class__", "__cause__", "__context__", "__traceback__", "__notes__", "__dict__"])
async def test_an_error_that_cannot_be_looked_at_fails_the_attempt(name: str, is_async: bool) -> None:
    error = ending(name)

    async def function() -> None:
        raise error

    found = (await failed(function if is_async else raising(error))).failure
    assert (found.code, found.retryable) == ("HANDLER_ERROR", True)


class Ender:
    def __str__(self) -> str:
        raise SystemExit

    __repr__ = __str__


@pytest.mark.parametrize(
    "arguments",
    [
        {"code": Ender()},
        {"message": Ender()},
        {"code": Endless("BUSY"), "message": Endless("x")},
        {"details": {"a": Ender(), "b": [Ender()]}},
        {"details": {Ender(): 1}},
        {"retry_after": Ender()},
    ],
    ids="-".join,
)
async def test_what_ends_the_process_as_text_is_an_argument_that_is_wrong(arguments: dict[str, Any]) -> None:
    async def function() -> None:
        raise HandlerError(**{"code": "BUSY", **arguments})

    code = (await failed(function)).failure.code
    assert code == ("HANDLER_ERROR" if isinstance(arguments.get("code"), Ender) else "BUSY")


def _chain(length: int) -> BaseException:
    error = ValueError("first")
    for number in range(length):
        error, error.__context__ = ValueError(f"number {number}"), error
    return error


@pytest.mark.parametrize(
    "error",
    [
        _chain(50_000),
        ExceptionGroup("wide", [ValueError(n) for n in range(50_000)]),
        HandlerError("BUSY", "", {str(n): [n] * 10 for n in range(50_000)}),
        HandlerError("BUSY", "", {"list": [[]] * 500_000}),
    ],
    ids=["chain", "group", "details", "list"],
)
async def test_a_large_error_holds_up_nobody(error: BaseException) -> None:
    with at_most(0.05):
        found = (await failed(raising(error))).failure
    assert found.code in ("HANDLER_ERROR", "BUSY")


@pytest.mark.parametrize(
    "made", [lambda: [[]] * 2_000_000, lambda: {"a": tuple([0] * 2_000_000)}], ids=["lists", "tuple"]
)
async def test_a_large_result_is_refused_without_being_read(made: Callable[[], Any]) -> None:
    result = made()

    async def function() -> Any:
        return result

    with at_most(0.05):
        found = (await failed(function)).failure
    assert (found.code, found.message) == ("INVALID_OUTPUT", "output: must have at most 10,240 values in all")


async def test_an_error_out_of_a_group_of_tasks_keeps_its_code() -> None:
    async def function() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(asyncio.to_thread(raising(HandlerError("BUSY", "later", retry_after=2))))

    found = await failed(function)
    assert (found.failure.code, found.retry_after) == ("BUSY", 2)
