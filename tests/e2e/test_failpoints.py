"""Every failpoint, in a real server under traffic: what was acknowledged is kept and ends, and no effect is lost.

Holds EX1, EX2, EX5, EX7, ST1, ST3, ST5, ST6, W1 to W5, W9, W10, CA1. `make failpoints` runs every point with every
action; otherwise a few of them run, each day others.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, suppress
from datetime import date
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import psutil
import pytest
import pytest_asyncio

from flowkeep import Client, execute_request
from flowkeep.errors import NotFoundError, UnavailableError
from flowkeep.v1.execution_pb2 import Execution
from persistence.embedded import EmbeddedPostgres
from persistence.failpoints import CRASHED, POINTS
from tests.conftest import DAY
from tests.e2e.effects import EffectServer
from tests.e2e.history import Watcher, check_watch, fresh_watch
from tests.e2e.process import ServerProcess, copy_data, flowkeep
from tests.folders import new_folder
from tests.patience import PATIENCE

TTL = 1.0
SETTINGS = {
    "FLOWKEEP_LEASE_TTL": str(TTL),
    "FLOWKEEP_PARK_AFTER": "0.5",
    "FLOWKEEP_STOP_GRACE": "0.3",
    "FLOWKEEP_CANCEL_GRACE": "0.3",
}
# By when something is in flight; the others act the first time.
TURNS = {"exec": 2, "renew": 2, "step": 2, "flush": 3, "watch": 3}
ACTIONS = {"crash": "", "stop": "", "block": f":{1.5 * TTL}", "sleep": ":0.3", "raise": "", "unknown": ""}
APART = (
    "drain.after_stop_accept",
    "migrate.mid",
    "retry.before_commit",
    "retry.after_commit_before_claim",
    "fork.before_commit",
    "fork.after_commit_before_reply",
    "bulk.before_step",
    "bulk.after_step_before_delivery",
    "workflow.before_commit",
    "workflow.after_commit_before_delivery",
)
"""They act only in a server that stops or starts; those of Retry, forks, workflows and bulks in tests of their own."""
LEFT_TO_CHANCE = ("claim", "purge")
"""Which of two replicas passes these, nobody knows."""
A_DAY = 3
LATE = ("lease lost", "lease not renewed")
"""What a server logs that stood still for too long, or its Postgres did; then what is in flight may begin again."""


def chosen(scenarios: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """All of them, or those of the day."""
    if os.environ.get("FLOWKEEP_TEST_FAILPOINTS") == "all":
        return scenarios
    shuffled = random.Random("failpoints").sample(scenarios, len(scenarios))
    begin = date.fromisoformat(os.environ[DAY]).toordinal() * A_DAY
    return [shuffled[(begin + number) % len(shuffled)] for number in range(A_DAY)]


EVERY = [
    (point, action)
    for action in ACTIONS
    for point, place in POINTS.items()
    if action in place.value and point not in APART
]
OF_A_PAIR = [
    (point, action) for point, action in EVERY if action in ("crash", "stop") and not point.startswith(LEFT_TO_CHANCE)
]


def spec(point: str, action: str) -> str:
    """What the server is told."""
    return f"{point}={action}{ACTIONS[action]}@{TURNS.get(point.partition('.')[0], 1)}"


def call(path: str, **fields: Any) -> dict[str, Any]:
    """A step that calls the world."""
    params = {"url": f"${{ input.url }}/{path}", "method": "POST", "json": {}}
    return {"id": path, "handler": "call_api", "params": params, **fields}


def pause(duration: str) -> dict[str, Any]:
    """A step that waits for a timer."""
    return {"id": "pause", "handler": "wait", "params": {"duration": duration}}


WORKFLOWS = {
    "calls": [call("first"), pause("0.1s"), call("second")],
    "parks": [pause("0.7s"), call("third")],
    "once": [call("once", delivery="AT_MOST_ONCE", on_error="CONTINUE")],
    "held": [call("held")],
    "gone": [{"id": "text", "handler": "transform", "params": {"value": "gone"}}],
}
ORDERS = ("calls", "parks", "calls", "once", "parks", "calls", "held")
ENDS = {"held": Execution.STATE_CANCELLED}


class FailingServer(ServerProcess):
    """A server that fails on purpose."""

    def __init__(self, folder: Path, failpoint: str, settings: Mapping[str, str] = SETTINGS) -> None:
        armed = {"FLOWKEEP_FAILPOINTS": failpoint, "FLOWKEEP_ENVIRONMENT": "test"}
        super().__init__(folder, settings={**settings, **armed})

    async def died(self) -> int:
        """Return its exit code when it has ended by itself."""
        code, _ = await self._gone()
        return code


class Traffic:
    """Executions of every kind, watched from their start, by callers that repeat what the server did not answer."""

    def __init__(self, client: Client, effects: EffectServer) -> None:
        self._client = client
        self._effects = effects
        self._gate = effects.hold("/held")
        self.sent = asyncio.Event()
        self.watchers: list[tuple[str, Watcher]] = []
        self._task = asyncio.create_task(self._run())

    async def check(self, dsn: str, *servers: ServerProcess) -> None:
        """Assert, when all has ended, that nothing was lost and nothing done that need not be, as these servers say."""
        async with asyncio.timeout(PATIENCE):
            await self._task
        self._gate.opened.set()
        for workflow, watcher in self.watchers:
            finished = (await check_watch(self._client, watcher))[-1].finished
            assert finished.state == ENDS.get(workflow, Execution.STATE_COMPLETED), (workflow, finished)
        await self._check_rows(dsn)
        self._check_effects(sum(server.log.count(line) for server in servers for line in LATE))

    async def _run(self) -> None:
        for workflow in ORDERS:
            execution = await self._execute(workflow)
            self.watchers.append((workflow, Watcher(self._client, execution)))
        gone = await self._execute("gone")
        self.sent.set()
        await self._gate.arrived.wait()
        await self._client.cancel(self.watchers[-1][1].execution_id, "held no longer")
        assert await self._client.result(gone) == {"text": "gone"}
        await self._delete("gone", gone)

    async def _execute(self, workflow: str) -> str:
        # The client sends it again, under the same id, for as long as the server is away.
        request = execute_request(workflow, {"url": self._effects.url}, request_id=str(uuid4()))
        return str((await self._client.start(request)).execution.execution_id)

    async def _delete(self, workflow: str, execution_id: str) -> None:
        """Delete a workflow, and return when it has taken its execution with it."""
        with suppress(NotFoundError):
            while True:
                with suppress(UnavailableError):
                    await self._client.delete_workflow(workflow, force=True)
                await asyncio.sleep(0.05)
        with suppress(NotFoundError):
            while True:
                await self._client.get_execution(execution_id)
                await asyncio.sleep(0.05)

    async def _check_rows(self, dsn: str) -> None:
        connection = await asyncpg.connect(dsn)
        kept = await connection.fetchval("SELECT array_agg(id::text) FROM executions")
        leftover = await connection.fetchval(
            "SELECT count(*) FROM events v WHERE NOT EXISTS (SELECT FROM executions e WHERE e.id = v.execution_id)"
        )
        await connection.close()
        assert sorted(kept) == sorted(watcher.execution_id for _, watcher in self.watchers)
        assert leftover == 0

    def _check_effects(self, late: int) -> None:
        keys = self._effects.by_key()
        of_path = {path: [calls for calls in keys.values() if calls[0].path == path] for path in self._paths()}
        assert {path: len(found) for path, found in of_path.items() if path != "/once"} == {
            "/first": 3,
            "/second": 3,
            "/third": 2,
            "/held": 1,
        }
        assert sum(map(len, of_path["/once"])) <= 1
        # One fault, and what the machine adds to it: no step was in flight at more than those.
        assert max(map(len, keys.values())) <= 2 + late

    def _paths(self) -> set[str]:
        return {"/first", "/second", "/third", "/held", "/once"}


@pytest_asyncio.fixture(scope="session")
async def stocked(prepared: Path) -> AsyncIterator[Path]:
    """A data folder with the workflows, for copies."""
    with new_folder("flowkeep-e2e-") as folder:
        server = ServerProcess(folder)
        await copy_data(prepared, server.data_dir)
        await server.start()
        async with Client(server.target) as client:
            for name, steps in WORKFLOWS.items():
                output = {"text": "${ steps.text.output }"} if name == "gone" else {}
                await client.create_workflow({"name": name, "steps": steps, "output": output})
        await server.terminate()
        await server.close()
        yield server.data_dir


@pytest.mark.parametrize(("point", "action"), chosen(EVERY))
async def test_nothing_is_lost_at(stocked: Path, folder: Path, effects: EffectServer, point: str, action: str) -> None:
    failing = FailingServer(folder, spec(point, action))
    server: ServerProcess = failing
    await copy_data(stocked, server.data_dir)
    await server.start()
    async with Client(server.target, timeout=PATIENCE) as client:
        traffic = Traffic(client, effects)
        try:
            if action == "crash":
                assert await failing.died() == CRASHED
                await failing.close()
                server = ServerProcess(folder, settings=SETTINGS)
                server.is_healthy = False  # it has to find what the one before left behind
                await server.start()
            elif action == "stop":
                await outlast_the_lease(failing.pid)
            await traffic.check(server.dsn, server)
        finally:
            await server.close()
            print(server.log[-6000:])
    assert f"failpoint {point}: {action}" in server.log
    if action not in ("raise", "unknown"):
        assert not server.complaints


@pytest.mark.parametrize(("point", "action"), chosen(OF_A_PAIR))
async def test_nothing_is_lost_between_two_at(
    stocked: Path, folder: Path, effects: EffectServer, point: str, action: str
) -> None:
    """Beside a replica on the same database, which takes over what the failing one drives."""
    await copy_data(stocked, folder / "data")
    (folder / "beside").mkdir()
    with EmbeddedPostgres(folder / "data") as postgres:
        settings = {**SETTINGS, "FLOWKEEP_DATABASE_URL": postgres.dsn()}
        failing = FailingServer(folder, spec(point, action), settings)
        servers: list[ServerProcess] = [failing, ServerProcess(folder / "beside", settings=settings)]
        async with AsyncExitStack() as stack:
            for server in servers:
                server.is_healthy = False  # what one leaves behind, the other has to find
                stack.push_async_callback(server.close)
                await server.start()
            traffic = Traffic(await stack.enter_async_context(Client(failing.target, timeout=PATIENCE)), effects)
            if action == "crash":
                assert await failing.died() == CRASHED
                servers.append(ServerProcess(folder, settings=settings))
                servers[-1].is_healthy = False
                stack.push_async_callback(servers[-1].close)
                await servers[-1].start()
            else:
                await outlast_the_lease(failing.pid)
            await traffic.check(postgres.dsn(), failing, servers[1])
    for server in servers:
        print(server.log[-6000:])
        assert not server.complaints


def test_a_run_beside_midnight_has_the_tests_of_one_day(monkeypatch: pytest.MonkeyPatch) -> None:
    days = ("2026-11-30", "2026-12-01", "2026-11-30")
    monkeypatch.delenv("FLOWKEEP_TEST_FAILPOINTS", raising=False)
    found = []
    for day in days:
        monkeypatch.setenv(DAY, day)
        found.append(chosen(EVERY))
    assert found[0] == found[2] != found[1]


async def outlast_the_lease(pid: int) -> None:
    """Wait until the process stands still, leave it so until its lease is over, and let it go on."""
    process = psutil.Process(pid)
    async with asyncio.timeout(PATIENCE):
        while process.status() != psutil.STATUS_STOPPED:  # noqa: ASYNC110 - another process signals nothing
            await asyncio.sleep(0.02)
    await asyncio.sleep(1.5 * TTL)
    process.send_signal(signal.SIGCONT)


async def test_nothing_is_lost_in_the_middle_of_a_stop(stocked: Path, folder: Path, effects: EffectServer) -> None:
    failing = FailingServer(folder, "drain.after_stop_accept=crash")
    await copy_data(stocked, failing.data_dir)
    await failing.start()
    async with Client(failing.target, timeout=PATIENCE) as client:
        traffic = Traffic(client, effects)
        await traffic.sent.wait()
        code, _ = await failing.terminate()
        assert code == CRASHED
        await failing.close()
        server = ServerProcess(folder, settings=SETTINGS)
        server.is_healthy = False  # it has to find what the one before left behind
        await server.start()
        try:
            await traffic.check(server.dsn, server)
        finally:
            await server.close()
    assert not server.complaints


async def test_a_migration_that_broke_off_begins_again(prepared: Path, folder: Path, effects: EffectServer) -> None:
    failing = FailingServer(folder, "migrate.mid=crash")
    await copy_data(prepared, failing.data_dir)
    emptied = await flowkeep("migrate", "--to", "base", "--yes", "--data-dir", str(failing.data_dir))
    assert emptied.code == 0, emptied
    broken = await flowkeep(
        *("serve", "--listen", failing.target, "--data-dir", str(failing.data_dir)),
        settings={"FLOWKEEP_FAILPOINTS": "migrate.mid=crash", "FLOWKEEP_ENVIRONMENT": "test"},
    )
    assert (broken.code, broken.out) == (CRASHED, "")

    server = ServerProcess(folder)
    await server.start()
    async with Client(server.target) as client:
        await client.create_workflow({"name": "calls", "steps": WORKFLOWS["calls"]})
        execution = await client.execute("calls", {"url": effects.url})
        assert (await fresh_watch(client, execution.execution_id))[-1].finished.state == Execution.STATE_COMPLETED
    await server.close()
    assert not server.complaints


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"FLOWKEEP_FAILPOINTS": "flush.before_commit=crash"}, "FLOWKEEP_ENVIRONMENT=test"),
        ({"FLOWKEEP_FAILPOINTS": "flush.never=crash", "FLOWKEEP_ENVIRONMENT": "test"}, "flush.before_commit"),
    ],
    ids=["outside-of-tests", "unknown-name"],
)
async def test_the_server_refuses(folder: Path, settings: dict[str, str], complaint: str) -> None:
    refused = await flowkeep("serve", "--listen", f"unix:{folder / 's'}", settings=settings)
    assert (refused.code, refused.out) == (2, "")
    assert complaint in refused.err
    assert not (folder / "s").exists()
