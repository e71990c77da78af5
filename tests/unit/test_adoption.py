"""What is taken up while something newer of it is taken up, too."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import pytest
from msgspec.structs import replace

from persistence.model import Execution, ExecutionDetail
from service.engine.running import driver as driving
from tests.unit.planner_programs import Driver, sequence, step


class Runs(set[Any]):
    """Runs that have ended as soon as they began, and that are told nothing before."""

    def add(self, run: Any) -> None:
        """Note none."""

    def announce(self, executions: Any) -> None:
        """Note none."""

    def arrived(self, execution_id: UUID) -> None:
        """Note none."""

    def told(self, execution_id: UUID) -> int:
        """Return that it was told nothing."""
        return 0


async def test_what_was_read_before_the_process_took_it_anew_is_not_driven(monkeypatch: pytest.MonkeyPatch) -> None:
    program, incarnation, known, begun = Driver(sequence(step("a"))), uuid4(), asyncio.Event(), list[int]()

    async def of(execution: Execution) -> Any:
        if execution.epoch == 2:
            await known.wait()
        return program.definition

    def run(context: Any, supervisor: Any, execution: Execution, *_: Any) -> Any:
        begun.append(execution.epoch)

    def taken(epoch: int) -> ExecutionDetail:
        execution = replace(program.execution, incarnation=incarnation, epoch=epoch, wake_time=None)
        return replace(program.stored, execution=execution)

    async def take(act: Any) -> Any:
        return act()

    monkeypatch.setattr(driving, "Run", run)
    monkeypatch.setattr(driving.Driver, "_set_off", lambda *_: None)
    context: Any = SimpleNamespace(
        ownership=SimpleNamespace(incarnation=incarnation, may_take=True),
        turns=SimpleNamespace(share=lambda _: SimpleNamespace(take=take)),
        name="",
    )
    definitions: Any = SimpleNamespace(of=of)
    driver = driving.Driver(context, Runs(), SimpleNamespace(), definitions)  # type: ignore[arg-type]
    earlier = asyncio.create_task(driver.adopt(taken(2)))
    await asyncio.sleep(0)
    await driver.adopt(taken(3))
    known.set()
    await earlier
    assert begun == [3]
    await driver.adopt(taken(4))
    assert begun == [3, 4]
