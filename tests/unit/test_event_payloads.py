"""Where a stored event holds its large payload: what stores keep once, and put back byte for byte."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from flowkeep.payload import to_struct, to_value
from persistence.model import LARGE_PAYLOAD, ExecutionState, StepCounts
from service.api.events import encode
from service.engine import events
from service.engine.failure import Failure

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
