"""How an execution is paused, goes on after that, and is ended without waiting for what runs."""

from __future__ import annotations

from datetime import timedelta

from persistence.breakpoints import halting
from persistence.model import ExecutionState, Message, Pause, Step
from service.engine.clock import later
from service.engine.planning import events
from service.engine.planning.block_rules import BlockRules
from service.engine.planning.breakpoint_rules import halt_of
from service.engine.planning.happenings import wish, workflow_pause
from service.engine.planning.reasons import stopped_by_pause
from service.engine.planning.state import Sweep, terminated

_GOING = frozenset({ExecutionState.PENDING, ExecutionState.RUNNING})


class PauseRules(BlockRules):
    """Holds an execution, and lets it go on.

    While it is paused nothing begins: what is ready stays ready, an attempt that would be made is due, and what is due
    stays due. So there is nothing to be remembered of it but that it is paused. What ran may end, which is recorded;
    the root block does not close.
    """

    def pause(self, message: Message) -> None:
        """Let nothing begin from here on. A hard pause also stops what may be made again.

        Where a breakpoint or the workflow holds it already, what somebody asks for by Pause takes the place of that.
        """
        state, body, pause_id = self.draft.state, message.body, workflow_pause(message)
        is_joined = self.draft.is_paused and state.pause is not None and state.pause.is_joinable and not pause_id
        if state.ending is not None or not (state.state in _GOING or is_joined):
            return
        (_, reason, bulk_id), is_hard = wish(message), body.get("hard") is True
        stops_deadline = body.get("stop_deadline") is True
        pause = Pause(message.sender, reason, self.time, is_hard, stops_deadline, workflow_pause_id=pause_id)
        self.hold(pause, state.pause.step if state.pause is not None else "", bulk_id)
        if is_hard:
            self.draft.sweeps += (Sweep(),)
            self.is_sweeping = True

    def resume(self, message: Message) -> bool:
        """Let the execution go on; returns whether it was paused. The resume of a workflow ends its own pause alone."""
        state, pause_id = self.draft.state, workflow_pause(message)
        if not self.draft.is_paused or state.pause is None:
            return False
        if pause_id and state.pause.workflow_pause_id != pause_id:
            return False
        deadline = state.deadline_time
        if deadline is not None and state.pause.stops_deadline:
            deadline = later(deadline, max(timedelta(), self.time - state.pause.time).total_seconds())
        (halt, step), (by, reason, bulk_id) = halt_of(message.body), wish(message)
        self.draft.record(events.Resumed(by, reason, deadline, halt, step, bulk_id, pause_id))
        has_started = state.start_time is not None
        now = ExecutionState.RUNNING if has_started else ExecutionState.PENDING
        breakpoints = halting(state.breakpoints, message.sender, halt, step)
        self.draft.change(state=now, deadline_time=deadline, breakpoints=breakpoints)
        self.let_go()
        self.goes_on = self.goes_on or has_started
        return True

    def terminate(self, message: Message) -> None:
        """Decide that the execution ends now: what runs is told to stop, and nobody waits until it has."""
        by, reason, bulk_id = wish(message)
        self.draft.record(events.Cancelling(by, reason, terminated=True, bulk_id=bulk_id))
        self.draft.change(state=ExecutionState.CANCELLING, pause=None)
        self.end(terminated(by, reason))

    def put_back(self, step: Step) -> bool:
        """Let an attempt that a pause has stopped be made again; returns whether one has.

        It may stop only after the resume: then the next one begins at once, and it counts as little.
        """
        if self.draft.is_stopping_attempt(step) or self.is_to_pause(step):
            self.begin_anew(step, stopped_by_pause(step))
            return True
        return False
