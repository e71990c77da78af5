"""Workflows with `mcp_tool`, on a real server of ours and with a real MCP server: the example, and a cancel."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

import flowkeep
from tests.folders import ROOT
from tests.integration.conftest import Serve
from tests.integration.mcp_servers import Lab, Web, handler_of, program
from tests.integration.stage import ended, made, step
from tests.patience import PATIENCE

EXAMPLES = ROOT / "clients" / "examples"


@pytest.mark.parametrize(
    ("given", "state", "said"),
    [
        ({"item": "pen", "count": 3}, "STATE_COMPLETED", "3 x pen: 450 cents"),
        ({"item": "pencil", "count": 3}, "STATE_FAILED", "there is no pencil; there are pen, book"),
    ],
)
async def test_the_example_does_what_it_says(serve: Serve, given: Any, state: str, said: str) -> None:
    servers = {"shop": {"command": sys.executable, "args": [str(EXAMPLES / "mcp_server.py")]}}
    definition = yaml.safe_load((EXAMPLES / "mcp_tool.yaml").read_text())
    client = (await serve(mcp_servers=json.dumps(servers))).client
    await client.create_workflow(definition)
    execution = await ended(client, (await client.execute(definition["name"], given)).execution_id)
    assert flowkeep.Execution.State.Name(execution.state) == state
    assert said in str(execution)


async def test_a_cancelled_execution_cancels_the_call_at_the_server(serve: Serve, tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    lab = Lab(handler_of({}), notes, Web(notes))
    client = (await serve(mcp_servers=json.dumps({"lab": program(notes)}), cancel_grace=PATIENCE)).client
    name = await made(client, step("a", "mcp_tool", server="lab", tool="hang"))
    execution_id = (await client.execute(name)).execution_id
    await lab.hears("hangs", 1)
    await client.cancel(execution_id)
    await lab.hears("cancelled", 1)
    assert (await ended(client, execution_id)).state == flowkeep.Execution.STATE_CANCELLED
