"""What makes an execution a dry run, wire to domain."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flowkeep.v1 import dry_run_pb2 as pb
from persistence.dry_runs import DryRun, Mock, MockFailure
from service.api.errors import invalid
from service.api.payloads import read_struct, read_value
from service.engine.dry_runs import DEFAULT, HANDLERS, MOCKS, of_name
from service.engine.slices import in_slices


async def read_dry_run(given: pb.DryRun) -> DryRun:
    """Return what a message tells. Raises ValidationError for what no rule of the protos sees."""
    return DryRun(
        mocks=await _mocks(given.mocks, MOCKS),
        handlers=await _mocks(given.handlers, HANDLERS),
        default=await _mock(given.default_mock, DEFAULT) if given.HasField("default_mock") else None,
        skips_waits=given.skip_waits,
    )


async def _mocks(given: Mapping[str, pb.Mock], field: str) -> dict[str, Mock]:
    return {name: await _mock(given[name], of_name(field, name)) for name in sorted(given)}


async def _mock(given: pb.Mock, field: str) -> Mock:
    has_output, failure = given.HasField("output"), given.failure if given.HasField("failure") else None
    if not has_output and (failure is None or failure.times):
        when = "" if failure is None else ", for when it has failed so many times"
        raise invalid(f"{field}.output", f"is required{when}; null can be given, too")
    if has_output and failure is not None and not failure.times:
        raise invalid(f"{field}.failure.times", "is required with an output: how many attempts fail before it is given")
    output: Any = await in_slices(read_value(given.output)) if has_output else None
    return Mock(output, None if failure is None else await _failure(failure))


async def _failure(given: pb.MockFailure) -> MockFailure:
    details = await in_slices(read_struct(given.details))
    return MockFailure(given.code, given.message, details, given.retryable, given.times)
