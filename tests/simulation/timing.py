"""Timers by the store's time, which is the virtual time: none is early (I14)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC
from typing import TYPE_CHECKING, Any
from uuid import UUID

from google.protobuf.timestamp_pb2 import Timestamp

from flowkeep.v1.event_pb2 import ExecutionEvent
from persistence.transition import CommitResult
from service.engine.definition import LEAST_PAUSE
from service.engine.failure import INTERRUPTED
from tests.simulation.database import BEGINNING
from tests.simulation.folding import opened
from tests.simulation.link import LONGEST_LATENCY

if TYPE_CHECKING:
    from tests.simulation.world import World

ROUNDING = 2e-6
"""Seconds; the store keeps microseconds."""

LAG = LONGEST_LATENCY + 0.001
"""Seconds by which a replica's idea of the store's time may be behind: what an answer took at most (StoreClock)."""


def check_times(world: World) -> Iterator[str]:
    """Give every timer that fired before its time: start delays, waits, pauses before retries, deadlines."""
    decided: dict[UUID, list[float]] = {}
    for write in world.history.writes:
        if write.result is CommitResult.COMMITTED:
            decided.setdefault(write.execution_id, []).extend([write.decided] * len(write.events))
    for execution_id, row in world.database.tables.executions.items():
        messages = opened(row.events)
        times = decided.get(execution_id, [])
        if len(times) == len(messages):
            order = world.scenario.order_of(row.execution.correlation_id)
            delay = order.start_delay if row.execution.lineage is None else 0.0
            document = world.scenario.workflows[order.workflow].document
            timeout = order.timeout or document["timeout"]
            skips_waits = order.mocks_fail is not None and order.skips_waits
            delay = 0.0 if skips_waits else delay
            for problem in _early(messages, times, document, delay, timeout, skips_waits=skips_waits):
                yield f"I14: {problem} ({execution_id})"


def _early(
    messages: list[ExecutionEvent],
    times: list[float],
    document: Mapping[str, Any],
    delay: float,
    timeout: float,
    *,
    skips_waits: bool,
) -> Iterator[str]:
    steps = {step["id"]: step for step in document["steps"]}
    timers: dict[str, _Timer] = {"": _Timer("it was delayed", times[0], delay, messages[0].created.scheduled_time)}
    deadline: _Timer | None = None
    failures: dict[str, int] = {}
    for message, time in zip(messages, times, strict=True):
        kind = message.WhichOneof("kind") or ""
        path = getattr(message, kind).path if kind.startswith("step_") else ""
        match kind:
            case "started":
                if "" in timers:
                    yield from timers.pop("").judge(time)
                deadline = _Timer("it had a deadline", time, timeout, message.started.deadline_time)
            case "reopened":
                timers.clear()
                failures.clear()
                deadline = _Timer("it had a deadline", time, 0.0, message.reopened.deadline_time)
            case "step_waiting" if message.step_waiting.wait.HasField("breakpoint"):
                pass  # it has not begun to wait for a time
            case "step_waiting" if duration := _duration(steps[path]["params"]):
                timers[path] = _Timer(f"step {path} waited", time, duration, message.step_waiting.wait.wake_time)
            case "step_retrying" if message.step_retrying.failure.code != INTERRUPTED:  # after which there is no pause
                failures[path] = failures.get(path, 0) + 1
                pause = LEAST_PAUSE if skips_waits else _pause(steps[path], failures[path])
                timers[path] = _Timer(f"step {path} paused", time, pause, message.step_retrying.retry_time)
            case "step_completed" if message.step_completed.output.struct_value.fields["completed_by"].string_value:
                timers.pop(path, None)  # somebody did what it asked for before that was due
            case "step_started" | "step_completed":
                if path in timers:
                    yield from timers.pop(path).judge(time)
            case "finished":
                if message.finished.failure.code == "EXECUTION_TIMEOUT" and deadline is not None:
                    yield from deadline.judge(time)


@dataclass(frozen=True, slots=True)
class _Timer:
    """What was to last `duration` seconds from `begin`, and by the events until `due`."""

    what: str
    begin: float
    duration: float
    due: Timestamp

    def judge(self, end: float) -> Iterator[str]:
        """Give what is wrong when it ended at `end`."""
        due = seconds(self.due)
        if self.due.seconds and end < due - ROUNDING:
            yield f"{self.what} and fired at {end:.6f}, {due - end:.6f} s before its time"
        if end < self.begin + self.duration - LAG:
            yield f"{self.what} {end - self.begin:.3f} s of {self.duration}"


def seconds(time: Timestamp) -> float:
    """Return a time of the store in virtual seconds."""
    return (time.ToDatetime(UTC) - BEGINNING).total_seconds()


def _duration(params: Mapping[str, Any]) -> float | None:
    """Return how long a step waits that waits for a time, if nobody ends it before."""
    return params.get("duration") or params.get("due_in")


def _pause(step: Mapping[str, Any], failures: int) -> float:
    policy = step.get("retry_policy") or {}
    if not policy:
        return 0.0
    pause = policy["initial_interval"] * policy["backoff_coefficient"] ** (failures - 1)
    return float(min(pause, policy["max_interval"]))
