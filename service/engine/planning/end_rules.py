"""How blocks and items end: the rules of what the end of a step, or of all, does to the steps in work."""

from __future__ import annotations

from immutables import Map
from msgspec.structs import replace

from persistence.model import Step, StepState, WaitKind
from service.engine import paths
from service.engine.definition import Block, OnItemError, Repeat
from service.engine.expressions import PutOffError
from service.engine.planning.course import is_fatal
from service.engine.planning.effects import CancelAttempt, StartAttempt
from service.engine.planning.engine_steps import EngineSteps
from service.engine.planning.heap import Heap
from service.engine.planning.reasons import cut_off, interrupted, not_waited_for
from service.engine.planning.scopes import Place, block_of, order
from service.engine.planning.state import Ending, Sweep, awaited_handler, because_of, runs, step_failed
from service.engine.planning.step_rules import WORK_OF_EDGE, WORK_OF_STEP

WORK_OF_LOOK = 400
"""Work of looking whether there is something to be done for a step or an item."""

WORK_OF_TELLING = 3_000
"""Work of telling an attempt to stop."""


class EndRules(EngineSteps):
    """Lets the end of a step have its consequences, and sees to what is in work where others or all have ended.

    A block is open from its first step on until all of them have ended; or, once it is ending, all that have begun. It
    is ending when one of its steps has failed for good, or when the block around it is. What is in work of it then may
    be ten thousands of steps, so they are ended in sweeps, which go on as long as there is work left in the allowance.
    Where a step stands tells what is to become of it; so a process that takes over half-way comes to the same.
    """

    goes_on = False
    """Whether what is ready may begin now."""
    is_sweeping = False
    """Whether sweeps go on now: when one begins, and when what was put off goes on; not at what happens between."""

    def repeat(self, path: str) -> Repeat:
        """Return what the step at a path runs for each item."""
        action = self.definition.places[paths.place(path)].action
        if not isinstance(action, Repeat):
            raise TypeError(f"the step {path} has no items")
        return action

    def ended(self, step: Step) -> None:
        """Free what waited for a step, or end its block, and close what is done by that."""
        scope = self.scope(step)
        if not self.draft.is_ending(scope):
            if step.state is StepState.FAILED and is_fatal(self.spec(step), step):
                self._end_block(scope, step)
            else:
                self.allowance.count(WORK_OF_EDGE * self.draft.meet_successors(step.path))
                self.goes_on = True
        self._close_if_done(scope)

    def _end_block(self, scope: str, failed: Step) -> None:
        if not scope:
            self.end(step_failed(failed))
            return
        path, _ = paths.owner(scope)
        self.draft.end_block(scope)
        if self.repeat(path).on_item_error is OnItemError.STOP:
            self.draft.change_repeat(path, replace(self.draft.repeats[path], failed=failed.path))
            self._stop_all(path)
        elif self.draft.blocks[scope].open:
            self._stop_all(scope)

    def end(self, ending: Ending) -> None:
        """Decide the end of the execution. What waited for a time is stopped by the sweep, whenever it was due."""
        self.draft.change(ending=ending)
        self.draft.timers = Heap()
        self._stop_all("")

    def _stop_all(self, within: str) -> None:
        """Stop at once what was about to begin, and sweep the rest."""
        prefix = f"{within}." if within.endswith("]") else f"{within}["
        unbegun = {
            effect.path
            for effect in self.effects
            if isinstance(effect, StartAttempt)
            and not effect.resumed  # it has begun, and the sweep tells it to stop
            and (not within or effect.path.startswith(prefix))
        }
        self.effects = [effect for effect in self.effects if effect.path not in unbegun]
        for path in sorted(unbegun, key=lambda path: order(self.definition, path)):
            self.stop(self.draft.steps[path])
        self.draft.sweeps += (Sweep(within),)
        self.is_sweeping = True

    def _close_if_done(self, scope: str) -> None:
        if not scope or scope not in self.draft.blocks or not self.draft.is_closed(scope):
            return
        path, _ = paths.owner(scope)
        repeat = self.draft.close_item(scope)
        if not repeat.open and not self.draft.has_room(0):
            self.draft.free(path)  # it may have come up, when there was no room for another item
        self.goes_on = True
        self._end_if_stopped(path)

    def _end_if_stopped(self, path: str) -> None:
        """End a step of which no more items begin, when none is open."""
        repeat = self.draft.repeats.get(path)
        if repeat is None or repeat.open or not self.draft.is_stopping(path):
            return
        step = self.draft.steps[path]
        if self.is_ending(step):
            self.stop(step)
        else:
            self.fail_for_good(step, because_of(self.draft.steps[repeat.failed]))

    # --- sweeps

    def take_over(self, handlers: frozenset[str] = frozenset(), remote: frozenset[str] = frozenset()) -> None:
        """Begin to see to all that another process has left in work: not to what a message has begun since."""
        self.draft.sweeps = (Sweep(handlers=handlers, remote=remote),)
        self.is_sweeping = True

    def sweep(self) -> None:
        """Go on with the sweeps. Raises PutOffError, and the first one is where it has come to."""
        while self.draft.sweeps:
            sweep = self.draft.sweeps[0]
            self._go_on_with(sweep)
            self.draft.sweeps = self.draft.sweeps[1:]  # what failed meanwhile may have begun another, at the end
            if not sweep.within:  # a part that ended by a message says nothing of what is in work beside it
                self.draft.inherited = Map()

    def _go_on_with(self, sweep: Sweep) -> None:
        within, after = sweep.within, sweep.at
        place = paths.place(within)
        try:
            if not within:
                self._sweep_block("", "", self.definition.root, (), after)
            elif within.endswith("]"):
                self._sweep_item(within, place, block_of(self.definition, within), (), after)
            else:
                self._sweep_items(within, place, self.repeat(within).body, (), after)
        except PutOffError:
            self.draft.sweeps = (replace(sweep, at=self._at), *self.draft.sweeps[1:])
            raise

    def _look(self, at: Place) -> None:
        """Look at what stands at a place, within what is swept. Raises PutOffError: there it goes on."""
        self._at = at
        self.begin_part()
        self.allowance.count(WORK_OF_LOOK)

    def _sweep_block(self, scope: str, place: str, block: Block, at: Place, after: Place) -> None:
        """Sweep the steps of a block, which stands `at` a place, from a place in it on."""
        for spec in block.steps:
            here = paths.join(place, spec.id)
            position = self.definition.positions[here]
            if after and position < after[0]:
                continue
            into, after = after[1:], ()
            if not into:
                self._look((*at, position))
            path = paths.join(scope, spec.id)
            if isinstance(spec.action, Repeat):
                self._sweep_items(path, here, spec.action.body, (*at, position), into)
            elif (step := self.draft.open.get(path)) is not None:
                self._see_to(step)

    def _sweep_items(self, path: str, place: str, body: Block, at: Place, after: Place) -> None:
        index = after[0] if after else 0
        while (repeat := self.draft.repeats.get(path)) is not None and index < repeat.next:
            into, after = after[1:], ()
            if not into:
                self._look((*at, index))
            self._sweep_item(paths.item(path, index), place, body, (*at, index), into)
            index += 1
        self._end_if_stopped(path)

    def _sweep_item(self, scope: str, place: str, body: Block, at: Place, after: Place) -> None:
        block = self.draft.blocks.get(scope)
        if block is not None and block.open:
            self._sweep_block(scope, place, body, at, after)
        self._close_if_done(scope)  # with nothing in work, no step that ends would do it

    def _see_to(self, step: Step) -> None:
        """Stop a step where nothing begins any more; else go on with what another process left, or a handler lets."""
        is_inherited = self.draft.is_inherited(step)
        if self.is_ending(step):
            if not runs(step):
                self.stop(step)
            elif is_inherited:
                self.stop(step, cut_off(step))
            else:
                self._tell(step)
                if (ending := self.draft.ending) is not None and ending.is_at_once:
                    self.stop(step, not_waited_for(step))
        elif is_inherited and runs(step):
            is_held = step.handler in self.draft.sweeps[0].remote and not step.is_mocked
            if is_held and not self.is_to_pause(step):
                self._resume_attempt(step)
            else:
                self.begin_anew(step, interrupted(step))
        elif (is_inherited and step.waits_for(WaitKind.SLOT)) or self._has_come(step):
            self.start_or_put_off(step)  # another process waited for what this one may have, or all did
        elif runs(step) and self.is_to_pause(step):
            self._tell(step)
            self.draft.stopping = self.draft.stopping.set(step.key, step.attempt)

    def _tell(self, step: Step) -> None:
        """Tell the attempt of a step to stop."""
        self.allowance.count(WORK_OF_TELLING)
        self.effects.append(CancelAttempt(step.path, step.attempt, step.iteration))

    def _resume_attempt(self, step: Step) -> None:
        """Let an attempt go on that another process gave to a worker, for the time that it has left."""
        spec = self.spec(step)
        left = self.time_left(spec, step)
        if step.attempt_time is not None:
            left = min(left, spec.timeout - (self.time - step.attempt_time).total_seconds())
        self.allowance.count(WORK_OF_STEP)
        self.draft.inherited = self.draft.inherited.delete(step.path)
        path, number = step.path, step.attempt
        self.effects.append(
            StartAttempt(path, number, step.handler, {}, max(0.0, left), {}, step.iteration, resumed=True)
        )

    def _has_come(self, step: Step) -> bool:
        """Whether a step waits for a handler that is there."""
        return awaited_handler(step) in self.draft.sweeps[0].handlers
