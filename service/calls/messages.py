"""Messages as JSON and back, by the JSON mapping of protobuf, in bounded time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from google.protobuf import json_format
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from service.engine import payload

Result = TypeVar("Result")

# A value takes about ten microseconds: from here on in a thread. So do bytes of which none is known yet.
_MANY = 500
_LARGE = 4 << 10
# Some of what is counted is no value in the end, such as what a Struct is made of.
_MOST_WORK = 3 * payload.MAX_NODES
# JSON of the depth that a payload may have takes up to three messages for each level.
_MAX_DEPTH = 3 * payload.MAX_DEPTH
_OWN = "google.protobuf."
_ANY = "google.protobuf.Any"
_NO_OBJECTS = frozenset(
    f"{_OWN}{name}"
    for name in (
        *("Timestamp", "Duration", "FieldMask", "Value", "ListValue", "BoolValue", "StringValue", "BytesValue"),
        *("DoubleValue", "FloatValue", "Int64Value", "UInt64Value", "Int32Value", "UInt32Value"),
    )
)
"""Messages whose JSON is something else than an object."""


class UnreadableMessageError(ValueError):
    """Bytes are no such message, or one that JSON cannot tell; the text says why."""


class TooManyValuesError(ValueError):
    """A message has more values than a payload may have."""


async def encoded(message: Any, kind: type[Message], pool: DescriptorPool) -> bytes:
    """Return the bytes of a message that is written as JSON. Raises ValueError, which names the field and its fault."""

    if not isinstance(message, dict) and kind.DESCRIPTOR.full_name not in _NO_OBJECTS:
        raise ValueError(f"must be an object: the method takes a {kind.DESCRIPTOR.full_name}")

    def encode() -> bytes:
        try:
            made: Any = json_format.ParseDict(message, kind(), descriptor_pool=pool)
        except json_format.ParseError as error:
            raise ValueError(f"{error}"[:600]) from None
        except Exception as error:
            raise ValueError(f"is no {kind.DESCRIPTOR.full_name}: {type(error).__name__}") from None
        if absent := made.FindInitializationErrors():
            raise ValueError(f"lacks what is required: {', '.join(absent[:20])}"[:600])
        return bytes(made.SerializeToString())

    return await _apart(payload.values(message), encode)


async def decoded(data: bytes, kind: type[Message], pool: DescriptorPool) -> Any:
    """Return what a message is as JSON. Fields without a value have their default; 64-bit numbers are text.

    Raises UnreadableMessageError and TooManyValuesError.
    """

    def read() -> tuple[Message, int]:
        try:
            message = kind.FromString(data)
        except Exception:
            raise UnreadableMessageError(f"it is no {kind.DESCRIPTOR.full_name}") from None
        return message, _work(message, pool)

    message, work = await (asyncio.to_thread(read) if len(data) > _LARGE else _now(read))
    if work > _MOST_WORK:
        raise TooManyValuesError(f"it has more than {payload.MAX_NODES:,} values")

    def convert() -> Any:
        try:
            return json_format.MessageToDict(message, always_print_fields_with_no_presence=True, descriptor_pool=pool)
        except Exception as error:  # an Any of an unknown type, a time beyond the calendar
            said = str(error)[:300] if isinstance(error, json_format.Error | TypeError | ValueError) else ""
            raise UnreadableMessageError(f"it cannot be told as JSON: {said or type(error).__name__}") from None

    return await _apart(work, convert)


def _work(message: Message, pool: DescriptorPool) -> int:
    """Return about how many values the JSON of a message has, or a number above the most that may be.

    What is in an Any counts, too. Raises UnreadableMessageError for what is nested too deep.
    """
    count, waiting = 1, [(message, 0)]
    costs: dict[str, int] = {}
    while waiting and count <= _MOST_WORK:
        each, depth = waiting.pop()
        if depth > _MAX_DEPTH:
            raise UnreadableMessageError("it is nested too deep")
        name = each.DESCRIPTOR.full_name
        if name not in costs:
            costs[name] = _cost(each.DESCRIPTOR)
        count += costs[name]
        if name == _ANY:
            waiting.extend((inner, depth + 1) for inner in _inside(each, pool))
            continue
        for field, value in each.ListFields():
            count += len(value) if field.is_repeated else int(field.has_presence)
            if count > _MOST_WORK:
                break
            waiting.extend((inner, depth + 1) for inner in _messages(field, value))
    return count


def _cost(kind: Any) -> int:
    """Return what a message without content costs: fields that are told in any case, and those that are looked at."""
    if kind.full_name.startswith(_OWN):  # they are told in forms of their own
        return 0
    fields = kind.fields
    return sum(not field.has_presence for field in fields) + len(fields) // 8


def _messages(field: FieldDescriptor, value: Any) -> Iterable[Message]:
    if field.message_type is None:
        return ()
    if not field.is_repeated:
        return (value,)
    if not field.message_type.GetOptions().map_entry:
        return value  # type: ignore[no-any-return]
    return value.values() if field.message_type.fields_by_name["value"].message_type is not None else ()


def _inside(message: Any, pool: DescriptorPool) -> Iterable[Message]:
    """Return what is in an Any, if it can be read."""
    try:
        kind = pool.FindMessageTypeByName(message.type_url.rpartition("/")[2])
        return (GetMessageClass(kind).FromString(message.value),)
    except Exception:  # told when it is converted
        return ()


async def _now(work: Callable[[], Result]) -> Result:
    return work()


async def _apart(count: int, work: Callable[[], Result]) -> Result:
    return work() if count < _MANY else await asyncio.to_thread(work)
