"""A server under attack: whatever it is sent, its loop is not held, its memory comes back, and it has no complaints."""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.message import Message

import flowkeep
from flowkeep.channel import call_metadata
from service.api.claims import KNOWN_PERMISSIONS
from tests.e2e.process import ServerProcess
from tests.folders import new_folder
from tests.hostile import polite
from tests.hostile.attacker import Attacker
from tests.hostile.polite import Beside, Polite
from tests.hostile.timed_server import SOCKET
from tests.hostile.tokens import AUDIENCE, ISSUER, good
from tests.integration.calls import Answer, call
from tests.integration.stage import step
from tests.integration.web import Web
from tests.patience import PATIENCE
from tests.tokens import jwks, signed

MIB = 1 << 20
HELD = 0.05
"""Seconds for which nothing may hold the loop."""
ASLEEP = 0.25
"""Seconds for which nothing may keep the loop waiting; more, since a lock may be held by what others let wait."""
GROWN = 50 * MIB
"""Bytes by which a server may have grown when an attack is over: caches, and what Python does not give back."""
ECHO = "echo"
"""A workflow of the attacker's org that gives back its input."""
ATTACKER, BYSTANDER = "hostile", "polite"
"""The orgs."""
SMALL = {"max_concurrent_rpcs": 120, "max_running": 20, "max_streams": 30, "watch_patience": 1, "park_after": 600}
"""Settings of a server on which few have place, where few are enough of a flood."""
MOST_WRITTEN = 4 * MIB
"""Bytes that an execution may write."""

HANDLERS = str(Path(__file__).with_name("bad_handlers.py"))
_PROGRAM = (sys.executable, "-m", "tests.hostile.timed_server")
_LOCAL = [("grpc.use_local_subchannel_pool", 1)]


def token(org: str = ATTACKER, subject: str = "eve", permissions: Any = KNOWN_PERMISSIONS, **more: Any) -> str:
    """Return a good token, by default one that may do all."""
    return signed(good(org=org, sub=subject, permissions=sorted(permissions), **more))


@dataclass
class Attacked:
    """A server process that one can attack, and who looks after it."""

    process: ServerProcess
    socket: Path
    channel: grpc.aio.Channel
    """Of the attacker, for `send`."""
    polite: Polite
    attacker: Attacker
    figures: list[str] = field(default_factory=list)
    """What is printed of the test."""
    may_grow: int = GROWN
    may_hold: float = HELD
    _before: int = 0
    _usual: str = field(default_factory=token)

    @property
    def target(self) -> str:
        """Where it serves, host:port."""
        return self.process.target

    @property
    def address(self) -> tuple[str, int]:
        """Where it serves, for sockets."""
        host, _, port = self.target.rpartition(":")
        return host, int(port)

    def client(
        self, org: str = ATTACKER, subject: str = "eve", permissions: Any = KNOWN_PERMISSIONS
    ) -> flowkeep.Client:
        """Return a client with a connection of its own."""
        return flowkeep.Client(self.target, token=token(org, subject, permissions), options=_LOCAL)

    async def make_workflows(self) -> None:
        """Have the workflows that all tests may use."""
        async with self.client(BYSTANDER, "ann") as client:
            await client.apply([{"name": polite.WORKFLOW, "steps": [step("one", "transform", value=1)]}])
        async with self.client() as client:
            echo = step("echo", "transform", expression="input")
            await client.apply([{"name": ECHO, "steps": [echo], "output": "${ steps.echo.output }"}])

    async def send(self, path: str, request: Message | bytes, who: str | None = None) -> Answer:
        """Send these bytes as a request of the attacker, or of whom a token names, and return what comes."""
        return await call(self.channel, path, request, call_metadata(self._usual if who is None else who))

    @asynccontextmanager
    async def beside(self, what: str) -> AsyncIterator[Beside]:
        """Have a polite client call while the attack inside goes on. What it saw is printed, and none of it failed."""
        async with self.polite.beside(what) as result:
            yield result
        self.figures.append(str(result))
        assert not result.times.errors, str(result)

    @asynccontextmanager
    async def watched(self, patience: float = PATIENCE) -> AsyncIterator[None]:
        """Assert at the end that nothing inside held the loop, that memory came back, and that it all went well."""
        before, complaints = await self._ask("begin"), len(self.process.complaints)
        self._before = before
        self.figures, self.may_grow, self.may_hold = [], GROWN, HELD
        yield
        told = await self.told()
        self.figures.append(
            ", ".join(f"{what} {1e3 * told[what]:.0f} ms" for what in told["stacks"])
            + f"; memory {before // MIB} MiB, at most {told['peak'] // MIB}"
        )
        self._held_nothing(told)
        assert not (found := self.process.complaints[complaints:]), "\n".join(found)
        if told["peak"] > before + self.may_grow:
            await self._memory_came_back(before, patience)

    @asynccontextmanager
    async def case(self, name: str) -> AsyncIterator[None]:
        """Name the case of a batch in what fails inside, and assert that it did not hold the loop."""
        try:
            yield
            self._held_nothing(await self.told())
        except BaseException as error:
            error.add_note(f"in the case {name!r}")
            raise

    async def told(self) -> Any:
        """Return what was seen since the test began: the longest holds in seconds, and by how much it grew."""
        told = await self._ask("told")
        return {**told, "grown": told["peak"] - self._before}

    def _held_nothing(self, told: Any) -> None:
        for what, most in {"callback": self.may_hold, "asleep": ASLEEP, "others": self.may_hold}.items():
            assert told[what] <= most, f"{what}: the loop was held for {told[what]:.3f} s by\n{told['stacks'][what]}"

    async def _memory_came_back(self, before: int, patience: float) -> None:
        deadline = asyncio.get_running_loop().time() + patience
        while (now := await self._ask("memory")) > before + self.may_grow:
            assert asyncio.get_running_loop().time() < deadline, f"grew from {before // MIB} to {now // MIB} MiB"
            await asyncio.sleep(0.1)

    async def _ask(self, what: str) -> Any:
        reader, writer = await asyncio.open_unix_connection(str(self.socket))
        writer.write(f"{what}\n".encode())
        try:
            async with asyncio.timeout(PATIENCE):
                return json.loads(await reader.readline())
        except TimeoutError:
            raise AssertionError(
                f"the loop is held; the log of the server ends with\n{self.process.log[-4000:]}"
            ) from None
        finally:
            writer.close()


