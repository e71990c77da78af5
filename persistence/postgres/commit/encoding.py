"""Values as the rows that a batch writes: JSON arrays, which cost this process little and Postgres takes apart.

An array of a million small values is dearer to encode for unnest than all of Python's other work for a transition.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Generic, TypeVar

import msgspec

from persistence.errors import PersistenceError
from persistence.model import Json
from persistence.postgres.records import encoded

_WIDTH = 116
_encode = msgspec.json.encode
_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")

Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class Column(Generic[Value]):
    """A column that is written: its name, its SQL type, and where its value comes from.

    `get` is the path of an attribute of the value that the row stands for, perhaps with ` or None` behind it, or a
    function of it; None for what is given beside it, JSON as what `document` returns.
    """

    name: str
    type: str
    get: str | Callable[[Value], Any] | None = None


class RowKind(Generic[Value]):
    """What rows of one kind consist of, both for Python, which encodes them, and for SQL, which takes them apart."""

    def __init__(self, *columns: Column[Value]) -> None:
        self.names = tuple(column.name for column in columns)
        self._types = tuple(column.type for column in columns)
        self.encode = _encoder(columns)
        """Returns the row of a value, with what is given beside it by the names of its columns.

        Raises PersistenceError for what no row can hold.
        """

    def select(self, parameter: str) -> str:
        """Return a SELECT of the rows that a parameter holds."""
        fields = (f"{_field(at, self._types[at])} AS {name}" for at, name in enumerate(self.names))
        return f"SELECT {listed(fields)}\nFROM jsonb_array_elements(:{parameter}::jsonb) AS r"

    def insert(self, table: str, parameter: str) -> str:
        """Return an INSERT of the rows that a parameter holds."""
        return f"INSERT INTO {table} ({listed(self.names)})\n{self.select(parameter)}"


def joined(rows: Iterable[bytes]) -> str:
    """Return rows as the parameter of a statement."""
    return (b"[" + b",".join(rows) + b"]").decode()


def listed(parts: Iterable[str]) -> str:
    """Return parts of a statement with commas between them, in lines that can be read."""
    lines = [""]
    for part in parts:
        if lines[-1] and len(lines[-1]) + len(part) > _WIDTH:
            lines.append("    ")
        lines[-1] += f"{part}, "
    return "\n".join(line.rstrip() for line in lines).rstrip(",")


def document(value: Json) -> msgspec.Raw | None:
    """Return a value as it is given for a row. Raises PersistenceError when it is not JSON, or holds NUL."""
    return None if value is None else msgspec.Raw(_checked(encoded(value)))


def in_utc(moment: datetime | None) -> datetime | None:
    """Return a time as it is kept. Raises PersistenceError when it cannot be."""
    if moment is None or moment.tzinfo is UTC:
        return moment
    try:
        if moment.tzinfo is not None:
            return moment.astimezone(UTC)
    except OverflowError:
        raise PersistenceError("refused: a time lies outside of the years 1 to 9999") from None
    raise PersistenceError("refused: a time has no time zone")


def _raw(value: Json) -> msgspec.Raw:
    return msgspec.Raw(encoded(value))


def _checked(text: bytes) -> bytes:
    if _NUL.search(text):
        raise PersistenceError("refused: a string holds the character NUL")
    return text


def _field(at: int, kind: str) -> str:
    if kind == "jsonb":
        return f"nullif(r->{at}, 'null')"
    if kind == "text":
        return f"r->>{at}"
    if kind == "bytea":
        return f"decode(r->>{at}, 'base64')"
    if kind == "text[]":
        return f"CASE WHEN r->{at} <> '[]' THEN ARRAY(SELECT jsonb_array_elements_text(r->{at})) END"
    return f"(r->>{at})::{kind}"


def _encoder(columns: Sequence[Column[Value]]) -> Callable[..., bytes]:
    """Make the function that encodes a row, as one expression: a loop over the columns costs half as much again.

    A call for each column would double it, so that most of them need none: what is None, or in UTC, is taken as it is.
    """
    names: dict[str, Any] = {"in_utc": in_utc, "raw": _raw, "row": _row, "UTC": UTC}
    parts, given = [], []
    for column in columns:
        if column.get is None:
            given.append(column.name)
            parts.append(column.name)
            continue
        if isinstance(column.get, str):
            part = f"value.{column.get}"
        else:
            names[f"get_{column.name}"] = column.get
            part = f"get_{column.name}(value)"
        if column.type == "timestamptz":
            part = f"it if (it := {part}) is None or it.tzinfo is UTC else in_utc(it)"
        elif column.type == "jsonb":
            part = f"None if (it := {part}) is None else raw(it)"
        parts.append(part)
    head = ", *, ".join(filter(None, ("value", ", ".join(given))))
    encoder: Callable[..., bytes] = eval(f"lambda {head}: row(({', '.join(parts)}))", names)  # noqa: S307 - of tables of ours
    return encoder


def _row(values: tuple[Any, ...]) -> bytes:
    try:
        text = _encode(values)
    except (TypeError, ValueError, RecursionError) as error:
        raise PersistenceError(f"refused: {error}") from error
    return _checked(text) if b"\\u0000" in text else text
