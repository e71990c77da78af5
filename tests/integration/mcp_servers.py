"""Real MCP servers, and calls of `mcp_tool` to them."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from flowkeep.handlers import HandlerError, StepContext
from service.engine.handlers.mcp_tool import mcp_tool
from service.engine.handlers.model import Handler
from service.engine.mcp.servers import parse
from service.engine.mcp.sessions import Sessions
from tests.integration.stage import eventually
from tests.unit.attempts import context

PLAIN = """
import json, os, sys, time
schema = {"type": "object"}
answers = {
    "initialize": {"protocolVersion": "2025-06-18", "capabilities": {}, "serverInfo": {"name": "x", "version": "1"}},
    "tools/list": {"tools": [{"name": "t", "inputSchema": schema}]},
    "tools/call": {"content": [], "structuredContent": {"pid": os.getpid(), "env": dict(os.environ)}},
}
if len(sys.argv) > 1:
    answers |= json.load(open(sys.argv[1]))
print("words for people")
for line in sys.stdin:
    asked = json.loads(line)
    if "id" in asked:
        answer = answers[asked["method"]]
        if answer == "hang":
            open(sys.argv[1] + ".hung", "w").close()
            time.sleep(1000)
        text = answer if isinstance(answer, str) else json.dumps(answer)
        print('{"jsonrpc": "2.0", "id": %d, "result": %s}' % (asked["id"], text), flush=True)
"""
"""A program that speaks as much of MCP as one tool needs, and answers what a file says. It starts in no time."""

LAB = Path(__file__).with_name("mcp_lab.py")
SECRET = "hush-hush-of-the-lab"


def program(notes: Path, *arguments: str) -> dict[str, Any]:
    """The lab as a program, in the form of the setting."""
    env = {"MCP_LAB_NOTES": str(notes), "MCP_LAB_SECRET": SECRET}
    return {"command": sys.executable, "args": [str(LAB), *(arguments or ("stdio",))], "env": env}


def plain(folder: Path, answers: dict[str, Any] | None = None) -> dict[str, Any]:
    """The plain program with these answers by method, in the form of the setting; text is sent as it is."""
    (folder / "server.py").write_text(PLAIN)
    (folder / "answers").write_text(json.dumps(answers or {}))
    return {"command": sys.executable, "args": [str(folder / "server.py"), str(folder / "answers")]}


@dataclass
class Web:
    """The lab as a server of HTTP on a port of its own, in a process that a test may kill."""

    notes: Path
    port: int = 0
    process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/mcp"

    async def start(self) -> None:
        if not self.port:
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                self.port = probe.getsockname()[1]
        asked = program(self.notes, "http", str(self.port))
        self.process = await asyncio.create_subprocess_exec(
            asked["command"], *asked["args"], env={**os.environ, **asked["env"]}
        )
        await eventually(self._answers)

    async def _answers(self) -> bool:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", self.port)
        except OSError:
            return False
        writer.close()
        return True

    async def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            await self.process.wait()


@dataclass
class Lab:
    """The handler with both servers, `stdio` and `http`; what calls showed, and what they did to the servers."""

    handler: Handler
    notes: Path
    web: Web
    shown: list[Any] = field(default_factory=list)

    @property
    def context(self) -> StepContext:
        return replace(
            context(),
            reporter=lambda percent, message: self.shown.append((percent, message)),
            emitter=self.shown.append,
        )

    async def call(self, server: str, tool: str, arguments: Any = None, *, org: str = "acme", **params: Any) -> Any:
        """Return the output of a call."""
        asked = {"server": server, "tool": tool, **params, **({} if arguments is None else {"arguments": arguments})}
        assert self.handler.validate(asked) == []
        return await self.handler.run(asked, replace(self.context, org=org))

    async def failure(self, server: str, tool: str, arguments: Any = None, **params: Any) -> HandlerError:
        """Return how a call fails."""
        with pytest.raises(HandlerError) as caught:
            await self.call(server, tool, arguments, **params)
        assert SECRET not in f"{caught.value.message}{caught.value.details}"
        return caught.value

    async def structured(self, server: str, tool: str, arguments: Any = None, **params: Any) -> Any:
        """Return what a tool gives as its result."""
        return (await self.call(server, tool, arguments, **params))["structured"]["result"]

    def noted(self, text: str) -> int:
        """Return how often something was noted."""
        return self.notes.read_text().split("\n").count(text) if self.notes.exists() else 0

    async def hears(self, text: str, times: int) -> None:
        """Return when something has been noted so many times."""

        async def is_noted() -> bool:
            return self.noted(text) >= times

        await eventually(is_noted)


def handler_of(servers: dict[str, Any]) -> Handler:
    """The handler with these servers, in the form of the setting."""
    return mcp_tool(Sessions(parse(json.dumps(servers))))


@asynccontextmanager
async def stopped(web: Web) -> AsyncIterator[Web]:
    """Kill the server at the end."""
    try:
        yield web
    finally:
        await web.kill()
