"""The example of one workflow over two gRPC services and a worker in each of three languages, all of them processes."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

import flowkeep
from flowkeep.v1.worker_service_pb2 import ListWorkersRequest
from flowkeep.v1.worker_service_pb2_grpc import WorkerServiceStub
from tests.clients.program import GO, LONGEST, TYPESCRIPT, started
from tests.folders import ROOT
from tests.integration.stage import Served, ended, eventually

EXAMPLE = ROOT / "clients" / "examples" / "order"
LABEL = TYPESCRIPT / "dist" / "examples" / "order" / "label.mjs"
INVOICE = GO / "flowkeep-go-invoice"
WORKERS: dict[str, Sequence[str | Path]] = {
    "pack": (sys.executable, EXAMPLE / "pack.py"),
    "invoice": (INVOICE,),
    "label": ("node", LABEL),
}
"""What runs the worker that has a handler."""

pytestmark = [
    pytest.mark.skipif(
        not (LABEL.exists() and INVOICE.exists()),
        reason="the workers of the example are not there, which `make clients` builds where Node and Go are",
    ),
    pytest.mark.timeout(600),
]


@asynccontextmanager
async def running(command: Sequence[str | Path], target: str = "") -> AsyncIterator[asyncio.subprocess.Process]:
    """A program of the example; what it has said is shown when a test fails."""
    process = await started(command, target)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        said, _ = await process.communicate()
        print(*command, said.decode(errors="replace"))


async def addresses(services: asyncio.subprocess.Process) -> dict[str, str]:
    """Return where the two services are, of which they say a line each."""
    assert services.stdout is not None
    found: dict[str, str] = {}
    async with asyncio.timeout(LONGEST):
        while len(found) < 2:
            name, _, address = (await services.stdout.readline()).decode().strip().partition(" at ")
            assert address, name
            found[name.lower()] = f"http://{address}"
    return found


async def connected(served: Served) -> None:
    """Return when the server has all three workers."""

    async def are_there() -> bool:
        workers = (await WorkerServiceStub(served.channel).ListWorkers(ListWorkersRequest())).workers
        return {name for each in workers for name in each.handlers} == set(WORKERS)

    await eventually(are_there)


async def test_an_order_goes_through_two_services_and_three_languages(serve: Any) -> None:
    served = await serve([])
    async with AsyncExitStack() as stack:
        nowhere = "127.0.0.1:0", "127.0.0.1:0"
        services = await stack.enter_async_context(running((sys.executable, EXAMPLE / "services.py", *nowhere)))
        places = await addresses(services)
        workers = [await stack.enter_async_context(running(each, served.target)) for each in WORKERS.values()]
        await connected(served)
        await served.client.apply(yaml.safe_load((EXAMPLE / "order.yaml").read_text(encoding="utf-8")))
        execution_id = (await served.client.execute("order", {"order": "o-17", **places})).execution_id
        done = await ended(served.client, execution_id)
        with pytest.raises(flowkeep.ExecutionFailedError, match="there is no order o-18"):
            await served.client.run("order", {"order": "o-18", **places})
        for each in workers:
            each.terminate()
        async with asyncio.timeout(LONGEST):
            assert [await each.wait() for each in workers] == [0, 0, 0]
    assert [step.path for step in done.steps] == ["fetch", "pack", "invoice", "charge", "label"]
    assert done.state == flowkeep.Execution.STATE_COMPLETED, done.failure
    assert flowkeep.from_value(done.result) == {
        "invoice": "1 x lamp 49.00\n10 x book 120.00\n2 x shipping 9.80\ntotal 178.80",
        "receipt": "r-1",
        "labels": ["Ann, Main Street 1, parcel 1 of 2, 3000 g", "Ann, Main Street 1, parcel 2 of 2, 2800 g"],
    }
