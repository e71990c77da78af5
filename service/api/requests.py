"""Reads requests and checks them against the rules in the protos."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import protovalidate
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Struct, Value
from google.protobuf.timestamp_pb2 import Timestamp
from grpc import StatusCode

from flowkeep.v1.error_pb2 import ErrorReason
from flowkeep.v1.workflow_pb2 import WorkflowDefinition
from service.api.errors import Refusal, RefusedError
from service.api.times import wrong_moment, wrong_span
from service.engine.payload import MAX_NODES
from service.engine.slices import Work, in_one_go, in_slices
from service.engine.violations import Violation

MAX_ENTRIES = 2_000
"""Entries of a list or map; no rule allows more."""

MAX_VALUES = 100_000
"""Values of all payloads in a request; one alone may have a tenth."""

MAX_MESSAGES = 60_000
"""Messages in the lists of a request: more than the rules allow of workflows and their steps."""

SMALL = 16 << 10
"""Bytes of a request that is judged in one go."""

_OURS = WorkflowDefinition.DESCRIPTOR.file.package
_PAYLOADS = (Struct, Value)
_UNRULED = (*_PAYLOADS, WorkflowDefinition)
"""What the rules of requests say nothing about; definitions are judged with all else that must hold of one."""

_TIMES = (Duration, Timestamp)
_WITHOUT_TEXTS = (*_UNRULED, *_TIMES)

_validator = protovalidate.Validator()


@dataclass(frozen=True, slots=True)
class Malformed:
    """Stands for a request whose bytes are no message of its type. grpc itself would answer INTERNAL."""

    type_name: str


def check_read(request: Any) -> None:
    """Raise RefusedError for a request that did not come, or that could not be read."""
    if request is None:
        raise RefusedError(_malformed("the call ended without a request"))
    if isinstance(request, Malformed):
        text = f"the request is no {request.type_name}: its bytes cannot be read, or it is nested too deep"
        raise RefusedError(_malformed(text, type=request.type_name))


def _malformed(text: str, **metadata: str) -> Refusal:
    reason = ErrorReason.ERROR_REASON_MALFORMED_REQUEST
    return Refusal(StatusCode.INVALID_ARGUMENT, reason, text, metadata)


def decoder(parse: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    """Return what reads the requests of a method as `parse` does, but gives Malformed instead of an error."""
    type_name = parse.__self__.DESCRIPTOR.full_name if hasattr(parse, "__self__") else "message of the expected type"

    def decode(raw: bytes) -> Any:
        try:
            return parse(raw)
        except Exception:
            return Malformed(type_name)

    return decode


class Judge:
    """Judges requests by the field rules. The values of all that one judge finds sound count together."""

    def __init__(self) -> None:
        self._values = 0

    async def violations(self, request: Message) -> Sequence[Violation]:
        """Return all violations of the field rules, or where the request is so large that it is not even looked at."""
        work = self._judging(request)
        return in_one_go(work) if request.ByteSize() <= SMALL else await in_slices(work)

    def _judging(self, request: Message) -> Work[Sequence[Violation]]:
        sizes = _Sizes(self._values)
        yield from sizes.look(request, "", sizes.times)
        if sizes.excess:
            return sizes.excess
        self._values = sizes.values
        return (yield from _judging(request, sizes))


def bare_violations(request: Message) -> Sequence[Violation]:
    """Return the violations of a request in which there is nothing to look into."""
    return _collected(request, "")


def _judging(request: Message, sizes: _Sizes) -> Work[Sequence[Violation]]:
    impossible = {name: wrong for name, value in sizes.times if (wrong := _wrong(value))}
    try:
        found = yield from _broken(request)
    except (ValueError, protovalidate.CompilationError) as error:
        # It cannot read a time that is none, and rarely something that protobuf could (LIBRARIES V1).
        if not impossible:
            return (Violation("", f"the request cannot be read: {error}"),)
        found = []
    return (
        *(Violation(name, wrong) for name, wrong in impossible.items()),
        *(each for each in found if each.field not in impossible),
        *_unstorable(request, ""),
    )


def _wrong(value: Duration | Timestamp) -> str:
    return wrong_moment(value) if isinstance(value, Timestamp) else wrong_span(value)


class _Sizes:
    """Counts what is in a request, and notes the fields with far more than any rule allows: to judge each would take
    seconds."""

    def __init__(self, values: int) -> None:
        self.excess: list[Violation] = []
        self.times: list[tuple[str, Duration | Timestamp]] = []
        self.values, self._messages = values, 0

    def look(self, message: Message, path: str, times: list[tuple[str, Duration | Timestamp]]) -> Work[None]:
        """Look at a message, unless there is too much already.

        Spans and times that are met on the way are put into `times`, with their fields; those of definitions are judged
        with all else that must hold of one.
        """
        if isinstance(message, WorkflowDefinition):
            times = []
        for field, value in message.ListFields():
            if isinstance(value, str):
                continue
            name = f"{path}.{field.name}" if path else field.name
            if isinstance(value, _PAYLOADS):
                yield self._look_at_payload(value, name)
            elif isinstance(value, _TIMES):
                times.append((name, value))
            elif isinstance(value, Message):
                yield from self.look(value, name, times)
            elif field.is_repeated and len(value) > MAX_ENTRIES:
                self.excess.append(Violation(name, f"has {len(value):,} entries, far more than are allowed"))
            elif _holds_messages(field) or _maps_messages(field):
                self._messages += len(value)
                yield 10 * len(value)
                for place, item in _entries(field, value, name):
                    yield from self.look(item, place, times)
            if self.values > MAX_VALUES or self._messages > MAX_MESSAGES:
                break
        if not path and (self.values > MAX_VALUES or self._messages > MAX_MESSAGES):
            self.excess.append(Violation("", f"has too much in it; at most {MAX_VALUES:,} values are allowed in all"))

    def _look_at_payload(self, value: Message, name: str) -> int:
        count = _count(value, MAX_NODES)
        self.values += count
        if count > MAX_NODES:
            self.excess.append(Violation(name, f"must have at most {MAX_NODES:,} values in all"))
        return count


def _count(payload: Any, limit: int) -> int:
    """Return how many values there are in a payload, or a number beyond the limit."""
    containers: list[Any] = [_contents(payload)]
    count = 0
    for container in containers:  # it grows
        count += len(container)
        if count > limit:
            break
        for value in container.values() if isinstance(container, Mapping) else container:
            if (kind := value.WhichOneof("kind")) == "struct_value":
                containers.append(value.struct_value.fields)
            elif kind == "list_value":
                containers.append(value.list_value.values)
    return count


def _contents(payload: Any) -> Any:
    return payload.fields if isinstance(payload, Struct) else [payload]


def _broken(request: Message) -> Work[Sequence[Violation]]:
    """Return what breaks the rules: of the request with nothing in its lists of messages, then of each in these."""
    parts = [(field.name, value) for field, value in request.ListFields() if _may_hold_payloads(field, value)]
    if not parts:
        return _collected(request, "")
    bare = type(request)()
    bare.CopyFrom(request)
    found: list[Violation] = []
    lists: list[str] = []
    for name, value in parts:
        if isinstance(value, _UNRULED):
            bare.ClearField(name)
        elif isinstance(value, Message):
            _strip(getattr(bare, name))
            yield value.ByteSize() // 10
        else:
            for index, item in enumerate(value):
                if isinstance(item, _UNRULED):
                    continue
                each = type(item)()
                each.CopyFrom(item)
                _strip(each)
                found += _collected(each, f"{name}[{index}]")
                yield 100 + each.ByteSize() // 10
            bare.ClearField(name)
            getattr(bare, name).extend(type(item)() for item in value)
            lists.append(f"{name}[")
    # Of a list only its length is judged here: its entries were, and nothing is in those that stand for them.
    around = (each for each in _collected(bare, "") if not each.field.startswith(tuple(lists)))
    return (*around, *found)


def _may_hold_payloads(field: FieldDescriptor, value: Any) -> bool:
    if isinstance(value, Message):
        return not isinstance(value, _TIMES)
    return _holds_messages(field)


@cache
def _holds_messages(field: FieldDescriptor) -> bool:
    """Whether a field is a list of messages; maps are none."""
    return bool(field.is_repeated and field.message_type and not field.message_type.GetOptions().map_entry)


@cache
def _maps_messages(field: FieldDescriptor) -> bool:
    """Whether a field is a map of messages of ours: the values of others are payloads, of a definition."""
    if not (field.message_type and field.message_type.GetOptions().map_entry):
        return False
    values = field.message_type.fields_by_name["value"].message_type
    return bool(values and values.file.package == _OURS)


def _entries(field: FieldDescriptor, value: Any, name: str) -> Iterator[tuple[str, Message]]:
    """Give the messages of a list or a map of them, with their paths."""
    if _maps_messages(field):
        yield from ((f'{name}["{key}"]', value[key]) for key in value)
    else:
        yield from ((f"{name}[{index}]", item) for index, item in enumerate(value))


def _collected(message: Message, path: str) -> list[Violation]:
    return [Violation(_path(v.proto, path), v.proto.message) for v in _validator.collect_violations(message)]


def _strip(message: Message) -> None:
    """Take the payloads out of a message: no rule is about them, and the validator would take 4 µs a value."""
    for field, value in message.ListFields():
        if isinstance(value, _PAYLOADS):
            message.ClearField(field.name)
        elif isinstance(value, Message):
            _strip(value)
        elif _holds_messages(field) or _maps_messages(field):
            for _, item in _entries(field, value, ""):
                _strip(item)


def _unstorable(message: Message, path: str) -> Iterator[Violation]:
    """Yield the fields with a character that Postgres does not keep, but for payloads and definitions."""
    for field, value in message.ListFields():
        if isinstance(value, Message):  # a Struct is a Mapping too, and raises for values of no kind
            if not isinstance(value, _WITHOUT_TEXTS):
                yield from _unstorable(value, f"{path}.{field.name}" if path else field.name)
            continue
        name = f"{path}.{field.name}" if path else field.name
        if _holds_messages(field) or _maps_messages(field):
            for place, item in _entries(field, value, name):
                if not isinstance(item, _WITHOUT_TEXTS):
                    yield from _unstorable(item, place)
            if not isinstance(value, Mapping):
                continue
        texts: Iterable[Any] = (value,)
        if field.is_repeated:
            texts = (*value.keys(), *value.values()) if isinstance(value, Mapping) else value
        for text in texts:
            if isinstance(text, str) and "\0" in text:
                yield Violation(name, "must not contain the character NUL (U+0000)")
                break


def _path(violation: Any, path: str) -> str:
    for element in violation.field.elements if violation.field else ():
        path += f".{element.field_name}" if path else element.field_name
        path += _subscript(element)
    return path


def _subscript(element: Any) -> str:
    subscript = element.subscript
    if subscript is None:
        return ""
    value = getattr(subscript, "value", subscript)
    return f'["{value}"]' if isinstance(value, str) else f"[{value}]"
