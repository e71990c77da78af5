"""Functions as handlers, and the registry that holds them."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import pydantic
import pytest

import flowkeep.handlers
import service.engine.handlers
from flowkeep.handlers import Effect, HandlerError, StepContext, Suspend, handler
from service.engine.handlers.registry import Handler, Registry
from service.engine.schema_places import SchemaError
from tests.patience import PATIENCE
from tests.unit.attempts import NOW, carried, context, run

# --- the decorator


class Lead(pydantic.BaseModel):
    name: str
    points: int = 0


class Even(pydantic.BaseModel):
    n: int

    @pydantic.field_validator("n")
    @classmethod
    def check(cls, n: int) -> int:
        if n % 2:
            raise ValueError("must be even")
        return n


@dataclass
class Point:
    x: int
    y: int = 0


async def test_params_come_from_the_signature() -> None:
    @handler("score_lead", description="Scores a lead.")
    async def score(name: str, points: Annotated[int, pydantic.Field(ge=0)], factor: float = 2.0) -> float:
        return points * factor

    made = carried(score)
    assert (made.name, made.description, made.effect) == ("score_lead", "Scores a lead.", Effect.IDEMPOTENT)
    assert made.params_schema["required"] == ["name", "points"]
    assert made.params_schema["properties"]["points"]["minimum"] == 0
    assert await run(score, {"name": "x", "points": 3}) == 6.0
    assert await score("x", 3, factor=1.0) == 3.0, "the function stays callable"
    assert [path for path, _ in made.validate({"points": -1, "nmae": "x"})] == ["name", "points", "nmae"]


async def test_unknown_param_names_the_nearest() -> None:
    @handler("f")
    def function(colour: str = "red") -> str:
        return colour

    assert carried(function).validate({"color": "blue"}) == [("color", 'is unknown; did you mean "colour"?')]
    assert await run(function, {}) == "red"


async def test_names_that_pydantic_keeps_to_itself_are_fine() -> None:
    @handler("f")
    def function(json: int, copy: int, _private: int, model_config: int = 4) -> list[int]:
        return [json, copy, _private, model_config]

    assert await run(function, {"json": 1, "copy": 2, "_private": 3}) == [1, 2, 3, 4]


async def test_a_mapping_takes_all_params() -> None:
    @handler("f")
    async def function(params: dict[str, Any]) -> Any:
        return sorted(params)

    assert await run(function, {"b": 1, "a": 2}) == ["a", "b"]


async def test_model_among_others_is_a_param() -> None:
    @handler("f")
    async def function(lead: Lead, factor: int) -> int:
        return lead.points * factor

    assert await run(function, {"lead": {"name": "x", "points": 2}, "factor": 3}) == 6


async def test_open_keywords() -> None:
    @handler("f")
    async def function(a: int, **rest: int) -> Any:
        return {"a": a, **rest}

    assert await run(function, {"a": 1, "b": 2, "argument_0": 3}) == {"a": 1, "b": 2, "argument_0": 3}
    assert carried(function).validate({"a": 1, "b": "x"}) == [("b", 'the value is not of type "integer"')]


async def test_wrong_params_do_not_retry_and_do_not_leak() -> None:
    @handler("f")
    def function(params: Even) -> None: ...

    with pytest.raises(HandlerError) as caught:
        await run(function, {"n": 4711})
    assert (caught.value.code, caught.value.retryable) == ("INVALID_PARAMS", False)
    assert "n: Value error, must be even" in caught.value.message
    assert "4711" not in caught.value.message


async def test_sync_functions_run_in_threads_with_the_context_variables_of_the_caller() -> None:
    trace = contextvars.ContextVar("trace", default="")
    meeting = threading.Barrier(3, timeout=PATIENCE)

    @handler("f")
    def function() -> list[Any]:
        meeting.wait()
        return [threading.current_thread() is threading.main_thread(), trace.get()]

    trace.set("t-1")
    assert await asyncio.gather(*(run(function, {}) for _ in range(3))) == [[False, "t-1"]] * 3


def logged(function: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap as people do, with sync code around whatever it is."""

    @functools.wraps(function)
    def wrapper(*arguments: Any, **keywords: Any) -> Any:
        asyncio.get_running_loop()  # there is one here only where the function's own code runs, too
        return function(*arguments, **keywords)

    return wrapper


async def test_all_of_a_wrapped_async_function_runs_on_the_loop() -> None:
    async def function(a: int) -> list[Any]:
        return [a, threading.current_thread() is threading.main_thread()]

    for wrapped in (logged(function), logged(logged(function)), functools.partial(logged(function))):
        made = carried(handler("f")(wrapped))
        assert not made.is_threaded, "it takes no thread"
        assert await made.run({"a": 1}, context()) == [1, True]


def test_only_a_function_that_names_a_context_is_given_one() -> None:
    @handler("without")
    async def without(a: int) -> int:
        return a

    @handler("within")
    async def within(a: int, step: StepContext) -> int:
        return a + step.attempt

    assert not carried(without).takes_context
    assert carried(within).takes_context


async def test_a_wrapper_with_a_loop_of_its_own_runs_in_a_thread() -> None:
    async def function(a: int) -> int:
        return a

    @functools.wraps(function)
    def wrapper(*arguments: Any, **keywords: Any) -> Any:
        return asyncio.run(function(*arguments, **keywords))

    declared = handler("f")(wrapper)
    assert carried(declared).is_threaded
    assert await run(declared, {"a": 1}) == 1


