"""A run of workers: servers on one Postgres, workers in three languages, their executions, and the killing of both."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from itertools import cycle, islice
from pathlib import Path
from typing import Any, Protocol

import grpc.aio

import flowkeep
from flowkeep.channel import open_channel
from flowkeep.requests import execute_request
from flowkeep.v1.execution_pb2 import Execution
from service.engine.waiting import within
from tests.e2e.process import LOADED, ServerProcess
from tests.faults.harness.caller import Caller, History
from tests.faults.harness.collection import requests_of, rows_of
from tests.faults.harness.crew import PYTHON, Member, handler, there
from tests.faults.harness.database import Postgres
from tests.faults.harness.records import REMOTE, Outcome, Record, StepFacts
from tests.folders import new_folder
from tests.patience import PATIENCE

WORKFLOW = "relay"
AT_A_TIME = 48
"""Executions that are under way at a time."""
LONGEST = 0.4
"""Seconds that a step takes at most; on average half of it."""
SEQUENCE = 40
"""Steps of the executions by which the way to a worker is measured."""
LEASE, SILENCE = 10.0, 10.0
"""Seconds after which a server, and a worker, is taken for lost: not so few that a busy machine loses what lives."""

_SETTINGS = {
    "FLOWKEEP_MIGRATE": "false",
    "FLOWKEEP_PAGE_TOKEN_SECRET": "shifts",
    "FLOWKEEP_LEASE_TTL": str(LEASE),
    "FLOWKEEP_WORKER_HEARTBEAT_TIMEOUT": str(SILENCE),
}
_LOOK = 0.1
_STUCK = 2 * LOADED
"""Seconds in which nothing has ended, after which nothing will."""


@dataclass(frozen=True)
class Size:
    """How much is run: attempts under faults, executions of the quiet time, and seconds between two kills."""

    attempts: int = 5_000
    servers: int = 3
    quiet: int = 10
    workers_every: float = 5.0
    servers_every: float = 20.0


QUICK = Size(attempts=400, servers=2, quiet=2, workers_every=2.0, servers_every=6.0)


class Victim(Protocol):
    """A process that may be killed."""

    kills: int

    async def kill(self) -> None:
        """Kill it and return when it is gone."""
        ...

    async def come_back(self) -> None:
        """Start it again and return when it serves."""
        ...


@dataclass
class Host:
    """A server process."""

    name: str
    server: ServerProcess
    kills: int = 0

    def channel(self) -> grpc.aio.Channel:
        """Return a connection of one client's own."""
        return open_channel(self.server.target, False, [("grpc.use_local_subchannel_pool", 1)])

    async def kill(self) -> None:
        """See Victim."""
        await self.server.kill9()

    async def come_back(self) -> None:
        """See Victim."""
        await self.server.restart()


@dataclass(frozen=True)
class Shift:
    """What came of a run: times in seconds, and the record by which it is judged."""

    record: Record
    languages: Sequence[str]
    asked: int
    """Executions that were to be started."""
    seconds: float
    kills: Mapping[str, int]
    ways: Mapping[str, Sequence[float]] = field(default_factory=dict)
    """From the start of a step to its worker, by language, while nothing else ran."""
    relays: Sequence[float] = ()
    """How long executions over all languages took then."""


