"""How blocks and items go on: the rules by which steps of them begin, and by which their outputs are made."""

from __future__ import annotations

from itertools import takewhile
from typing import Any

from msgspec.structs import replace

from persistence.model import Step, StepState
from service.engine import paths, payload
from service.engine.definition import Block, Call, OnItemError, Ordering, Repeat, StepSpec
from service.engine.expressions import ExpressionError, PutOffError
from service.engine.failure import EXECUTION_TOO_LARGE, EXPRESSION_ERROR, INVALID_OUTPUT, Failure
from service.engine.planning import events
from service.engine.planning.breakpoint_rules import BreakpointRules
from service.engine.planning.course import MAX_ITEMS, fatal, finder, telling
from service.engine.planning.draft import EVENT_BYTES
from service.engine.planning.reasons import CONDITION_IS_FALSE
from service.engine.planning.reopened import begun_items, edit_of, iteration_after, listed
from service.engine.planning.scopes import block_of, order
from service.engine.planning.state import Repeating
from service.engine.planning.step_rules import WORK_OF_EDGE, WORK_OF_STEP
from service.engine.violations import ValidationError

MAX_STEPS_OF_EXECUTION = 1_000_000
"""Steps of one execution, those of all items that are known among them."""

_VALUES_OF_ERROR = 4
"""Of the output of an item that failed, as `_error` makes it."""

WORK_OF_OUTPUT, WORK_OF_RECORD = 2_000, 300
"""Work of finding the output of an item, without its expressions, and of a look at each of its steps for that."""


