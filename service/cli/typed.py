"""What a person, or a script, types on standard input, line by line."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable

from service.cli.streams import output


class CommandError(Exception):
    """What was typed cannot be done."""


async def typed_lines(prompt: Callable[[], None]) -> AsyncIterator[str]:
    """Give the lines of standard input as they come, each after a prompt.

    Read by the event loop, not by a thread: whoever presses Ctrl-C need not press Enter as well.
    """
    if sys.stdin is None:
        return
    held, number = b"", sys.stdin.fileno()
    while True:
        prompt()
        while b"\n" not in held:
            output().flush()
            await _readable(number)
            if not (read := os.read(number, 1 << 16)):
                if held:
                    yield held.decode(errors="replace")
                return
            held += read
        line, _, held = held.partition(b"\n")
        yield line.decode(errors="replace")


async def _readable(number: int) -> None:
    """Return when there is something to read."""
    loop = asyncio.get_running_loop()
    ready = loop.create_future()
    try:
        loop.add_reader(number, _set, ready)
    except PermissionError:  # a regular file, of which nobody waits for anything
        return
    try:
        await ready
    finally:
        loop.remove_reader(number)


def _set(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)
