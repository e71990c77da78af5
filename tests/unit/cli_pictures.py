"""An execution as its events tell it, and paper for what the commands print of it."""

import io
from datetime import UTC, datetime, timedelta
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp
from rich.console import Console

from flowkeep import to_struct, to_value
from flowkeep.definition import definition
from flowkeep.v1 import event_pb2 as pb
from flowkeep.v1.execution_pb2 import Execution, Failure, StepCounts, Wait

ID = "01930000-0000-7000-8000-000000000000"
START = datetime(2026, 11, 21, 8, 0, tzinfo=UTC)
BROKEN = Failure(code="HTTP_STATUS_5XX", message="the answer was 503")

DEFINITION = definition(
    {
        "name": "onboarding",
        "ordering": "GRAPH",
        "steps": [
            {"id": "fetch", "handler": "call_api", "display_name": "Fetch it"},
            {"id": "fan_out", "handler": "transform"},
            {"id": "never", "handler": "transform"},
            {"id": "pause", "handler": "wait"},
            {"id": "last", "handler": "transform"},
        ],
    }
)


def stamp(seconds):
    time = Timestamp()
    time.FromDatetime(START + timedelta(seconds=seconds))
    return time


def recorded():
    """The events of an execution that meets everything."""
    kinds: list[tuple[float, int, dict[str, Any]]] = [
        (0.0, 0, {"created": pb.ExecutionCreated(workflow_name="onboarding", revision=3, owner="ada")}),
        (0.1, 0, {"started": pb.ExecutionStarted(deadline_time=stamp(3600))}),
        (0.1, 0, {"step_started": pb.StepStarted(path="fetch", handler="call_api", attempt=1)}),
        (
            1.0,
            0,
            {"step_progressed": pb.StepProgressed(path="fetch", attempt=1, progress_percent=40, message="sending")},
        ),
        (2.0, 0, {"step_retrying": pb.StepRetrying(path="fetch", attempt=1, failure=BROKEN, retry_time=stamp(3))}),
        (3.0, 0, {"step_started": pb.StepStarted(path="fetch", handler="call_api", attempt=2)}),
        (
            4.1,
            20,
            {"step_completed": pb.StepCompleted(path="fetch", iteration=1, attempt=2, output=to_value({"n": 3}))},
        ),
        (4.1, 20, {"variables_assigned": pb.VariablesAssigned(path="fetch", vars=to_struct({"total": 3}))}),
        (4.2, 20, {"step_started": pb.StepStarted(path="fan_out[0].part", handler="transform", attempt=1)}),
        (4.2, 40, {"step_skipped": pb.StepSkipped(path="never", reason="its condition was false")}),
        (4.3, 40, {"step_waiting": pb.StepWaiting(path="pause", wait=Wait(wake_time=stamp(60)))}),
        (5.0, 40, {"cancelling": pb.ExecutionCancelling(cancelled_by="ada", reason="enough\x1b[2J")}),
        (5.1, 40, {"step_cancelled": pb.StepCancelled(path="pause", attempt=1)}),
        (5.2, 60, {"step_failed": pb.StepFailed(path="last", attempt=3, failure=BROKEN)}),
        (5.5, 60, {}),  # a kind of a later version
        (
            6.1,
            60,
            {"finished": pb.ExecutionFinished(state=Execution.STATE_CANCELLED, failure=Failure(code="CANCELLED"))},
        ),
    ]
    return [
        pb.ExecutionEvent(
            seq=seq,
            transition_seq=seq,
            time=stamp(at),
            progress_percent=percent,
            step_counts=StepCounts(total=5),
            **kind,
        )
        for seq, (at, percent, kind) in enumerate(kinds, 1)
    ]


def paper(**options):
    """A console, and what it prints on."""
    file = io.StringIO()
    return Console(file=file, highlight=False, _environ={}, **options), file


def text_of(*renderables, width=120):
    console, file = paper(width=width)
    for renderable in renderables:
        console.print(renderable, crop=False)
    return file.getvalue()
