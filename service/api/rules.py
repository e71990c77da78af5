"""Tells at a glance of a request that it breaks no rule, as nearly none does: the validator takes ten times as long.

For each kind of request one expression is made of the rules in its proto. What it does not know is left to the
validator, which also says what is wrong.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from functools import cache
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message

from service import wire

_RULES = 1159
"""The number of the option that holds rules, of fields and of messages."""

# Numbers in buf/validate/validate.proto.
_INT32, _INT64, _STRING, _ENUM, _IGNORE, _REPEATED, _MAP, _DURATION = 3, 4, 14, 16, 27, 18, 19, 21
_LTE, _GTE = 3, 5
_MIN_LEN, _MAX_LEN, _UUID = 2, 3, 22
_DEFINED_ONLY = 2
_MAX_ITEMS, _UNIQUE, _ITEMS = 2, 3, 4
_MAX_PAIRS, _KEYS, _VALUES = 2, 4, 5
_DURATION_LTE, _DURATION_GT, _DURATION_GTE = 4, 5, 6

_NUMBERS = {FieldDescriptor.TYPE_INT32: _INT32, FieldDescriptor.TYPE_INT64: _INT64}
_MOST = 1 << 63
_PAYLOADS = ("google.protobuf.Struct", "google.protobuf.Value")
_is_uuid = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}").fullmatch


class _UnknownRuleError(Exception):
    """There is a rule that is left to the validator."""


@cache
def glance(descriptor: Descriptor) -> Callable[[Message], bool] | None:
    """Return what tells of messages of a kind whether they are surely sound; None where it could never tell.

    What payloads hold is not looked at. NUL, which no rule is about, is not sound either.
    """
    names: dict[str, Any] = {"is_uuid": _is_uuid, "is_within": _is_within, "are_texts": _are_texts}
    try:
        if _RULES in _read(descriptor.GetOptions()) or any(
            _read(each.GetOptions()) for each in descriptor.oneofs if len(each.fields) > 1
        ):
            raise _UnknownRuleError
        parts = [part for field in descriptor.fields for part in _parts(field, names)]
    except _UnknownRuleError:
        return None
    found: Callable[[Message], bool] = eval(f"lambda m: {' and '.join(parts) or 'True'}", names)  # noqa: S307 - of our protos
    return found


def _parts(field: Any, names: dict[str, Any]) -> list[str]:
    """Return the expressions that must be true of a field."""
    rules = _only(_read(field.GetOptions()).get(_RULES, [b""]))
    value = f"m.{field.name}"
    if field.is_repeated:
        return [f"(not {value} or {_of_many(field, rules, value)})"]
    if field.message_type is not None and field.message_type.full_name in _PAYLOADS:
        _known(rules)
        return []
    expression = _of_one(field, rules, value, names)
    if not expression:
        return []
    return [f'(not m.HasField("{field.name}") or {expression})' if field.has_presence else expression]


def _of_one(field: FieldDescriptor, rules: wire.Fields, value: str, names: dict[str, Any]) -> str:
    if field.type == FieldDescriptor.TYPE_STRING:
        return _of_text(rules, value)
    if (number := _NUMBERS.get(field.type)) is not None:
        bounds = _inner(rules, number, _GTE, _LTE)
        return f"{_signed(bounds, _GTE, -_MOST)} <= {value} <= {_signed(bounds, _LTE, _MOST)}"
    if field.enum_type is not None:
        names[f"of_{field.name}"] = frozenset(field.enum_type.values_by_number)
        _inner(rules, _ENUM, _DEFINED_ONLY)
        return f"{value} in of_{field.name}"
    if field.type == FieldDescriptor.TYPE_BOOL:
        _known(rules)
        return ""
    if field.message_type is not None and field.message_type is Duration.DESCRIPTOR:
        limits = _inner(rules, _DURATION, _DURATION_LTE, _DURATION_GT, _DURATION_GTE)
        least = max(_nanos(limits, _DURATION_GTE, 0), _nanos(limits, _DURATION_GT, -1) + 1)
        return f"is_within({value}, {least}, {_nanos(limits, _DURATION_LTE, _MOST)})"
    _known(rules, _IGNORE)
    return "False"


def _of_many(field: FieldDescriptor, rules: wire.Fields, value: str) -> str:
    """Return what must be true of a list or map that is not empty; none of ours must not be."""
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        pairs = _inner(rules, _MAP, _MAX_PAIRS, _KEYS, _VALUES)
        if field.message_type.fields_by_name["value"].type != FieldDescriptor.TYPE_STRING:
            return "False"
        keys = f"are_texts({value}, {_number(pairs, _MAX_PAIRS, 0)}, {_of_items(pairs, _KEYS)})"
        return f"{keys} and are_texts({value}.values(), {_number(pairs, _MAX_PAIRS, 0)}, {_of_items(pairs, _VALUES)})"
    items = _inner(rules, _REPEATED, _MAX_ITEMS, _UNIQUE, _ITEMS)
    if field.type != FieldDescriptor.TYPE_STRING:
        return "False"
    unique = f" and len(set({value})) == len({value})" if _number(items, _UNIQUE, 0) else ""
    return f"are_texts({value}, {_number(items, _MAX_ITEMS, 0)}, {_of_items(items, _ITEMS)}){unique}"


def _of_items(rules: wire.Fields, number: int) -> str:
    """Return the least and the greatest length of the texts in a list or map."""
    lengths = _inner(_only(rules.get(number, [b""])), _STRING, _MIN_LEN, _MAX_LEN)
    return f"{_number(lengths, _MIN_LEN, 0)}, {_number(lengths, _MAX_LEN, _MOST)}"


def _of_text(rules: wire.Fields, value: str) -> str:
    lengths = _inner(rules, _STRING, _MIN_LEN, _MAX_LEN, _UUID)
    if _number(lengths, _UUID, 0):
        return f"is_uuid({value}) is not None"
    most = f"{_number(lengths, _MIN_LEN, 0)} <= len({value}) <= {_number(lengths, _MAX_LEN, _MOST)}"
    return f'{most} and "\\0" not in {value}'


def _are_texts(texts: Collection[str], most: int, shortest: int, longest: int) -> bool:
    if len(texts) > most:
        return False
    return all(shortest <= len(text) <= longest and "\0" not in text for text in texts)


def _is_within(span: Duration, least: int, most: int) -> bool:
    """Whether a span that is not negative lies within limits, in nanoseconds."""
    return span.seconds >= 0 <= span.nanos < 10**9 and least <= span.seconds * 10**9 + span.nanos <= most


def _read(options: Message) -> wire.Fields:
    return wire.fields(options.SerializeToString())


def _inner(rules: wire.Fields, kind: int, *known: int) -> wire.Fields:
    """Return the rules of a kind, which must be the only ones, and known."""
    _known(rules, kind)
    inner = _only(rules.get(kind, [b""]))
    _known(inner, *known)
    return inner


def _known(rules: Mapping[int, Any], *numbers: int) -> None:
    if not rules.keys() <= set(numbers):
        raise _UnknownRuleError


def _only(found: list[wire.Value]) -> wire.Fields:
    (value,) = found
    return wire.fields(value) if isinstance(value, bytes) else {}


def _number(rules: wire.Fields, number: int, otherwise: int) -> int:
    found = rules.get(number, [otherwise])[-1]
    return found if isinstance(found, int) else otherwise


def _signed(rules: wire.Fields, number: int, otherwise: int) -> int:
    found = _number(rules, number, otherwise)
    return found - (1 << 64) if found >= _MOST and number in rules else found


def _nanos(rules: wire.Fields, number: int, otherwise: int) -> int:
    if number not in rules:
        return otherwise
    span = Duration.FromString(wire.block(rules, number))
    return span.seconds * 10**9 + span.nanos
