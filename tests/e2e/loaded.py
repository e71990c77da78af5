"""A process that has loaded `flowkeep` once, and becomes each server and command that tests begin, by a fork.

To load its code is most of the work of a short command, and seconds of that of a server on a busy machine. What a fork
runs is the command's own `main`, with the arguments, environment, folder and standard streams that it is given. Run as
`python -m tests.e2e.loaded FD`, where FD is a socket on which requests come (`forks.py`), it ends when nobody holds
the other end.
"""

from __future__ import annotations

import gc
import json
import os
import select
import signal
import socket
import sys
import threading
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any, NoReturn

_MODULES = (
    "service.cli.main",
    "service.app",
    "persistence.embedded",
    "persistence.postgres.migrate",
    "persistence.postgres.repository",
)
REQUEST = 1 << 20
"""Bytes of a request at most."""


def main(number: int) -> None:
    """Load, and fork until the other end is closed."""
    inherited = dict(os.environ)
    for module in _MODULES:
        import_module(module)
    # Its modules' own settings of the libraries that they load next.
    defaults = {name: value for name, value in os.environ.items() if name not in inherited}
    assert threading.active_count() == 1, "a thread of this process would be missing in the forks"
    gc.collect()
    gc.freeze()
    asks = socket.socket(fileno=number)
    wakes, woken = os.pipe()
    os.set_blocking(woken, False)
    os.set_blocking(wakes, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(woken)
    while True:
        ready, _, _ = select.select([asks.fileno(), wakes], [], [])
        if wakes in ready:
            os.read(wakes, 4096)
            _tell_of_the_dead(asks)
        if asks.fileno() in ready:
            text, streams, _, _ = socket.recv_fds(asks, REQUEST, 3)
            if not text:
                return
            request = json.loads(text)
            if (pid := os.fork()) == 0:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                for descriptor in (wakes, woken):
                    os.close(descriptor)
                asks.close()
                _become(request, streams, defaults)
            for stream in streams:
                os.close(stream)
            _tell(asks, {"begun": pid})


def _tell_of_the_dead(asks: socket.socket) -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if not pid:
            return
        _tell(asks, {"ended": pid, "code": os.waitstatus_to_exitcode(status)})


def _tell(asks: socket.socket, news: Mapping[str, int]) -> None:
    asks.send(json.dumps(news).encode())


def _become(request: Mapping[str, Any], streams: Sequence[int], defaults: Mapping[str, str]) -> NoReturn:
    """Go on as `flowkeep`, as if it had just been started."""
    from service.cli.main import main as flowkeep

    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.environ.clear()
    os.environ.update({**defaults, **request["environment"]})
    os.chdir(request["folder"])
    sys.argv = request["command"]
    sys.stdin = os.fdopen(0, closefd=False)
    sys.stdout = os.fdopen(1, "w", closefd=False)
    sys.stderr = os.fdopen(2, "w", errors="backslashreplace", buffering=1, closefd=False)
    flowkeep()
    sys.exit()


if __name__ == "__main__":
    main(int(sys.argv[1]))
