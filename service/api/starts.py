"""What a request of Execute asks for, wire to domain."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flowkeep import payload
from flowkeep.v1 import execution_service_pb2 as pb
from persistence.dry_runs import DryRun
from service.api.breakpoints import read_breakpoints
from service.api.times import seconds
from service.engine.requests import StartRequest


def start_request(
    request: pb.ExecuteRequest, given: Mapping[str, Any] | None = None, dry_run: DryRun | None = None
) -> StartRequest:
    """Return a request in the engine's terms. `given` is its input, where that was read before, as `dry_run` is."""
    return StartRequest(
        workflow=request.workflow,
        revision=request.revision,
        input=payload.from_struct(request.input) if given is None else given,
        request_id=request.request_id,
        tags=tuple(request.tags),
        labels=dict(request.labels),
        priority=request.priority if request.HasField("priority") else None,
        correlation_id=request.correlation_id,
        start_delay=seconds(request.start_delay),
        timeout=seconds(request.timeout) if request.HasField("timeout") else None,
        breakpoints=read_breakpoints(request.breakpoints),
        dry_run=dry_run,
    )
