"""Rewrites a syntax tree before it runs, where the library has a function for ints only or writes numbers badly.

A whole JSON number counts as an int where one is wanted: `x.substring(input.n)`. `string` and `format` write it as
JSON does. `duration` takes what the handler `wait` takes. `has(steps.a.error)` is false for a step without an error,
whose `error` is null. Loops go over a map in the order of its keys, and time zones are those that every machine has, so
that an expression gives the same whenever and wherever it is computed. The check of names and types sees the tree as it
was written.

`in_pieces` has `map` and `filter` build their lists in pieces of 32. The library copies such a list for each element:
half a million copies for 1,000 elements, of which a sixteenth is left. A few elements are quicker without.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import partial, reduce

from service import wire
from service.engine.expressions import results
from service.engine.expressions.errors import ExpressionError

# Operands that are to be ints, by function. A target is operand 0, also the `math` of `math.bitAnd`.
_WHOLE: Mapping[str, tuple[int, ...]] = {
    "substring": (1, 2),
    "charAt": (1,),
    "indexOf": (2,),
    "lastIndexOf": (2,),
    "split": (2,),
    "replace": (3,),
    "timestamp": (0,),
    **dict.fromkeys(("bitAnd", "bitOr", "bitXor", "bitShiftLeft", "bitShiftRight"), (1, 2)),
    "bitNot": (1,),
}
TAKE_INTS = frozenset(_WHOLE)
_OF_DAY = ("getHours", "getMinutes", "getSeconds", "getMilliseconds")
# What takes a time zone as its only argument.
ZONED = frozenset({"getFullYear", "getMonth", "getDate", "getDayOfMonth", "getDayOfWeek", "getDayOfYear", *_OF_DAY})

# Field numbers of cel/expr/syntax.proto.
_CONST, _IDENT, _SELECT, _CALL, _LIST, _MAP, _LOOP = 3, 4, 5, 6, 7, 8, 9
_TARGET, _FUNCTION, _ARGUMENT = 1, 2, 3
_ELEMENT, _DOUBLE, _STRING = 1, 5, 6
_TEST = 3
_VARIABLE, _RANGE, _COLLECTED, _START, _CONDITION, _STEP, _RESULT, _SECOND_VARIABLE = range(1, 9)
_BELOW = {_SELECT: (1,), _CALL: (_TARGET, _ARGUMENT), _LIST: (1,), _MAP: (2,), _LOOP: (2, 4, 5, 6, 7)}
_ENTRY = (3, 4)

_Rules = Mapping[int, Callable[[bytes, wire.Fields], bytes]]

_CLAUSE = re.compile(r"%(?:%|(?:\.\d+)?([a-zA-Z]))")


def program(parsed: bytes, *, in_pieces: bool = False) -> bytes:
    """Return a `cel.expr.ParsedExpr` in an `Any` as it is to run; the same object where nothing is to change."""
    wrapper = wire.fields(parsed)
    inside = wire.fields(wire.block(wrapper, 2))
    before = wire.block(inside, 2)
    after = _rewritten(before, _IN_PIECES if in_pieces else _RULES)
    return parsed if after is before else wire.message({**wrapper, 2: [wire.message({**inside, 2: [after]})]})


def _rewritten(expression: bytes, rules: _Rules) -> bytes:
    """Return a `cel.expr.Expr` as it is to run; the same object where nothing is to change."""
    fields = wire.fields(expression)
    number = next((number for number in _BELOW if number in fields), None)
    if number is None:
        return expression
    node = wire.block(fields, number)
    changed = _below(node, _BELOW[number], partial(_entry if number == _MAP else _rewritten, rules=rules))
    same = expression if changed is node else wire.message({number: [changed]})
    rule = rules.get(number)
    return rule(same, wire.fields(changed)) if rule else same


def _entry(entry: bytes, rules: _Rules) -> bytes:
    return _below(entry, _ENTRY, partial(_rewritten, rules=rules))


def _below(node: bytes, numbers: tuple[int, ...], rewrite: Callable[[bytes], bytes]) -> bytes:
    fields = wire.fields(node)
    before = {number: wire.blocks(fields, number) for number in numbers if number in fields}
    after = {number: [rewrite(part) for part in parts] for number, parts in before.items()}
    if all(new is old for number in after for new, old in zip(after[number], before[number], strict=True)):
        return node
    return wire.message({**fields, **after})


def _tested(test: bytes, select: wire.Fields) -> bytes:
    """Return `has(steps.a.output.x)` as `has(steps.a.output) && steps.a.output != null && has(steps.a.output.x)`."""
    if _TEST not in select:
        return test
    place: wire.Fields | None = select
    while place is not None:
        operand = wire.block(place, 1)
        if wire.text(place, 2) in ("output", "error") and _is_step(operand):
            field = {1: [operand], 2: [wire.block(place, 2)]}
            present = wire.message({_SELECT: [wire.message({**field, _TEST: [1]})]})
            filled = _function("_!=_", wire.message({_SELECT: [wire.message(field)]}), _NULL)
            tests = [filled] if place is select else [filled, test]
            return reduce(partial(_function, "_&&_"), tests, present)
        place = _selected(operand)
    return test


def _is_step(expression: bytes) -> bool:
    """Return whether an expression is `steps.a`, `steps["a"]` or `steps[…]`, or one of `previous`."""
    fields = wire.fields(expression)
    call, select = wire.fields(wire.block(fields, _CALL)), wire.fields(wire.block(fields, _SELECT))
    below = wire.blocks(call, _ARGUMENT)[0] if wire.text(call, _FUNCTION) == "_[_]" else wire.block(select, 1)
    return wire.text(wire.fields(wire.block(wire.fields(below), _IDENT)), 1).removeprefix(".") in ("steps", "previous")


def _selected(expression: bytes) -> wire.Fields | None:
    """Return the field that an expression selects, if need be below an index."""
    fields = wire.fields(expression)
    call = wire.fields(wire.block(fields, _CALL))
    if wire.text(call, _FUNCTION) == "_[_]":
        return _selected(wire.blocks(call, _ARGUMENT)[0])
    return wire.fields(wire.block(fields, _SELECT)) if _SELECT in fields else None


def _ordered(loop: bytes, fields: wire.Fields) -> bytes:
    """Return a loop such that it goes over a map in the order of its keys.

    The library takes another order each time. Then what a list holds differs, and of `exists`, `all` and `exists_one`
    which error is told, and after how many rounds they end. The value that belongs to a key is looked up in each round.
    """
    over, second = wire.block(fields, _RANGE), wire.text(fields, _SECOND_VARIABLE)
    if _is_list(over):
        return loop
    if not second:
        return wire.message({_LOOP: [wire.message({**fields, _RANGE: [_by_type(over, {"map": "@keys"})]})]})
    key = _name(wire.text(fields, _VARIABLE))
    step = _bind(second, _function("_[_]", _OVER, key), wire.block(fields, _STEP))
    keys = _by_type(_OVER, {"map": "@keys", "list": "@indexes"})
    one: wire.Fields = {**fields, _RANGE: [keys], _STEP: [step], _SECOND_VARIABLE: []}
    return _bind("@over", over, wire.message({_LOOP: [wire.message(one)]}))


def _in_pieces(loop: bytes, fields: wire.Fields) -> bytes:
    """Return a loop as `_ordered` does, and one that builds a list such that it builds this in pieces."""
    variable, second = wire.text(fields, _VARIABLE), wire.text(fields, _SECOND_VARIABLE)
    if not _collects(fields) or variable == "#unused":
        return _ordered(loop, fields)
    kinds = {"map": "@keys", "list": "@indexes"} if second else {"map": "@keys"}
    step = wire.block(fields, _STEP)
    if second:
        step = _bind(second, _function("_[_]", _OVER, _name(variable)), step)
    step = _bind(variable, _function("_[_]", _KEYS, _AT), step)
    piece: wire.Fields = {**fields, _VARIABLE: [b"@at"], _RANGE: [_PIECE], _STEP: [step], _SECOND_VARIABLE: []}
    # What is no list is left for the library to refuse.
    is_list = _function("_==_", _function("type", _KEYS), _name(".list"))
    pieces = _function("_?_:_", is_list, _function("@pieces", _function("size", _KEYS)), _KEYS)
    whole: wire.Fields = {
        _VARIABLE: [b"@piece"],
        _RANGE: [pieces],
        _COLLECTED: [b"@all"],
        _START: [*wire.blocks(fields, _START)],
        _CONDITION: [wire.message({_CONST: [wire.message({2: [1]})]})],
        _STEP: [_function("_+_", _ALL, wire.message({_LOOP: [wire.message(piece)]}))],
        _RESULT: [_ALL],
    }
    keys = _bind("@index", _by_type(_OVER, kinds), wire.message({_LOOP: [wire.message(whole)]}))
    return _bind("@over", wire.block(fields, _RANGE), keys)


def _collects(loop: wire.Fields) -> bool:
    return _LIST in wire.fields(wire.block(loop, _START))


def _is_list(expression: bytes) -> bool:
    """Return whether an expression is surely a list: a literal, or what another loop built."""
    fields = wire.fields(expression)
    loop = wire.fields(wire.block(fields, _LOOP))
    return _LIST in fields or (_collects(loop) and wire.text(loop, _VARIABLE) != "#unused")


def _distinct(literal: bytes, fields: wire.Fields) -> bytes:
    """Return a map literal that fails where keys differ in their types only: in Python one of them would win."""
    keys = [wire.fields(wire.block(wire.fields(entry), 3)) for entry in wire.blocks(fields, 2)]
    kinds = [_constant_kind(key) for key in keys]
    if len(kinds) - kinds.count(_STRING) < 2 or (None not in kinds and len(set(kinds)) == 1):
        return literal
    are = _function("@distinct", _VALUE, _function("size", _VALUE))
    return _bind("@value", literal, _function("_?_:_", are, _VALUE, _VALUE))


def _constant_kind(expression: wire.Fields) -> int | None:
    """Return the number of the field that holds a literal, None for anything else."""
    return next(iter(wire.fields(wire.block(expression, _CONST))), None) if _CONST in expression else None


def _called(expression: bytes, call: wire.Fields) -> bytes:
    """Return what a call becomes, the same object where it stays as it is."""
    function, target, arguments = wire.text(call, _FUNCTION), wire.blocks(call, _TARGET), wire.blocks(call, _ARGUMENT)
    match function, target, arguments:
        case "string", [], [value]:
            return _by_type(value, {"double": "@text"}, otherwise="string")
        case "duration", [], [value] if (text := _text(value)) is not None:
            return _function("duration", _literal(results.span(text)))
        case "duration", [], [value]:
            return _function("duration", _by_type(value, {"string": "@span"}))
        case "format", [template], [values]:
            return _function("format", _arguments(_text(template), values), target=template)
        case _, [time], [zone] if function in ZONED:
            return _function(function, _zone(zone), target=time)
    if function not in _WHOLE or bool(target) is (function == "timestamp"):
        return expression
    if len(target) + len(arguments) <= min(_WHOLE[function]):
        return expression
    operands = [
        _by_type(operand, {"double": "@whole"}) if place in _WHOLE[function] else operand
        for place, operand in enumerate([*target, *arguments])
    ]
    return _function(function, *operands[len(target) :], target=operands[0] if target else None)


def _zone(zone: bytes) -> bytes:
    if (text := _text(zone)) is None:
        return _by_type(zone, {"string": "@zone"})
    try:
        results.zone(text)
    except ValueError as error:
        raise ExpressionError(str(error)) from None
    return zone


def _arguments(template: str | None, values: bytes) -> bytes:
    """Return the list of values for a template: numbers, also those inside of lists and maps, as they are written."""
    expression = wire.fields(values)
    if _LIST not in expression:
        return _by_type(values, {"list": "@arguments"})
    clauses = [letter for letter in _CLAUSE.findall(template or "") if letter]
    items = wire.blocks(wire.fields(wire.block(expression, _LIST)), _ELEMENT)
    inside = {"list": "@written", "map": "@written"}
    written = [
        _by_type(item, {"double": "@text" if clauses[place : place + 1] == ["s"] else "@written", **inside})
        for place, item in enumerate(items)
    ]
    return wire.message({_LIST: [wire.message({_ELEMENT: written})]})


def _by_type(value: bytes, functions: Mapping[str, str], otherwise: str | None = None) -> bytes:
    """Return `cel.bind(@value, value, type(@value) == kind ? function(@value) : … )` for each kind in turn."""
    expression = wire.fields(value)
    if _CONST in expression and not {_DOUBLE, _STRING} & set(wire.fields(wire.block(expression, _CONST))):
        return _function(otherwise, value) if otherwise else value
    rest = _function(otherwise, _VALUE) if otherwise else _VALUE
    for kind, function in functions.items():
        is_kind = _function("_==_", _function("type", _VALUE), _name(f".{kind}"))
        rest = _function("_?_:_", is_kind, _function(function, _VALUE), rest)
    return _bind("@value", value, rest)


def _bind(name: str, value: bytes, body: bytes) -> bytes:
    """Return what `cel.bind(name, value, body)` expands to: a loop without any round."""
    never = wire.message({_CONST: [wire.message({2: [0]})]})
    binding: dict[int, list[wire.Value]] = {
        _VARIABLE: [b"#unused"],
        _RANGE: [wire.message({_LIST: [b""]})],
        _COLLECTED: [name.encode()],
        _START: [value],
        _CONDITION: [never],
        _STEP: [_name(name)],
        _RESULT: [body],
    }
    return wire.message({_LOOP: [wire.message(binding)]})


def _function(name: str, *arguments: bytes, target: bytes | None = None) -> bytes:
    call: dict[int, list[wire.Value]] = {_FUNCTION: [name.encode()], _ARGUMENT: [*arguments]}
    if target is not None:
        call[_TARGET] = [target]
    return wire.message({_CALL: [wire.message(call)]})


def _name(name: str) -> bytes:
    return wire.message({_IDENT: [wire.message({1: [name.encode()]})]})


def _literal(text: str) -> bytes:
    return wire.message({_CONST: [wire.message({_STRING: [text.encode()]})]})


def _text(expression: bytes) -> str | None:
    """Return the string that a literal is, None for anything else."""
    literal = wire.fields(wire.block(wire.fields(expression), _CONST))
    return wire.text(literal, _STRING) if _STRING in literal else None


_VALUE, _OVER = _name("@value"), _name("@over")
_KEYS, _PIECE, _AT, _ALL = map(_name, ("@index", "@piece", "@at", "@all"))
_NULL = wire.message({_CONST: [wire.message({1: [0]})]})
_RULES: _Rules = {
    _CALL: _called,
    _SELECT: _tested,
    _MAP: _distinct,
    _LOOP: _ordered,
}
_IN_PIECES: _Rules = {**_RULES, _LOOP: _in_pieces}
