"""Makes the state of an execution from what is stored of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import datetime

from immutables import Map

from persistence.model import ExecutionDetail, Step, StepKey
from service.engine import paths
from service.engine.definition import Block, Definition, OnItemError, Repeat
from service.engine.failure import Failure
from service.engine.planning.assigned import gathering_variables
from service.engine.planning.course import entry, fatal, finder, is_fatal, records_of, standing
from service.engine.planning.heap import Heap
from service.engine.planning.reopened import finding_earlier, is_of_run, items_again
from service.engine.planning.scopes import order
from service.engine.planning.state import (
    OPEN,
    Ending,
    OpenBlock,
    Ready,
    Repeating,
    State,
    Timer,
    awaited_handler,
    awaited_signals,
    facts,
    finding_newest,
    runs,
)
from service.engine.slices import Work, in_one_go, parts

_LOOK = 3  # microseconds for a step of a block


def restore(definition: Definition, detail: ExecutionDetail, worker: str = "") -> State:
    """Return the state that was recorded, for the process `worker`. Variables are folded from what steps assigned."""
    return in_one_go(restoring(definition, detail, worker))


def restoring(definition: Definition, detail: ExecutionDetail, worker: str) -> Work[State]:
    """Do what `restore` does, in pieces: an execution may have ten thousands of steps."""
    execution, ending = detail.execution, detail.execution.ending
    newest = yield from finding_newest(detail.steps)
    earlier = yield from finding_earlier(definition, newest, execution.reopened_seq)
    steps = {path: step for path, step in newest.items() if path not in earlier} if earlier else newest
    course = StoredCourse(definition, steps, earlier, execution.reopened_seq, is_ending=ending is not None)
    if execution.start_time is not None and not execution.state.is_end:
        yield from course.read()
    kept, in_work = Map[str, Step]().mutate(), Map[str, Step]().mutate()
    listening: dict[str, dict[str, datetime]] = {}
    running, awaited, timers = Map[StepKey, int]().mutate(), Counter[str](), Heap[Timer]()
    for part in parts(list(steps.values())):
        for step in part:
            kept[step.path] = step
            if step.state in OPEN:
                in_work[step.path] = step
                if ending is None:
                    timers = _with_timer(timers, definition, step)
                if runs(step):
                    running[step.key] = step.attempt
                if handler := awaited_handler(step):
                    awaited[handler] += 1
                if step.wait is not None:
                    for name in awaited_signals(step):
                        listening.setdefault(name, {})[step.path] = step.wait.start_time
        yield _LOOK * len(part)
    opened = in_work.finish()
    return State(
        facts=facts(execution),
        input=detail.input,
        timeout=execution.timeout,
        counts=execution.counts,
        state=execution.state,
        steps=kept.finish(),
        vars=(yield from gathering_variables(detail)),
        progress=execution.progress,
        last_seq=execution.last_seq,
        start_time=execution.start_time,
        end_time=execution.end_time,
        deadline_time=execution.deadline_time,
        scheduled_time=execution.scheduled_time,
        is_held_back=execution.held_back,
        pause=execution.pause,
        breakpoints=execution.breakpoints,
        dry_run=detail.dry_run,
        ending=Ending(ending.state, Failure.from_json(ending.failure)) if ending else None,
        failure=Failure.from_json(execution.failure) if execution.failure else None,
        result=detail.result,
        worker=worker,
        bytes=execution.bytes,
        usage=execution.usage,
        signals=tuple(detail.signals),
        run=execution.run,
        reopened_seq=execution.reopened_seq,
        earlier=Map(earlier),
        edit=detail.edit,
        edited=dict(detail.edited),
        inherited=opened,
        open=opened,
        running=running.finish(),
        awaited=Map(awaited),
        listening=Map({name: Map(paths) for name, paths in listening.items()}),
        ready=course.ready,
        timers=timers,
        blocks=Map(course.blocks),
        repeats=Map(course.repeats),
    )


def _with_timer(timers: Heap[Timer], definition: Definition, step: Step) -> Heap[Timer]:
    if step.wait is None or step.wait.wake_time is None:
        return timers
    return timers.push((step.wait.wake_time, order(definition, step.path), step.path))


class StoredCourse:
    """Finds out which blocks are open, and what of them is ready, of the `steps` but for the `earlier` ones, which are
    to begin again in the run that began with the event of the number `reopened_seq`.
    """

    def __init__(
        self,
        definition: Definition,
        steps: Mapping[str, Step],
        earlier: Mapping[str, Step],
        reopened_seq: int,
        *,
        is_ending: bool,
    ) -> None:
        self.ready = Heap[Ready]()
        self.blocks: dict[str, OpenBlock] = {}
        self.repeats: dict[str, Repeating] = {}
        self._definition = definition
        self._steps = steps
        self._earlier = earlier
        self._reopened_seq = reopened_seq
        self._is_ending = is_ending
        self._items: dict[str, set[int]] = {}

    def read(self) -> Work[None]:
        """Do so, for an execution that has started and not ended."""
        for part in parts([*self._steps, *self._earlier]):
            for path in part:
                scope, _ = paths.split(path)
                if scope:
                    owner, index = paths.owner(scope)
                    self._items.setdefault(owner, set()).add(index)
            yield 2 * len(part)
        yield from self._read_block("", self._definition.root, is_ending=self._is_ending)

    def _read_block(self, scope: str, block: Block, *, is_ending: bool) -> Work[bool]:
        """Take a block unless it is closed; returns whether it is open."""
        yield _LOOK * len(block.steps)
        records = records_of(block, finder(self._steps, scope))
        begun = [step for step in records.values() if step is not None]
        left, in_work = len(records) - sum(step.state.is_end for step in begun), [s for s in begun if s.state in OPEN]
        has_failed = bool(scope) and any(is_fatal(block.by_id[paths.split(s.path)[1]], s) for s in begun)
        is_ending = is_ending or has_failed
        if scope and not in_work and (is_ending or left == 0):
            return False
        met, ready = standing(block, records)
        for path in () if is_ending else (paths.join(scope, step_id) for step_id in ready):
            self.ready = self.ready.push(entry(self._definition, path, is_repeating=False))
        self.blocks[scope] = OpenBlock(left, len(in_work), Map(met), has_failed)
        for step in in_work:
            action = block.by_id[paths.split(step.path)[1]].action
            if isinstance(action, Repeat):
                yield from self._read_repeat(step, action, is_ending=is_ending)
        return True

    def _read_repeat(self, step: Step, action: Repeat, *, is_ending: bool) -> Work[None]:
        begun = sorted(self._items.get(step.path, ()))
        again = items_again(action, step.path, begun, self._steps, self._is_of_run) if self._reopened_seq else ()
        left = frozenset(again)
        scopes = [paths.item(step.path, index) for index in begun if index not in left]
        failed = (yield from self._failed(scopes, action)) if action.on_item_error is OnItemError.STOP else ""
        is_stopping = is_ending or bool(failed)
        in_work = 0
        for scope in scopes:
            in_work += yield from self._read_block(scope, action.body, is_ending=is_stopping)
        total = len(step.input["items"])
        repeat = Repeating(total, action.max_parallel, begun[-1] + 1 if begun else 0, in_work, failed, again=again)
        self.repeats[step.path] = repeat
        if repeat.may_go_on and not is_stopping:
            self.ready = self.ready.push(entry(self._definition, step.path, is_repeating=True))

    def _is_of_run(self, step: Step) -> bool:
        return is_of_run(step, self._reopened_seq)

    def _failed(self, scopes: Iterable[str], action: Repeat) -> Work[str]:
        """Return the path of the step that has ended one of these items, empty when there is none."""
        for scope in scopes:
            yield len(action.body.steps)
            if (step := fatal(action.body, finder(self._steps, scope))) is not None:
                return step.path
        return ""
