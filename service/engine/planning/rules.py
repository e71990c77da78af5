"""What all rules have: the draft, the time, the work that may be done, and what the definition says of steps."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from persistence.model import Step, StepKey
from service.engine import paths
from service.engine.definition import Definition, Delivery, StepSpec
from service.engine.expressions import Allowance, PutOffError
from service.engine.failure import Failure
from service.engine.planning.draft import Draft
from service.engine.planning.effects import Answer, Effect
from service.engine.planning.happenings import OfAttempt
from service.engine.planning.state import State, runs

ENOUGH = 512 << 10
"""Bytes after which nothing more begins in an application: its events go to watchers in one message."""


class Rules:
    """Changes a draft of the next state, and gathers effects.

    It is `time` or later, at most `latest`. `allowance` is the work of one application; what does not fit into it is
    put off before anything of it is changed.
    """

    def __init__(self, definition: Definition, state: State, time: datetime, latest: datetime) -> None:
        self.definition = definition
        self.time = time
        self.latest = latest
        self.draft = Draft(definition, state, time)
        self.allowance = Allowance()
        self.is_put_off = False
        self.effects: list[Effect] = []
        self.rendered: tuple[StepKey, Any] | None = None
        """What the first attempt of the step is called with that begins next, where that is known already."""
        self._enough = self.draft.bytes + ENOUGH

    def begin_part(self) -> None:
        """Begin another part of the work. Raises PutOffError when this application has done or written enough."""
        if self.draft.bytes >= self._enough:
            raise PutOffError
        self.allowance.begin()

    def running(self, told: OfAttempt) -> Step | None:
        """Return the step if this attempt of it is the one that runs here; what is told of others is stale."""
        step = self.draft.steps.get(told.path)
        if step is None or not runs(step) or self.draft.is_inherited(step):
            return None
        return step if (step.iteration, step.attempt) == (told.iteration, told.attempt) else None

    def is_ending(self, step: Step) -> bool:
        """Return whether the step is to end, whatever comes of it, because of others or of all."""
        return self.draft.is_ending(paths.split(step.path)[0])

    def is_to_pause(self, step: Step) -> bool:
        """Return whether an attempt of the step is stopped by a pause, and made again after it."""
        pause = self.draft.state.pause
        is_hard = self.draft.is_paused and pause is not None and pause.is_hard
        return is_hard and self.spec(step).delivery is not Delivery.AT_MOST_ONCE

    def scope(self, step: Step) -> str:
        """Return the scope of a step."""
        return paths.split(step.path)[0]

    def spec(self, step: Step) -> StepSpec:
        """Return the step in the definition."""
        return self.definition.places[paths.place(step.path)]

    def answer_to(self, step: Step) -> Answer | None:
        """Return what stands in the place of what a step gives next, None where it runs."""
        dry_run = self.draft.state.dry_run
        if dry_run is None:
            return None
        mock = dry_run.mock_of(step.path, paths.place(step.path), self.spec(step).handler)
        if mock is None:
            return None
        if (failing := mock.failing(step.failures)) is None:
            return Answer(mock.output)
        failure = Failure(failing.code, failing.message, failing.details, retryable=failing.retryable)
        return Answer(failure=failure)

    @property
    def skips_waits(self) -> bool:
        """Whether no time is waited for."""
        return self.draft.state.dry_run is not None and self.draft.state.dry_run.skips_waits
