"""Makes the state of an execution from what is stored of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from immutables import Map

from persistence.model import ExecutionDetail, ExecutionState, Step
from service.engine.definition import Definition
from service.engine.failure import Failure
from service.engine.planning.heap import Heap
from service.engine.planning.state import OPEN, Ending, Free, State, Timer, facts, newest, variables

_CANCEL_SEEN = frozenset({ExecutionState.CANCELLING, ExecutionState.CANCELLED})


def restore(definition: Definition, detail: ExecutionDetail, worker: str = "") -> State:
    """Return the state that was recorded, for the process `worker`. Variables are folded from what steps assigned."""
    execution, ending = detail.execution, detail.execution.ending
    steps = newest(detail.steps)
    may_begin = execution.state is ExecutionState.RUNNING and ending is None
    ready, met = _ready(definition, steps) if may_begin else (Heap[Free](), Map[str, int]())
    return State(
        facts=facts(execution),
        input=detail.input,
        timeout=execution.timeout,
        counts=execution.counts,
        state=execution.state,
        steps=Map(steps),
        vars=variables(detail.steps),
        progress=execution.progress,
        last_seq=execution.last_seq,
        start_time=execution.start_time,
        end_time=execution.end_time,
        deadline_time=execution.deadline_time,
        scheduled_time=execution.scheduled_time,
        ending=Ending(ending.state, Failure.from_json(ending.failure)) if ending else None,
        # A wish on the row that the planner has not seen is none of its state.
        cancel=execution.cancel if execution.state in _CANCEL_SEEN else None,
        failure=Failure.from_json(execution.failure) if execution.failure else None,
        result=detail.result,
        worker=worker,
        bytes=execution.bytes,
        open=Map({path: step for path, step in steps.items() if step.state in OPEN}),
        ready=ready,
        met=met,
        timers=Heap(_timers(definition, steps)),
    )


def _ready(definition: Definition, steps: Mapping[str, Step]) -> tuple[Heap[Free], Map[str, int]]:
    """Return the steps that are free to begin, and of others how many that they wait for have ended."""
    ready, met = Heap[Free](), dict[str, int]()
    for step in definition.root.steps:
        if step.id in steps:
            continue
        waits_for = definition.root.predecessors[step.id]
        ended = sum(before in steps and steps[before].state.is_end for before in waits_for)
        if ended == len(waits_for):
            ready = ready.push(((definition.positions[step.id],), step.id))
        elif ended:
            met[step.id] = ended
    return ready, Map(met)


def _timers(definition: Definition, steps: Mapping[str, Step]) -> Iterator[Timer]:
    for path, step in steps.items():
        if step.state in OPEN and step.wait is not None and step.wait.wake_time is not None:
            yield step.wait.wake_time, (definition.positions[path],), path
