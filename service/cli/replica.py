"""One of the processes of `flowkeep serve --processes N`: a whole replica, which ends with the one that keeps it."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import socket
import sys
import threading

import structlog
import uvloop

from service.app import running_server
from service.cli import settings
from service.cli.loop import run_through
from service.cli.processes import SERVING
from service.cli.refusal import USAGE
from service.cli.serving import leave, prepare
from service.config import Config
from service.databases import open_repository

log = structlog.get_logger(__name__)

_PR_SET_PDEATHSIG = 1


def main(descriptor: int) -> None:
    """Serve until told to stop. `descriptor` is this end of the socket pair that joins the two processes."""
    line = socket.socket(fileno=descriptor)
    line.set_inheritable(False)
    _end_with_keeper(line)
    code = 1
    try:
        config = Config()
        prepare(config)
        run_through(asyncio.Runner(loop_factory=uvloop.new_event_loop), _serve(config, line))
        code = 0
    except settings.expected_errors() as error:
        line.sendall(str(error).encode())
        code = USAGE
    except Exception as error:
        log.error("process failed", exc_info=error)
    leave(code)


async def _serve(config: Config, line: socket.socket) -> None:
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    assert config.database_url is not None  # noqa: S101 - the keeper names its own
    async with (
        open_repository(config, config.database_url.get_secret_value()) as repository,
        running_server(config, repository, alone=False),
    ):
        line.sendall(SERVING)
        await stopped.wait()


def _end_with_keeper(line: socket.socket) -> None:
    """Have this process end at once when the one that keeps it has gone: as if it had been killed itself."""

    def wait() -> None:
        while line.recv(1):
            pass
        os._exit(1)

    threading.Thread(target=wait, name="end with keeper", daemon=True).start()
    libc = ctypes.CDLL(None)
    if hasattr(libc, "prctl"):  # Linux ends it even while it stands still
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


if __name__ == "__main__":
    main(int(sys.argv[1]))
