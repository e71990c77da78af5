"""What goes on of an execution that was reopened after its end, and what of it runs again.

One stored number tells it, that of the event `reopened`: a step whose newest iteration had ended by then runs again if
it was cancelled, or had failed such that nothing went on with it. What completed or was skipped stays, and so does a
failure that its definition or its `for_each` has gone on with.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from persistence.model import Edit, Step, StepState
from service.engine import paths
from service.engine.definition import Definition, OnError, Repeat
from service.engine.slices import Work, parts

_LOOK = 3  # microseconds for a step


def is_of_run(step: Step, reopened_seq: int) -> bool:
    """Return whether a step in its newest iteration is one of the run that began with the event of this number."""
    return step.end_seq is None or step.end_seq > reopened_seq


def iteration_after(earlier: Step | None) -> int:
    """Return the iteration in which a step begins whose last one, if there was any, was of an earlier run."""
    return 1 if earlier is None else earlier.iteration + 1


def listed(earlier: Step | None) -> list[Any] | None:
    """Return the list of a `for_each` that had one in an earlier run, None for one that had not."""
    items = earlier.input.get("items") if earlier is not None and isinstance(earlier.input, dict) else None
    return items if isinstance(items, list) else None


def edit_of(edit: Edit | None, step: Step) -> Edit | None:
    """Return the edit if it is one of this iteration of a step."""
    return edit if edit is not None and (edit.path, edit.iteration) == step.key else None


def finding_earlier(definition: Definition, steps: Mapping[str, Step], reopened_seq: int) -> Work[dict[str, Step]]:
    """Return which of these newest iterations count as not begun in the run that began with the event `reopened_seq`.

    What is of an item runs again only with the step around it.
    """
    earlier = dict[str, Step]()
    if not reopened_seq:
        return earlier
    reopening = _Reopening(definition, steps, reopened_seq)
    for part in parts(list(steps.values())):
        earlier.update((step.path, step) for step in part if reopening.runs_again(step))
        yield _LOOK * len(part)
    return earlier


class _Reopening:
    def __init__(self, definition: Definition, steps: Mapping[str, Step], reopened_seq: int) -> None:
        self._definition = definition
        self._steps = steps
        self._reopened_seq = reopened_seq
        self._of_scopes = {"": True}

    def runs_again(self, step: Step) -> bool:
        """Return whether a step is to begin once more, and has not."""
        if is_of_run(step, self._reopened_seq) or not self._is_undone(step):
            return False
        scope, _ = paths.split(step.path)
        if scope not in self._of_scopes:
            self._of_scopes[scope] = self._goes_on_in(scope)
        return self._of_scopes[scope]

    def _is_undone(self, step: Step) -> bool:
        if step.state is StepState.CANCELLED:
            return True
        spec = self._definition.find(step.path)
        return step.state is StepState.FAILED and spec is not None and spec.on_error is not OnError.CONTINUE

    def _goes_on_in(self, scope: str) -> bool:
        path, index = paths.owner(scope)
        around, spec = self._steps.get(path), self._definition.find(path)
        if around is None or spec is None or not isinstance(spec.action, Repeat):
            return False
        if not is_of_run(around, self._reopened_seq) and not self.runs_again(around):
            return False
        # The next round went on with what became of this one.
        following = paths.item(path, index + 1)
        return spec.action.until is None or not any(
            self._was_there(self._steps.get(paths.join(following, each.id))) for each in spec.action.body.steps
        )

    def _was_there(self, step: Step | None) -> bool:
        return step is not None and (step.iteration > 1 or not is_of_run(step, self._reopened_seq))


def begun_items(
    action: Repeat, path: str, total: int, steps: Mapping[str, Step], earlier: Mapping[str, Step]
) -> tuple[int, tuple[int, ...]]:
    """Return how many items of the step at a path began in earlier runs, and which of them are not done."""
    begun = 0
    while begun < total and any(
        (inner := paths.join(paths.item(path, begun), each.id)) in steps or inner in earlier
        for each in action.body.steps
    ):
        begun += 1
    return begun, items_again(action, path, range(begun), steps, lambda _: False)


def items_again(
    action: Repeat, path: str, begun: Sequence[int], steps: Mapping[str, Step], is_of_run: Callable[[Step], bool]
) -> tuple[int, ...]:
    """Return which of the items that have begun are not done, and nothing of them has begun in the present run.

    Of rounds it is the last one, if any: the next one went on with what became of each other.
    """
    again = list[int]()
    for index in begun if action.until is None else begun[-1:]:
        scope = paths.item(path, index)
        records = [steps.get(paths.join(scope, each.id)) for each in action.body.steps]
        if None in records and not any(record is not None and is_of_run(record) for record in records):
            again.append(index)
    return tuple(again)
