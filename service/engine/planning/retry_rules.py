"""How an execution goes on after its end: the rule of a retry in place.

No step begins by it. What may is ready in the state that it gives, which is the one that `restore` makes of the rows
after its commit; so whoever claims the execution then goes on as after any takeover.
"""

from __future__ import annotations

from collections import Counter

from immutables import Map
from msgspec.structs import replace

from persistence.model import ExecutionState, StepCounts
from service.engine.clock import later
from service.engine.definition import Definition
from service.engine.payload import size
from service.engine.planning import events, happenings
from service.engine.planning.draft import COUNTED, EVENT_BYTES
from service.engine.planning.events import Event
from service.engine.planning.reopened import finding_earlier
from service.engine.planning.restoring import StoredCourse
from service.engine.planning.state import State
from service.engine.slices import Work


def reopening(definition: Definition, state: State, happening: happenings.Reopened) -> Work[tuple[State, Event]]:
    """Return the first state and event of the next run of an execution that has ended in one of RETRIABLE_STATES."""
    time, seq = max(happening.time, state.end_time or happening.time), state.last_seq + 1
    newest = {**state.steps, **state.earlier}
    earlier = yield from finding_earlier(definition, newest, seq)
    steps = {path: step for path, step in newest.items() if path not in earlier}
    course = StoredCourse(definition, steps, earlier, seq, is_ending=False)
    yield from course.read()
    counts = StepCounts(state.counts.total, **Counter(COUNTED[step.state] for step in steps.values()))
    deadline = later(time, happening.timeout or state.timeout)
    by, reason, edit = happening.by, happening.reason, happening.edit
    reopened = events.Reopened(state.run + 1, by, reason, deadline, edit, happening.bulk_id)
    written = EVENT_BYTES + (size(happening.edit.value) if happening.edit is not None else 0)
    after = replace(
        state,
        state=ExecutionState.RUNNING,
        run=state.run + 1,
        reopened_seq=seq,
        edit=happening.edit,
        pause=None,
        steps=Map(steps),
        earlier=Map(earlier),
        counts=counts,
        last_seq=seq,
        start_time=state.start_time or time,
        end_time=None,
        deadline_time=deadline,
        failure=None,
        result=None,
        bytes=state.bytes + written,
        time=time,
        open=Map(),
        running=Map(),
        awaited=Map(),
        ready=course.ready,
        blocks=Map(course.blocks),
        repeats=Map(course.repeats),
    )
    return after, Event(seq, seq, time, state.progress, counts, reopened)
