"""The processes that handlers run in which ask for that: a bounded number, each killed with the attempt that it runs.

        (none) ──start──► idle ──call──► busy ──result or failure──► idle
                                          │
                                          └── cancelled, its time is over, or it died ──► killed; the next call starts
                                                                                          another one

A process is a fresh interpreter. It finds a handler as the server did, by the module or file that has it, and ends when
the server does, however that ends: it reads the end of its socket.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import struct
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any
from weakref import WeakKeyDictionary

import structlog

from service.engine.failure import HANDLER_ERROR, Failure
from service.engine.handlers.failures import ToldError
from service.engine.handlers.http_clients import Clients
from service.engine.handlers.model import HandlerError, StepContext, Suspend
from service.engine.handlers.process_http import answered
from service.engine.handlers.threads import Slots

log = structlog.get_logger(__name__)

PROCESSES = 4
"""Processes of a server, unless its settings say otherwise."""

LARGEST_MESSAGE = 16 << 20
"""Bytes of what server and process tell each other at once."""

MODULE = "service.engine.handlers.process_worker"

_LENGTH = struct.Struct("!I")


class Processes(Slots):
    """The processes of one event loop, started when they are needed."""

    resource = "processes"

    def __init__(self, limit: int = PROCESSES) -> None:
        super().__init__(limit)
        self._idle: list[_Process] = []
        self._all: set[_Process] = set()

    @property
    def complaint(self) -> str:
        """Why an attempt does not begin."""
        return f"waits for a free process: other handlers hold all {self.limit} of the server"

    async def run(self, place: str, name: str, params: Mapping[str, Any], context: StepContext | None) -> Any:
        """Return what the handler `name` of the module or file `place` gives for `params`.

        What it shows meanwhile goes to `context`. Raises HandlerError when its process dies, ToldError when it fails.
        When the call is cancelled, the process is killed.
        """
        process = self._waiting() or await self._started()
        try:
            answer = await process.call(_request(place, name, params, context), context)
        except EOFError:
            text = f"handler {name!r}: the process that ran it {await self._end_of(process)}"
            raise HandlerError(HANDLER_ERROR, text) from None
        except BaseException:
            self._kill(process)
            raise
        self._idle.append(process)
        return _outcome(answer)

    async def close(self) -> None:
        """Kill all processes. There are others as soon as there are more calls."""
        left = list(self._all)
        for process in left:
            self._kill(process)
        await asyncio.gather(*(process.ended for process in left))

    def _waiting(self) -> _Process | None:
        """Return a process that has nothing to do, if one lives: it may have been killed since, as for its memory."""
        while self._idle:
            process = self._idle.pop()
            if not process.ended.done():
                return process
            self._kill(process)
        return None

    async def _started(self) -> _Process:
        process = await _Process.start()
        self._all.add(process)
        return process

    def _kill(self, process: _Process) -> None:
        process.kill()
        self._all.discard(process)
        with suppress(ValueError):
            self._idle.remove(process)

    async def _end_of(self, process: _Process) -> str:
        self._kill(process)
        return _told_end(await process.ended)


class _Process:
    """One process, and the socket to it."""

    def __init__(
        self, process: asyncio.subprocess.Process, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._process = process
        self._reader = reader
        self._writer = writer
        self._calls = 0
        self.ended = asyncio.ensure_future(process.wait())
        """Its exit code, when it has one: it is always asked for, so that nothing of it stays behind."""

    @classmethod
    async def start(cls) -> _Process:
        """Start one. Raises HandlerError when the system does not let it."""
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                process = await asyncio.create_subprocess_exec(
                    # Without the current folder: what is called `service` there is not ours.
                    sys.executable, "-P", "-m", MODULE, str(theirs.fileno()),
                    pass_fds=[theirs.fileno()],
                    stdin=asyncio.subprocess.DEVNULL,
                    # So that it can be killed with all that it has started, and that ^C is for the server to hear.
                    start_new_session=True,
                )  # fmt: skip
            reader, writer = await asyncio.open_connection(sock=ours)
        except OSError as error:
            ours.close()
            text = f"no process can be started for it: {error.strerror or type(error).__name__}"
            raise HandlerError(HANDLER_ERROR, text) from error
        except BaseException:
            ours.close()  # by which a process that was started ends
            raise
        return cls(process, reader, writer)

    async def call(self, request: Mapping[str, Any], context: StepContext | None) -> Mapping[str, Any]:
        """Return the last message about a call; those before it are passed on. Raises EOFError when it dies.

        A thread that an earlier call has left behind is not heard: what it says is another attempt's, of any org.
        """
        self._calls += 1
        try:
            await self._tell({"call": self._calls, **request})
            while True:
                (length,) = _LENGTH.unpack(await self._reader.readexactly(_LENGTH.size))
                message: dict[str, Any] = json.loads(await self._reader.readexactly(length))
                is_current = message["call"] == self._calls
                if message["kind"] == "http":
                    await self._tell({"http": await _asked(message, context if is_current else None)})
                elif is_current and message["kind"] in ("given", "suspended", "failed"):
                    return message
                elif is_current:
                    _pass_on(message, context)
        except (asyncio.IncompleteReadError, ConnectionError):
            raise EOFError from None

    async def _tell(self, message: Mapping[str, Any]) -> None:
        self._writer.write(framed(message))
        await self._writer.drain()

    def kill(self) -> None:
        """Kill it with all that it has started."""
        self._writer.close()
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)


def framed(message: Mapping[str, Any]) -> bytes:
    """Return a message as it is sent: JSON behind its length. Raises ValueError when it is too large."""
    text = json.dumps(message).encode()
    if len(text) > LARGEST_MESSAGE:
        raise ValueError(f"has {len(text):,} bytes as JSON; {LARGEST_MESSAGE:,} are the most")
    return _LENGTH.pack(len(text)) + text


def _request(place: str, name: str, params: Mapping[str, Any], context: StepContext | None) -> dict[str, Any]:
    asked: dict[str, Any] = {"place": place, "name": name, "params": params}
    if context is not None:
        asked["context"] = {
            "execution_id": str(context.execution_id),
            "org": context.org,
            "owner": context.owner,
            "workflow": context.workflow,
            "step_path": context.step_path,
            "iteration": context.iteration,
            "attempt": context.attempt,
            "idempotency_token": context.idempotency_token,
            "timeout": context.timeout,
            "now": context.now.isoformat(),
            "variables": dict(context.variables),
        }
        asked["age"] = time.monotonic() - context.began
    return asked


async def _asked(message: Mapping[str, Any], context: StepContext | None) -> Mapping[str, Any]:
    """Return what comes of a request that a handler makes."""
    connector = None if context is None else context.connector
    if not isinstance(connector, Clients):
        return {"error": "TransportError", "message": "the attempt is over, or its server has no way out"}
    return await answered(message, connector.send)


def _pass_on(message: Mapping[str, Any], context: StepContext | None) -> None:
    """Let the server hear what a handler shows while it runs."""
    if context is None:
        return
    match message:
        case {"kind": "report", "percent": percent, "message": said}:
            context.reporter(percent, said)
        case {"kind": "emit", "text": text}:
            context.emitter(text)
        case {"kind": "log", "level": level, "text": text}:
            context.teller(level, text)
        case {"kind": "usage", "used": [given, got, cost]}:
            context.meter(given, got, cost)


def _outcome(message: Mapping[str, Any]) -> Any:
    match message:
        case {"kind": "given", "output": output}:
            return output
        case {"kind": "suspended", "until": until, "output": output, "reason": reason}:
            return Suspend(datetime.fromisoformat(until), output, reason)
        case {"failure": failure, "retry_after": retry_after}:
            raise ToldError(Failure(**failure), retry_after)
    raise ValueError("a process gives what is no outcome")


def _told_end(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    with suppress(ValueError):
        name = signal.Signals(-code).name
        more = ", as when memory is short" if -code == signal.SIGKILL else ""
        return f"was ended by {name}{more}"
    return f"was ended by signal {-code}"


_processes: WeakKeyDictionary[asyncio.AbstractEventLoop, Processes] = WeakKeyDictionary()


def processes() -> Processes:
    """Return the processes of the running event loop."""
    loop = asyncio.get_running_loop()
    found = _processes.get(loop)
    if found is None:
        found = _processes[loop] = Processes()
    return found


def allow_processes(limit: int) -> None:
    """Let the running event loop have so many processes."""
    processes().allow(limit)
