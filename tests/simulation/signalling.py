"""A signal that was acknowledged has come once, and is taken by one step or kept (ST14): told by events and rows."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any
from uuid import UUID

from flowkeep.payload import from_value
from flowkeep.v1.event_pb2 import ExecutionEvent
from tests.simulation.folding import opened
from tests.simulation.runs import Runs

if TYPE_CHECKING:
    from tests.simulation.world import World

NAME = "go"
"""Of all signals."""
GROUP = "group-"
"""With what the correlation ids begin of executions that signals start."""


def check_signals(world: World) -> Iterator[str]:
    """Give signals that are lost, come or are taken twice, and steps that gave up although one was there."""
    runs = Runs(world)
    for execution_id, row in world.database.tables.executions.items():
        messages = opened(row.events)
        came = [each.signal_received.signal_id for each in messages if each.HasField("signal_received")]
        acknowledged = {
            answer.detail
            for answer in world.history.answers
            if (answer.kind, answer.outcome, answer.execution_id) == ("signal", "ok", execution_id)
        }
        is_cancelled = runs.was_cancelled(execution_id)
        problems = [f"signal {each} was kept, and never came" for each in sorted(acknowledged - {*came})]
        problems = [] if is_cancelled else problems
        problems += [f"signal {each} came {n} times" for each, n in Counter(came).items() if n > 1]
        problems += _taken(messages, {signal.id for signal in row.signals})
        yield from (f"ST14: {problem} ({execution_id})" for problem in problems)


def check_signal_starts(world: World) -> Iterator[str]:
    """Give executions that a signal started beside another one, and those that started without it (ST15)."""
    runs, begun = Runs(world), dict[UUID, float]()
    for write in world.history.writes:
        row = world.database.tables.executions.get(write.execution_id)
        if write.base_seq or row is None or not row.execution.correlation_id.startswith(GROUP):
            continue
        begun[write.execution_id] = write.committed
        if all(event.kind != "signal_received" for event in write.events):
            yield f"ST15: {write.execution_id} was kept without the signal that started it"
    rows = world.database.tables.executions
    for one, other in itertools.permutations(begun, 2):
        is_same = rows[one].execution.correlation_id == rows[other].execution.correlation_id
        end = runs.end(one, 1)
        if is_same and begun[one] <= begun[other] and (end is None or begun[other] < end[0]):
            yield f"ST15: {other} was started while {one} went on"


def _taken(messages: list[ExecutionEvent], kept: set[UUID]) -> Iterator[str]:
    here, gone = dict[str, None](), set[str]()
    for message in messages:
        kind = message.WhichOneof("kind") or ""
        body: Any = getattr(message, kind)
        if kind == "signal_received":
            here[body.signal_id] = None
        if kind not in ("step_completed", "step_failed"):
            continue
        if kind == "step_completed" and _has_given_up(from_value(body.output)) and here:
            yield f"step {body.path} gave up although a signal was there"
        for signal_id in body.signal_ids:
            if signal_id in gone:
                yield f"signal {signal_id} was taken once more, by {body.path}"
            elif signal_id not in here:
                yield f"signal {signal_id} was taken by {body.path} before it came"
            elif signal_id != next(iter(here)):
                yield f"signal {signal_id} was taken by {body.path} before one that came earlier"
            gone.add(signal_id)
            here.pop(signal_id, None)
    if {*map(UUID, here)} != kept:
        yield "the row keeps other signals than its events tell"


def _has_given_up(output: Any) -> bool:
    return isinstance(output, dict) and output.get("timed_out") is True
