"""What became of the results that workers gave: they keep each until they are told."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from uuid import UUID

from persistence.model import Step, StepState
from service.engine.workers.model import AttemptId, Settle
from service.engine.workers.report import Report
from service.engine.workers.worker import Assignment, Worker

STALE = "STALE_ATTEMPT: the attempt is not, or no longer, the worker's to run; another one may have run"
DISCARDED = "the attempt was told to stop before its result came; it is discarded"
STEP_CANCELLED = "the step was cancelled; the result is discarded"

REMEMBERED = 20_000
"""Settled attempts of which is known what was said of them, for workers that did not hear it."""

Key = tuple[str, str, str]


class Results:
    """Settles results once it is in the store what became of them.

    `hold` keeps one for whoever drives its execution on, when this process does so no longer.
    """

    def __init__(self, hold: Callable[[Worker, AttemptId, Report], None]) -> None:
        self._hold = hold
        # Those on their way to the store, by execution.
        self._unsettled: dict[UUID, dict[AttemptId, Assignment]] = {}
        self._settled: OrderedDict[tuple[Key, AttemptId], Settle] = OrderedDict()

    def is_settled(self, worker: Key, attempt: AttemptId) -> bool:
        """Whether it is known what became of a result of a worker."""
        return (worker, attempt) in self._settled

    def came(self, worker: Worker, assignment: Assignment) -> None:
        """Settle the result of an attempt when it is recorded."""
        attempt = assignment.attempt
        worker.unsettled[attempt] = assignment
        self._unsettled.setdefault(attempt.execution_id, {})[attempt] = assignment

    def came_again(self, worker: Worker, attempt: AttemptId) -> None:
        """Say what became of a result that is not on its way: one of which nothing is known is stale."""
        if worker.link is not None:
            known = self._settled.get((worker.registration.key, attempt))
            worker.link.tell(known or Settle(attempt, is_recorded=False, message=STALE))

    def recorded(self, execution_id: UUID, steps: Iterable[Step]) -> None:
        """Take note that these steps of an execution are in the store: the attempts that they are past are settled."""
        waiting = self._unsettled.get(execution_id)
        if not waiting:
            return
        written: Mapping[str, Step] = {step.path: step for step in steps}
        for attempt, assignment in list(waiting.items()):
            step = written.get(attempt.path)
            if step is None or _is_running(step, attempt):
                continue
            if step.state is StepState.CANCELLED:
                self.refuse(assignment, STEP_CANCELLED)
            elif assignment.is_discarded:
                self.refuse(assignment, DISCARDED)
            else:
                self._settle(assignment, Settle(attempt, is_recorded=True))

    def dropped(self, execution_id: UUID) -> None:
        """Take note that this process drives an execution no longer: results of it are for whoever does."""
        for attempt, assignment in list(self._unsettled.get(execution_id, {}).items()):
            if assignment.is_discarded or assignment.worker is None:
                self.refuse(assignment, DISCARDED)
                continue
            self._forget(assignment)
            context = Report()
            context.answer = assignment.answer.result()
            self._hold(assignment.worker, attempt, context)

    def refuse(self, assignment: Assignment, message: str) -> None:
        """Settle a result that is of no use, and say why."""
        self._settle(assignment, Settle(assignment.attempt, is_recorded=False, message=message))

    def _settle(self, assignment: Assignment, said: Settle) -> None:
        self._forget(assignment)
        if assignment.worker is not None:
            self.settle(assignment.worker, said)

    def _forget(self, assignment: Assignment) -> None:
        attempt = assignment.attempt
        if assignment.worker is not None:
            assignment.worker.unsettled.pop(attempt, None)
        waiting = self._unsettled.get(attempt.execution_id, {})
        waiting.pop(attempt, None)
        if not waiting:
            self._unsettled.pop(attempt.execution_id, None)

    def settle(self, worker: Worker, said: Settle) -> None:
        """Tell a worker what became of a result, and remember it."""
        self._settled[worker.registration.key, said.attempt] = said
        if len(self._settled) > REMEMBERED:
            self._settled.popitem(last=False)
        if worker.link is not None:
            worker.link.tell(said)


def _is_running(step: Step, attempt: AttemptId) -> bool:
    current = step.iteration, step.attempt
    return step.state is StepState.RUNNING and current == (attempt.iteration, attempt.number)
