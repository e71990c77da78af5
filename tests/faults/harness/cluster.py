"""Three replicas on one Postgres, with a fault proxy on every way between them."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import grpc.aio
import psutil

from flowkeep.channel import open_channel
from tests.e2e.process import ServerProcess
from tests.faults.harness.database import Postgres
from tests.faults.harness.programs import PARK_AFTER
from tests.faults.harness.proxy import Proxy, fault_proxy
from tests.faults.harness.witness import install
from tests.faults.harness.world import World
from tests.folders import new_folder

TTL = 1.0
"""Lease TTL of most runs, in seconds, which does not let a run wait for long."""
PRODUCTION_TTL = 10.0
COUNT = 3
HANDLERS, PROBE = (Path(__file__).with_name(name) for name in ("handlers.py", "probe.py"))
SETTINGS = {
    "FLOWKEEP_MIGRATE": "false",
    "FLOWKEEP_HANDLERS": json.dumps([str(HANDLERS), str(PROBE)]),
}


@dataclass
class Replica:
    """One server process, the proxy behind it, and the one before it if clients are to suffer too."""

    name: str
    server: ServerProcess
    database: Proxy
    probe: Path
    """Where it tells of its tasks."""
    clients: Proxy | None = None
    channels: list[grpc.aio.Channel] = field(default_factory=list)
    exit_codes: list[int] = field(default_factory=list)
    is_up: bool = True

    @property
    def target(self) -> str:
        """Where clients connect."""
        return f"127.0.0.1:{self.clients.port}" if self.clients else self.server.target

    def channel(self) -> grpc.aio.Channel:
        """Return a connection of one client's own."""
        # Channels of one target share a connection unless they are told not to.
        channel = open_channel(self.target, False, [("grpc.use_local_subchannel_pool", 1)])
        self.channels.append(channel)
        return channel

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process."""
        os.kill(self.server.pid, number)

    async def kill9(self) -> None:
        """Kill it and return when it is gone."""
        self.is_up = False
        await self.server.kill9()

    async def terminate(self) -> int:
        """Stop it in order and return its exit code."""
        self.is_up = False
        code, _ = await self.server.terminate()
        self.exit_codes.append(code)
        return code

    async def restart(self) -> None:
        """Start it again; returns when it serves, on its old address."""
        await self.server.restart()
        self.is_up = True

    async def send_clients_away(self) -> None:
        """End the connections of all clients."""
        for channel in self.channels:
            await channel.close()

    async def stop(self) -> None:
        """End it in order if it runs, and its clients' connections."""
        await self.send_clients_away()
        if self.is_up:
            with suppress(AssertionError, ProcessLookupError):
                self.signal(signal.SIGCONT)
                await self.terminate()


@dataclass(frozen=True)
class Cluster:
    """Everything that a fault can hit."""

    postgres: Postgres
    replicas: Sequence[Replica]
    world: World
    folder: Path
    ttl: float = TTL

    async def owned(self, replica: Replica | None = None) -> list[str]:
        """Return the executions in flight, those of one replica or all."""
        if replica is None:
            rows = await self.postgres.query("SELECT id FROM executions WHERE end_time IS NULL")
        else:
            rows = await self.postgres.query(
                "SELECT e.id FROM executions e JOIN chaos.incarnations i USING (incarnation) WHERE i.replica = $1",
                replica.name,
            )
        return [str(row["id"]) for row in rows]


@asynccontextmanager
async def running_cluster(
    draw: random.Random,
    *,
    ttl: float = TTL,
    settings: Mapping[str, str] = {},
    follows: bool = False,
    shields_clients: bool = True,
    make_postgres: Callable[[Path], Postgres] = Postgres,
) -> AsyncIterator[Cluster]:
    """Run it inside. `follows`: the proxies understand Postgres. Without `shields_clients` clients have proxies too."""
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(new_folder("flowkeep-chaos-"))
        postgres = make_postgres(folder)
        await postgres.create()
        await postgres.start()
        stack.push_async_callback(postgres.stop, immediate=True)
        names = [f"replica_{number}" for number in range(COUNT)]
        await install(postgres, names)
        world = World()
        await world.start()
        stack.push_async_callback(world.stop)
        replicas = []
        for name in names:
            way = await stack.enter_async_context(fault_proxy(postgres.socket, draw, follows=follows))
            url = f"postgresql://{name}@127.0.0.1:{way.port}/flowkeep?sslmode=disable"
            home = folder / name
            home.mkdir()
            probe = home / "probe.sock"
            own = {"FLOWKEEP_DATABASE_URL": url, "FLOWKEEP_PAGE_TOKEN_SECRET": "chaos", "CHAOS_PROBE": str(probe)}
            server = ServerProcess(home, listen="127.0.0.1:0", settings={**SETTINGS, **_times(ttl), **own, **settings})
            replicas.append(Replica(name, server, way, probe))
            stack.push_async_callback(_end, server)
        await asyncio.gather(*(replica.server.start() for replica in replicas))
        for replica in replicas:
            if not shields_clients:
                host, _, port = replica.server.target.rpartition(":")
                replica.clients = await stack.enter_async_context(fault_proxy((host, int(port)), draw))
        yield Cluster(postgres, replicas, world, folder, ttl)


def _times(ttl: float) -> dict[str, str]:
    """Return the parameters of CONTRACT 2: compressed as the TTL is, in production the server's own."""
    if ttl >= PRODUCTION_TTL:
        return {"FLOWKEEP_LEASE_TTL": str(ttl)}
    return {
        "FLOWKEEP_LEASE_TTL": str(ttl),
        "FLOWKEEP_WATCH_POLL": str(0.2 * ttl),
        "FLOWKEEP_WATCH_BOOKMARK": str(ttl),
        "FLOWKEEP_CLAIM_INTERVAL": str(0.1 * ttl),
        "FLOWKEEP_PARK_AFTER": str(PARK_AFTER),
        "FLOWKEEP_CANCEL_GRACE": str(ttl),
    }


async def _end(server: ServerProcess) -> None:
    with suppress(AssertionError, ProcessLookupError, psutil.NoSuchProcess):
        os.kill(server.pid, signal.SIGCONT)
    with suppress(ProcessLookupError):  # it ended by itself, of which the log tells
        await server.close()
