"""What a step that has completed assigns to variables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from service.engine import payload
from service.engine.definition import StepSpec
from service.engine.expressions import Allowance, ExpressionError
from service.engine.expressions.cost import PER_STEP


def assign(
    spec: StepSpec, variables: Mapping[str, Any], before: Mapping[str, Any], allowance: Allowance
) -> dict[str, Any]:
    """Return the values of the variables, beside those there were before.

    Raises ExpressionError, PutOffError, and ValidationError for what is no payload.
    """
    values, begun = dict[str, Any](), allowance.spent
    for name, expression in spec.assign:
        # They are one part, which cannot be cut: where the first ones are heavy, the rest must not hold the loop.
        if allowance.spent - begun > PER_STEP:
            raise ExpressionError("may be too much work for values of this size; use smaller values, or several steps")
        values[name] = expression.spend(variables, allowance)
    normal: dict[str, Any] = payload.normalise(values, "vars")
    after = payload.normalise({**before, **normal}, "vars")  # all together are one payload too
    allowance.count_value(after, payload.size(after))
    return normal
