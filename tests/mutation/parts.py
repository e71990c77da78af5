"""What is mutated, by part, and the tests that should notice."""

from __future__ import annotations

PARTS = {
    "planning": ["service/engine/planning/*.py"],
    "running": ["service/engine/running/*.py"],
    "watch": ["service/engine/watch.py"],
    "commit": ["persistence/postgres/commit/*.py"],
}
"""Patterns of files."""

TESTS = ["tests/unit", "tests/conformance", "tests/integration"]
"""What is run: of these the tests that call what is mutated. Each is recorded apart."""

ELSEWHERE = ["tests/simulation/test_simulation.py"]
"""Those that run the code in processes of their own, so that nobody knows what they call: they come last."""
