"""Tells what a replica has under way: a file of handlers that answers on a unix socket, from a thread of its own."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import threading
from collections import Counter
from contextlib import suppress
from pathlib import Path

# Not from flowkeep.handlers, which the release before does not have.
from service.engine.handlers import handler

SOCKET = "CHAOS_PROBE"
"""The variable of the environment that names the socket."""

_POOL = "flowkeep-handler"
"""How the threads of the service's pool of handlers are named; this file has to run in the release before, too."""


@handler("chaos_tasks", description="Counts the tasks of its replica by what they do.")
async def tasks() -> dict[str, int]:
    return _tasks(asyncio.get_running_loop())


def _tasks(loop: asyncio.AbstractEventLoop) -> dict[str, int]:
    return Counter(getattr(task.get_coro(), "__qualname__", "?") for task in asyncio.all_tasks(loop))


def _pooled() -> int:
    """Return how many threads the pool of handlers holds: it keeps as many as were ever needed at a time."""
    return sum(thread.name.startswith(_POOL) for thread in threading.enumerate())


def _answer(listening: socket.socket, loop: asyncio.AbstractEventLoop) -> None:
    while True:
        asking, _ = listening.accept()
        with asking, suppress(OSError):
            asking.sendall(json.dumps({"tasks": _tasks(loop), "pooled": _pooled()}).encode())


def _begin(path: Path, loop: asyncio.AbstractEventLoop) -> None:
    path.unlink(missing_ok=True)  # of the process before this one
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(path))
    listening.listen()
    threading.Thread(target=_answer, args=(listening, loop), name="probe", daemon=True).start()


if SOCKET in os.environ:
    _begin(Path(os.environ[SOCKET]), asyncio.get_running_loop())
