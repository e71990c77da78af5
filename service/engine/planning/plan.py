"""What follows from a happening."""

from __future__ import annotations

import msgspec

from persistence.model import Message, Step
from persistence.people import NewTask, TaskChange
from service.engine.planning.effects import Effect
from service.engine.planning.events import Event
from service.engine.planning.state import State


class Plan(msgspec.Struct, frozen=True):
    """What follows from a happening: the state after it, and what to record, store and do.

    `steps` are those that changed. Effects may be carried out only when the rest is durable; but what has no effect
    outside may start when it is on its way. `is_partial`: some of what follows was put off, so that nobody else has to
    wait for all of it; let Continued happen. `work` is what applying it was, in the units of `expressions/cost.py`.
    `consumed` is the message that it has seen, also where nothing else follows from it. `has_decided`: the end of the
    execution, which is to be recorded also where all that it ends was put off. `tasks` of people are to be made, and
    those of earlier plans changed; steps tell of each. `gives_up`: a step has waited long enough for signals.
    """

    state: State
    events: tuple[Event, ...] = ()
    steps: tuple[Step, ...] = ()
    effects: tuple[Effect, ...] = ()
    is_partial: bool = False
    work: int = 0
    consumed: tuple[Message, ...] = ()
    has_decided: bool = False
    tasks: tuple[NewTask, ...] = ()
    task_changes: tuple[TaskChange, ...] = ()
    gives_up: bool = False

    @property
    def is_empty(self) -> bool:
        """Whether nothing is to be recorded or done: the happening was stale, early or came after the end.

        One that is partial has worked something out all the same, which its state keeps, and is to be continued.
        """
        return not (self.events or self.steps or self.effects or self.consumed or self.has_decided)
