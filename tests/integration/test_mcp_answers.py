"""What MCP servers may answer that is no good: too much, too dear, nothing that the protocol knows."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from service.engine.mcp import screen
from tests.integration.mcp_servers import Lab, handler_of, plain
from tests.integration.mcp_servers import Web as McpWeb
from tests.integration.stage import eventually
from tests.integration.web import Web, serving_web
from tests.patience import PATIENCE
from tests.work import at_most

TOOLS = {"tools": [{"name": "t", "inputSchema": {"type": "object"}}]}


@asynccontextmanager
async def answering(folder: Path, **answers: Any) -> AsyncIterator[Lab]:
    """A program that answers `list` and `call` so; a text is sent as it is."""
    by_method = {f"tools/{name}": answer for name, answer in answers.items()}
    lab = Lab(handler_of({"own": plain(folder, {"tools/call": {"content": []}, **by_method})}), folder, McpWeb(folder))
    try:
        yield lab
    finally:
        assert lab.handler.close is not None
        await lab.handler.close()


MANY = {
    "lists": '{"content": [], "structuredContent": {"a": [' + ",".join(["[]"] * 150_000) + "]}}",
    "blocks of no type": '{"content": [' + ",".join(["{}"] * 15_000) + "]}",
    "small blocks": '{"content": [' + ",".join(['{"type": "text", "text": ""}'] * 5_000) + "]}",
}


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        ("lists", "RESPONSE_TOO_LARGE"),
        ("blocks of no type", "INVALID_RESPONSE"),
        ("small blocks", "RESPONSE_TOO_LARGE"),
    ],
)
async def test_an_answer_of_many_values_holds_up_nobody(tmp_path: Path, kind: str, code: str) -> None:
    async with answering(tmp_path, call=MANY[kind]) as lab:
        await lab.failure("own", "other")  # opens the session
        with at_most(0.1):  # the models of the library take one for the second
            error = await lab.failure("own", "t")
    assert (error.code, error.retryable) == (code, False)


@pytest.mark.parametrize("found", [{"content": "text"}, {"content": [1]}, {"resultType": "input_required"}])
async def test_what_is_no_answer_is_refused(tmp_path: Path, found: Any) -> None:
    async with answering(tmp_path, call=found) as lab:
        error = await lab.failure("own", "t")
    assert (error.code, error.retryable) == ("INVALID_RESPONSE", False)


@pytest.mark.parametrize("schema", [{"type": 7}, {"$ref": "https://example.com/schema"}, {"pattern": "("}])
async def test_a_schema_that_is_none_is_left_to_the_server(tmp_path: Path, schema: Any) -> None:
    async with answering(tmp_path, list={"tools": [{"name": "t", "inputSchema": schema}, {"name": 7}, "x"]}) as lab:
        assert await lab.call("own", "t", {"a": 1}) == {"content": [], "structured": None}


async def test_a_schema_of_an_older_draft_is_checked(tmp_path: Path) -> None:
    schema = {"$schema": "http://json-schema.org/draft-07/schema#", "type": "object", "required": ["a"]}
    async with answering(tmp_path, list={"tools": [{"name": "t", "inputSchema": schema}]}) as lab:
        assert (await lab.failure("own", "t")).message == "own t: arguments.a is required"


async def test_a_server_that_never_ends_its_list_is_read_to_a_limit(tmp_path: Path) -> None:
    async with answering(tmp_path, list={**TOOLS, "nextCursor": "again"}) as lab:
        assert await lab.call("own", "t") == {"content": [], "structured": None}


async def test_a_server_that_hangs_is_started_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with answering(tmp_path, call="hang") as lab:

        async def hangs() -> bool:
            return (tmp_path / "answers.hung").exists()

        call = asyncio.ensure_future(lab.call("own", "t"))
        await eventually(hangs)
        call.cancel()
        await asyncio.wait([call])
        monkeypatch.setattr("service.engine.mcp.session.LIST_SECONDS", 0.1)
        error = await lab.failure("own", "t", timeout=PATIENCE)
        assert (error.code, error.retryable) == ("CONNECTION_FAILED", True)
        assert "did not list its tools within 0.1 s" in error.message
        monkeypatch.undo()
        assert (await lab.failure("own", "other")).code == "TOOL_NOT_FOUND"


async def test_redirects_are_not_followed(web: Web, tmp_path: Path) -> None:
    url = web.answer("/mcp", 307, Location="/other")
    lab = Lab(handler_of({"own": {"url": url}}), tmp_path, McpWeb(tmp_path))
    error = await lab.failure("own", "t")
    assert (error.code, error.retryable) == ("CONNECTION_FAILED", True)
    assert {call.path for call in web.calls} == {"/mcp"}
    assert lab.handler.close is not None
    await lab.handler.close()


async def test_a_proxy_of_the_environment_is_not_asked(
    web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving_web() as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        monkeypatch.delenv("no_proxy", raising=False)
        lab = Lab(handler_of({"own": {"url": web.answer("/mcp", 500)}}), tmp_path, McpWeb(tmp_path))
        await lab.failure("own", "t")
        assert lab.handler.close is not None
        await lab.handler.close()
        assert (bool(web.calls), proxy.calls) == (True, [])


def test_the_id_of_a_message_that_is_cut_is_found_where_servers_write_it() -> None:
    end = b'x"}]},"jsonrpc":"2.0","id":12}'
    assert b'"id":12' in (screen.refusal_of_cut(b'{"result":{"content":[{"text":"xx', end) or b"")
    assert b'"id":3,' in (screen.refusal_of_cut(b'{"jsonrpc":"2.0","id":3,"result":{"content', b"xxx") or b"")
    assert screen.refusal_of_cut(b'{"result":', b"xxx") is None
