"""An MCP server as a program of this machine, which is spoken to in lines over its standard input and output."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import anyio
import structlog
from mcp.shared.message import SessionMessage
from mcp_types import jsonrpc_message_adapter

from service.engine.mcp.screen import MESSAGE_BYTES, refusal_of_cut, screened
from service.engine.mcp.servers import StdioServer

log = structlog.get_logger(__name__)

END_GRACE = 1.0
"""Seconds in which a program may end once its input has ended; then it is killed, with all that it started."""

_BOUND = str(Path(__file__).with_name("bound.py"))
# What programs need to find their way. Settings and secrets of this process are none of their business.
_INHERITED = ("HOME", "LANG", "LC_ALL", "LOGNAME", "PATH", "SHELL", "TERM", "TMPDIR", "TZ", "USER")
_PIECE = 64 << 10
_KEPT = 1024
_TAIL = 1000

_GONE = (anyio.ClosedResourceError, anyio.BrokenResourceError, ConnectionError)


@asynccontextmanager
async def connected(server: StdioServer, name: str, when_ended: Callable[[], None]) -> AsyncIterator[tuple[Any, Any]]:
    """Run the program inside, and give the streams of its messages and of ours. Raises OSError.

    `when_ended` is called when it says no more, before the stream of its messages ends.
    """
    environment = {each: os.environ[each] for each in _INHERITED if each in os.environ}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-I", "-S", _BOUND, str(os.getpid()), server.command, *server.args),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**environment, **server.env},
        start_new_session=True,
    )
    to_us, from_it = anyio.create_memory_object_stream[Any](0)
    from_us, to_it = anyio.create_memory_object_stream[Any](0)
    tail = _Tail()
    is_closing = False

    async def read() -> None:
        with suppress(*_GONE):
            async with to_us:
                async for message in _messages(process.stdout):
                    await to_us.send(message)
                if not is_closing:
                    log.warning("MCP server ended", server=name, last_words=server.hide(tail.text))
                when_ended()

    async def write() -> None:
        with suppress(*_GONE):
            async with to_it:
                async for message in to_it:
                    text: str = message.message.model_dump_json(by_alias=True, exclude_unset=True)
                    assert process.stdin is not None  # noqa: S101 - it was asked for
                    process.stdin.write(text.encode() + b"\n")
                    await process.stdin.drain()

    async with anyio.create_task_group() as group:
        group.start_soon(read)
        group.start_soon(write)
        group.start_soon(tail.read, process.stderr)
        try:
            yield from_it, from_us
        finally:
            is_closing = True
            with anyio.CancelScope(shield=True):
                for stream in (from_it, from_us):
                    stream.close()
                await _end(process)
            group.cancel_scope.cancel()


async def _messages(output: asyncio.StreamReader | None) -> AsyncIterator[SessionMessage]:
    """Yield what comes, message by message. What is no message, such as words meant for people, is left out."""
    assert output is not None  # noqa: S101 - it was asked for
    async for line, is_whole in _lines(output):
        data = screened(line) if is_whole else refusal_of_cut(line[:_KEPT], line[-_KEPT:])
        if data is not None:
            with suppress(ValueError):
                yield SessionMessage(jsonrpc_message_adapter.validate_json(data, by_name=False))


async def _lines(output: asyncio.StreamReader) -> AsyncIterator[tuple[bytes, bool]]:
    """Yield each line, and whether it is whole: of one that is too long there are only beginning and end."""
    line, is_whole = bytearray(), True
    while piece := await output.read(_PIECE):
        parts = piece.split(b"\n")
        for index, part in enumerate(parts):
            line += part
            if len(line) > MESSAGE_BYTES:
                del line[_KEPT:-_KEPT]
                is_whole = False
            if index < len(parts) - 1:
                if line.strip():
                    yield bytes(line), is_whole
                line, is_whole = bytearray(), True


class _Tail:
    """The last that a program said to its standard error, for the log when it ends."""

    def __init__(self) -> None:
        self._data = b""

    @property
    def text(self) -> str:
        return self._data.decode(errors="replace").strip()

    async def read(self, output: asyncio.StreamReader | None) -> None:
        assert output is not None  # noqa: S101 - it was asked for
        while piece := await output.read(_PIECE):
            self._data = (self._data + piece)[-_TAIL:]


async def _end(process: asyncio.subprocess.Process) -> None:
    """End the program: its input first, then by force, with all that it started."""
    assert process.stdin is not None  # noqa: S101 - it was asked for
    with suppress(*_GONE):
        process.stdin.close()
    with suppress(TimeoutError):
        await asyncio.wait_for(process.wait(), END_GRACE)
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    with suppress(TimeoutError):
        await asyncio.wait_for(process.wait(), END_GRACE)
