"""What replicas use of the machine: memory, descriptors, threads, tasks."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from contextlib import suppress

import psutil

from tests.faults.harness.cluster import Cluster, Replica
from tests.faults.harness.records import Usage
from tests.faults.harness.world import World

_ANSWER_SECONDS = 5.0


async def usage(replica: Replica, world: World) -> Usage | None:
    """Return it, or None if the process does not run or does not answer.

    Connections to the world outside, of which the HTTP client keeps some for later calls, do not count, nor do the
    threads in the pool of handlers.
    """
    if not replica.is_up:
        return None
    with suppress(OSError, ValueError, AssertionError, psutil.NoSuchProcess):
        async with asyncio.timeout(_ANSWER_SECONDS):
            reader, writer = await asyncio.open_unix_connection(str(replica.probe))
            answer = json.loads(await reader.read())
            writer.close()
        process = psutil.Process(replica.server.pid)
        with process.oneshot():
            kept = sum(bool(link.raddr) and link.raddr.port == world.port for link in process.net_connections("tcp"))
            threads = process.num_threads() - answer["pooled"]
            return Usage(process.memory_info().rss, process.num_fds() - kept, threads, answer["tasks"])
    return None


async def usages(cluster: Cluster) -> Mapping[str, Usage]:
    """Return that of each replica that answers."""
    found = await asyncio.gather(*(usage(replica, cluster.world) for replica in cluster.replicas))
    return {replica.name: used for replica, used in zip(cluster.replicas, found, strict=True) if used is not None}


class Meter:
    """Tells how busy processes were since it was asked last, in percent of one core."""

    def __init__(self) -> None:
        self._spent: dict[str, float] = {}
        self._asked = time.monotonic()

    def busy(self, families: Mapping[str, int]) -> dict[str, float]:
        """Return it for processes with all that they have started, by the name that each one's id has here."""
        now = time.monotonic()
        passed, self._asked = now - self._asked, now
        before, self._spent = self._spent, {name: _spent(pid) for name, pid in families.items()}
        shares = {name: (self._spent[name] - before.get(name, self._spent[name])) / passed for name in families}
        return {name: 100 * max(0.0, share) for name, share in shares.items()}


def _spent(pid: int) -> float:
    try:
        process = psutil.Process(pid)
        own = process.cpu_times()
        spent = own.user + own.system + own.children_user + own.children_system
        for child in process.children():
            with suppress(psutil.NoSuchProcess):
                spent += child.cpu_times().user + child.cpu_times().system
    except psutil.NoSuchProcess:
        return 0.0
    return float(spent)
