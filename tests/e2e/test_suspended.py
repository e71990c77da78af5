"""The machine was suspended for longer than the lease: the process knows at once that others may have taken over.

Holds CONTRACT 2 for a time that the timers of the event loop do not count.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from flowkeep import Client
from flowkeep.v1.execution_pb2 import Execution
from tests.e2e.effects import EffectServer
from tests.e2e.process import ServerProcess, copy_data, environment
from tests.e2e.test_crash import call
from tests.e2e.test_processes import said, until
from tests.faults.kinds.clock import Skewed
from tests.faults.kinds.kind import VoidError

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="other systems have no clock that can be shifted so")

SUSPENDED = 60.0
TELL = """
import time
for _ in range(2):
    input()
    print(*map(time.clock_gettime, (time.CLOCK_REALTIME, time.CLOCK_MONOTONIC, time.CLOCK_BOOTTIME)), flush=True)
"""


@pytest_asyncio.fixture
async def clock() -> AsyncIterator[Skewed]:
    """What shifts the clocks of processes."""
    clock = Skewed()
    try:
        await clock.prepare()
    except VoidError as error:
        pytest.skip(str(error))
    yield clock
    await clock.clean_up()


async def test_the_clock_of_a_suspended_machine_goes_on_and_that_of_timers_does_not(clock: Skewed) -> None:
    pipe = asyncio.subprocess.PIPE
    settings = environment(clock.environment("replicas"))
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", TELL, stdin=pipe, stdout=pipe, env=settings)
    assert process.stdin is not None
    assert process.stdout is not None
    told = []
    for wrong, suspended in ((0.0, 0.0), (-1000.0, SUSPENDED)):
        clock.set_clock("replicas", str(process.pid), wrong, suspended)
        await asyncio.sleep(0.05)  # the process looks every 20 ms, by a clock that cannot be shifted
        process.stdin.write(b"\n")
        told.append([float(each) for each in (await process.stdout.readline()).split()])
    await process.wait()
    passed = told[1][1] - told[0][1]
    of_day, awake, in_all = (after - before for before, after in zip(*told, strict=True))
    assert 0.0 <= awake < SUSPENDED / 2
    assert of_day - passed == pytest.approx(SUSPENDED - 1000.0, abs=1.0)
    assert in_all - passed == pytest.approx(SUSPENDED, abs=1.0)


async def test_a_process_that_was_suspended_beyond_its_lease_begins_anew(
    clock: Skewed, prepared: Path, folder: Path, effects: EffectServer
) -> None:
    server = ServerProcess(folder, settings=clock.environment("replicas"))
    await copy_data(prepared, server.data_dir)
    gate = effects.hold("/slow")
    await server.start()
    try:
        async with Client(server.target) as client:
            await client.create_workflow({"name": "slow", "steps": [call(effects, "slow")]})
            execution = await client.execute("slow")
            await gate.arrived.wait()
            clock.set_clock("replicas", str(server.pid), 0.0, SUSPENDED)
            await until(lambda: len(effects.calls) == 2)
            gate.opened.set()
            async for _ in client.watch(execution.execution_id):
                pass
            found = await client.get_execution(execution.execution_id)
        assert (found.state, found.steps[0].attempt) == (Execution.STATE_COMPLETED, 2)
        assert [each.failure.code for each in found.steps[0].failed_attempts] == ["INTERRUPTED"]
        assert len(said(server, "paused for too long; others may have taken over")) == 1
    finally:
        await server.close()
