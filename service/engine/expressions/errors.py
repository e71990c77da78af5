"""The errors of expressions.

ExpressionError     an expression cannot be compiled or has no value
PutOffError         an expression has to wait for the next turn
"""


class ExpressionError(Exception):
    """An expression that cannot be compiled or has no value here; the message is one line for a person."""


class PutOffError(Exception):
    """What comes next does not fit into what is left of an allowance, and goes on with another one."""
