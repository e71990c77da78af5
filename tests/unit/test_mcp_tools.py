"""Tools of MCP servers as messages: no more of them than an answer has room for."""

from __future__ import annotations

import pytest

from service.api import mcp_tools
from service.api.mcp_tools import server_messages
from service.engine.mcp.listing import Offer
from service.engine.mcp.tools import Tool
from service.engine.slices import in_one_go


def test_tools_without_room_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mcp_tools, "MOST_BYTES", 1_000)
    tools = [Tool(f"t{n}", {"type": "object"}, "x" * 100) for n in range(20)]
    first, second = in_one_go(server_messages([Offer("a", tools), Offer("b", tools)]))
    assert 0 < len(first.tools) < 10
    assert len(first.tools) + first.omitted_tools == 20
    assert (len(second.tools), second.omitted_tools) == (0, 20)
