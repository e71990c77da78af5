"""The tools of MCP servers in the list of handlers: those that answer, and those that do not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from flowkeep.payload import from_struct
from service.engine.mcp import listing
from service.engine.mcp.tools import Tool
from tests.integration.conftest import Serve
from tests.integration.mcp_servers import plain
from tests.patience import PATIENCE

SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}


def folder_of(tmp_path: Path, name: str) -> Path:
    (tmp_path / name).mkdir()
    return tmp_path / name


async def test_tools_are_listed_when_asked_for_and_no_server_is_contacted_else(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "ANSWER_SECONDS", PATIENCE)
    deep: dict[str, Any] = {}
    for _ in range(30):
        deep = {"items": deep}
    tools = [
        {"name": "zoom", "inputSchema": SCHEMA, "description": "Zooms in, with hush-hush."},
        {"name": "deep", "inputSchema": {"type": "object", "properties": {"a": deep}}},
        {"name": "nul\0", "inputSchema": SCHEMA},
    ]
    good = plain(folder_of(tmp_path, "good"), {"tools/list": {"tools": tools}})
    servers = {
        "good": {**good, "env": {"TOKEN": "hush-hush"}},
        "absent": {"command": str(tmp_path / "nothing")},
    }
    client = (await serve(mcp_servers=json.dumps(servers))).client
    assert "mcp_tool" in [each.name for each in await client.list_handlers()]
    absent, found = await client.list_mcp_servers()
    assert (absent.name, list(absent.tools)) == ("absent", [])
    assert absent.error == "the program of the server ended, or could not be started"
    assert (found.name, found.error, found.omitted_tools) == ("good", "", 0)
    assert [each.name for each in found.tools] == ["deep", "zoom"]
    zoom = found.tools[1]
    assert (zoom.description, from_struct(zoom.input_schema)) == ("Zooms in, with ***.", SCHEMA)
    assert zoom.schema_hash == Tool("zoom", SCHEMA).schema_hash
    assert not found.tools[0].HasField("input_schema")


async def test_a_server_that_does_not_answer_in_time_is_told_of_as_such(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "ANSWER_SECONDS", 0.05)
    client = (await serve(mcp_servers=json.dumps({"slow": plain(tmp_path, {"tools/list": "hang"})}))).client
    (slow,) = await client.list_mcp_servers()
    assert (slow.name, slow.error) == ("slow", "the server did not list its tools within 0.05 s")
