"""What is mutated, by part, and the tests that should notice: those that take seconds first, then the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Part:
    """A part of the code, as patterns of files, and its tests in stages; a stage runs when those before it passed."""

    files: Sequence[str]
    stages: Sequence[Sequence[str]]


_COURSES = [
    "tests/integration/test_execution_course.py", "tests/integration/test_cancel.py",
    "tests/integration/test_execute_wait.py", "tests/integration/test_steps.py",
]  # fmt: skip

PARTS = {
    "planning": Part(
        ["service/engine/planning/*.py"],
        [["tests/unit/test_planner*.py", "tests/unit/test_heap.py", "tests/unit/test_event_payloads.py",
          "tests/unit/test_states.py"],
         ["tests/simulation/test_simulation.py"], _COURSES],
    ),
    "running": Part(
        ["service/engine/running/*.py"],
        [["tests/unit/test_recovery.py", "tests/unit/test_lease_*.py", "tests/unit/test_loop.py",
          "tests/unit/test_handler_suspension.py", "tests/unit/test_turns.py", "tests/unit/test_attempt.py"],
         ["tests/simulation/test_simulation.py"],
         [*_COURSES, "tests/integration/test_takeovers.py", "tests/integration/test_stopping.py",
          "tests/integration/test_unreliable_store.py"],
         ["tests/integration/test_threads.py", "tests/integration/test_frozen.py",
          "tests/integration/test_blocked_loop.py", "tests/integration/test_loop_watch.py",
          "tests/integration/test_spoilt_rows.py", "tests/integration/test_purge.py",
          "tests/integration/test_mistakes.py", "tests/integration/test_restart.py"]],
    ),
    "watch": Part(
        ["service/engine/watch.py"],
        [["tests/unit/test_watch.py"],
         ["tests/integration/test_watch_api.py", "tests/integration/test_client_watch.py",
          "tests/integration/test_streams.py", "tests/integration/test_execute_wait.py"]],
    ),
    "commit": Part(
        ["persistence/postgres/commit/*.py"],
        [["tests/unit/test_statements.py", "tests/unit/test_records.py"],
         ["tests/conformance"],
         ["tests/integration/test_committer.py", "tests/integration/test_durability.py",
          "tests/integration/test_sharing.py", "tests/integration/test_spoilt_requests.py",
          "tests/integration/test_requests.py", *_COURSES]],
    ),
}  # fmt: skip
