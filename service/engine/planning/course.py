"""Which steps may begin, which are in work, and which blocks are open: kept along as steps change."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime

from immutables import Map
from msgspec.structs import replace

from persistence.model import Step, StepState
from service.engine import paths
from service.engine.definition import Block, Definition, OnError, Ordering, StepSpec
from service.engine.planning.scopes import block_of, order
from service.engine.planning.state import (
    OPEN,
    Ending,
    OpenBlock,
    Ready,
    Repeating,
    State,
    awaited_handler,
    awaited_signals,
    is_due,
    is_ending,
    is_stopping,
    runs,
)

MAX_ITEMS = 10_000
"""Items of one `for_each`; a number behind all of theirs in the order."""

MOST_FORGOTTEN = 500
"""Entries that one application forgets of what is no longer ready or due; the others are left to the next ones."""

WORK_OF_FORGETTING = 800
"""Work of forgetting one of them."""

# A cancelled step frees no other, and neither does one that has ended its block.
_DONE = frozenset(state for state in StepState if state.is_end and state is not StepState.CANCELLED)


class Course:
    """The part of a state in the making that follows from its steps; each change of a step changes little of it."""

    def __init__(self, definition: Definition, state: State, time: datetime) -> None:
        self.definition = definition
        self.state = state
        self.time = time
        self.steps, self.open, self.earlier = state.steps, state.open, state.earlier
        self.running, self.awaited, self.listening = state.running, state.awaited, state.listening
        self.ready, self.timers = state.ready, state.timers
        self.blocks, self.repeats = state.blocks, state.repeats
        self.sweeps, self.inherited, self.stopping = state.sweeps, state.inherited, state.stopping
        self.forgotten = 0
        """Entries that were forgotten of what was ready and of the timers."""

    @property
    def ending(self) -> Ending | None:
        """The end that the execution has been given."""
        return self.state.ending

    @property
    def is_paused(self) -> bool:
        """Whether nothing begins until the execution is resumed."""
        return self.state.is_paused

    def is_stopping_attempt(self, step: Step) -> bool:
        """Whether a pause has told the attempt of the step that runs to stop."""
        return self.stopping.get(step.key) == step.attempt

    def is_inherited(self, step: Step) -> bool:
        """Whether a step in work is as another process left it: an attempt of it that ran then was cut off."""
        return self.inherited.get(step.path) is step

    @property
    def may_forget(self) -> bool:
        """Whether more may be forgotten; else what comes first may be no longer ready, or due."""
        return self.forgotten < MOST_FORGOTTEN

    def is_ending(self, scope: str) -> bool:
        """Whether nothing begins any more in a scope, because of what failed in it or around it, or ended it all."""
        return is_ending(self, scope) if scope else self.state.ending is not None

    def is_stopping(self, path: str) -> bool:
        """Whether no more items of the step at a path begin, so that it ends when those that began have ended."""
        return is_stopping(self, path)

    # --- what a change of a step changes

    def follow(self, before: Step | None, step: Step) -> None:
        """Take a step as it is now, and as it was before."""
        self.steps = self.steps.set(step.path, step)
        if before is None and step.path in self.earlier:
            self.earlier = self.earlier.delete(step.path)
        was_open, is_open = before is not None and before.state in OPEN, step.state in OPEN
        has_ended = not is_open  # what is kept has begun
        if is_open:
            self.open = self.open.set(step.path, step)
            waited = before.wait.wake_time if before is not None and before.wait is not None else None
            if step.wait is not None and step.wait.wake_time is not None and step.wait.wake_time != waited:
                self.timers = self.timers.push((step.wait.wake_time, order(self.definition, step.path), step.path))
        elif was_open:
            self.open = self.open.delete(step.path)
            if step.path in self.repeats:
                self.repeats = self.repeats.delete(step.path)
        self._follow_attempt(before, step)
        if step.wait is not None or (before is not None and before.wait is not None):
            self._follow_wait(awaited_handler(before), awaited_handler(step))
            self._follow_signals(awaited_signals(before), step)
        if was_open != is_open or has_ended:
            scope, _ = paths.split(step.path)
            block = self.blocks[scope]
            changed = replace(block, open=block.open + is_open - was_open, left=block.left - has_ended)
            self.blocks = self.blocks.set(scope, changed)

    def _follow_attempt(self, before: Step | None, step: Step) -> None:
        if runs(step):
            self.running = self.running.set(step.key, step.attempt)
        elif before is not None and runs(before):
            key = before.key
            self.running = self.running.delete(key)
            if key in self.stopping:
                self.stopping = self.stopping.delete(key)

    def _follow_wait(self, before: str, handler: str) -> None:
        if handler == before:
            return
        if handler:
            self.awaited = self.awaited.set(handler, self.awaited.get(handler, 0) + 1)
        if before:
            left = self.awaited[before] - 1
            self.awaited = self.awaited.set(before, left) if left else self.awaited.delete(before)

    def _follow_signals(self, before: tuple[str, ...], step: Step) -> None:
        if (names := awaited_signals(step)) == before:
            return
        for name in before:
            left = self.listening[name].delete(step.path)
            self.listening = self.listening.set(name, left) if left else self.listening.delete(name)
        since = step.wait.start_time if step.wait is not None else self.time
        for name in names:
            others = self.listening.get(name, Map[str, datetime]())
            self.listening = self.listening.set(name, others.set(step.path, since))

    def listeners(self, name: str) -> list[Step]:
        """Return the steps that wait for a signal, the one that has waited longest first."""
        found = self.listening.get(name, Map[str, datetime]())
        return [self.open[path] for path in sorted(found, key=lambda path: (found[path], order(self.definition, path)))]

    # --- blocks and items

    def open_block(self, scope: str, block: Block) -> list[str]:
        """Open a block and return the steps of it that wait for none, as paths; of one that has begun in an earlier
        run, or of the root where steps are inherited, those that wait for none any more.
        """
        if not (self.state.reopened_seq or (self.steps and not scope)):
            self.blocks = self.blocks.set(scope, OpenBlock(len(block.steps)))
            return [paths.join(scope, step.id) for step in block.steps if not block.predecessors[step.id]]
        records = records_of(block, finder(self.steps, scope))
        met, ready = standing(block, records)
        left = len(records) - sum(step is not None and step.state.is_end for step in records.values())
        self.blocks = self.blocks.set(scope, OpenBlock(left, met=Map(met)))
        return [paths.join(scope, step_id) for step_id in ready]

    def end_block(self, scope: str) -> None:
        """Let no other step of a block begin."""
        self.blocks = self.blocks.set(scope, replace(self.blocks[scope], is_ending=True))

    def is_closed(self, scope: str) -> bool:
        """Return whether an open block has come to its end."""
        block = self.blocks[scope]
        return block.open == 0 and (block.left == 0 or self.is_ending(scope))

    def open_item(self, path: str, block: Block) -> list[str]:
        """Open the next item of a step, and return the steps in it that wait for none, as paths."""
        repeat = self.repeats[path]
        following = {"again": repeat.again[1:]} if repeat.again else {"next": repeat.next + 1}
        self.change_repeat(path, replace(repeat, open=repeat.open + 1, is_over=None, **following))
        return self.open_block(paths.item(path, repeat.following), block)

    def close_item(self, scope: str) -> Repeating:
        """Close the block of an item, and return what is left of the others."""
        path, _ = paths.owner(scope)
        repeat = self.repeats[path]
        self.blocks = self.blocks.delete(scope)
        return self.change_repeat(path, replace(repeat, open=repeat.open - 1))

    def change_repeat(self, path: str, repeat: Repeating) -> Repeating:
        """Keep what has become of the items of a step, which is ready if it may go on and was not."""
        before = self.repeats.get(path)
        self.repeats = self.repeats.set(path, repeat)
        if repeat.may_go_on and not (before is not None and before.may_go_on):
            self.free(path)
        return repeat

    # --- what is ready, and what is due

    def free(self, path: str) -> None:
        """Let a step be ready."""
        self.ready = self.ready.push(entry(self.definition, path, is_repeating=path in self.repeats))

    def meet_successors(self, path: str) -> int:
        """Count for those that wait for a step that it has ended, and free the ones for which it was the last.

        Returns how many wait for it.
        """
        scope, step_id = paths.split(path)
        block, kept = block_of(self.definition, scope), self.blocks[scope]
        successors, met = block.successors[step_id], kept.met
        for after in successors:
            needed = len(block.predecessors[after])
            if needed > 1:
                ended = met.get(after, 0) + 1
                if ended < needed:
                    met = met.set(after, ended)
                    continue
                met = met.delete(after)
            self.free(paths.join(scope, after))
        if met is not kept.met:
            self.blocks = self.blocks.set(scope, replace(kept, met=met))
        return len(successors)

    def may_begin(self, ready: Ready) -> bool:
        """Return whether what was ready is so still."""
        path = ready[1]
        if path in self.repeats:
            return not self.is_stopping(path)
        return path not in self.steps and not self.is_ending(paths.split(path)[0])

    def is_any_ready(self) -> bool:
        """Return whether something may begin. Under an end nothing may, and what was ready is not looked through."""
        self.forget_ready()
        return self.ready.first is not None and self.state.ending is None

    def take_ready(self) -> str:
        """Take what comes first in the order of the definition of what is ready, and return its path."""
        _, path = self.ready.least
        self.ready = self.ready.pop()
        return path

    def forget_ready(self) -> None:
        """Forget what may no longer begin, down to the first that may, so that nothing waits for its turn in vain."""
        if self.state.ending is not None:
            return
        while (first := self.ready.first) is not None and self.may_forget and not self.may_begin(first):
            self.ready = self.ready.pop()
            self.forgotten += 1

    def due(self) -> Step | None:
        """Return the step whose time has come first, or None."""
        self.forget_timers()
        if not self.may_forget or (first := self.timers.first) is None or first[0] > self.time:
            return None
        return self.open[first[2]]

    def forget_timers(self) -> None:
        """Forget timers of steps that have gone on, down to the first one of a step that has not."""
        while (first := self.timers.first) is not None and self.may_forget and not is_due(first, self.open):
            self.timers = self.timers.pop()
            self.forgotten += 1


def entry(definition: Definition, path: str, *, is_repeating: bool) -> Ready:
    """Return how a step stands among what is ready: one that may open items, behind the steps of those that it has."""
    at = order(definition, path)
    return ((*at, MAX_ITEMS) if is_repeating else at), path


def finder(steps: Mapping[str, Step], scope: str) -> Callable[[str], Step | None]:
    """Return what gives the step of a scope by its id, None where there is no record."""
    return lambda step_id: steps.get(paths.join(scope, step_id))


def records_of(block: Block, find: Callable[[str], Step | None]) -> dict[str, Step | None]:
    """Return the steps of a block by their ids, in the order of the definition, None where there is no record."""
    return {step.id: find(step.id) for step in block.steps}


def standing(block: Block, records: Mapping[str, Step | None]) -> tuple[dict[str, int], list[str]]:
    """Return how a block stands of which these are the steps, None for one that has not begun: of those how much of
    what each waits for has ended, where that is some and not all; and which wait for nothing any more.
    """
    done = {
        step_id
        for step_id, step in records.items()
        if step is not None and step.state in _DONE and not is_fatal(block.by_id[step_id], step)
    }
    met, ready = dict[str, int](), list[str]()
    for step_id in (step_id for step_id, step in records.items() if step is None):
        needed = block.predecessors[step_id]
        ended = sum(before in done for before in needed)
        if ended == len(needed):
            ready.append(step_id)
        elif ended:
            met[step_id] = ended
    return met, ready


def fatal(block: Block, find: Callable[[str], Step | None]) -> Step | None:
    """Return the first step of a block that ends it, of those that `find` gives by their ids, or None."""
    steps = ((spec, find(spec.id)) for spec in block.steps)
    return next((step for spec, step in steps if step is not None and is_fatal(spec, step)), None)


def telling(block: Block, find: Callable[[str], Step | None]) -> list[Step]:
    """Return the steps of whose outputs that of a block is made, where the definition says nothing of it."""
    if block.ordering is Ordering.GRAPH:
        return [step for step in map(find, block.sinks) if step is not None and step.state is StepState.COMPLETED]
    for spec in reversed(block.steps):
        if (step := find(spec.id)) is not None and step.state is StepState.COMPLETED:
            return [step]
    return []


def is_fatal(spec: StepSpec, step: Step) -> bool:
    """Return whether a step ends its block."""
    return step.state is StepState.FAILED and spec.on_error is not OnError.CONTINUE
