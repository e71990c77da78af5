"""cel-expr-python 0.1.3 made safe: it is called from here only.

Its traps, each with a test: on Python 3.11 nulls in results end in an abort of the process; the extension `optional`
crashes; errors come back as ordinary strings; results hold maps in random order; a list, map, string and number of
Python pass, and nothing else.
"""

from __future__ import annotations

import ctypes
import datetime
import re
import sys
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from cel_expr_python import cel
from cel_expr_python.ext import ext_bindings, ext_encoders, ext_math, ext_strings

MAX_SOURCE = 4096

MISSING_KEY = "there is no key "

_MAX_MESSAGE = 300


class ExpressionError(Exception):
    """An expression that cannot be compiled or has no value here; the message is one line for a person."""


class Program:
    """A compiled expression of the library."""

    __slots__ = ("_compiled",)

    def __init__(self, compiled: Any) -> None:
        self._compiled = compiled

    @property
    def always_not_bool(self) -> str:
        """The type of the result when it is known and is not bool, else empty."""
        kind = self._compiled.return_type()
        return "" if kind in (cel.Type.BOOL, cel.Type.DYN) else _type_name(kind.name())

    def run(self, variables: Mapping[str, Any]) -> Any:
        """Return the result in Python's terms, with sorted keys. Raises ExpressionError."""
        try:
            answer = self._compiled.eval(data=variables)
            value = answer.plain_value()
        except (RuntimeError, TypeError, ValueError, OverflowError, SystemError, MemoryError) as error:
            raise ExpressionError(_clean(str(error))) from None
        # An error is a value of its own type whose plain value is the text.
        if answer.type() == cel.Type.ERROR:
            raise ExpressionError(_clean(value))
        return value if type(value) in _SIMPLE else _plain(value)


def syntax(source: str) -> bytes:
    """Return the serialized syntax tree (`cel.expr.ParsedExpr` in an `Any`). Raises ExpressionError."""
    return bytes(_compile(source, frozenset(), disable_check=True).serialize())


def program(source: str, names: frozenset[str]) -> Program:
    """Return the compiled expression over variables of these names. Raises ExpressionError."""
    return Program(_compile(source, names, disable_check=False))


def _compile(source: str, names: frozenset[str], disable_check: bool) -> Any:
    if len(source) > MAX_SOURCE:
        raise ExpressionError(f"is longer than {MAX_SOURCE} characters")
    if "\0" in source or not source.strip():
        raise ExpressionError("is empty" if not source.strip() else "contains the character NUL")
    try:
        return _environment(names).compile(source, disable_check=disable_check)
    except (RuntimeError, UnicodeError) as error:
        raise ExpressionError(_explain(_clean(str(error)), source, names)) from None


@lru_cache(maxsize=64)
def _environment(names: frozenset[str]) -> Any:
    _make_none_immortal()
    # Never ExtOptional: `{1: a.?q}` is a segmentation fault with it.
    extensions = [ext_strings.ExtStrings(), ext_math.ExtMath(), ext_bindings.ExtBindings(), ext_encoders.ExtEncoders()]
    return cel.NewEnv(variables={name: cel.Type.DYN for name in sorted(names)}, extensions=extensions)


@lru_cache(maxsize=1)
def _make_none_immortal() -> None:
    """Keep the count of references to None from reaching zero, since each null in a result loses one on 3.11."""
    if sys.version_info < (3, 12):
        ctypes.c_ssize_t.from_address(id(None)).value += 1 << 40


def _plain(value: Any) -> Any:
    convert = _CONVERSIONS.get(type(value))
    if convert is None:
        # A type (`type(1)`), for one.
        raise ExpressionError("gives something that is not a JSON value")
    return convert(value)


def _plain_map(value: dict[Any, Any]) -> dict[str, Any]:
    for key in value:
        if type(key) is not str:
            raise ExpressionError("gives a map with keys that are not strings, which is not a JSON value")
    return {key: _plain(value[key]) for key in sorted(value)}


def _refuse_bytes(_: Any) -> Any:
    raise ExpressionError("gives bytes, which are not a JSON value; use string(…) or base64.encode(…)")


def _timestamp(value: datetime.datetime) -> str:
    text = value.astimezone(datetime.UTC).replace(tzinfo=None).isoformat()
    return (text.rstrip("0") if "." in text else text) + "Z"