async def run_shift(size: Size, seed: int) -> Shift:
    """Run it. Call it in the main thread."""
    draw, languages = random.Random(f"workers {seed}"), there()
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(new_folder("flowkeep-shift-"))
        postgres = Postgres(folder)
        await postgres.create()
        await postgres.start()
        stack.push_async_callback(postgres.stop, immediate=True)
        hosts = await stack.enter_async_context(_serving(folder, postgres, size.servers))
        crew = await stack.enter_async_context(_working(folder, hosts, languages))
        chain = {f"s{n}": StepFacts(REMOTE) for n in range(SEQUENCE)}
        steps = _relay(languages)
        programs = {WORKFLOW: {step["id"]: StepFacts(REMOTE) for step in steps}}
        programs |= {f"quiet_{language}": chain for language in languages}
        async with flowkeep.Client(hosts[0].server.target) as client:
            schema = {"type": "object", "required": ["number", "seconds"]}
            named = {WORKFLOW: steps, **{f"quiet_{language}": _chain(language) for language in languages}}
            for name, made in named.items():
                document = {"name": name, "input_schema": schema, "ordering": "GRAPH", "steps": made}
                await client.create_workflow(document)
        ways = {language: await _ways(language, crew, size.quiet) for language in languages}
        relays = await _relays(hosts[0], size.quiet)
        asked, history = size.attempts // len(steps), History()
        begun = time.monotonic()
        async with _killing(size, hosts, crew, draw):
            await _load(postgres, hosts, history, asked, draw)
        seconds = time.monotonic() - begun
        await asyncio.gather(*(member.end() for member in crew))
        codes = {host.name: (await host.server.terminate())[0] for host in hosts}
        record = Record(
            "workers",
            seed,
            calls=tuple(history.calls),
            rows=await rows_of(postgres),
            requests=await requests_of(postgres),
            programs=programs,
            effects=tuple(effect for member in crew for effect in member.effects()),
            logs={host.name: host.server.log for host in hosts},
            worker_logs={member.name: member.log for member in crew},
            exit_codes=codes,
        )
        kills = {host.name: host.kills for host in hosts} | {member.name: member.kills for member in crew}
        return Shift(record, languages, asked, seconds, kills, ways, relays)


def _relay(languages: Sequence[str]) -> list[dict[str, Any]]:
    """Return steps of which those of other languages stand between two of Python."""
    begin, *others, end = islice(cycle(languages), max(4, len(languages) + 1))
    given = {"params": {"seconds": "${ input.seconds }"}}
    inner = [
        {"id": f"s{n}", "handler": handler(each), "depends_on": ["begin"], **given} for n, each in enumerate(others)
    ]
    ids = [step["id"] for step in inner]
    return [
        {"id": "begin", "handler": handler(begin), **given},
        *inner,
        {"id": "end", "handler": handler(end), "depends_on": ids, **given},
    ]


def _chain(language: str) -> list[dict[str, Any]]:
    steps: list[dict[str, Any]] = []
    for number in range(SEQUENCE):
        after = {"depends_on": [steps[-1]["id"]]} if steps else {}
        steps.append({"id": f"s{number}", "handler": handler(language), "params": {"seconds": 0}, **after})
    return steps


@asynccontextmanager
async def _serving(folder: Path, postgres: Postgres, count: int) -> AsyncIterator[list[Host]]:
    hosts = []
    async with AsyncExitStack() as stack:
        for number in range(count):
            home = folder / f"server_{number}"
            home.mkdir()
            settings = {**_SETTINGS, "FLOWKEEP_DATABASE_URL": postgres.dsn}
            hosts.append(Host(home.name, ServerProcess(home, listen="127.0.0.1:0", settings=settings)))
            stack.push_async_callback(hosts[-1].server.close)
        await asyncio.gather(*(host.server.start() for host in hosts))
        yield hosts


@asynccontextmanager
async def _working(folder: Path, hosts: Sequence[Host], languages: Sequence[str]) -> AsyncIterator[list[Member]]:
    """Three workers in Python and one in each other language, spread over the servers."""
    crew = [f"{PYTHON}_{number}" for number in range(3)] + [each for each in languages if each != PYTHON]
    async with AsyncExitStack() as stack:
        members = []
        for name, host in zip(crew, cycle(hosts), strict=False):
            members.append(Member(name, name.partition("_")[0], host.server.target, folder))
            stack.push_async_callback(members[-1].kill)
            await members[-1].start()
        await asyncio.gather(*(member.connected() for member in members))
        yield members


# --- while nothing else runs


