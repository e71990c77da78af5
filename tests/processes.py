"""Waiting for processes that are not our children, such as the Postgres of a server that was killed."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress

import psutil

from tests.patience import PATIENCE


def outliving(processes: Sequence[psutil.Process], patience: float = PATIENCE) -> list[psutil.Process]:
    """Return, as soon as it is known, which processes still run after `patience` seconds.

    A zombie has ended. psutil's own wait goes on until its new parent takes notice, for which an init may need seconds.
    """
    deadline = time.monotonic() + patience
    for process in processes:
        while _runs(process) and time.monotonic() < deadline:
            with suppress(psutil.TimeoutExpired):
                process.wait(0.02)
    return [process for process in processes if _runs(process)]


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
