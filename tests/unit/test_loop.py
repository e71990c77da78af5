"""The event loop of a process that runs handlers."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable

import pytest
import uvloop

from service.cli.loop import run_through


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def runner(request: pytest.FixtureRequest) -> asyncio.Runner:
    return asyncio.Runner(loop_factory=request.param)


async def raising(error: BaseException) -> None:
    raise error


def test_tasks_and_callbacks_end_nothing_but_themselves(runner: asyncio.Runner) -> None:
    async def main() -> list[str]:
        for call in (sys.exit, lambda: sys.exit(3)):
            asyncio.get_running_loop().call_soon(call)
            await asyncio.sleep(0.01)
        found = [asyncio.create_task(raising(error)) for error in (SystemExit(1), KeyboardInterrupt(), ValueError())]
        return [type(each).__name__ for each in await asyncio.gather(*found, return_exceptions=True)]

    with runner:
        assert run_through(runner, main()) == ["SystemExit", "KeyboardInterrupt", "ValueError"]


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), ValueError("x")], ids=repr)
def test_what_the_command_itself_raises_ends_it(runner: asyncio.Runner, error: BaseException) -> None:
    with runner, pytest.raises(type(error)) as caught:
        run_through(runner, raising(error))
    assert caught.value is error


@pytest.mark.parametrize("before", [lambda: None, sys.exit], ids=["at first", "after a handler"])
def test_an_interrupt_ends_the_command(runner: asyncio.Runner, before: Callable[[], None]) -> None:
    ended = []

    async def main() -> None:
        asyncio.get_running_loop().call_soon(before)
        asyncio.get_running_loop().call_later(0.05, signal.raise_signal, signal.SIGINT)
        try:
            await asyncio.sleep(30)
        finally:
            ended.append(True)

    with runner, pytest.raises(KeyboardInterrupt):
        run_through(runner, main())
    assert ended == [True]