class BlockRules(BreakpointRules):
    """Begins the steps of open blocks, opens items, and finds the outputs of blocks that have closed."""

    # --- beginning

    def begin_first(self) -> None:
        """Begin what comes first of all that is ready. Raises PutOffError, and it is ready still."""
        if not self.draft.may_forget:  # what comes first may be left to forget
            raise PutOffError
        ready = self.draft.ready
        try:
            path = self.draft.take_ready()
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
        iteration = iteration_after(self.draft.earlier.get(path))
        fresh = Step(path, spec.handler, StepState.PENDING, iteration, position=position, items=tuple(items))
        if (edit := edit_of(self.draft.state.edit, fresh)) is not None and edit.is_skipped:
            self.complete(fresh, edit.value)
            return
        if spec.depends_on and self._all_skipped(scope, spec):
            self.skip(fresh, "every step it depends on was skipped")
            return
        try:
            if spec.condition is not None and not spec.condition.spend(self.draft.variables(scope), self.allowance):
                self.skip(fresh, CONDITION_IS_FALSE, spec.condition.source)
                return
        except ExpressionError as error:
            self.fail_for_good(fresh, Failure(EXPRESSION_ERROR, f"condition: {error}"))
            return
        if not self.holds(fresh):
            self.go_in(fresh)

    def go_in(self, step: Step) -> None:
        """Begin a step that is neither skipped nor held. Raises PutOffError."""
        action = self.spec(step).action
        if isinstance(action, Repeat):
            self._begin_repeating(step, action)
        elif isinstance(action, Call) or self.draft.has_room(0):
            self.begin(step, action)
        else:  # one that has no parameters of which the size would tell
            self.fail_for_good(step, self.too_large("its event", EVENT_BYTES))

    def _all_skipped(self, scope: str, spec: StepSpec) -> bool:
        """Whether the step only depends on skipped ones. The mere order of a sequence is no dependency."""
        if block_of(self.definition, scope).ordering is not Ordering.GRAPH:
            return False
        steps = self.draft.steps
        states = (steps[paths.join(scope, before)].state for before in spec.depends_on)
        skipped = sum(1 for _ in takewhile(lambda state: state is StepState.SKIPPED, states))
        self.allowance.count(WORK_OF_EDGE * skipped)
        return skipped == len(spec.depends_on)

    # --- items

    def _begin_repeating(self, step: Step, action: Repeat) -> None:
        """Let a step be in work as long as its items are, or fail it when there is no list. Raises PutOffError."""
        if (items := listed(self.draft.earlier.get(step.path))) is not None:
            self._repeat(step, action, items, 0)  # what is done of them stays, so the list does, and they are counted
            return
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
        # Of rounds nobody knows how many there will be: their steps count when they begin.
        number = len(items) * len(action.body.steps) if action.until is None else 0
        if (total := self.draft.counts.total + number) > MAX_STEPS_OF_EXECUTION:
            self.fail_for_good(step, _too_many_steps(total))
            return
        self._repeat(step, action, items, number)

    def _repeat(self, step: Step, action: Repeat, items: list[Any], number: int) -> None:
        """Let a step be in work with its list, of which so many steps are not counted yet."""
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
        begun, again = begun_items(action, step.path, len(items), self.draft.steps, self.draft.earlier)
        self.allowance.count(WORK_OF_RECORD * begun * len(action.body.steps))
        self.draft.change_repeat(step.path, Repeating(len(items), action.max_parallel, begun, again=again))

    def _go_on(self, step: Step) -> None:
        """Open the next item, or complete the step when all have ended. Raises PutOffError."""
        action, repeat = self.repeat(step.path), self.draft.repeats[step.path]
        try:
            is_over = not repeat.again and (repeat.next == repeat.total or self._is_over(step, action, repeat))
        except ExpressionError as error:
            item = paths.item(step.path, repeat.next - 1)
            self.fail_for_good(step, Failure(EXPRESSION_ERROR, f"until: after {item}: {error}"))
            return
        if is_over:
            self._collect(step, action)
        elif self.draft.has_room(0):
            self._open_item(step, action)
        elif not repeat.open:  # else the last of those that are open ends it
            item = paths.item(step.path, repeat.following)
            self.fail_for_good(step, self.too_large(f"its item {item}", EVENT_BYTES))

    def _is_over(self, step: Step, action: Repeat, repeat: Repeating) -> bool:
        """Return whether no round follows on the last one. Raises ExpressionError, PutOffError.

        It is asked once, and kept until the next round begins: if that is put off, there is no need to ask again.
        """
        if action.until is None or not repeat.next:
            return False
        if repeat.is_over is not None:
            return repeat.is_over
        last = paths.item(step.path, repeat.next - 1)
        self.allowance.count(WORK_OF_RECORD * len(action.body.steps))
        is_over = fatal(action.body, finder(self.draft.steps, last)) is None and bool(
            action.until.spend(self.draft.variables(last), self.allowance)
        )
        self.draft.change_repeat(step.path, replace(repeat, is_over=is_over))
        self.allowance.begin()  # what follows is another part
        return is_over

    def _open_item(self, step: Step, action: Repeat) -> None:
        path, body = step.path, action.body
        # Whoever takes the execution over tells by the rows which items are open: those of which a step has one. So
        # if its first step is put off, the item is not open.
        kept, counts = (self.draft.blocks, self.draft.repeats), self.draft.counts
        if action.until is not None and not self.draft.repeats[path].again:
            if (total := counts.total + len(body.steps)) > MAX_STEPS_OF_EXECUTION:
                self.fail_for_good(step, _too_many_steps(total))
                return
            self.draft.add_steps(len(body.steps))
        first, *others = self.draft.open_item(path, body)
        if self.draft.repeats[path].may_go_on:
            self.draft.free(path)
        for other in others:
            self.draft.free(other)
        try:
            self._begin(first)
        except PutOffError:
            (self.draft.blocks, self.draft.repeats), self.draft.counts = kept, counts
            raise

    def _collect(self, step: Step, action: Repeat) -> None:
        """Complete a step with the outputs of its items. Raises PutOffError, and keeps those that it has."""
        repeat = self.draft.repeats[step.path]
        if action.gives_last:
            self._give_last(step, action, repeat.next)
            return
        outputs = list(repeat.outputs)
        try:
            while len(outputs) < repeat.next:
                self.allowance.begin()
                self.allowance.count(WORK_OF_OUTPUT + WORK_OF_RECORD * len(action.body.steps))
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

    def _give_last(self, step: Step, action: Repeat, number: int) -> None:
        """Complete a step with the output of the last of its items. Raises PutOffError."""
        self.allowance.count(WORK_OF_OUTPUT + WORK_OF_RECORD * len(action.body.steps))
        last = paths.item(step.path, number - 1)
        try:
            output = self._item_output(last, action) if number else None
            self.complete(step, payload.normalise(output, "output", payload.MAX_COLLECTED_BYTES))
        except ExpressionError as error:
            self.fail_for_good(step, Failure(EXPRESSION_ERROR, f"{last}: {error}"))
        except ValidationError as error:
            self.fail_for_good(step, Failure(INVALID_OUTPUT, str(error.violations[0])))

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
        """Forget what was found out of items that have ended and not recorded: another process would not have it."""
        for path, repeat in self.draft.repeats.items():
            if repeat.outputs or repeat.is_over is not None:
                self.draft.change_repeat(path, replace(repeat, outputs=(), is_over=None))

    def output(self, scope: str, block: Block) -> Any:
        """Return the output of a block that has closed. Raises ExpressionError, PutOffError."""
        if block.output is not None:
            return block.output.render(self.draft.variables(scope), self.allowance)
        ends = telling(block, finder(self.draft.steps, scope))
        if block.ordering is Ordering.GRAPH:
            outputs = {paths.split(end.path)[1]: end.output for end in ends}
            # The outputs only repeat what the steps show: too large, they are left out, and fail no work that is done.
            return outputs if _fit(outputs) else None
        return ends[0].output if ends else None


def _too_many_steps(total: int) -> Failure:
    most = MAX_STEPS_OF_EXECUTION
    message = f"with the steps of its items, the execution would have {total:,} steps; it may have {most:,}"
    return Failure(EXECUTION_TOO_LARGE, message, details={"steps": total, "limit": most})


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
    """Return whether these fit into one payload. It stops at the one with which they no longer do."""
    size = 1
    for step_id, output in outputs.items():
        size += payload.size({step_id: output}) - 1
        if size > payload.MAX_PAYLOAD_BYTES:
            return False
    return True
