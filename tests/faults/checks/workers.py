"""Whether what workers say counts once, and only from the one that has the attempt: ST4 for workers."""

from __future__ import annotations

from collections.abc import Iterator

from flowkeep.payload import from_value
from flowkeep.v1.event_pb2 import ExecutionEvent
from tests.faults.checks.violations import ENDS_OF_STEPS, Violation
from tests.faults.harness.records import REMOTE, Record


def check_replays(record: Record) -> Iterator[Violation]:
    """ST4, ST6: the result of an attempt that its worker had lost is refused, and nobody knows how a step ended that
    may not be called again."""
    for replay in record.replays:
        if replay.is_recorded:
            text = f"step {replay.step}: the old result of attempt {replay.attempt} was called recorded"
            yield Violation("ST4", replay.execution_id, text)
        row = record.rows.get(replay.execution_id)
        facts = record.programs.get(row.workflow, {}).get(replay.step) if row else None
        if row is None or facts is None or facts.delivery != "AT_MOST_ONCE":
            continue
        for event in row.events:
            if event.path == replay.step and event.kind == "step_failed":
                code = ExecutionEvent.FromString(event.body).step_failed.failure.code
                if code != "OUTCOME_UNKNOWN":
                    text = f"step {replay.step} may run once, lost its worker, and failed with {code}"
                    yield Violation("ST6", replay.execution_id, text)


def check_results(record: Record) -> Iterator[Violation]:
    """ST4: the result of a worker is that of the last attempt, which called the world outside itself."""
    called = {(effect.execution_id, effect.step, effect.attempt) for effect in record.effects}
    for row in record.rows.values():
        facts, last = record.programs.get(row.workflow, {}), dict[str, int]()
        for event in row.events:
            if event.path not in facts or facts[event.path].handler != REMOTE:
                continue
            if event.kind == "step_started":
                last[event.path] = event.attempt
            elif event.kind == "step_completed":
                output = from_value(ExecutionEvent.FromString(event.body).step_completed.output)
                given, attempt = output.get("attempt"), last.get(event.path, 0)
                if given != attempt:
                    text = f"step {event.path}: attempt {attempt} completed with the result of attempt {given}"
                    yield Violation("ST4", row.execution_id, text)
                if (row.execution_id, event.path, attempt) not in called:
                    text = f"step {event.path}: attempt {attempt} completed, and was never called"
                    yield Violation("ST4", row.execution_id, text)


def check_completed(record: Record) -> Iterator[Violation]:
    """EX7: where nothing was cancelled and no handler fails, everything completes, and each step is recorded once."""
    for row in record.rows.values():
        if row.state != "COMPLETED":
            yield Violation("EX7", row.execution_id, f"is {row.state}, and nothing but COMPLETED can come of it")
        for path in record.programs[row.workflow]:
            ends = [event.kind for event in row.events if event.path == path and event.kind in ENDS_OF_STEPS]
            if ends != ["step_completed"]:
                yield Violation("EX7", row.execution_id, f"step {path} has the ends {ends}")
