"""Operations in bulk as people read them."""

from __future__ import annotations

from collections.abc import Iterable

from google.protobuf.json_format import MessageToDict
from rich.console import Group, RenderableType
from rich.text import Text

from flowkeep.definition import short_name
from flowkeep.v1.bulk_pb2 import Bulk, BulkResult
from service.cli.columns import Facts, FittingTable
from service.cli.rendering import clean, plain, time_text


def bulks_table(bulks: Iterable[Bulk]) -> FittingTable:
    """Return operations as rows."""
    table = FittingTable("ID", "STATE", "ACTION", "PROGRESS", "CREATED", "REASON", leave_out=("REASON", "CREATED"))
    for bulk in bulks:
        table.add_row(
            bulk.bulk_id,
            plain(_state(bulk)),
            plain(_action(bulk)),
            plain(_progress(bulk)),
            time_text(bulk.create_time),
            plain(bulk.reason),
        )
    return table


def results_table(results: Iterable[BulkResult]) -> FittingTable:
    """Return what came of executions as rows."""
    table = FittingTable("EXECUTION", "OUTCOME", "WHY", leave_out=("WHY",), wraps="WHY")
    for result in results:
        outcome = short_name(BulkResult.Outcome.DESCRIPTOR, result.outcome)
        table.add_row(result.execution_id, plain(outcome), plain(result.reason))
    return table


def bulk_view(bulk: Bulk) -> Group:
    """Return an operation with all that is known of it."""
    where = MessageToDict(bulk.filter, preserving_proto_field_name=True)
    parts: list[RenderableType] = [
        Facts(
            ("Operation", plain(bulk.bulk_id, "bold")),
            ("Action", plain(_action(bulk))),
            ("State", plain(_state(bulk))),
            ("Progress", plain(_progress(bulk))),
            ("Filter", plain(", ".join(f"{key}={_text(value)}" for key, value in where.items()))),
            ("Reason", plain(bulk.reason)),
            ("Created by", plain(bulk.created_by)),
            ("Created", time_text(bulk.create_time)),
            ("Ended", time_text(bulk.end_time)),
            ("Stopped by", plain(bulk.stopped_by)),
            ("Limit", str(bulk.limit)),
            ("Rate", f"{bulk.rate} a second" if bulk.rate else ""),
        )
    ]
    if not bulk.HasField("end_time"):
        parts += [Text(), plain(f"Follow it with: flowkeep bulk watch {bulk.bulk_id}", "dim")]
    elif bulk.refused_count:
        parts += [Text(), plain(f"See why with: flowkeep bulk results {bulk.bulk_id} --outcome REFUSED", "dim")]
    return Group(*parts)


def progress_line(bulk: Bulk) -> str:
    """Return how far an operation has come, in a line."""
    return f"{_action(bulk)} {_state(bulk)}: {_progress(bulk)}"


def _state(bulk: Bulk) -> str:
    return short_name(Bulk.State.DESCRIPTOR, bulk.state)


def _action(bulk: Bulk) -> str:
    return bulk.action.WhichOneof("kind") or ""


def _progress(bulk: Bulk) -> str:
    seen = bulk.done_count + bulk.refused_count + bulk.not_found_count
    others = ((bulk.refused_count, "refused"), (bulk.not_found_count, "not found"))
    rest = "".join(f", {count} {name}" for count, name in others if count)
    return f"{seen} of {'at least ' if bulk.matched_at_least else ''}{bulk.matched_count}{rest}"


def _text(value: object) -> str:
    return clean(",".join(value) if isinstance(value, list) else str(value)).replace("STATE_", "")