class Array:  # noqa: PLW1641 - arrays have no hash either
    """Equal to nothing and to everything, as arrays are whose elements are compared."""

    def __eq__(self, other: object) -> bool:
        raise ValueError("the truth value of an array with more than one element is ambiguous")


WEIGHTS = Array()


def test_what_a_function_names_may_be_an_array() -> None:
    def run() -> Any:
        return WEIGHTS

    assert carried(handler("f")(run)).is_threaded


async def test_a_decorator_that_is_a_class() -> None:
    class Decorator:
        def __init__(self, function: Callable[..., Any]) -> None:
            functools.update_wrapper(self, function)
            self.function = function

        async def __call__(self, *arguments: Any, **keywords: Any) -> Any:
            await asyncio.sleep(0)
            return self.function(*arguments, **keywords)

    @handler("f")
    @Decorator
    def function(a: int) -> int:
        return a

    assert not carried(function).is_threaded
    assert await run(function, {"a": 1}) == 1


async def test_what_a_sync_function_returns_to_be_awaited_is_awaited() -> None:
    async def later(n: int) -> Any:
        return later(n - 1) if n else asyncio.get_running_loop()

    @handler("f")
    def function() -> Any:
        async def same_loop() -> bool:
            await asyncio.sleep(0)
            return await later(0) is loop

        return same_loop()

    loop = asyncio.get_running_loop()
    assert await run(function, {}) is True
    assert await run(handler("g")(lambda: (n for n in range(3))), {}) == [0, 1, 2]


async def test_results() -> None:
    @handler("suspends")
    async def suspends() -> Suspend:
        return Suspend(NOW, {"lead": Lead(name="x")}, "later")

    @handler("nothing")
    async def nothing() -> None: ...

    @handler("lead")
    async def lead() -> Lead:
        return Lead(name="x")

    @handler("point")
    async def point() -> Point:
        return Point(1)

    @handler("object")
    async def thing() -> object:
        return object()

    assert await run(suspends, {}) == Suspend(NOW, {"lead": {"name": "x", "points": 0}}, "later")
    assert await run(nothing, {}) is None
    assert (await run(lead, {}), await run(point, {})) == ({"name": "x", "points": 0}, {"x": 1, "y": 0})

    @handler("naive")
    async def naive() -> Suspend:
        return Suspend(NOW.replace(tzinfo=None), None)

    @handler("returns_an_error")
    async def returns() -> Any:
        return HandlerError("BUSY")

    for function in (thing, naive, returns):
        with pytest.raises(HandlerError, match="INVALID_OUTPUT"):
            await run(function, {})


async def test_errors_of_a_handler_pass() -> None:
    @handler("f")
    def function() -> None:
        raise HandlerError("OUT_OF_STOCK", "none left", {"sku": 1}, retryable=False)

    with pytest.raises(HandlerError) as caught:
        await run(function, {})
    assert (caught.value.code, caught.value.details) == ("OUT_OF_STOCK", {"sku": 1})


def test_what_yields_is_no_handler() -> None:
    @handler("f")
    async def yields(a: int) -> Any:
        yield a

    with pytest.raises(TypeError, match="handler 'f': it yields"):
        carried(yields)


# --- the registry


def test_builtins() -> None:
    registry = Registry.with_builtins()
    calling = ["ask_model", "call_api", "condition", "create_task", "mcp_tool", "send_notification"]
    assert registry.names() == [*calling, "transform", "wait", "wait_signal"]
    assert [h.name for h in registry.all()] == registry.names()
    assert all(h.description and h.params_schema["type"] == "object" for h in registry.all())
    assert registry.get("nothing") is None


def test_register_refuses_doubles_and_bad_schemas() -> None:
    async def nothing(params: Mapping[str, Any], context: StepContext) -> None: ...

    registry = Registry.with_builtins()
    with pytest.raises(ValueError, match="two handlers named 'wait'"):
        registry.register(Handler("wait", nothing))
    with pytest.raises(ValueError, match="1 to 128"):
        registry.register(Handler("", nothing))
    with pytest.raises(SchemaError):
        registry.register(Handler("x", nothing, params_schema={"type": "thing"}))


def test_what_cannot_be_listed_with_all_others_is_refused() -> None:
    async def nothing(params: Mapping[str, Any], context: StepContext) -> None: ...

    registry = Registry()
    for wrong in ({"description": "\0"}, {"params_schema": {"type": "object", "default": {"x": float("inf")}}}):
        with pytest.raises(ValueError, match="handler 'x' cannot be listed: "):
            registry.register(Handler("x", nothing, **wrong))
    with pytest.raises(ValueError, match="exceed 2,097,152 bytes"):
        for number in range(20):
            registry.register(Handler(f"x{number}", nothing, description="d" * 200_000))


def test_the_server_has_the_same_names() -> None:
    for name in flowkeep.handlers.__all__:
        assert getattr(service.engine.handlers, name) is getattr(flowkeep.handlers, name)


async def test_close_frees_what_handlers_keep_open() -> None:
    closed = []

    async def nothing(params: Mapping[str, Any], context: StepContext) -> None: ...

    async def close() -> None:
        closed.append(True)

    await Registry([Handler("x", nothing, close=close), Handler("y", nothing)]).close()
    assert closed == [True]
