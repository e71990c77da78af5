"""What a JSON number does: it is a double, and doubles mix with ints, as literals and `size` give them.

The library has each operator for two numbers of one type only. Here the other pairs are declared, so that they pass
its check, and added where it cannot compute them: `+ - * / %` give a double, `%` for whole numbers alone. To compare,
to look for (`in`) and to index by a whole double it can by itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import permutations, product
from types import NoneType
from typing import Any

from service.engine import payload

# Below, a whole double has all the digits that it prints.
_MAX_WHOLE = 2**53
_MAX_INT = 2**63
_NOT_FINITE = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}

_Type = Mapping[str, Any]
_Overload = tuple[_Type, ...]  # the types of the operands, and that of the result


def as_doubles(value: Any) -> Any:
    """Return a JSON value in which every number is a float and every mapping a dict, as the library takes them."""
    if isinstance(value, list):
        kinds = set(map(type, value))
        if kinds <= _KEPT:  # nobody changes it
            return value
        if kinds <= _SCALAR:
            return [float(item) if type(item) is int else item for item in value]
        return [item if type(item) in _KEPT else as_doubles(item) for item in value]
    if isinstance(value, Mapping):
        return {key: item if type(item) in _KEPT else as_doubles(item) for key, item in value.items()}
    return float(value) if type(value) is int else value


def whole(number: float) -> int:
    """Return a whole double as an int of 64 bits. Raises ValueError for any other."""
    if not number.is_integer() or abs(number) >= _MAX_INT:
        raise ValueError(f"needs a whole number{' of 64 bits' if number.is_integer() else ''}, not {number:g}")
    return int(number)


def text(number: float) -> str:
    """Return a double as the text of a template has it: as JSON, and a whole one without ".0"."""
    if not math.isfinite(number):
        return _NOT_FINITE[repr(number)]
    if number.is_integer() and abs(number) < _MAX_WHOLE:
        return str(int(number))
    return payload.encode(number).decode()


def declarations() -> list[Mapping[str, Any]]:
    """Return all overloads of each operator on numbers, in the form of the library's configuration."""
    return [
        {
            "name": operator,
            "overloads": [
                {"id": _identifier(operator, types), "args": types, "return": result} for *types, result in overloads
            ],
        }
        for operator, overloads in _operators().items()
    ]


def implementations() -> dict[str, Callable[..., Any]]:
    """Return the functions that the library lacks, by the ids of their overloads."""
    added = {_identifier(name, pair): act for name, act in _ARITHMETIC.items() for pair in _WITH_DOUBLE}
    return {**added, _identifier("_%_", (_DOUBLE, _DOUBLE)): _modulo}


def _kind(name: str, *parameters: _Type) -> _Type:
    return {"type_name": name, "params": list(parameters)} if parameters else {"type_name": name}


_BOOL, _INT, _UINT, _DOUBLE = map(_kind, ("bool", "int", "uint", "double"))
_STRING, _BYTES, _TIME, _SPAN, _DYN = map(_kind, ("string", "bytes", "timestamp", "duration", "dyn"))
_A: _Type = {"type_name": "A", "is_type_param": True}
_B: _Type = {"type_name": "B", "is_type_param": True}
# Of any elements: in these, numbers of different types meet.
_LIST, _MAP = _kind("list", _DYN), _kind("map", _DYN, _DYN)
_KEPT = frozenset({float, str, bool, NoneType})
_SCALAR = _KEPT | {int}

_NUMBERS = (_INT, _UINT, _DOUBLE)
_MIXED = tuple(permutations(_NUMBERS, 2))
_WITH_DOUBLE = tuple(pair for pair in _MIXED if _DOUBLE in pair)


def _operators() -> dict[str, Sequence[_Overload]]:
    """Return the overloads of the standard library's own operators, and those for different numbers."""
    arithmetic = [*((kind, kind, kind) for kind in _NUMBERS), *((*pair, _DOUBLE) for pair in _WITH_DOUBLE)]
    mixed = [(*pair, _BOOL) for pair in _MIXED]
    equal = [*((kind, kind, _BOOL) for kind in (_A, _LIST, _MAP)), *mixed]
    ordered = [*((kind, kind, _BOOL) for kind in (_BOOL, *_NUMBERS, _STRING, _BYTES, _TIME, _SPAN)), *mixed]
    joined = [(kind, kind, kind) for kind in (_STRING, _BYTES, _SPAN, _LIST)]
    return {
        "_+_": [*arithmetic, *joined, (_TIME, _SPAN, _TIME), (_SPAN, _TIME, _TIME)],
        "_-_": [*arithmetic, (_TIME, _TIME, _SPAN), (_TIME, _SPAN, _TIME), (_SPAN, _SPAN, _SPAN)],
        **dict.fromkeys(("_*_", "_/_", "_%_"), arithmetic),
        **dict.fromkeys(("_==_", "_!=_"), equal),
        **dict.fromkeys(("_<_", "_<=_", "_>_", "_>=_"), ordered),
        "@in": [(*look_up, _BOOL) for look_up in _look_ups()],
        "_[_]": [*((_kind("list", _A), kind, _A) for kind in _NUMBERS), *_keyed()],
        "_?_:_": [
            *((_BOOL, kind, kind, kind) for kind in (_A, _LIST, _MAP)),
            *((_BOOL, *pair, _DOUBLE) for pair in _MIXED),
        ],
    }


def _look_ups() -> Iterator[_Overload]:
    yield _A, _kind("list", _A)
    yield _A, _kind("map", _A, _B)
    for one, other in _MIXED:
        yield one, _kind("list", other)
        yield one, _kind("map", other, _B)
    for nested in (_LIST, _MAP):
        yield nested, _kind("list", nested)


def _keyed() -> Iterator[_Overload]:
    yield _kind("map", _A, _B), _A, _B
    for key, given in product((_INT, _UINT), _NUMBERS):
        if key is not given:
            yield _kind("map", key, _B), given, _B


def _identifier(operator: str, types: Sequence[_Type]) -> str:
    return f"{operator}({', '.join(map(_spelled, types))})"


def _spelled(kind: _Type) -> str:
    inside = ", ".join(map(_spelled, kind.get("params", ())))
    return f"{kind['type_name']}({inside})" if inside else str(kind["type_name"])


def _divide(one: float, other: float) -> float:
    if other:
        return one / other
    # Python raises where a double has an answer.
    return math.copysign(math.inf, one) * math.copysign(1.0, other) if one and not math.isnan(one) else math.nan


def _modulo(one: float, other: float) -> float:
    """The remainder has the sign of what is divided, as that of ints has."""
    if not whole(float(other)):
        raise ValueError("modulus by zero")
    return math.fmod(whole(float(one)), other)


_ARITHMETIC: Mapping[str, Callable[[Any, Any], float]] = {
    "_+_": lambda one, other: float(one) + float(other),
    "_-_": lambda one, other: float(one) - float(other),
    "_*_": lambda one, other: float(one) * float(other),
    "_/_": lambda one, other: _divide(float(one), float(other)),
    "_%_": _modulo,
}
