"""What executions are given that send nothing outside, as both stores keep it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec


class MockFailure(msgspec.Struct, frozen=True, omit_defaults=True):
    """How attempts of a step fail: the first `times` of them that count, or all of them where that is 0."""

    code: str
    message: str = ""
    details: Mapping[str, Any] = msgspec.field(default_factory=dict)
    retryable: bool = False
    times: int = 0


class Mock(msgspec.Struct, frozen=True, omit_defaults=True):
    """What stands in the place of a step: it fails so, or gives `output`, which it does once it has failed enough."""

    output: Any = None
    failure: MockFailure | None = None

    def failing(self, failures: int) -> MockFailure | None:
        """Return how an attempt fails that follows on so many that failed; None where it gives the output."""
        if self.failure is None or 0 < self.failure.times <= failures:
            return None
        return self.failure


class DryRun(msgspec.Struct, frozen=True, omit_defaults=True):
    """How an execution runs that sends nothing outside.

    `mocks` are those of steps, by a path, which is that of a step of one item, or by a place, which is that of each.
    `handlers` has those of all steps of a handler. `default` stands for those at the places `defaulted`, which may not
    run and have no other. With `skips_waits` no time is waited for.
    """

    mocks: Mapping[str, Mock] = msgspec.field(default_factory=dict)
    handlers: Mapping[str, Mock] = msgspec.field(default_factory=dict)
    default: Mock | None = None
    defaulted: tuple[str, ...] = ()
    skips_waits: bool = False

    def named(self, path: str, place: str, handler: str) -> Mock | None:
        """Return the mock that is meant for a step by its path, its place or its handler, the first of these."""
        return self.mocks.get(path) or self.mocks.get(place) or self.handlers.get(handler)

    def mock_of(self, path: str, place: str, handler: str) -> Mock | None:
        """Return the mock of a step, None of one that runs."""
        return self.named(path, place, handler) or (self.default if place in self.defaulted else None)
