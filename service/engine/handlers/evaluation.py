"""Evaluates CEL for handlers, in turns of the event loop that they share with everybody else."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from service.engine.expressions import Allowance, Expression, ExpressionError
from service.engine.failure import EXPRESSION_ERROR
from service.engine.handlers.model import HandlerError
from service.engine.turns import in_turn

_COMPILE = 900
"""Work of compiling for each character."""


async def evaluated(
    compiler: Callable[[str, frozenset[str]], Expression], source: str, variables: Mapping[str, Any]
) -> Any:
    """Return the value of an expression. To compile it takes one turn, to evaluate it another. Raises HandlerError."""

    def compiled(allowance: Allowance) -> Expression:
        allowance.count(_COMPILE * len(source))
        return compiler(source, frozenset(variables))

    try:
        expression = await in_turn(compiled)
        return await in_turn(partial(expression.spend, variables))
    except ExpressionError as error:
        raise HandlerError(EXPRESSION_ERROR, str(error), retryable=False) from None
