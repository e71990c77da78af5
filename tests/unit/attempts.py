"""Runs handlers as an attempt of a step would."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from flowkeep.handlers import StepContext, handler
from flowkeep.handlers.declaration import declarations
from service.engine import payload
from service.engine.handlers.attempt import Attempt
from service.engine.handlers.functions import compiled
from service.engine.handlers.registry import Handler, Registry
from service.engine.planning.effects import StartAttempt
from service.engine.running.invocation import Failed, Outcome, Waits, run_attempt

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def context(**variables: Any) -> StepContext:
    return StepContext(
        execution_id=UUID(int=1),
        org="acme",
        owner="ann",
        workflow="w",
        step_path="a",
        iteration=1,
        attempt=2,
        idempotency_token="t",
        timeout=30.0,
        now=NOW,
        variables={"input": {}, "vars": {}, "steps": {}, "execution": {}, "attempt": 2, **variables},
        reporter=lambda percent, message: None,
        emitter=lambda text: None,
    )


def carried(function: Any) -> Handler:
    (declaration,) = declarations(function)
    return compiled(declaration)


async def run(function: Any, params: Mapping[str, Any], **variables: Any) -> Any:
    return await carried(function).run(params, context(**variables))


def problems(name: str, params: Mapping[str, Any]) -> list[tuple[str, str]]:
    found = Registry.with_builtins().get(name)
    assert found is not None
    return found.validate(params)


async def outcome(function: Callable[..., Any], step: StepContext | None = None) -> Outcome:
    """Return what comes of an attempt that runs the function."""
    registry = Registry([carried(handler("f")(function))])

    async def begin(handler: Handler) -> StepContext:
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


class Text(str):
    """Text that fails when it is asked for its text."""

    __slots__ = ()

    def __str__(self) -> str:
        raise RuntimeError
