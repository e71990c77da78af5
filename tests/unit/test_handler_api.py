"""What handlers say with the names of `flowkeep.handlers`, right and wrong, and what an attempt makes of it."""

from __future__ import annotations

import asyncio
import copy
import math
import pickle
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta, timezone, tzinfo
from decimal import Decimal
from enum import Enum, StrEnum
from fractions import Fraction
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest

from flowkeep.handlers import HandlerError, StepContext, Suspend, handler
from service.engine import payload
from service.engine.attempts import Failed, Outcome, Waits, run_attempt
from service.engine.effects import StartAttempt
from service.engine.handlers.attempt import Attempt
from service.engine.handlers.registry import Registry
from tests.unit.attempts import NOW, carried, context


async def outcome(function: Callable[..., Any], step: StepContext | None = None) -> Outcome:
    """Return what comes of an attempt that runs the function."""
    registry = Registry([carried(handler("f")(function))])

    async def begin() -> StepContext:
        return step or context()

    attempt = Attempt(UUID(int=1), "a", 1, "f", UUID(int=2), 1)
    found = await run_attempt(registry, StartAttempt("a", 1, "f", {}, 30.0, {}), attempt, begin)
    assert not isinstance(found, Waits)
    return found


def raising(error: BaseException) -> Callable[[], None]:
    def function() -> None:
        raise error

    return function


async def failed(function: Callable[..., Any]) -> Failed:
    """Return how an attempt fails, after checking that its failure can be kept and sent."""
    found = await outcome(function)
    assert isinstance(found, Failed), found
    assert payload.check(found.failure.to_json()) == []
    return found


# --- HandlerError


class Codes(StrEnum):
    BUSY = "BUSY"


class OtherCodes(Enum):
    BUSY = "BUSY"


class Text(str):
    __slots__ = ()

    def __str__(self) -> str:
        raise RuntimeError


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
        ({"code": "HANDLER_NOT_FOUND"}, "HANDLER_ERROR", "HANDLER_NOT_FOUND: later", None),
        ({"code": "NO_FREE_THREAD"}, "HANDLER_ERROR", "NO_FREE_THREAD: later", None),
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
    begun = time.thread_time()
    found = (await failed(raising(error))).failure
    assert time.thread_time() - begun < 0.05
    assert found.code in ("HANDLER_ERROR", "BUSY")


@pytest.mark.parametrize(
    "made", [lambda: [[]] * 2_000_000, lambda: {"a": tuple([0] * 2_000_000)}], ids=["lists", "tuple"]
)
async def test_a_large_result_is_refused_without_being_read(made: Callable[[], Any]) -> None:
    result = made()

    async def function() -> Any:
        return result

    begun = time.thread_time()
    found = (await failed(function)).failure
    assert time.thread_time() - begun < 0.05
    assert (found.code, found.message) == ("INVALID_OUTPUT", "output: must have at most 10,000 values in all")


async def test_an_error_out_of_a_group_of_tasks_keeps_its_code() -> None:
    async def function() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(asyncio.to_thread(raising(HandlerError("BUSY", "later", retry_after=2))))

    found = await failed(function)
    assert (found.failure.code, found.retry_after) == ("BUSY", 2)


# --- Suspend


class Nowhere(tzinfo):
    def utcoffset(self, when: datetime | None) -> timedelta:
        raise RuntimeError

    dst = tzname = utcoffset  # type: ignore[assignment]


class Moment(datetime):
    pass


class EndsTimes(Nowhere):
    def utcoffset(self, when: datetime | None) -> timedelta:
        raise SystemExit


class EndsMoment(datetime):
    @property
    def year(self) -> int:
        raise SystemExit


class FarOff(Nowhere):
    def utcoffset(self, when: datetime | None) -> timedelta:
        return timedelta(days=400)


