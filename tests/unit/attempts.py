"""Runs handlers as an attempt of a step would."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from flowkeep.handlers import StepContext
from flowkeep.handlers.declaration import declarations
from service.engine.handlers.functions import compiled
from service.engine.handlers.registry import Handler, Registry

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def context(**variables: Any) -> StepContext:
    return StepContext(
        execution_id=UUID(int=1),
        org="acme",
        owner="ann",
        workflow="w",
        step_path="a",
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


async def builtin(name: str, params: Mapping[str, Any], **variables: Any) -> Any:
    found = Registry.with_builtins().get(name)
    assert found is not None
    assert found.validate(params) == []
    return await found.run(params, context(**variables))


def problems(name: str, params: Mapping[str, Any]) -> list[tuple[str, str]]:
    found = Registry.with_builtins().get(name)
    assert found is not None
    return found.validate(params)
