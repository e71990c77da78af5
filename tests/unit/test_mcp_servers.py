"""The setting of MCP servers, and the handler where the library of MCP is missing."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest
import typer

from flowkeep.handlers import HandlerError
from service.cli import settings
from service.engine.handlers.mcp_tool import mcp_tool
from service.engine.mcp.servers import HttpServer, StdioServer, parse
from service.engine.mcp.sessions import Sessions
from tests.unit.attempts import context

SECRET = "hunter2-hunter2"


def test_servers_are_programs_and_urls() -> None:
    found = parse(
        json.dumps(
            {
                "files": {"command": "mcp-files", "args": ["--root", "/srv"], "env": {"TOKEN": SECRET}},
                "crm.eu": {"url": "https://crm.example/mcp?key=abc", "headers": {"Authorization": f"Bearer {SECRET}"}},
            }
        )
    )
    assert found == {
        "files": StdioServer("mcp-files", ("--root", "/srv"), {"TOKEN": SECRET}),
        "crm.eu": HttpServer("https://crm.example/mcp?key=abc", {"Authorization": f"Bearer {SECRET}"}),
    }
    assert SECRET not in repr(found)
    assert [server.hide(f"with {SECRET}") for server in found.values()] == ["with ***", "with ***"]


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ("{", "must be JSON such as"),
        ("[]", "must be JSON such as"),
        ({"": {}}, "a name of a server has 1 to 64"),
        ({"a b": {}}, "a name of a server has 1 to 64"),
        ({"a": {}}, "a: must have a command, with args and env or without; or a url"),
        ({"a": SECRET}, "a: must have a command"),
        ({"a": {"command": "x", "url": "http://y"}}, "a: must have a command"),
        ({"a": {"command": "x", "cwd": SECRET}}, "a: must have a command"),
        ({"a": {"command": "x", "args": SECRET}}, "a.args: must be a list of strings"),
        ({"a": {"command": "x", "env": {"KEY": 1}}}, "a.env: must be an object whose values are strings"),
        ({"a": {"command": "x", "env": {"KEY=": SECRET}}}, "a: command and env must be without"),
        ({"a": {"url": f"ftp://{SECRET}"}}, "a.url: must be an http or https URL"),
        ({"a": {"url": "http://"}}, "a.url: must be an http or https URL"),
        ({"a": {"url": "http://x:99999/"}}, "a.url: must be an http or https URL"),
        ({"a": {"url": "http://x", "headers": {"K": f"{SECRET}\n"}}}, "a.headers: has a name or a value that"),
        ({str(n): {"command": "x"} for n in range(101)}, "must name at most 100 servers"),
    ],
)
def test_what_is_wrong_is_told_without_a_value(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], given: Any, complaint: str
) -> None:
    text = given if isinstance(given, str) else json.dumps(given)
    monkeypatch.setenv("FLOWKEEP_MCP_SERVERS", text)
    with pytest.raises(typer.Exit):
        settings.load()
    said = capsys.readouterr().err
    assert f"FLOWKEEP_MCP_SERVERS: {complaint}" in said
    assert SECRET not in said


@pytest.fixture
def without_library(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] in ("mcp", "mcp_types")]:
        monkeypatch.delitem(sys.modules, name)
    for name in ("session", "stdio", "streamable"):
        monkeypatch.delitem(sys.modules, f"service.engine.mcp.{name}", raising=False)
    for name in ("mcp", "mcp_types"):
        monkeypatch.setitem(sys.modules, name, None)


@pytest.mark.usefixtures("without_library")
async def test_without_the_library_the_handler_says_what_to_install() -> None:
    handler = mcp_tool(Sessions(parse('{"files": {"command": "mcp-files"}}')))
    assert handler.description.startswith("Not installed on this server:")
    params = {"server": "files", "tool": "list", "arguments": {}}
    assert handler.validate(params) == []
    with pytest.raises(HandlerError) as caught:
        await handler.run(params, context())
    assert (caught.value.code, caught.value.retryable) == ("NOT_INSTALLED", False)
    assert "pip install 'flowkeep[mcp]'" in caught.value.message


def test_with_the_library_the_description_says_nothing_of_it() -> None:
    assert mcp_tool().description.startswith("Calls a tool of an MCP server.")


@pytest.mark.parametrize(
    ("params", "path"),
    [
        ({"tool": "t"}, "server"),
        ({"server": "s"}, "tool"),
        ({"server": "s", "tool": "t", "command": "sh"}, "command"),
        ({"server": "s", "tool": "t", "arguments": []}, "arguments"),
        ({"server": "s", "tool": "t", "schema_hash": "abc"}, "schema_hash"),
        ({"server": "s", "tool": "t", "timeout": 0}, "timeout"),
        ({"server": "s", "tool": "t", "timeout": "0s"}, "timeout"),
        ({"server": "s", "tool": "t", "timeout": "soon"}, "timeout"),
    ],
)
def test_params_that_are_wrong_are_named(params: dict[str, Any], path: str) -> None:
    assert [found for found, _ in mcp_tool().validate(params)] == [path]