class Servers:
    """The servers of a session, one for all tests with the same settings.

    They know callers by keys that `web` tells, and may call it and `listener`, the only ones inside.
    """

    def __init__(self, stack: AsyncExitStack, web: Web, listener: socket.socket, attacker: Attacker) -> None:
        self._stack = stack
        self._attacker = attacker
        self._usual = {
            "FLOWKEEP_JWT_JWKS": web.answer("/jwks", body=jwks()),
            "FLOWKEEP_JWT_ISSUER": ISSUER,
            "FLOWKEEP_JWT_AUDIENCE": AUDIENCE,
            "FLOWKEEP_HTTP_ALLOW": f"{web.url.removeprefix('http://')},127.0.0.1:{listener.getsockname()[1]}",
            "FLOWKEEP_HANDLERS": HANDLERS,
            "FLOWKEEP_MAX_EXECUTION_BYTES": str(MOST_WRITTEN),
            "FLOWKEEP_LOG_LEVEL": "warning",
        }
        self._running: dict[frozenset[tuple[str, str]], Attacked] = {}

    async def with_settings(self, settings: Mapping[str, Any]) -> Attacked:
        """Return the server with these settings, such as `max_streams=5`, started when there is none."""
        own = {f"FLOWKEEP_{name.upper()}": str(value) for name, value in settings.items()}
        key = frozenset(own.items())
        if key not in self._running:
            self._running[key] = await self._stack.enter_async_context(
                _attacked({**self._usual, **own}, self._attacker)
            )
        return self._running[key]


@asynccontextmanager
async def _attacked(settings: Mapping[str, str], attacker: Attacker) -> AsyncIterator[Attacked]:
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(new_folder("flowkeep-hostile-"))
        own = {**settings, SOCKET: str(folder / "holds")}
        process = ServerProcess(folder, listen="127.0.0.1:0", settings=own, command=_PROGRAM)
        await process.start()
        stack.push_async_callback(process.close)
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(process.target, _LOCAL))
        bystander = Polite(process.target, token(BYSTANDER, "ann"), attacker)
        stack.push_async_callback(bystander.close)
        attacked = Attacked(process, folder / "holds", channel, bystander, attacker)
        await _warm_up(attacked)
        yield attacked


async def _warm_up(attacked: Attacked) -> None:
    """Have all loaded that is loaded at its first use: it is none of what an attack costs."""
    await attacked.make_workflows()
    async with attacked.client() as client:
        done = await client.execute(ECHO, {"warm": [1, "two"]}, wait=True)
        assert [event async for event in client.watch(done.execution_id)]
        await client.get_execution(done.execution_id)
        await client.list_page()
