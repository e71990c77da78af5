"""What becomes of blocks and items: the rules by which the steps of one begin, and by which it ends."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from msgspec.structs import replace

from persistence.model import Step, StepState
from service.engine import paths, payload
from service.engine.definition import Block, Call, Definition, OnItemError, Ordering, Repeat, StepSpec
from service.engine.expressions import ExpressionError, PutOffError
from service.engine.failure import EXECUTION_TOO_LARGE, EXPRESSION_ERROR, INVALID_OUTPUT, Failure
from service.engine.planning import events
from service.engine.planning.course import MAX_ITEMS, fatal, finder, is_fatal, telling
from service.engine.planning.draft import EVENT_BYTES
from service.engine.planning.effects import CancelAttempt, StartAttempt
from service.engine.planning.engine_steps import EngineSteps
from service.engine.planning.scopes import Place, block_of, order
from service.engine.planning.state import Ending, Repeating, State, because_of, runs, step_failed
from service.engine.planning.step_rules import WORK_OF_STEP
from service.engine.planning.stopping import CONDITION_IS_FALSE
from service.engine.violations import ValidationError

ENOUGH = 512 << 10
"""Bytes after which nothing more begins in an application: its events go to watchers in one message."""

MAX_STEPS = 1_000_000
"""Steps of one execution, those of all items that are known among them."""

_VALUES_OF_ERROR = 4
"""Of the output of an item that failed, as `_error` makes it."""

WORK_OF_OUTPUT = 2_000
"""Work of finding the output of an item, without its expressions."""


class BlockRules(EngineSteps):
    """Begins the steps of open blocks, opens and closes items, and lets the end of a step have its consequences.

    A block is open from its first step on until all of them have ended; or, once it is ending, all that have begun. It
    is ending when one of its steps has failed for good, or when the block around it is.
    """

    def __init__(self, definition: Definition, state: State, time: datetime, latest: datetime) -> None:
        super().__init__(definition, state, time, latest)
        self._bytes_before = self.draft.bytes
        self.goes_on = False
        """Whether what is ready may begin now."""

    # --- beginning

    def begin_first(self) -> None:
        """Begin what comes first of all that is ready. Raises PutOffError, and it is ready still."""
        if self.draft.bytes - self._bytes_before >= ENOUGH:
            raise PutOffError
        ready = self.draft.ready
        try:
            if (path := self.draft.take_ready()) is None:
                return
            if path in self.draft.repeats:
                self._go_on(self.draft.steps[path])
            else:
                self._begin(path)
        except PutOffError:
            self.draft.ready = ready
            raise

    def _begin(self, path: str) -> None:
        """Start, skip or fail a step that is free to go. Raises PutOffError."""
        scope, _ = paths.split(path)
        place = paths.place(path)
        spec, (position, *items) = self.definition.places[place], order(self.definition, path)
        fresh = Step(path, spec.handler, StepState.PENDING, position=position, items=tuple(items))
        if self._all_skipped(scope, spec):
            self.skip(fresh, "every step it depends on was skipped")
            return
        try:
            if spec.condition is not None and not spec.condition.spend(self.draft.variables(scope), self.allowance):
                self.skip(fresh, CONDITION_IS_FALSE, spec.condition.source)
                return
        except ExpressionError as error:
            self.fail_for_good(fresh, Failure(EXPRESSION_ERROR, f"condition: {error}"))
            return
        if isinstance(spec.action, Repeat):
            self._begin_repeating(fresh, spec.action)
        elif isinstance(spec.action, Call) or self.draft.has_room(0):
            self.begin(fresh)
        else:  # one that has no parameters of which the size would tell
            self.fail_for_good(fresh, self.too_large("its event", EVENT_BYTES))

    def _all_skipped(self, scope: str, spec: StepSpec) -> bool:
        """Whether the step only depends on skipped ones. The mere order of a sequence is no dependency."""
        if block_of(self.definition, scope).ordering is not Ordering.GRAPH or not spec.depends_on:
            return False
        steps = self.draft.steps
        return all(steps[paths.join(scope, before)].state is StepState.SKIPPED for before in spec.depends_on)

    # --- items

    def _begin_repeating(self, step: Step, action: Repeat) -> None:
        """Let a step be in work as long as its items are, or fail it when there is no list. Raises PutOffError."""
        try:
            items = action.items.spend(self.draft.variables(self.scope(step)), self.allowance)
            if not isinstance(items, list):
                raise ExpressionError("must be a list")
            if len(items) > MAX_ITEMS:
                raise ExpressionError(f"must be a list of at most {MAX_ITEMS:,} items, but has {len(items):,}")
            if (values := 1 + len(items) * _least_values(action)) > payload.MAX_NODES:
                raise ExpressionError(
                    f"has {len(items):,} items, whose outputs would have {values:,} values or more; "
                    f"together they may have at most {payload.MAX_NODES:,}"
                )
        except ExpressionError as error:
            self.fail_for_good(step, Failure(EXPRESSION_ERROR, f"items: {error}"))
            return
        number, known = len(items) * len(action.body.steps), self.draft.counts.total
        if known + number > MAX_STEPS:
            self.fail_for_good(step, _too_many_steps(known + number))
            return
        taken = {"items": items}
        size = payload.size(taken)
        if not self.draft.has_room(size):
            self.fail_for_good(step, self.too_large("its items", size))
            return
        self.draft.charge(size)
        self.allowance.count(WORK_OF_STEP)
        self.allowance.count_value(taken, size)
        self.draft.put(
            replace(step, state=StepState.RUNNING, input=taken, start_time=self.time, attempt_time=self.time)
        )
        self.draft.add_steps(number)
        self.draft.record(events.StepStarted(step.path, step.handler, step.attempt, "", taken, step.iteration))
        self.draft.change_repeat(step.path, Repeating(len(items), action.max_parallel))

    def _go_on(self, step: Step) -> None:
        """Open the next item, or complete the step when all have ended. Raises PutOffError."""
        action, repeat = self._repeat(step.path), self.draft.repeats[step.path]
        if repeat.next < repeat.total:
            if self.draft.has_room(0):
                self._open_item(step.path, action.body)
            elif not repeat.open:  # else the last of those that are open ends it
                item = paths.item(step.path, repeat.next)
                self.fail_for_good(step, self.too_large(f"its item {item}", EVENT_BYTES))
        else:
            self._collect(step, action, repeat)

    def _repeat(self, path: str) -> Repeat:
        action = self.definition.places[paths.place(path)].action
        if not isinstance(action, Repeat):
            raise TypeError(f"the step {path} has no items")
        return action

    def _open_item(self, path: str, body: Block) -> None:
        # An item is open when one of its steps has a record, and not before: rows tell nothing else.
        kept = self.draft.blocks, self.draft.repeats
        first, *others = self.draft.open_item(path, body)
        if self.draft.repeats[path].may_go_on:
            self.draft.free(path)
        for other in others:
            self.draft.free(other)
        try:
            self._begin(first)
        except PutOffError:
            self.draft.blocks, self.draft.repeats = kept
            raise

    def _collect(self, step: Step, action: Repeat, repeat: Repeating) -> None:
        """Complete a step with the outputs of its items. Raises PutOffError, and keeps those that it has."""
        outputs = list(repeat.outputs)
        try:
            while len(outputs) < repeat.total:
                self.allowance.begin()
                self.allowance.take(WORK_OF_OUTPUT)
                outputs.append(self._item_output(paths.item(step.path, len(outputs)), action))
            self.allowance.begin()
            self.complete(step, payload.normalise(outputs, "output", payload.MAX_COLLECTED_BYTES))
        except PutOffError:
            self.draft.change_repeat(step.path, replace(repeat, outputs=tuple(outputs)))
            raise
        except ExpressionError as error:
            item = paths.item(step.path, len(outputs))
            self.fail_for_good(step, Failure(EXPRESSION_ERROR, f"{item}: {error}"))
        except ValidationError as error:
            self.fail_for_good(step, _beyond(step, outputs, error))

    def _item_output(self, scope: str, action: Repeat) -> Any:
        failed = fatal(action.body, finder(self.draft.steps, scope))
        if failed is not None:
            return _error(Failure.from_json(failed.failure or {}))
        try:
            return self.output(scope, action.body)
        except ExpressionError as error:
            if action.on_item_error is OnItemError.STOP:
                raise
            return _error(Failure(EXPRESSION_ERROR, str(error)))

    def forget_outputs(self) -> None:
        """Forget the outputs of items where not all are made: another process would not have them."""
        for path, repeat in self.draft.repeats.items():
            if repeat.outputs:
                self.draft.change_repeat(path, replace(repeat, outputs=()))

    def output(self, scope: str, block: Block) -> Any:
        """Return the output of a block that has closed. Raises ExpressionError, PutOffError."""
        if block.output is not None:
            return block.output.render(self.draft.variables(scope), self.allowance)
        ends = telling(block, finder(self.draft.steps, scope))
        if block.ordering is Ordering.GRAPH:
            outputs = {paths.split(end.path)[1]: end.output for end in ends}
            # It only repeats what the steps show: too large, it must not fail the work that is done.
            return outputs if _fit(outputs) else None
        return ends[0].output if ends else None

    # --- ends

    def ended(self, step: Step) -> None:
        """Free what waited for a step, or end its block, and close what is done by that."""
        scope = self.scope(step)
        if not self.draft.is_ending(scope):
            if is_fatal(self.spec(step), step):
                self._end_block(scope, step)
            else:
                self.draft.meet_successors(step.path)
                self.goes_on = True
        self._close_if_done(scope)

    def _end_block(self, scope: str, failed: Step) -> None:
        if not scope:
            self.end(step_failed(failed))
            return
        path, _ = paths.owner(scope)
        self.draft.end_block(scope)
        if self._repeat(path).on_item_error is OnItemError.COLLECT:
            self._stop_all(f"{scope}.")
        else:
            self.draft.change_repeat(path, replace(self.draft.repeats[path], failed=failed.path))
            self._stop_all(f"{path}[")

    def end(self, ending: Ending) -> None:
        """Decide the end of the execution."""
        self.draft.change(ending=ending)
        self._stop_all("")

    def _stop_all(self, prefix: str) -> None:
        """Cancel at once what waits or was about to begin, of the paths that begin so; tell to stop what runs."""
        unbegun = {e.path for e in self.effects if isinstance(e, StartAttempt) and e.path.startswith(prefix)}
        self.effects = [e for e in self.effects if e.path not in unbegun]
        in_work = [step for step in self.draft.in_work if step.path.startswith(prefix)]
        for step in in_work:
            if step.state is StepState.WAITING or step.path in unbegun:
                self.stop(step)
            elif runs(step):
                self.effects.append(CancelAttempt(step.path, step.attempt, step.iteration))
        self._close_idle(prefix)
        for step in reversed(in_work):
            self._end_if_stopped(step.path)

    def _close_idle(self, prefix: str) -> None:
        """Close the items that have nothing in work, of the paths that begin so: no step that ends would do it."""
        blocks = self.draft.blocks.items()
        idle = [scope for scope, block in blocks if scope and not block.open and scope.startswith(prefix)]
        for scope in sorted(idle, key=self._order, reverse=True):  # the inner ones first
            self._close_if_done(scope)

    def _order(self, scope: str) -> Place:
        path, index = paths.owner(scope)
        return (*order(self.definition, path), index)

    def end_all_stopped(self) -> None:
        """End the steps of which no more items begin, and none is open, that nobody has ended."""
        for step in reversed(self.draft.in_work):
            self._end_if_stopped(step.path)

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


def _too_many_steps(total: int) -> Failure:
    message = f"with the steps of its items, the execution would have {total:,} steps; it may have {MAX_STEPS:,}"
    return Failure(EXECUTION_TOO_LARGE, message, details={"steps": total, "limit": MAX_STEPS})


def _least_values(action: Repeat) -> int:
    """Return how many values the output of an item has at least."""
    values = action.body.output.least_values if action.body.output is not None else 1
    return values if action.on_item_error is OnItemError.STOP else min(values, _VALUES_OF_ERROR)


def _beyond(step: Step, outputs: list[Any], error: ValidationError) -> Failure:
    """Return the failure of a step whose items have outputs that are no payload; it names the first too much."""
    index = payload.first_beyond(outputs, payload.MAX_COLLECTED_BYTES)
    if index is None:
        return Failure(INVALID_OUTPUT, str(error.violations[0]))
    most = f"{payload.MAX_NODES:,} values in all or {payload.MAX_COLLECTED_BYTES:,} bytes"
    message = f"output: with that of {paths.item(step.path, index)}, the outputs of all items have more than {most}"
    return Failure(INVALID_OUTPUT, message)


def _error(failure: Failure) -> dict[str, Any]:
    return {"error": {"code": failure.code, "message": failure.message}}


def _fit(outputs: dict[str, Any]) -> bool:
    """Return whether these are one payload. Of hundreds it looks at the first ones only."""
    size = 1
    for step_id, output in outputs.items():
        size += payload.size({step_id: output}) - 1
        if size > payload.MAX_PAYLOAD_BYTES:
            return False
    return True
