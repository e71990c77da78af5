"""What the attacker's process does as a client: it executes what is much work, and waits for it."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import grpc

import flowkeep
from flowkeep.channel import call_metadata
from flowkeep.v1 import execution_service_pb2 as pb
from flowkeep.v1.execution_pb2 import EXECUTION_VIEW_FULL, Execution
from flowkeep.v1.execution_service_pb2_grpc import ExecutionServiceStub
from tests.hostile.attacker import LONGEST
from tests.patience import PATIENCE


async def ended(target: str, token: str, name: str, payload: dict[str, Any], definition: dict[str, Any]) -> Execution:
    """Run a workflow, and return its execution when that has ended."""
    async with flowkeep.Client(target, token=token, timeout=LONGEST) as client:
        await client.apply([{"name": name, **definition}])
        return await client.execute(name, payload, wait=True, view=EXECUTION_VIEW_FULL)


async def woken(target: str, token: str, name: str, payload: dict[str, Any], count: int) -> list[Any]:
    """Execute a workflow so often that all are woken at once, and return their results."""
    async with flowkeep.Client(target, token=token, timeout=LONGEST) as client:
        delayed = [await client.execute(name, payload, start_delay=0.5) for _ in range(count)]
        return list(await asyncio.gather(*(client.result(execution.execution_id) for execution in delayed)))


async def read_large(
    target: str, token: str, name: str, execution_id: str, gets: int
) -> tuple[list[pb.ListExecutionsResponse], Counter[str]]:
    """Page through the executions of a workflow in full, and get one of them so often meanwhile.

    Return the pages, and what came of the calls that got it.
    """
    pages, answers = list[pb.ListExecutionsResponse](), Counter[str]()

    async def get(stub: Any) -> None:
        request = pb.GetExecutionRequest(execution_id=execution_id)
        try:
            await stub.GetExecution(request, metadata=call_metadata(token), timeout=PATIENCE)
            answers["OK"] += 1
        except grpc.aio.AioRpcError as error:
            answers[error.code().name] += 1

    async with (
        grpc.aio.insecure_channel(target) as channel,
        flowkeep.Client(target, token=token, timeout=LONGEST) as client,
    ):
        getting = [asyncio.ensure_future(get(ExecutionServiceStub(channel))) for _ in range(gets)]
        while not pages or pages[-1].next_page_token:
            following = pages[-1].next_page_token if pages else ""
            pages.append(await client.list_page(workflow=name, view=EXECUTION_VIEW_FULL, page_token=following))
        await asyncio.gather(*getting)
    return pages, answers
