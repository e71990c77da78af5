"""An execution that takes its server down again and again is given up, and the others go on (ST7)."""

from __future__ import annotations

import asyncio
from pathlib import Path

from flowkeep import Client
from flowkeep.v1.execution_pb2 import Execution
from tests.e2e.effects import EffectServer
from tests.e2e.history import ended
from tests.e2e.process import ServerProcess, copy_data
from tests.e2e.test_crash import call
from tests.patience import PATIENCE

HANDLERS = '''
import os

from flowkeep.handlers import handler


@handler("deadly")
def deadly() -> None:
    """Take the whole process down."""
    os._exit(1)
'''


PACE = {"FLOWKEEP_CLAIM_INTERVAL": "0.1", "FLOWKEEP_PROBATION": "1"}
"""Seconds; on trial for less, what is deadly may pass for harmless before a busy machine has come to it."""


async def run(client: Client, workflow: str) -> Execution:
    """Start an execution, and return it when it has ended."""
    return await ended(client, (await client.execute(workflow)).execution_id)


async def test_a_deadly_execution_is_quarantined(prepared: Path, folder: Path, effects: EffectServer) -> None:
    module = folder / "deadly.py"
    module.write_text(HANDLERS)
    server = ServerProcess(folder, settings={"FLOWKEEP_HANDLERS": f'["{module}"]', **PACE})
    await copy_data(prepared, server.data_dir)
    await server.start()
    gate = effects.hold("/slow")
    # What began the deadly one may be answered only when that is given up: until then no server lives for long.
    async with Client(server.target, timeout=4 * PATIENCE) as client:
        await client.create_workflow({"name": "slow", "steps": [call(effects, "slow"), call(effects, "last", "slow")]})
        await client.create_workflow({"name": "deadly", "steps": [{"id": "a", "handler": "deadly"}]})
        neighbours = [asyncio.create_task(run(client, "slow")) for _ in range(3)]
        await gate.arrived.wait()
        deadly = asyncio.create_task(run(client, "deadly"))
        deaths = 0
        while True:
            dying = asyncio.create_task(server.death())
            done, _ = await asyncio.wait({dying, deadly}, timeout=PATIENCE, return_when=asyncio.FIRST_COMPLETED)
            if dying not in done:
                dying.cancel()
                break
            deaths += 1
            await server.start()
        assert deadly.done()
        assert deadly.result().failure.code == "POISONED"
        assert deaths == 5
        gate.opened.set()
        async with asyncio.timeout(PATIENCE):
            found = await asyncio.gather(*neighbours)
    assert [execution.state for execution in found] == [Execution.STATE_COMPLETED] * 3
    await server.close()
    assert [complaint for complaint in server.complaints if "execution quarantined" not in complaint] == []
