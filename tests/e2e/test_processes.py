"""`flowkeep serve --processes 2`: replicas that share an address, a database, and the process that keeps them.

Holds EX1, EX7 and the kill -9 and SIGTERM of CONTRACT 2.5 for processes of one server.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import psutil
import pytest
import pytest_asyncio

from flowkeep import Client
from flowkeep.v1.execution_pb2 import Execution
from tests.e2e.effects import EffectServer
from tests.e2e.history import check_history, fresh_watch
from tests.e2e.process import ServerProcess, copy_data, flowkeep, running
from tests.e2e.test_crash import call
from tests.patience import PATIENCE
from tests.processes import outliving

TTL = 6
PACE = {"FLOWKEEP_LEASE_TTL": str(TTL), "FLOWKEEP_LOG_LEVEL": "debug"}
"""Seconds, so that the executions of a dead process are soon another's, and a machine that stands still for a second
takes nothing away; the log says which process took a call."""
OF_ITS_OWN = [("grpc.use_local_subchannel_pool", 1)]
"""A connection for each client: the kernel deals out connections, not calls."""
MOST_CONNECTIONS = 64


@pytest_asyncio.fixture
async def pair(prepared: Path, folder: Path) -> AsyncIterator[ServerProcess]:
    """A server of two processes."""
    two = ServerProcess(folder, "--processes", "2", listen="127.0.0.1:0", settings=PACE)
    async with running(two, prepared) as server:
        yield server


def replicas(server: ServerProcess) -> list[psutil.Process]:
    """The processes that serve."""
    return [child for child in psutil.Process(server.pid).children() if _serves(child)]


def _serves(process: psutil.Process) -> bool:
    try:
        return "service.cli.replica" in process.cmdline()
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return False


def said(server: ServerProcess, event: str) -> list[dict[str, Any]]:
    """What was logged under a name."""
    entries = [json.loads(line) for line in server.log.splitlines() if line.startswith("{") and line.endswith("}")]
    return [entry for entry in entries if entry["event"] == event]


async def until(holds: Callable[[], bool]) -> None:
    """Return when something holds that only the log or the table of processes tells of."""
    async with asyncio.timeout(PATIENCE):
        while not holds():  # noqa: ASYNC110 - other processes signal nothing
            await asyncio.sleep(0.02)


async def client_of_each(server: ServerProcess, stack: AsyncExitStack) -> dict[int, Client]:
    """Clients by the id of the process that they are connected to, one for each."""
    found: dict[int, Client] = {}
    wanted = {process.pid for process in replicas(server)}
    for _ in range(MOST_CONNECTIONS):
        client = await stack.enter_async_context(Client(server.target, options=OF_ITS_OWN))
        before = len(said(server, "call"))
        await client.list_page(page_size=1)
        await until(lambda: len(said(server, "call")) > before)  # noqa: B023 - called at once
        found.setdefault(said(server, "call")[-1]["pid"], client)
        if found.keys() == wanted:
            return found
    raise AssertionError(f"{MOST_CONNECTIONS} connections reached {found.keys()} of {wanted}")


def two_calls(effects: EffectServer) -> dict[str, Any]:
    """A workflow with two effects."""
    return {"name": "two", "steps": [call(effects, "first"), call(effects, "second", "first")]}


async def check_all(client: Client, execution_ids: list[str]) -> None:
    """Assert that each execution completes, with a sound history."""
    for execution_id in execution_ids:
        events = await fresh_watch(client, execution_id)
        check_history(events)
        assert events[-1].finished.state == Execution.STATE_COMPLETED


async def test_both_drive_and_all_completes(pair: ServerProcess, effects: EffectServer) -> None:
    async with AsyncExitStack() as stack:
        clients = await client_of_each(pair, stack)
        one, other = clients.values()
        await one.create_workflow(two_calls(effects))
        started = await asyncio.gather(*(client.execute("two") for client in (one, other) for _ in range(20)))
        # Each is asked about all, whoever drives them.
        await check_all(one, [execution.execution_id for execution in started])
        await check_all(other, [execution.execution_id for execution in started])

    assert len(effects.calls) == 80
    finished = said(pair, "execution finished")
    assert {entry["pid"] for entry in finished} == set(clients)
    assert len({entry["execution_id"] for entry in finished}) == 40


async def test_a_killed_process_comes_back_and_everything_ends(pair: ServerProcess, effects: EffectServer) -> None:
    gate = effects.hold("/second")
    async with AsyncExitStack() as stack:
        clients = await client_of_each(pair, stack)
        victim, client = next(iter(clients.items()))
        await client.create_workflow(two_calls(effects))
        started = await asyncio.gather(*(each.execute("two") for each in clients.values() for _ in range(5)))
        await until(lambda: len(effects.of("/second")) == 10)
        psutil.Process(victim).kill()
        gate.opened.set()

        await until(lambda: len(replicas(pair)) == 2 and bool(said(pair, "process serves again")))
        assert victim not in {process.pid for process in replicas(pair)}
        await check_all(client, [execution.execution_id for execution in started])
        # The new process takes calls like the other.
        assert len(await client_of_each(pair, stack)) == 2
    # Only the calls that were in flight in the dead process were made again.
    assert {path: len(effects.of(path)) for path in ("/first", "/second")} == {"/first": 10, "/second": 15}
    ended = said(pair, "process ended; starting it again")
    assert [(entry["child"], entry["code"]) for entry in ended] == [(victim, -9)]


async def test_a_stop_ends_all_in_order(pair: ServerProcess, effects: EffectServer) -> None:
    effects.hold("/first")
    family = psutil.Process(pair.pid).children(recursive=True)
    async with Client(pair.target) as client:
        await client.create_workflow(two_calls(effects))
        await client.execute("two")
        await until(lambda: bool(effects.of("/first")))
        code, rest = await pair.terminate()

    assert code == 0
    assert rest.endswith("Stopped.\n")
    assert not outliving(family, 0)
    assert len(said(pair, "stopping")) == 2


async def test_nothing_outlives_a_killed_keeper(pair: ServerProcess, effects: EffectServer) -> None:
    gate = effects.hold("/first")
    family = psutil.Process(pair.pid).children(recursive=True)
    async with Client(pair.target) as client:
        await client.create_workflow(two_calls(effects))
        execution = await client.execute("two")
        await gate.arrived.wait()
        if psutil.LINUX:  # which ends even what stands still
            replicas(pair)[0].suspend()
        await pair.kill9()
        assert not outliving(family, PATIENCE)

        gate.opened.set()
        await pair.restart()
        assert len(replicas(pair)) == 2
        await check_all(client, [execution.execution_id])


@pytest.mark.parametrize("processes", ["1", "2"])
async def test_the_address_is_held_against_others(pair: ServerProcess, folder: Path, processes: str) -> None:
    arguments = ("serve", "--listen", pair.target, "--data-dir", str(folder / "other"), "--processes", processes)
    refused = await flowkeep(*arguments)
    assert (refused.code, refused.out) == (2, "")
    assert f"Error: FLOWKEEP_LISTEN={pair.target}: cannot listen there" in refused.err


async def test_a_process_that_cannot_start_is_told_once(prepared: Path, folder: Path) -> None:
    await copy_data(prepared, folder / "data")
    arguments = ("serve", "--listen", "127.0.0.1:0", "--data-dir", str(folder / "data"), "--processes", "2")
    refused = await flowkeep(*arguments, "--handlers", "no_such_module")
    assert (refused.code, refused.out) == (2, "")
    (line,) = refused.err.splitlines()
    assert line.startswith("Error: cannot load 'no_such_module'")


async def test_a_unix_socket_is_of_one_process(folder: Path) -> None:
    refused = await flowkeep("serve", "--listen", f"unix:{folder / 's'}", "--processes", "2")
    assert (refused.code, refused.out) == (2, "")
    assert "a unix socket belongs to one process" in refused.err
