"""What is known of services: one read at a time, kept for a while, and none that failed for another caller."""

from __future__ import annotations

import asyncio

import pytest
from google.protobuf.descriptor_pool import DescriptorPool

from service.calls.descriptors import Schema
from service.calls.schemas import Schemas
from service.engine.handlers.model import HandlerError


class Source:
    """Reads that the test lets end."""

    def __init__(self) -> None:
        self.reads = 0
        self.begun = asyncio.Event()
        self.gate = asyncio.Event()
        self.errors: list[HandlerError] = []

    async def read(self) -> Schema:
        self.reads += 1
        self.begun.set()
        await self.gate.wait()
        if self.errors:
            raise self.errors.pop(0)
        return Schema(DescriptorPool(), 100)


async def test_callers_at_the_same_time_share_a_read() -> None:
    schemas, source = Schemas(), Source()
    callers = [asyncio.create_task(schemas.get("a", source.read)) for _ in range(3)]
    await source.begun.wait()
    callers[0].cancel()
    source.gate.set()
    first, second, third = await asyncio.gather(*callers, return_exceptions=True)
    assert isinstance(first, asyncio.CancelledError)
    assert second is third is await schemas.get("a", source.read)
    assert source.reads == 1
    await schemas.get("b", source.read)
    assert source.reads == 2


async def test_what_is_forgotten_or_too_old_is_read_again() -> None:
    source = Source()
    source.gate.set()
    schemas = Schemas()
    await schemas.get("a", source.read)
    schemas.forget("a")
    await schemas.get("a", source.read)
    assert source.reads == 2
    schemas = Schemas(lifetime=0.0)
    await schemas.get("a", source.read)
    await schemas.get("a", source.read)
    assert source.reads == 4


@pytest.mark.parametrize(("retryable", "reads"), [(True, 1), (False, 2)])
async def test_read_that_failed_for_good_is_made_again_by_the_others(retryable: bool, reads: int) -> None:
    schemas, source = Schemas(), Source()
    source.errors = [HandlerError("GRPC_UNAUTHENTICATED", retryable=retryable)]
    callers = [asyncio.create_task(schemas.get("a", source.read)) for _ in range(2)]
    await source.begun.wait()
    source.gate.set()
    first, second = await asyncio.gather(*callers, return_exceptions=True)
    assert isinstance(first, HandlerError)
    assert isinstance(second, HandlerError) is retryable
    assert source.reads == reads


async def test_close_ends_what_is_read() -> None:
    schemas, source = Schemas(), Source()
    caller = asyncio.create_task(schemas.get("a", source.read))
    await source.begun.wait()
    await schemas.close()
    with pytest.raises(asyncio.CancelledError):
        await caller
