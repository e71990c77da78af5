"""One of two processes runs an async handler that blocks it: only that execution goes to the other one.

Holds ST6 for those beside it, and EX7 for it.
"""

from __future__ import annotations

import json
from contextlib import AsyncExitStack
from pathlib import Path

from flowkeep.v1.execution_pb2 import Execution
from tests.e2e.effects import EffectServer
from tests.e2e.history import ended
from tests.e2e.process import ServerProcess, copy_data
from tests.e2e.test_crash import call
from tests.e2e.test_processes import PACE, TTL, client_of_each, said

BLOCKED = f"time.sleep({3 * TTL})"
HANDLERS = f'''
import time
from pathlib import Path

from flowkeep.handlers import handler


@handler("blocks_once")
async def blocks_once(mark: str) -> str:
    """Block the first server that runs it for three leases."""
    if Path(mark).exists():
        return "done"
    Path(mark).touch()
    {BLOCKED}
    return "late"
'''


async def test_a_blocked_process_loses_what_blocks_it_and_nothing_else(
    prepared: Path, folder: Path, effects: EffectServer
) -> None:
    module = folder / "blocking.py"
    module.write_text(HANDLERS)
    settings = {**PACE, "FLOWKEEP_HANDLERS": json.dumps([str(module)])}
    server = ServerProcess(folder, "--processes", "2", listen="127.0.0.1:0", settings=settings)
    await copy_data(prepared, server.data_dir)
    await server.start()
    gate = effects.hold("/slow")
    async with AsyncExitStack() as stack:
        clients = await client_of_each(server, stack)
        (victim, one), (other, two) = clients.items()
        once = [call(effects, "slow", delivery="AT_MOST_ONCE")]
        await one.create_workflow({"name": "bystander", "steps": once})
        params = {"mark": str(folder / "mark")}
        await one.create_workflow(
            {"name": "blocks", "steps": [{"id": "b", "handler": "blocks_once", "params": params}]}
        )
        bystanders = [await one.execute("bystander") for _ in range(3)]
        await gate.arrived.wait()
        blocking = await one.execute("blocks")

        found = await ended(two, blocking.execution_id)
        (step,) = found.steps
        assert (found.state, step.attempt, step.output.string_value) == (Execution.STATE_COMPLETED, 2, "done")
        (interrupted,) = step.failed_attempts
        assert (interrupted.attempt, interrupted.failure.code) == (1, "INTERRUPTED")
        assert [worker.rpartition(":")[2] for worker in (interrupted.worker, step.worker)] == [str(victim), str(other)]

        gate.opened.set()
        for bystander in bystanders:
            found = await ended(two, bystander.execution_id)
            assert (found.state, found.steps[0].attempt) == (Execution.STATE_COMPLETED, 1)
    # A machine that is busy may hold up a loop as well, for which no step is to blame.
    reports = [entry for entry in said(server, "the event loop is blocked") if "step" in entry]
    assert {(entry["pid"], entry["step"], entry["execution_id"]) for entry in reports} == {
        (victim, "b", blocking.execution_id)
    }
    assert BLOCKED in reports[0]["stack"]
    assert not said(server, "lease lost; going on under a new incarnation")
    await server.close()
