"""Every bounded field of every request, as the protos' rules tell: a new field is in here by itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message_factory import GetMessageClass

from tests.integration.bad_fields import first, rules_of

Fill = Callable[[Any, int], None]

UNBOUNDED_BY_RULES = {
    "google.protobuf.Struct": "a payload: the one check of payloads bounds it",
    "google.protobuf.Value": "a payload",
    "google.protobuf.Timestamp": "a number",
}
"""Messages that have no rules of ours, and why they need none."""


@dataclass(frozen=True)
class Bounded:
    """A field that may have this much at most, and what gives it so much as asked for."""

    path: str
    limit: int
    fill: Fill
    is_number: bool = False
    """Whether the limit is one of the value; else it is one of the length."""


def bounded(descriptor: Descriptor, within: tuple[Descriptor, ...] = ()) -> Iterator[Bounded]:
    """Yield the bounded fields of a message, and of those in it; a message in itself is looked into once."""
    within = (*within, descriptor)
    for field in descriptor.fields:
        message, name = field.message_type, field.name
        if message and message.GetOptions().map_entry:
            yield from _of_map(field, within)
        elif field.is_repeated:
            yield from _of_list(field, within)
        elif message and message.file.package == "flowkeep.v1":
            for inner in bounded(message, within) if message not in within else ():
                yield _below(name, inner, attrgetter(name))
        else:
            yield from _of_single(field)


def unbounded(descriptor: Descriptor, within: tuple[Descriptor, ...] = ()) -> Iterator[str]:
    """Yield the fields of a message, and of those in it, that no rule bounds."""
    within = (*within, descriptor)
    for field in descriptor.fields:
        message, rules = field.message_type, rules_of(field)
        if message and message.GetOptions().map_entry:
            parts = {"pairs": rules.map.max_pairs, "keys": rules.map.keys.string.max_len}
            if (value := _value(message).message_type) is None:
                parts["values"] = rules.map.values.string.max_len
            elif value not in within:
                yield from (f"{field.name}.{path}" for path in unbounded(value, within))
            yield from (f"{field.name}: {part}" for part, limit in parts.items() if not limit)
        elif message and message.file.package == "flowkeep.v1":
            below = unbounded(message, within) if message not in within else ()
            yield from (f"{field.name}.{path}" for path in below)
        elif field.type == field.TYPE_STRING:
            one = rules.repeated.items.string if field.is_repeated else rules.string
            if not (one.max_len or one.uuid or (one.pattern.endswith("?$") and "{0," in one.pattern)):
                yield field.name
        elif message and message.full_name not in (*UNBOUNDED_BY_RULES, "google.protobuf.Duration"):
            yield field.name
        if field.is_repeated and not (message and message.GetOptions().map_entry) and not rules.repeated.max_items:
            yield f"{field.name}: entries"


def _below(name: str, inner: Bounded, part: Callable[[Any], Any]) -> Bounded:
    return Bounded(f"{name}.{inner.path}", inner.limit, lambda m, n: inner.fill(part(m), n), inner.is_number)


def _value(entry: Descriptor | None) -> FieldDescriptor:
    assert entry is not None  # of a map
    return entry.fields_by_name["value"]


def _of_map(field: FieldDescriptor, within: tuple[Descriptor, ...]) -> Iterator[Bounded]:
    rules, name, message = rules_of(field).map, field.name, _value(field.message_type).message_type

    def put(to: Any, keys: Iterable[str]) -> None:
        for key in keys:
            if message:
                getattr(to, name)[key].SetInParent()
            else:
                getattr(to, name)[key] = "1"

    if rules.max_pairs:
        yield Bounded(name, rules.max_pairs, lambda m, n: put(m, (f"k{i}" for i in range(n))))
    if rules.keys.string.max_len:
        yield Bounded(name, rules.keys.string.max_len, lambda m, n: put(m, ["k" * n]))
    if message and message not in within:
        for inner in bounded(message, within):
            yield _below(f'{name}["k"]', inner, lambda m: getattr(m, name)["k"])
    if rules.values.string.max_len:
        yield Bounded(name, rules.values.string.max_len, lambda m, n: getattr(m, name).update({"k": "1" * n}))


def _of_list(field: FieldDescriptor, within: tuple[Descriptor, ...]) -> Iterator[Bounded]:
    rules, name, message = rules_of(field).repeated, field.name, field.message_type
    many: Callable[[int], list[Any]]
    if message:
        for inner in bounded(message, within) if message not in within else ():
            yield _below(f"{name}[0]", inner, lambda m: first(getattr(m, name)))
        empty = GetMessageClass(message)()
        many = lambda n: [empty] * n  # noqa: E731
    elif field.type == field.TYPE_ENUM:
        many = lambda n: [1 + i % 8 for i in range(n)]  # noqa: E731
    elif field.type != field.TYPE_STRING:
        many = lambda n: list(range(1, n + 1))  # noqa: E731
    else:
        many = lambda n: [f"t{i}" for i in range(n)]  # noqa: E731
        if rules.items.string.max_len:
            yield Bounded(name, rules.items.string.max_len, lambda m, n: getattr(m, name).append("t" * n))
    if rules.max_items:
        yield Bounded(name, rules.max_items, lambda m, n: _refill(getattr(m, name), many(n)))


def _refill(entries: Any, with_these: list[Any]) -> None:
    del entries[:]
    entries.extend(with_these)


def _of_single(field: FieldDescriptor) -> Iterator[Bounded]:
    rules, name = rules_of(field), field.name
    kind = rules.WhichOneof("type")
    if kind == "string" and rules.string.max_len:
        yield Bounded(name, rules.string.max_len, lambda m, n: setattr(m, name, "x" * n))
    elif kind in ("int32", "int64") and getattr(rules, kind).HasField("lte"):
        yield Bounded(name, getattr(rules, kind).lte, lambda m, n: setattr(m, name, n), is_number=True)
    elif kind == "duration":
        seconds = rules.duration.lte.seconds
        yield Bounded(name, seconds, lambda m, n: setattr(getattr(m, name), "seconds", n), is_number=True)
