"""Values that break the field rules of requests, and what puts them there."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message_factory import GetMessageClass
from google.protobuf.unknown_fields import UnknownFieldSet

from service.api.reflection import shown_files
from tests.integration.calls import HUGE, NOBODYS, RULES_OPTION


def bad_strings(rules):
    if rules.HasField("min_len"):
        yield ""
    if rules.HasField("max_len"):
        yield "x" * (rules.max_len + 1)
        yield "é" * (rules.max_len + 1)
    if rules.HasField("pattern"):
        yield from ("1 a", "é", "a\n", "a b")
    if rules.HasField("uuid"):
        yield from ("x", NOBODYS[:-1], NOBODYS + "0", "{" + NOBODYS + "}", "' OR 1=1 --")
    yield "a\0b"


def bad_numbers(rules, step=1):
    if rules.HasField("gte"):
        yield rules.gte - step
    if rules.HasField("lte"):
        yield rules.lte + step
    if step != 1:
        yield from (math.nan, math.inf, -math.inf)
    else:
        yield -(2**31)


def bad_durations(rules):
    yield from (Duration(seconds=-1), Duration(nanos=-1), Duration(seconds=HUGE), Duration(seconds=-HUGE))
    yield from (Duration(seconds=315_576_000_001), Duration(seconds=rules.lte.seconds, nanos=1_000))
    # What no span of time is: some read the first as 2 s and the second as half of one.
    yield from (Duration(seconds=1, nanos=10**9), Duration(seconds=1, nanos=-5 * 10**8), Duration(nanos=-(2**31)))
    if rules.HasField("gt") or rules.gte.ListFields():
        yield Duration()
    if rules.HasField("gte"):
        yield Duration(nanos=rules.gte.nanos - 1)


def bad_values(field, rules):
    """Values of one entry of a field that break its rules."""
    kind = rules.WhichOneof("type")
    if field.type == field.TYPE_ENUM:
        yield from (99, -1, *rules.enum.not_in)
    elif kind == "string" or field.type == field.TYPE_STRING:
        yield from bad_strings(rules.string)
    elif kind in ("int32", "int64"):
        yield from bad_numbers(getattr(rules, kind))
    elif kind == "double":
        yield from bad_numbers(rules.double, 0.001)
    elif kind == "duration":
        yield from bad_durations(rules.duration)
    elif rules.cel:
        assert field.name == "backoff_coefficient"
        yield from (0.99, -1.0, 100.01, math.nan, math.inf)


@cache
def _rules() -> Any:
    """The message of a field's rules, as reflection shows it: the stubs know nothing of it."""
    pool = DescriptorPool()
    for file in shown_files().values():
        pool.Add(file)
    return GetMessageClass(pool.FindMessageTypeByName("buf.validate.FieldRules"))


def rules_of(field):
    """The rules of a field, empty where it has none."""
    options: Any = UnknownFieldSet(field.GetOptions())
    return _rules().FromString(b"".join(each.data for each in options if each.field_number == RULES_OPTION))


def broken(descriptor, within=()):
    """Yield the path of each bounded field, what is put there, and how: a function that spoils a message.

    A message in itself, as a step in the body of a step, is looked into once.
    """
    many: Any
    within = (*within, descriptor)
    for field in descriptor.fields:
        rules = rules_of(field)
        message, name = field.message_type, field.name
        if message and message.GetOptions().map_entry:
            keys, values = message.fields_by_name["key"], message.fields_by_name["value"]
            for key in bad_values(keys, rules.map.keys):
                yield name, key, lambda m, n=name, k=key: add_entries(getattr(m, n), [k])
            many = [f"k{n}" for n in range(rules.map.max_pairs + 1)]
            yield name, "too many", lambda m, n=name, v=many: add_entries(getattr(m, n), v)
            if values.message_type:
                for path, what, spoil in broken(values.message_type, within):
                    yield f'{name}["k"].{path}', what, lambda m, n=name, s=spoil: s(getattr(m, n)["k"])
            else:
                for value in bad_values(values, rules.map.values):
                    yield name, value, lambda m, n=name, v=value: getattr(m, n).update({"k": v})
        elif field.is_repeated and message:
            for path, what, spoil in broken(message, within) if message not in within else ():
                yield f"{name}[0].{path}", what, lambda m, n=name, s=spoil: s(first(getattr(m, n)))
            many = [GetMessageClass(message)()] * (rules.repeated.max_items + 1)
            yield name, "too many", lambda m, n=name, v=many: getattr(m, n).extend(v)
        elif field.is_repeated:
            for value in bad_values(field, rules.repeated.items):
                yield name, value, lambda m, n=name, v=value: getattr(m, n).append(v)
            is_number = field.type != field.TYPE_STRING
            many = [1 if is_number else f"t{n}" for n in range(rules.repeated.max_items + 1)]
            yield name, "too many", lambda m, n=name, v=many: getattr(m, n).extend(v)
            if rules.repeated.unique:
                twice = [1, 1] if is_number else ["t", "t"]
                yield name, "twice", lambda m, n=name, v=twice: getattr(m, n).extend(v)
        elif message and message.file.package == "flowkeep.v1":
            for path, what, spoil in broken(message, within) if message not in within else ():
                yield f"{name}.{path}", what, lambda m, n=name, s=spoil: s(getattr(m, n))
        else:
            for value in bad_values(field, rules):
                yield name, value, lambda m, n=name, v=value: put(m, n, v)


def add_entries(entries, keys):
    for key in keys:
        if hasattr(entries, "get_or_create"):  # of messages
            entries.get_or_create(key)
        else:
            entries[key] = "1"


def first(entries):
    return entries[0] if entries else entries.add()


def put(message, name, value):
    if isinstance(value, Duration):
        getattr(message, name).CopyFrom(value)
    else:
        setattr(message, name, value)
