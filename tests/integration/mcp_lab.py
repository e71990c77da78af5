"""An MCP server with tools for tests, as a program: `mcp_lab.py stdio`, or `mcp_lab.py http PORT`.

It writes what calls do to it, a line each, into the file that MCP_LAB_NOTES names.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import anyio
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp_types import AudioContent, CallToolResult, ImageContent, ResourceLink, TextContent
from pydantic import BaseModel, Field

lab = MCPServer("lab", log_level="ERROR")
NOTES = Path(os.environ["MCP_LAB_NOTES"])


def note(text: str) -> None:
    with NOTES.open("a") as file:
        file.write(f"{text}\n")


class Sum(BaseModel):
    total: int


@lab.tool()
def add(a: int, b: Annotated[int, Field(ge=0)] = 0) -> Sum:
    """Add two numbers."""
    return Sum(total=a + b)


@lab.tool()
def fail(text: str) -> str:
    """Fail, and repeat a text and the secret of the server."""
    raise ToolError(f"cannot do {text} with {os.environ.get('MCP_LAB_SECRET', 'nothing')}")


@lab.tool()
def pid() -> int:
    """Give the number of this process."""
    return os.getpid()


@lab.tool()
def die() -> str:
    """End at once, as if killed."""
    os._exit(7)


@lab.tool()
def large(characters: int) -> str:
    """Give a long text."""
    return "x" * characters


@lab.tool(structured_output=False)
def many(values: int) -> CallToolResult:
    """Give many values."""
    return CallToolResult(content=[], structured_content={"values": [0] * values})


@lab.tool()
def environment() -> dict[str, str]:
    """Give what this process was started with."""
    return dict(os.environ)


@lab.tool()
async def meta(context: Context[Any, Any]) -> dict[str, Any]:
    """Give what came beside the arguments."""
    found = context.request_context.meta or {}
    return {str(name): value for name, value in dict(found).items()}


@lab.tool(structured_output=False)
def mixed() -> CallToolResult:
    """Give content of several types."""
    return CallToolResult(
        content=[
            TextContent(type="text", text="see"),
            ImageContent(type="image", data="aW1n", mime_type="image/png"),
            AudioContent(type="audio", data="c25k", mime_type="audio/wav"),
            ResourceLink(type="resource_link", uri="file:///a.txt", name="a"),
        ]
    )


@lab.tool()
async def work(context: Context[Any, Any], steps: int) -> str:
    """Say how far it is, step by step, and a message."""
    for done in range(1, steps + 1):
        await context.report_progress(done, steps, f"step {done}")
    await context.report_progress(steps, None, "partial text")
    await context.info("a word of the log")
    return "worked"


@lab.tool()
async def hang() -> str:
    """Wait until it is cancelled, which is noted."""
    note("hangs")
    try:
        await anyio.sleep_forever()
    except anyio.get_cancelled_exc_class():
        note("cancelled")
        raise
    return "never"


@lab.tool()
async def more(context: Context[Any, Any], tells: bool = False) -> str:
    """Change the input schema of `add`, and tell of it or not."""
    lab.remove_tool("add")

    def add(a: int, b: int, c: int) -> int:
        return a + b + c

    lab.add_tool(add)
    if tells:
        await context.session.send_tool_list_changed()
    return "changed"


if __name__ == "__main__":
    if sys.argv[1] == "stdio":
        note(f"started {os.getpid()}")
        lab.run("stdio")
    else:
        anyio.run(lambda: lab.run_streamable_http_async(port=int(sys.argv[2])))
