"""The error of expressions."""


class ExpressionError(Exception):
    """An expression that cannot be compiled or has no value here; the message is one line for a person."""