@pytest.mark.parametrize(
    "until",
    [
        NOW,
        Moment(2026, 1, 1, tzinfo=UTC),
        datetime(2026, 1, 1, 1, tzinfo=timezone(timedelta(hours=1))),
    ],
)
async def test_a_time_to_wake_at_is_a_plain_one_in_utc(until: Any) -> None:
    found = await outcome(lambda: Suspend(until, {"a": 1}, Text("later")))
    assert found == Suspend(NOW, {"a": 1}, "later")
    assert isinstance(found, Suspend)
    assert (type(found.until), found.until.tzinfo, type(found.reason)) == (datetime, UTC, str)


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (lambda: Suspend(datetime(2026, 1, 1), 1), "Suspend.until must have a time zone"),
        (lambda: Suspend(date(2026, 1, 1), 1), "Suspend.until must be a datetime with a time zone, such as"),  # type: ignore[arg-type]
        (lambda: Suspend("2026-01-01T00:00:00Z", 1), "Suspend.until must be a datetime"),  # type: ignore[arg-type]
        (lambda: Suspend(datetime.max.replace(tzinfo=ZoneInfo("America/New_York"))), "years 1 to 9999"),
        (lambda: Suspend(datetime.min.replace(tzinfo=timezone(timedelta(hours=1)))), "years 1 to 9999"),
        (lambda: Suspend(datetime(2026, 1, 1, tzinfo=Nowhere())), "years 1 to 9999"),
        (lambda: Suspend(datetime(2026, 1, 1, tzinfo=FarOff())), "years 1 to 9999"),
        (lambda: Suspend(datetime(2026, 1, 1, tzinfo=EndsTimes())), "years 1 to 9999"),
        (lambda: Suspend(EndsMoment(2026, 1, 1, tzinfo=UTC)), "years 1 to 9999"),
        (lambda: Suspend(NOW, 1, 17), "Suspend.reason must be text, not int"),  # type: ignore[arg-type]
        (lambda: Suspend(NOW, math.nan), "output: must be a finite number"),
        (lambda: Suspend(NOW, object()), "the result has no JSON form"),
    ],
)
async def test_what_cannot_be_waited_for_is_invalid_output(made: Callable[[], Suspend], message: str) -> None:
    found = (await failed(made)).failure
    assert (found.code, found.retryable) == ("INVALID_OUTPUT", False)
    assert message in found.message


# --- StepContext


def heard(**fields: Any) -> tuple[StepContext, list[Any]]:
    """Return a context, and what is reported and emitted through it."""
    said: list[Any] = []
    step = context()
    changed = {"reporter": lambda *report: said.append(report), "emitter": said.append, **fields}
    return replace(step, **changed), said


def test_reports_and_outputs_are_passed_on_plain() -> None:
    step, said = heard()
    for percent in (0, 12.7, 101, -3, Fraction(1, 2)):
        step.report(percent, Text("m"))  # type: ignore[arg-type]
    step.emit(Text("text"))
    assert said == [(0, "m"), (12, "m"), (100, "m"), (0, "m"), (0, "m"), "text"]


@pytest.mark.parametrize(
    ("use", "message"),
    [
        (lambda step: step.report("50 %"), "context.report: percent must be a number, not str"),
        (lambda step: step.report(math.nan), "context.report: percent must be a finite number, not nan"),
        (lambda step: step.report(1, 2), "context.report: message must be text, not int"),
        (lambda step: step.emit(b"x"), "context.emit: text must be text, not bytes"),
    ],
)
async def test_a_report_that_is_wrong_fails_where_it_is_made(use: Callable[[Any], None], message: str) -> None:
    def function(step: StepContext) -> None:
        use(step)

    function.__annotations__["step"] = StepContext
    found = (await failed(function)).failure
    assert (found.code, found.message) == ("INVALID_OUTPUT", message)


def test_the_time_that_is_left_of_an_attempt() -> None:
    step, _ = heard(began=time.monotonic() - 10)
    assert step.deadline == NOW + timedelta(seconds=30)
    assert 19 < step.remaining <= 20
    assert heard(began=time.monotonic() - 31)[0].remaining == 0.0
    assert not step.cancelled
    step.stop.set()
    assert step.cancelled


# --- handler


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": lambda: None}, 'the name by which steps call the function: @handler."name"'),
        ({"name": 7}, "name must be text, not int"),
        ({"name": ""}, "name must have 1 to 128 characters"),
        ({"name": "n" * 129}, "name must have 1 to 128 characters"),
        ({"name": "a\nb"}, "name must be printable"),
        ({"name": " a"}, "name must be printable"),
        ({"name": "\ud800"}, "name must not contain half"),
        ({"description": 7}, "handler 'f': description must be text"),
        ({"description": "\0"}, "handler 'f': description must not contain the character NUL"),
        ({"retry_safe": "yes"}, "handler 'f': retry_safe must be True or False"),
    ],
)
def test_a_declaration_that_is_wrong_is_refused_where_it_is_made(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        handler(**{"name": "f", **arguments})


@pytest.mark.parametrize("thing", [7, "f", int, HandlerError])
def test_only_what_can_be_called_is_declared(thing: Any) -> None:
    with pytest.raises(TypeError, match=r"handler 'f': .* is no function"):
        handler("f")(thing)


def test_the_package_needs_nothing_but_python() -> None:
    theirs = "{name.split('.')[0] for name in sys.modules} - sys.stdlib_module_names - {'__main__'}"
    text = f"import sys, flowkeep.handlers; print(*{theirs})"
    command = [sys.executable, "-ISc", f"import sys; sys.path[:0] = {sys.path!r}; {text}"]
    done = subprocess.run(command, check=True, capture_output=True)
    assert (done.stdout.split(), done.stderr) == ([b"flowkeep"], b"")
