"""Processes that are forks of one that has loaded `flowkeep` (`loaded.py`), with the face of those of asyncio."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from queue import SimpleQueue
from typing import IO, Any

from tests.e2e.loaded import REQUEST
from tests.folders import ROOT

Stream = int | IO[Any]


class Fork:
    """A process: `pid`, `returncode`, its streams where they are pipes, and the calls that end it."""

    def __init__(self, pid: int, ended: Future[int]) -> None:
        self.pid = pid
        self.stdin: int | None = None
        self.stdout: asyncio.StreamReader | None = None
        self.stderr: asyncio.StreamReader | None = None
        self._ended = ended

    @property
    def returncode(self) -> int | None:
        """How it ended, as `subprocess` tells it; None while it runs."""
        return self._ended.result() if self._ended.done() else None

    async def wait(self) -> int:
        """Return how it ended, when it has."""
        return await asyncio.shield(asyncio.wrap_future(self._ended))

    async def communicate(self, given: bytes | None = None) -> tuple[bytes, bytes]:
        """Give it all of its input, and return what it wrote when it has ended."""
        writing = asyncio.to_thread(_write, self.stdin, given or b"") if self.stdin is not None else asyncio.sleep(0)
        self.stdin = None
        _, out, err = await asyncio.gather(writing, _rest(self.stdout), _rest(self.stderr))
        await self.wait()
        return out, err

    def send_signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        if not self._ended.done():
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """Ask it to end."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it."""
        self.send_signal(signal.SIGKILL)


class Forks:
    """The process that has loaded `flowkeep`, and what it says of its forks."""

    def __init__(self) -> None:
        ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket = ours
        self._begun: SimpleQueue[tuple[int, Future[int]] | None] = SimpleQueue()
        self._asking = threading.Lock()
        with its:
            # It lives as long as this process holds its end of the socket.
            self._loaded = subprocess.Popen(
                (sys.executable, "-m", "tests.e2e.loaded", str(its.fileno())), cwd=ROOT, pass_fds=(its.fileno(),)
            )
        threading.Thread(target=self._hear, name="forks", daemon=True).start()

    async def begin(
        self, command: Sequence[str], environment: Mapping[str, str], stdin: int, stdout: int, stderr: Stream
    ) -> Fork:
        """Begin `flowkeep` with the arguments and streams of `asyncio.create_subprocess_exec`."""
        request = {"command": list(command), "environment": dict(environment), "folder": os.getcwd()}
        pipes = _Pipes()
        try:
            given = pipes.end(stdin, is_input=True), pipes.end(stdout), pipes.end(stderr)
            pid, ended = await asyncio.to_thread(self._ask, json.dumps(request).encode(), given)
        finally:
            pipes.close_theirs()
        fork = Fork(pid, ended)
        fork.stdin = pipes.ours[0] if stdin == subprocess.PIPE else None
        readers = iter(pipes.ours[1:] if stdin == subprocess.PIPE else pipes.ours)
        fork.stdout = await _reader(next(readers)) if stdout == subprocess.PIPE else None
        fork.stderr = await _reader(next(readers)) if stderr == subprocess.PIPE else None
        return fork

    def _ask(self, request: bytes, streams: Sequence[int]) -> tuple[int, Future[int]]:
        with self._asking:
            socket.send_fds(self._socket, [request], streams)
            begun = self._begun.get()
        if begun is None:
            raise RuntimeError("the process that has loaded flowkeep is gone; it said why on standard error")
        return begun

    def _hear(self) -> None:
        running: dict[int, Future[int]] = {}
        while text := self._socket.recv(REQUEST):
            news = json.loads(text)
            if "begun" in news:
                ended: Future[int] = Future()
                running[news["begun"]] = ended
                self._begun.put((news["begun"], ended))
            else:
                running.pop(news["ended"]).set_result(news["code"])
        self._begun.put(None)


class _Pipes:
    """The pipes of one process: its ends, and ours."""

    def __init__(self) -> None:
        self.ours: list[int] = []
        self._theirs: list[int] = []

    def end(self, stream: Stream, *, is_input: bool = False) -> int:
        """Return what the process is given for a stream."""
        if not isinstance(stream, int):
            return stream.fileno()
        if stream == subprocess.DEVNULL:
            self._theirs.append(os.open(os.devnull, os.O_RDWR))
        elif stream == subprocess.PIPE:
            reads, writes = os.pipe()
            self._theirs.append(reads if is_input else writes)
            self.ours.append(writes if is_input else reads)
        else:
            return stream
        return self._theirs[-1]

    def close_theirs(self) -> None:
        for end in self._theirs:
            os.close(end)


async def _reader(end: int) -> asyncio.StreamReader:
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(end, "rb", 0)
    )
    return reader


async def _rest(stream: asyncio.StreamReader | None) -> bytes:
    return b"" if stream is None else await stream.read()


def _write(end: int, given: bytes) -> None:
    """Write all, as far as anybody reads."""
    with os.fdopen(end, "wb", 0) as file:
        try:
            while given:
                given = given[file.write(given) :]
        except BrokenPipeError:
            pass