def _duration(value: datetime.timedelta) -> str:
    micros = value // datetime.timedelta(microseconds=1)
    seconds, fraction = divmod(abs(micros), 1_000_000)
    text = f"{seconds}.{fraction:06}".rstrip("0").rstrip(".")
    return f"{'-' if micros < 0 else ''}{text}s"


def _same(value: Any) -> Any:
    return value


_SIMPLE: frozenset[type] = frozenset({str, int, float, bool, type(None)})
_CONVERSIONS: dict[type, Callable[[Any], Any]] = {
    **dict.fromkeys(_SIMPLE, _same),
    list: lambda value: [_plain(item) for item in value],
    dict: _plain_map,
    bytes: _refuse_bytes,
    bytearray: _refuse_bytes,
    datetime.datetime: _timestamp,
    datetime.timedelta: _duration,
}

_POSITION = re.compile(r"^ERROR: <input>:(-?\d+):(-?\d+): ")
_STATUS = re.compile(r"^[A-Z_]+: |\s*\[[A-Z_]+\]$")
_SYNTAX = re.compile(r"^Syntax error: [^'\"]*(?=['\"])|[,;]? expecting (\{.*|'?<EOF>'?$)")
_UNDECLARED = re.compile(r"undeclared reference to '([^'.\s]+)\S*(?: \(in container.*|$)")
_OVERLOAD = re.compile(
    r"no matching overloads? (?:found : |for ')_?([^(\s']+?)_?'?(?: applied to ')?(?:\((.*)\)'?)?$", re.I
)
_SHOWN = {"[": "[…]", "[_]": "[…]", "@in": "in", "-_": "-", "!_": "!"}
_NAMESPACES = ("base64", "cel", "math", "strings")
_KNOWN = {
    "Iteration budget exceeded": "loops more than 10,000 times in all",
    "Expression recursion limit exceeded": "is nested more than 32 levels deep",
    "Exceeded max recursion depth": "is nested or chained more than 32 levels deep",
    "<jump_condition>": "tests a value that is not a bool",
    "<iter_range>": "loops over a value that is neither a list nor a map",
    "Applying SELECT to non-message type": "takes a field of a value that is not a map",
    "construction from null": "reads a string with half of a surrogate pair",
}


def _clean(message: str) -> str:
    """Return the first complaint without the library's prefixes, source dump and lists of tokens."""
    line = _STATUS.sub("", message.partition("\n")[0]).replace("Key not found in map : ", MISSING_KEY)
    for sign, meaning in _KNOWN.items():
        if sign in line:
            return meaning
    at = _POSITION.match(line)
    text = line[at.end() :] if at else line
    if text.startswith("Syntax error"):
        text = "unexpected " + _SYNTAX.sub("", text).replace("'<EOF>'", "end")
    if overload := _OVERLOAD.search(text):
        text = _no_overload(overload[1], _type_name(overload[2] or ""))
    text = _short(text).rstrip(". ") or "fails without saying why"
    return f"line {at[1]}, column {at[2]}: {text}" if at else text


def _explain(text: str, source: str, names: frozenset[str]) -> str:
    """Tell an unknown variable from an unknown function, which the library does not."""
    unknown = _UNDECLARED.search(text)
    if not unknown:
        return text
    name = unknown[1]
    if name in _NAMESPACES or re.search(rf"\b{re.escape(name)}\s*\(", source):
        explained = f"unknown function '{name}'"
    else:
        explained = f"unknown variable '{name}'; known are {', '.join(sorted(names)) or 'none'}"
    return text[: unknown.start()] + explained


def _no_overload(operation: str, kinds: str) -> str:
    if operation == "?_:":
        return f"the two results of ? : have different types ({kinds}); write dyn(…) around one"
    text = f"cannot apply {_SHOWN.get(operation, operation)} to ({kinds or 'these types'})"
    if {"int", "double"} <= set(kinds.split(", ")):
        text += "; write double(…) around the whole number"
    return text


def _short(text: str) -> str:
    # Keys and sources are quoted in messages, and Postgres would refuse to keep a NUL.
    text = "".join(character if character.isprintable() else "�" for character in text[: _MAX_MESSAGE + 1])
    return text if len(text) <= _MAX_MESSAGE else text[:_MAX_MESSAGE] + "…"


def _type_name(name: str) -> str:
    return name.lower().replace("int64", "int").replace("null_type", "null").replace("<dyn, dyn>", "")
