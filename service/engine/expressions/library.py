"""cel-expr-python 0.1.3 made safe: it is called from here only.

Its traps, each with a test: on Python 3.11 nulls in results end in an abort of the process; the extension `optional`
crashes; errors come back as ordinary strings; results hold maps in random order; a list, map, string and number of
Python pass, and nothing else.
"""

from __future__ import annotations

import ctypes
import json
import sys
from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from typing import Any

from cel_expr_python import cel
from cel_expr_python.ext import ext_bindings, ext_encoders, ext_math, ext_strings

from service.engine.expressions import messages, numbers, results, rewrite
from service.engine.expressions.errors import ExpressionError

MAX_SOURCE = 4096


class Program:
    """A compiled expression of the library. `always_not_bool` is the type of the result if known and no bool."""

    __slots__ = ("_compiled", "_in_pieces", "_make_pieces", "always_not_bool")

    def __init__(self, compiled: Any, always_not_bool: str, make_pieces: Callable[[], Any]) -> None:
        self._compiled = compiled
        self._make_pieces: Callable[[], Any] | None = make_pieces
        self._in_pieces: Any = None
        self.always_not_bool = always_not_bool

    def can_build_in_pieces(self) -> bool:
        """Return whether it can also be run with its lists built in pieces, as `rewrite.program` makes it."""
        if self._make_pieces is not None:
            self._in_pieces, self._make_pieces = self._make_pieces(), None
        return self._in_pieces is not None

    def run(self, variables: Mapping[str, Any], *, in_pieces: bool = False) -> Any:
        """Return the result in Python's terms, with sorted keys. Raises ExpressionError."""
        try:
            answer = (self._in_pieces if in_pieces else self._compiled).eval(data=variables)
            value = answer.plain_value()
        except (RuntimeError, TypeError, ValueError, OverflowError, SystemError, MemoryError) as error:
            raise ExpressionError(messages.clean(str(error))) from None
        # An error is a value of its own type whose plain value is the text (LIBRARIES C3).
        if answer.type() == cel.Type.ERROR:
            raise ExpressionError(messages.clean(value))
        return results.plain(value)


def syntax(source: str) -> bytes:
    """Return the serialized syntax tree (`cel.expr.ParsedExpr` in an `Any`). Raises ExpressionError."""
    if len(source) > MAX_SOURCE:
        raise ExpressionError(f"is longer than {MAX_SOURCE} characters")
    if "\0" in source or not source.strip():
        raise ExpressionError("is empty" if not source.strip() else "contains the character NUL")
    try:
        return bytes(_environment(frozenset()).compile(source, disable_check=True).serialize())
    except (RuntimeError, UnicodeError) as error:
        raise ExpressionError(messages.refusal(str(error), source, frozenset())) from None


def program(source: str, parsed: bytes, names: frozenset[str]) -> Program:
    """Return the compiled expression over variables of these names, `parsed` before. Raises ExpressionError."""
    environment = _environment(names)
    compiled, kind = None, cel.Type.DYN
    try:
        compiled = environment.compile(source)
        kind = compiled.return_type()
    except RuntimeError as error:
        if not messages.only_lacks_ints(str(error), rewrite.TAKE_INTS):
            raise ExpressionError(messages.refusal(str(error), source, names)) from None
    runnable = rewrite.program(parsed)
    if compiled is None or runnable is not parsed:
        try:
            compiled = environment.deserialize(runnable)
        except RuntimeError:
            # What was added has made it deeper than protobuf reads.
            raise ExpressionError(messages.TOO_DEEP) from None
    always = "" if kind in (cel.Type.BOOL, cel.Type.DYN) else messages.type_name(kind.name())
    return Program(compiled, always, partial(_in_pieces, environment, parsed))


def _in_pieces(environment: Any, parsed: bytes) -> Any:
    """Return the program that builds its lists in pieces, None where that makes it too deep."""
    try:
        return environment.deserialize(rewrite.program(parsed, in_pieces=True))
    except RuntimeError:
        return None


@lru_cache(maxsize=64)
def _environment(names: frozenset[str]) -> Any:
    _make_none_immortal()
    # Never ExtOptional: `{1: a.?q}` is a segmentation fault with it (LIBRARIES C2).
    extensions = [ext_strings.ExtStrings(), ext_math.ExtMath(), ext_bindings.ExtBindings(), ext_encoders.ExtEncoders()]
    return cel.NewEnv(
        config=cel.NewEnvConfigFromYaml(_configuration()),
        variables={name: cel.Type.DYN for name in sorted(names)},
        extensions=extensions,
        function_impls={**numbers.implementations(), **_added()},
    )


@lru_cache(maxsize=1)
def _configuration() -> str:
    operators = numbers.declarations()
    return json.dumps(
        {
            "extensions": [{"name": "two-var-comprehensions"}],
            # An operator cannot be added to, only declared anew as a whole; its functions stay.
            "stdlib": {"exclude_functions": [{"name": operator["name"]} for operator in operators]},
            "functions": [*operators, *map(_declaration, _ADDED)],
        }
    )


def _added() -> dict[str, Callable[..., Any]]:
    return {f"{name}({kind})": act for name, (act, kinds) in _ADDED.items() for kind in kinds}


def _declaration(name: str) -> Mapping[str, Any]:
    kinds = _ADDED[name][1]
    overloads = [
        {
            "id": f"{name}({kind})",
            "args": [{"type_name": each} for each in kind.split(", ")],
            "return": {"type_name": "dyn"},
        }
        for kind in kinds
    ]
    return {"name": name, "overloads": overloads}


@lru_cache(maxsize=1)
def _make_none_immortal() -> None:
    """Keep the count of references to None from reaching zero, since each null in a result loses one on 3.11.

    See LIBRARIES C1.
    """
    if sys.version_info < (3, 12):
        ctypes.c_ssize_t.from_address(id(None)).value += 1 << 40


# What `rewrite.py` puts into trees: nobody can write these names.
_ADDED: Mapping[str, tuple[Callable[..., Any], tuple[str, ...]]] = {
    "@whole": (numbers.whole, ("double",)),
    "@text": (numbers.text, ("double",)),
    "@written": (results.written, ("double", "list", "map")),
    "@arguments": (results.arguments, ("list",)),
    "@keys": (results.keys, ("map",)),
    "@indexes": (results.indexes, ("list",)),
    "@pieces": (results.pieces, ("int",)),
    "@span": (results.span, ("string",)),
    "@zone": (results.zone, ("string",)),
    "@distinct": (results.distinct, ("map, int",)),
}
