"""Reads large requests piece by piece: two bytes may stand for a step of 170, and 4 MiB of these for 150 ms of work.

Requests that are many are cut into these, each of which is read by itself.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from google.protobuf.message import DecodeError, Message

from flowkeep.v1.execution_service_pb2 import BatchExecuteRequest
from service.api.requests import MAX_ENTRIES, Malformed, bare_violations, decoder
from service.engine.payload import MAX_PAYLOAD_BYTES
from service.engine.slices import SLICE, Work, in_slices
from service.engine.violations import ValidationError, Violation

LARGE = 64 << 10
"""Bytes that are read in one go, in 4 ms at worst."""

LARGEST_PART = 512 << 10
"""Bytes of a definition or payload, which is twice what one of 256 KiB as JSON can have."""

_VARINT, _FIXED_64, _BYTES, _FIXED_32 = 0, 1, 2, 5


class _MalformedError(ValueError):
    """Bytes are no message."""


@dataclass(frozen=True, slots=True)
class Large:
    """A request that is yet to be read, of which no part may have more bytes than `most`."""

    kind: type[Message]
    raw: bytes
    most: int = LARGEST_PART

    def pieces(self) -> Work[Message]:
        """Return the request. Raises _MalformedError, and ValidationError for a part that is larger than any may be."""
        message = self.kind()
        begun, looked_at = 0, Counter[str]()
        yield SLICE  # many that come at once would each read a first piece in the same turn of the loop
        for start, end in self._parts():
            if end - begun > LARGE and start > begun:
                yield _merge(message, self.raw[begun:start])
                begun = start
                _check_entries(message, looked_at)
        yield _merge(message, self.raw[begun:])
        _check_entries(message, looked_at)
        return message

    def _parts(self) -> Iterator[tuple[int, int]]:
        """Yield where the fields of the request begin and end."""
        fields = self.kind.DESCRIPTOR.fields_by_number
        seen, sizes = Counter[int](), Counter[int]()
        for start, tag, value, end in _fields(self.raw):
            size = end - value
            field = fields.get(tag >> 3)
            number = tag >> 3 if field else 0
            seen[number] += 1
            sizes[number] += size
            if field and field.message_type and (size if field.is_repeated else sizes[number]) > self.most:
                place = f"{field.name}[{seen[number] - 1}]" if field.is_repeated else field.name
                text = f"must be at most {MAX_PAYLOAD_BYTES:,} bytes as JSON; it comes as {sizes[number]:,}"
                raise ValidationError([Violation(place, text)])
            if seen[number] > MAX_ENTRIES or (field and _is_packed(field) and size > 10 * MAX_ENTRIES):
                text = f"has over {MAX_ENTRIES:,} entries, far more than are allowed"
                raise ValidationError([Violation(field.name if field else "", text)])
            yield start, end


@dataclass(frozen=True, slots=True)
class Batch:
    """A BatchExecuteRequest whose requests are yet to be read, each by itself: what is wrong with one is no other's."""

    items: Sequence[bytes]

    def violations(self) -> Sequence[Violation]:
        """Return what is wrong with the whole."""
        request = BatchExecuteRequest()
        for _ in self.items:
            request.requests.add()
        return bare_violations(request)


def _batch(raw: bytes) -> Batch | Malformed:
    of_request = BatchExecuteRequest.DESCRIPTOR.fields_by_name["requests"].number << 3 | _BYTES
    items, others = list[bytes](), list[bytes]()
    try:
        for start, tag, value, end in _fields(raw):
            if tag == of_request:
                items.append(raw[value:end])
            else:
                others.append(raw[start:end])
            if len(items) > MAX_ENTRIES:  # too many, and as many as are looked at
                break
            if len(others) > MAX_ENTRIES:  # of which the message has none
                raise _MalformedError
        BatchExecuteRequest.FromString(b"".join(others))
    except (_MalformedError, DecodeError):
        return Malformed(BatchExecuteRequest.DESCRIPTOR.full_name)
    return Batch(items)


def reader(parse: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    """Return what reads the requests of a method, as `decoder` does, but leaves large ones to `whole`."""
    decode, kind = decoder(parse), parse.__self__  # type: ignore[attr-defined]  # the class of the request
    if kind is BatchExecuteRequest:
        return _batch
    return lambda raw: decode(raw) if len(raw) <= LARGE else Large(kind, raw)


async def whole(request: Any, most: int = LARGEST_PART) -> Any:
    """Return a request that `reader` gave, read to its end, or Malformed.

    Raises ValidationError for a part that has more bytes than `most`.
    """
    if not isinstance(request, Large):
        return request
    try:
        return await in_slices(replace(request, most=most).pieces())
    except _MalformedError:
        return Malformed(request.kind.DESCRIPTOR.full_name)


def _fields(raw: bytes) -> Iterator[tuple[int, int, int, int]]:
    """Yield of each field where it begins, its tag, and where its value begins and ends. Raises _MalformedError."""
    at = 0
    while at < len(raw):
        start = at
        tag, at = _varint(raw, at)
        size, at = _size(raw, at, tag & 7)
        value, at = at, at + size
        if at > len(raw):
            raise _MalformedError
        yield start, tag, value, at


def _varint(raw: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while shift < 70 and at < len(raw):
        byte = raw[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, at
        shift += 7
    raise _MalformedError


def _size(raw: bytes, at: int, wire_type: int) -> tuple[int, int]:
    """Return how many bytes of a value follow, and from where."""
    if wire_type == _BYTES:
        return _varint(raw, at)
    if wire_type == _VARINT:
        return 0, _varint(raw, at)[1]
    if wire_type in (_FIXED_64, _FIXED_32):
        return 8 if wire_type == _FIXED_64 else 4, at
    raise _MalformedError  # groups, which no message of ours has


def _merge(message: Message, raw: bytes) -> int:
    """Read more of a message, and return what that cost."""
    try:
        message.MergeFromString(raw)
    except DecodeError:
        raise _MalformedError from None
    return len(raw) // 20


def _check_entries(message: Message, looked_at: Counter[str]) -> None:
    """Raise ValidationError for a list in a list that has far too many entries, before the next one is read."""
    for field, value in message.ListFields():
        if field.is_repeated and field.message_type and not field.message_type.GetOptions().map_entry:
            for index in range(looked_at[field.name], len(value)):
                _check_lists(value[index], f"{field.name}[{index}]")
            looked_at[field.name] = len(value)


def _check_lists(item: Any, path: str) -> None:
    for field, value in item.ListFields():
        if field.is_repeated and len(value) > MAX_ENTRIES:
            text = f"has {len(value):,} entries, far more than are allowed"
            raise ValidationError([Violation(f"{path}.{field.name}", text)])


def _is_packed(field: Any) -> bool:
    """Whether all entries of a field may come together."""
    return bool(field.is_repeated) and field.type not in (field.TYPE_STRING, field.TYPE_BYTES, field.TYPE_MESSAGE)
