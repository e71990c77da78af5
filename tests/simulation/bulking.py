"""An operation in bulk comes once to each execution, whoever carries it out (CA8)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any
from uuid import UUID

from persistence.bulks import BulkAction, BulkOutcome, BulkState
from persistence.memory.tables import BulkRow
from persistence.model import ExecutionState
from persistence.transition import CommitResult
from tests.simulation.database import BEGINNING
from tests.simulation.folding import opened

if TYPE_CHECKING:
    from tests.simulation.world import World

RETRIED = (ExecutionState.FAILED, ExecutionState.TIMED_OUT)
"""What is retried in bulk, unless the filter says more."""


def check_bulks(world: World) -> Iterator[str]:
    """Give operations that were lost or come twice, to an execution too, left one out, or went on when stopped."""
    tables, history = world.database.tables, world.history
    asked = Counter(row.bulk.reason for row in tables.bulks.values())
    for answer in history.answers:
        if answer.kind == "bulk" and asked[answer.detail] != (answer.outcome == "ok"):
            yield f"CA8: {answer.detail} was {answer.outcome}, and there are {asked[answer.detail]} of it"
    told: Counter[tuple[str, UUID]] = Counter()
    for execution_id, row in tables.executions.items():
        for message in opened(row.events):
            body: Any = getattr(message, message.WhichOneof("kind") or "")
            if bulk_id := getattr(body, "bulk_id", ""):
                told[bulk_id, execution_id] += 1
    for bulk_id, kept in tables.bulks.items():
        came = Counter(each.execution_id for each in kept.results)
        problems = [f"came {n} times to {each}" for each, n in came.items() if n > 1]
        problems += [
            f"asked {execution_id} {len(times)} times"
            for (by, execution_id), times in history.bulk_messages.items()
            if by == bulk_id and len(times) > 1
        ]
        problems += [f"happened {n} times to {each}" for (by, each), n in told.items() if by == str(bulk_id) and n > 1]
        problems += _ended_wrong(world, kept)
        problems += [f"left out {each}" for each in _left_out(world, kept)]
        for result in kept.results:
            is_done = result.outcome is BulkOutcome.DONE and kept.bulk.action is BulkAction.RETRY
            if is_done and not told[str(bulk_id), result.execution_id]:
                problems.append(f"did nothing to {result.execution_id}, of which it says that it is done")
        yield from (f"CA8: operation {bulk_id} {problem}" for problem in problems)


def _ended_wrong(world: World, kept: BulkRow) -> Iterator[str]:
    bulk = kept.bulk
    if bulk.state is BulkState.RUNNING:
        yield "has not ended"
    if bulk.under_way:
        yield f"has {len(bulk.under_way)} executions under way for ever"
    if bulk.counts != {outcome: sum(each.outcome is outcome for each in kept.results) for outcome in BulkOutcome}:
        yield "counts otherwise than its results do"
    for answer in world.history.answers:
        if answer.kind == "stop bulk" and answer.detail == str(bulk.id):
            late = [t for (by, _), ts in world.history.bulk_messages.items() if by == bulk.id for t in ts]
            if answer.outcome == "ok" and any(time > answer.time for time in late):
                yield f"asked something after its stop was acknowledged at {answer.time:.3f}"


def _left_out(world: World, kept: BulkRow) -> Iterator[UUID]:
    """Give executions that stood from its start to its end as it wanted them, and to which it did not come."""
    bulk, come_to = kept.bulk, {each.execution_id for each in kept.results}
    if bulk.state is not BulkState.COMPLETED or not bulk.left or bulk.end_time is None:
        return
    begin, end = ((time - BEGINNING).total_seconds() for time in (bulk.create_time, bulk.end_time))
    for execution_id, row in world.database.tables.executions.items():
        if row.execution.org != bulk.scope.org or execution_id in come_to:
            continue
        turns = _turns(world, execution_id)
        is_steady = not any(begin <= time <= end for time, _ in turns)
        before = [kind for time, kind in turns if time < begin]
        if not before or not is_steady:
            continue
        if bulk.action is BulkAction.TERMINATE and before[-1] != "finished":
            yield execution_id
        if bulk.action is BulkAction.RETRY and len(before) == len(turns) and row.execution.state in RETRIED:
            yield execution_id


def _turns(world: World, execution_id: UUID) -> list[tuple[float, str]]:
    """Return when an execution was made, ended and reopened."""
    return [
        (write.committed, event.kind)
        for write in world.history.writes
        if write.execution_id == execution_id and write.result is CommitResult.COMMITTED
        for event in write.events
        if event.kind in ("created", "finished", "reopened")
    ]
