"""How much work a piece of code is, by its thread's processor time: the same beside whatever else a machine does."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from contextlib import contextmanager

PIECE = 0.0006
"""Seconds that a piece of work of ours takes on a machine that does nothing else."""


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Assert that what runs inside is no more work than a machine that does nothing else has done in that time.

    No garbage is collected meanwhile: a collection costs by what the tests before have left, not by what runs inside.
    """
    gc.disable()
    begun = time.thread_time()
    try:
        yield
        spent = time.thread_time() - begun
    finally:
        gc.enable()
    if spent > seconds:
        spent /= slowness()
    assert spent <= seconds, f"this was {spent:.3f} s of work, {seconds} at most"


def slowness() -> float:
    """Return how many times longer work takes at this moment than by itself: what others do slows processors, too."""
    times = []
    for _ in range(5):
        begun = time.thread_time()
        assert len({str(number): [number] for number in range(4_000)}) == 4_000
        times.append(time.thread_time() - begun)
    return max(1.0, sorted(times)[2] / PIECE)
