"""CEL, the language of conditions, values and templates, behind one small wrapper.

    Expression, compile_condition, compile_value    expression.py: one expression, compiled and evaluated
    Template                                        template.py: `${ CEL }` inside of JSON-like values
    step_references                                 which steps an expression names
    Allowance                                       cost.py: the work that is allowed in one go
    ExpressionError, PutOffError                    errors.py

Beneath: `library.py` holds every work-around for cel-expr-python, `tree.py` reads the syntax tree, `cost.py` refuses
work that would hold up the process. The language is CEL with the extensions strings, math, bindings and encoders.
"""

from service.engine.expressions.cost import Allowance
from service.engine.expressions.errors import ExpressionError, PutOffError
from service.engine.expressions.expression import (
    EVERY_STEP,
    Expression,
    compile_condition,
    compile_value,
    step_references,
)
from service.engine.expressions.template import Template

__all__ = [
    "EVERY_STEP",
    "Allowance",
    "Expression",
    "ExpressionError",
    "PutOffError",
    "Template",
    "compile_condition",
    "compile_value",
    "step_references",
]