async def _ways(language: str, crew: Sequence[Member], count: int) -> list[float]:
    """Return from the start of each step of some executions to its worker, which has run one before."""
    member, found = next(each for each in crew if each.language == language), list[float]()
    async with flowkeep.Client(member.target) as client:
        for number in range(count + 1):
            done = await _ended(client, f"quiet_{language}", number)
            began = [flowkeep.from_value(step.output)["began"] for step in done.steps]
            starts = [step.start_time.ToNanoseconds() / 1e9 for step in done.steps]
            found += [moment - start for moment, start in zip(began, starts, strict=True)] * (number > 0)
    return found


async def _relays(host: Host, count: int) -> list[float]:
    """Return how long executions take that go over all languages, one after the other."""
    found = []
    async with flowkeep.Client(host.server.target) as client:
        for number in range(count):
            begun = time.perf_counter()
            await _ended(client, WORKFLOW, number)
            found.append(time.perf_counter() - begun)
    return found


async def _ended(client: flowkeep.Client, workflow: str, number: int) -> Execution:
    execution = await client.execute(workflow, {"number": number, "seconds": 0})
    async with asyncio.timeout(PATIENCE):
        async for _ in client.watch(execution.execution_id):
            pass
    done = await client.get_execution(execution.execution_id)
    assert done.state == Execution.STATE_COMPLETED, done.failure
    return done


# --- under faults


async def _load(postgres: Postgres, hosts: Sequence[Host], history: History, asked: int, draw: random.Random) -> None:
    """Start so many executions, some at a time, and return when all have ended, or none has for a long while."""
    caller, number, starting = Caller("starter", hosts, history), 0, set[asyncio.Task[None]]()
    last, moved = -1, time.monotonic()
    while time.monotonic() - moved < _STUCK:
        (counts,) = await postgres.query(
            "SELECT count(*) AS made, count(*) FILTER (WHERE end_time IS NULL) AS left FROM executions"
        )
        starting = {task for task in starting if not task.done()}
        if number == asked and not starting and not counts["left"]:
            return
        ended = counts["made"] - counts["left"]
        if ended != last:
            last, moved = ended, time.monotonic()
        room = AT_A_TIME - counts["left"] - len(starting)
        for _ in range(min(room, asked - number)):
            seconds = draw.uniform(0.0, LONGEST)
            starting.add(asyncio.create_task(_start(caller, number, seconds, random.Random(draw.random()))))
            number += 1
        await asyncio.sleep(_LOOK)
    for task in starting:
        task.cancel()


async def _start(caller: Caller, number: int, seconds: float, draw: random.Random) -> None:
    """Start an execution, under its request id on another server for as long as its fate is unknown."""
    request = execute_request(WORKFLOW, {"number": number, "seconds": seconds})
    while True:
        call = await caller.execute(draw.choice(caller.replicas), request, f"{WORKFLOW} {number}")
        if call.outcome is not Outcome.UNKNOWN and call.code != "RESOURCE_EXHAUSTED":
            return
        await asyncio.sleep(draw.uniform(0.1, 0.4))


@asynccontextmanager
async def _killing(
    size: Size, hosts: Sequence[Host], crew: Sequence[Member], draw: random.Random
) -> AsyncIterator[None]:
    """Kill a worker and a server every so many seconds, inside, and begin each again; then it is back first."""
    over = asyncio.Event()
    tasks = [
        asyncio.create_task(_kill(crew, size.workers_every, over, random.Random(draw.random()))),
        asyncio.create_task(_kill(hosts, size.servers_every, over, random.Random(draw.random()))),
    ]
    try:
        yield
    finally:
        over.set()
        await asyncio.gather(*tasks)


async def _kill(victims: Sequence[Victim], every: float, over: asyncio.Event, draw: random.Random) -> None:
    while True:
        await within(every, over.wait())
        if over.is_set():
            return
        victim = draw.choice(victims)
        victim.kills += 1
        await victim.kill()
        await asyncio.sleep(draw.uniform(0.0, 1.0))
        # On a slow machine all would be dead before one can serve.
        await victim.come_back()
