"""What a step costs in the planner alone, among few items and among many: `python -m tests.bench.planner`.

The cost of a step is its share of the processor's time from the start of an execution to its end, where each attempt
ends as soon as it has begun. The longest application is how long everybody else had to wait at most.
"""

from __future__ import annotations

import gc
from collections import deque
from dataclasses import dataclass
from time import process_time

from service.engine.planning import happenings, planner
from service.engine.planning.effects import StartAttempt
from service.engine.planning.happenings import Happening
from tests.unit.planner_definitions import each, sequence, step
from tests.unit.planner_programs import T0, Driver

FEW, MANY = 100, 9_900
"""Items; the values of a list with more of them would be too many for one payload."""

ROUNDS = 5
STEPS = 2 * MANY
"""Steps of a round at least, so that few items are measured as long as many."""

_BODY = step("a", params={"x": "${ item }"}), step("b", condition="steps.a.output > 0")
_DEFINITION = sequence(each("all", "input.rows", *_BODY, output="${ steps.b.output }"))


@dataclass(frozen=True)
class Cost:
    """Seconds of the processor: for each step, and of the longest application."""

    step: float
    longest: float


def once(items: int) -> Cost:
    """Return what the steps of one execution with so many items cost."""
    state = Driver(_DEFINITION, {"rows": list(range(items))}).state
    todo: deque[Happening] = deque([happenings.Started(T0)])
    spent = longest = 0.0
    while todo:
        happening = todo.popleft()
        begun = process_time()
        plan = planner.apply(_DEFINITION, state, happening)
        took = process_time() - begun
        spent, longest, state = spent + took, max(longest, took), plan.state
        for effect in plan.effects:
            if isinstance(effect, StartAttempt):
                todo.append(happenings.StepSucceeded(T0, effect.path, effect.attempt, 1))
        if plan.is_partial:
            todo.appendleft(happenings.Continued(T0))
    if state.counts.completed != 2 * items + 1:
        raise RuntimeError(f"the execution ended as {state.state} with {state.counts}")
    return Cost(spent / (2 * items), longest)


def among(items: int) -> Cost:
    """Return the cost of a step in as many executions as make a round."""
    costs = [once(items) for _ in range(max(1, STEPS // (2 * items)))]
    return Cost(sum(cost.step for cost in costs) / len(costs), max(cost.longest for cost in costs))


def main() -> None:
    """Measure in turn, and print the least of each: the rest is what others did to the machine."""
    gc.disable()  # its pauses are those of the heap of this program
    few, many = list[Cost](), list[Cost]()
    for _ in range(ROUNDS):
        few.append(among(FEW))
        many.append(among(MANY))
        gc.collect()
    for items, costs in ((FEW, few), (MANY, many)):
        step_cost, longest = min(cost.step for cost in costs), min(cost.longest for cost in costs)
        print(f"{items:6,} items: {1e6 * step_cost:6.1f} us a step, longest application {1e3 * longest:5.1f} ms")
    print(f"ratio {min(cost.step for cost in many) / min(cost.step for cost in few):.2f}")


if __name__ == "__main__":
    main()
