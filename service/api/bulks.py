"""Operations in bulk, domain to wire and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from google.protobuf.json_format import MessageToDict, ParseDict

from flowkeep.v1 import bulk_service_pb2 as pb
from flowkeep.v1.bulk_pb2 import Bulk as BulkMessage
from flowkeep.v1.bulk_pb2 import BulkAction as ActionMessage
from flowkeep.v1.bulk_pb2 import BulkResult as ResultMessage
from flowkeep.v1.execution_service_pb2 import ExecutionFilter as ExecutionFilterMessage
from persistence.bulks import Bulk, BulkAction, BulkOutcome, BulkResult
from service.api.filters import execution_filter
from service.api.permissions import PERMISSIONS
from service.api.times import timestamp
from service.engine.bulk.bulks import Wanted
from service.engine.slices import Work
from service.engine.violations import violations_under

_COST = 500
"""Microseconds that the message of an operation takes, nearly all of them for its filter."""

_SINGLE: Mapping[BulkAction, str] = {
    BulkAction.CANCEL: "Cancel",
    BulkAction.PAUSE: "Pause",
    BulkAction.RESUME: "Resume",
    BulkAction.TERMINATE: "Terminate",
    BulkAction.RETRY: "Retry",
}


def permission_of(action: BulkAction) -> str:
    """Return the permission that an operation needs: that of the call for one execution."""
    return PERMISSIONS[f"/flowkeep.v1.ExecutionService/{_SINGLE[action]}"]


def wanted(request: pb.StartBulkRequest) -> Wanted:
    """Return what a request asks for. Raises ValidationError."""
    with violations_under("filter"):
        where = execution_filter(request.filter)
    return Wanted(
        action=BulkAction((request.action.WhichOneof("kind") or "").upper()),
        filter=where,
        asked=MessageToDict(request.filter, preserving_proto_field_name=True),
        options=_options(request.action),
        reason=request.reason,
        limit=request.limit,
        rate=request.rate,
        match_all=request.match_all,
    )


def bulk_message(bulk: Bulk) -> BulkMessage:
    """Return the message of an operation."""
    message = BulkMessage(
        bulk_id=str(bulk.id),
        state=BulkMessage.State.Value(f"STATE_{bulk.state.value}"),
        filter=ParseDict(dict(bulk.asked), ExecutionFilterMessage(), ignore_unknown_fields=True),
        reason=bulk.reason,
        created_by=bulk.created_by,
        create_time=timestamp(bulk.create_time),
        end_time=timestamp(bulk.end_time),
        limit=bulk.limit,
        rate=bulk.rate,
        matched_count=bulk.matched,
        matched_at_least=bulk.matched_more,
        done_count=bulk.counts[BulkOutcome.DONE],
        refused_count=bulk.counts[BulkOutcome.REFUSED],
        not_found_count=bulk.counts[BulkOutcome.NOT_FOUND],
        stopped_by=bulk.stopped_by,
    )
    action = getattr(message.action, bulk.action.value.lower())
    action.SetInParent()
    if bulk.action is BulkAction.PAUSE:
        action.hard, action.stop_deadline = bool(bulk.options.get("hard")), bool(bulk.options.get("stop_deadline"))
    elif bulk.action is BulkAction.RETRY and (timeout := bulk.options.get("timeout")):
        action.timeout.FromNanoseconds(round(float(timeout) * 1e9))
    return message


def making_bulk_message(bulk: Bulk) -> Work[BulkMessage]:
    """Make what `bulk_message` returns, in a slice of its own among many."""
    yield _COST
    return bulk_message(bulk)


def result_message(result: BulkResult) -> ResultMessage:
    """Return the message of what came of one execution."""
    outcome = ResultMessage.Outcome.Value(f"OUTCOME_{result.outcome.value}")
    return ResultMessage(execution_id=str(result.execution_id), outcome=outcome, reason=result.reason)


def _options(action: ActionMessage) -> Mapping[str, Any]:
    if action.HasField("pause"):
        return {"hard": action.pause.hard, "stop_deadline": action.pause.stop_deadline}
    if action.HasField("retry") and action.retry.HasField("timeout"):
        return {"timeout": action.retry.timeout.ToNanoseconds() / 1e9}
    return {}
