"""The page for authors of handlers: its examples run, and do what it says."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

import flowkeep.handlers
from flowkeep.handlers import StepContext, Suspend
from service.engine.handlers.attempt import Attempt
from service.engine.handlers.registry import Handler, Registry
from service.engine.planning.effects import StartAttempt
from service.engine.running.invocation import Failed, Succeeded, run_attempt
from tests.unit.attempts import NOW, context

PAGE = Path(flowkeep.handlers.__file__).with_name("README.md").read_text()
BLOCKS = re.findall(r"```(python|json)\n(.*?)```", PAGE, re.DOTALL)
STEPS = [json.loads(line) for kind, text in BLOCKS if kind == "json" for line in text.splitlines()]


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    registry = Registry()
    for index, (kind, text) in enumerate(BLOCKS):
        if kind == "python":
            (tmp_path / f"example_{index}.py").write_text(text)
            registry.load([str(tmp_path / f"example_{index}.py")])
    return registry


async def run(registry: Registry, step: dict[str, Any]) -> Any:
    async def begin(handler: Handler) -> StepContext:
        return context()

    effect = StartAttempt("a", 1, step["handler"], step["params"], 30.0, {})
    return await run_attempt(registry, effect, Attempt(UUID(int=1), "a", 1, "", UUID(int=2), 1), begin)


@pytest.mark.parametrize("step", STEPS, ids=lambda step: f"{step['handler']} {step['params']}")
async def test_a_step_of_the_page_gives_what_it_says(registry: Registry, step: dict[str, Any]) -> None:
    match await run(registry, step):
        case Succeeded(output):
            assert output == step["output"]
        case Failed(failure):
            assert failure.code == step["failure"]
        case other:
            raise AssertionError(other)


async def test_the_page_shows_how_to_suspend(registry: Registry) -> None:
    found = await run(registry, {"handler": "cool_down", "params": {"minutes": 2}})
    assert found == Suspend(NOW + timedelta(minutes=2), {"cooled": True}, "cools down")


def test_the_page_names_all_that_a_context_has() -> None:
    table = PAGE.partition("## The context")[2].partition("\n## ")[0]
    own = {name for name in dir(StepContext) if not name.startswith("_")}
    hidden = {"reporter", "emitter", "meter", "teller", "connector", "stop", "began"}
    assert set(re.findall(r"`(\w+)", table)) - {"input", "vars", "steps", "execution"} == own - hidden
