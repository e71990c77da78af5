"""What a request of Retry asks for, wire to domain."""

from __future__ import annotations

from flowkeep.v1 import execution_service_pb2 as pb
from service.api.claims import WRITE_WORKFLOWS
from service.api.errors import invalid
from service.api.identity import current_identity
from service.api.payloads import read_struct, read_value
from service.api.times import seconds
from service.engine.retries import Change, Retry
from service.engine.slices import in_slices


async def read_retry(request: pb.RetryRequest) -> Retry:
    """Return what is asked for. Raises ValidationError for an edit without input, which no rule of the protos sees."""
    timeout = seconds(request.timeout) if request.HasField("timeout") else None
    return Retry(request.reason, timeout, await _change(request))


async def _change(request: pb.RetryRequest) -> Change | None:
    match request.WhichOneof("change"):
        case "edit":
            if not request.edit.HasField("input"):
                raise invalid("edit.input", "is required")
            may_move = current_identity.get().may(WRITE_WORKFLOWS)
            given = await in_slices(read_struct(request.edit.input))
            return Change(request.edit.path, given, moves_secrets=may_move)
        case "skip":
            return Change(request.skip.path, await in_slices(read_value(request.skip.output)), is_skip=True)
    return None
