"""The bytes of stored events, and where they hold a large payload: stores keep it once, and put it back as it was."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from flowkeep.payload import to_struct, to_value
from flowkeep.v1.event_pb2 import ExecutionEvent, StepCompleted, StepStarted
from flowkeep.v1.execution_pb2 import Usage as UsageMessage
from persistence.model import LARGE_PAYLOAD, ExecutionState, StepCounts
from persistence.usage import MOST, Usage
from service.api.event_reading import decode
from service.api.events import counts_message, encode
from service.api.times import timestamp
from service.engine.failure import Failure
from service.engine.planning import events

LARGE = {"z": "x" * LARGE_PAYLOAD, "a": [1, 2.5, None]}
FAILURE = Failure("X", "m", LARGE, retryable=True)
NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (events.StepCompleted("s", 1, LARGE), to_value(LARGE)),
        (events.StepStarted("s", "h", 1, "w", LARGE), to_struct(LARGE)),
        (events.VariablesAssigned("s", LARGE), to_struct(LARGE)),
        (events.StepRetrying("s", 1, FAILURE, NOW), to_struct(LARGE)),
        (events.StepFailed("s", 1, FAILURE), to_struct(LARGE)),
        (events.Finished(ExecutionState.COMPLETED, LARGE, None), to_value(LARGE)),
        (events.StepCompleted("s", 1, {"a": 1}), None),
        (events.StepSkipped("s", "x" * LARGE_PAYLOAD), None),
    ],
    ids=lambda given: type(given).__name__,
)
def test_a_large_payload_is_found_in_the_body(body: Any, message: Any):
    stored = encode(events.Event(7, 7, NOW, 0, StepCounts(1), body))
    if message is None:
        assert stored.payload is None
    else:
        assert stored.payload is not None
        begin, end = stored.payload
        assert stored.body[begin:end] == message.SerializeToString(deterministic=True)


@pytest.mark.parametrize("time", [NOW, datetime(1, 1, 1, tzinfo=UTC), datetime(2026, 1, 1, 0, 0, 0, 1, UTC)])
@pytest.mark.parametrize("seq", [1, 127, 128, 300, 2**40])
@pytest.mark.parametrize("counts", [StepCounts(), StepCounts(500, 1, 2, 3, 4, 200)])
@pytest.mark.parametrize("progress", [0, 99])
def test_a_body_is_what_protobuf_writes(time: datetime, seq: int, counts: StepCounts, progress: int):
    body = events.StepStarted("fan_out[3].fetch", "call_api", 2, "host:1", {"a": [1, {}]})
    stored = encode(events.Event(seq, seq + 2, time, progress, counts, body))
    message = ExecutionEvent(
        seq=seq,
        transition_seq=seq + 2,
        time=timestamp(time),
        progress_percent=progress,
        step_counts=counts_message(counts),
        step_started=StepStarted(
            path=body.path,
            handler=body.handler,
            attempt=body.attempt,
            worker=body.worker,
            input=to_struct(body.input),
            iteration=body.iteration,
        ),
    )
    assert stored.body == message.SerializeToString(deterministic=True)
    assert (stored.kind, stored.seq, stored.transition_seq, stored.time) == ("step_started", seq, seq + 2, time)


def test_a_completion_with_what_its_attempt_used_is_what_protobuf_writes():
    body = events.StepCompleted("a", 2, {"n": 3}, 4, Usage(7, 2**40, MOST))
    stored = encode(events.Event(1, 1, NOW, 0, StepCounts(1), body))
    told = ExecutionEvent.FromString(stored.body)
    assert stored.body == told.SerializeToString(deterministic=True)
    usage = UsageMessage(input_tokens=7, output_tokens=2**40, cost_micros=MOST)
    assert told.step_completed == StepCompleted(
        path="a", attempt=2, output=to_value({"n": 3}), iteration=4, usage=usage
    )
    less = ExecutionEvent.FromString(stored.body)
    less.step_completed.usage.cost_micros = -1
    assert decode(stored) == events.Event(1, 1, NOW, 0, StepCounts(1), body)
    assert decode(replace(stored, body=less.SerializeToString())) is None
