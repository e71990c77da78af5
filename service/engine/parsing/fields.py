"""Reads the fields of a document's objects and gathers everything that is wrong with them."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from enum import StrEnum
from typing import Any, TypeVar

from service.engine import payload
from service.engine.durations import YEAR
from service.engine.schema import Problem, locate, nearest
from service.engine.violations import ValidationError, Violation

Choice = TypeVar("Choice", bound=StrEnum)

# Enough for a person; what else comes is as likely to be an attack, and a suggestion of a name takes a millisecond.
MAX_FINDINGS = 100


class Findings:
    """All violations found so far, in the order of finding. Gives up with ValidationError at the hundredth."""

    def __init__(self) -> None:
        self._found: list[Violation] = []

    def add(self, field: str, description: str) -> None:
        """Note that `field` is not as it should be."""
        self._found.append(Violation(field, description))
        if len(self._found) >= MAX_FINDINGS:
            self.settle()

    def add_problem(self, field: str, problem: Problem) -> None:
        """Note a problem at a path below `field`."""
        self.add(locate(field, problem.path), problem.message)

    def add_all(self, error: ValidationError) -> None:
        """Note all that another check found."""
        for violation in error.violations:
            self.add(violation.field, violation.description)

    def settle(self) -> None:
        """Raise ValidationError if anything was found."""
        if self._found:
            raise ValidationError(self._found)


class Fields:
    """The fields of one object at `path`. A field that is absent, null or wrong reads as its default.

    What was never read is unknown: `close` says so.
    """

    def __init__(self, document: Any, path: str, findings: Findings) -> None:
        self.path = path
        self.findings = findings
        self._read: dict[str, None] = {}
        self._wrong: set[str] = set()
        self._document: Mapping[str, Any] = document if isinstance(document, Mapping) else {}
        if not isinstance(document, Mapping):
            findings.add(path or "definition", f"must be an object, not {_kind(document)}")
            self.findings = Findings()  # what is missing in something else is not worth saying

    def replaced(self, changes: Mapping[str, Any], *, is_all: bool = False) -> Fields:
        """Return the fields of an object in place of this one: with these, and the others unless that `is_all`."""
        document = changes if is_all else {**self._document, **changes}
        return Fields({name: value for name, value in document.items() if value is not None}, self.path, self.findings)

    def at(self, name: str) -> str:
        """Return the path of a field."""
        return locate(self.path, (name,))

    def wrong(self, name: str, description: str) -> None:
        """Note that a field is not as it should be."""
        self._wrong.add(name)
        self.findings.add(self.at(name), description)

    def is_wrong(self, name: str) -> bool:
        """Return whether something was noted of a field: what does not fit its default is no fault of its own then."""
        return name in self._wrong

    def has(self, name: str) -> bool:
        """Return whether the field is given, and not null."""
        return self.raw(name) is not None

    def raw(self, name: str) -> Any:
        """Return the field as it is."""
        self._read[name] = None
        return self._document.get(name)

    def text(self, name: str, longest: int, pattern: str = "", what: str = "", required: bool = False) -> str:
        """Return a string of at most `longest` characters that meets `pattern`, which `what` puts in words."""
        value: str = self._typed(name, str, "a string", "")
        if not value:
            if required and self.raw(name) in (None, ""):
                self.wrong(name, f"is required{': ' + what if what else ''}")
            return ""
        if not self.is_text(self.at(name), value, longest):
            return ""
        if pattern and not re.fullmatch(pattern, value):
            self.wrong(name, f"must be {what}")
            return ""
        return value

    def texts(self, name: str, most: int, longest: int) -> tuple[str, ...]:
        """Return a list of at most `most` strings, each of 1 to `longest` characters."""
        field = self.at(name)
        return tuple(
            value
            for index, value in enumerate(self.items(name, most))
            if self.is_text(f"{field}[{index}]", value, longest, shortest=1)
        )

    def is_text(self, field: str, value: Any, longest: int, shortest: int = 0) -> bool:
        """Return whether a value is a string of the right length that can be stored; if not, note it."""
        if not isinstance(value, str):
            self.findings.add(field, f"must be a string, not {_kind(value)}")
        elif len(value) < shortest:
            self.findings.add(field, "must not be empty")
        elif len(value) > longest:
            self.findings.add(field, f"has {len(value):,} characters; at most {longest:,} are allowed")
        elif not _is_storable(value):
            self.findings.add(field, "has a NUL character or half of a surrogate pair; remove it")
        else:
            return True
        return False

    def choice(self, name: str, kind: type[Choice], default: Choice) -> Choice:
        """Return a member of an enum by its short name."""
        value = self._typed(name, str, "a string", default.value)
        if value in kind.__members__:
            return kind[value]
        self.wrong(name, f"must be one of {', '.join(kind.__members__)}")
        return default

    def whole(self, name: str, low: int, high: int, default: int = 0) -> int:
        """Return an integer from `low` to `high`."""
        value = self.number(name, low, high, default)
        if value != int(value):
            self.wrong(name, "must be a whole number")
            return default
        return int(value)

    def number(self, name: str, low: float, high: float, default: float) -> float:
        """Return a number from `low` to `high`."""
        value: float = self._number(name, default)
        if value == default or low <= value <= high:
            return value
        self.wrong(name, f"is {value:.15g}; it must be between {low:g} and {high:g}")
        return default

    def seconds(self, name: str, longest: float, least: float = 0.0) -> float | None:
        """Return a span of time: more than 0, at least `least` and at most `longest` seconds."""
        value: float | None = self._number(name, None)
        if value is None or (0 < value <= longest and value >= least):
            return value
        low = f"at least {least:g} s" if 0 < value < least else "more than 0"
        self.wrong(name, f"is {value:.15g} s; it must be {low} and at most {longest / YEAR:g} years")
        return None

    def items(self, name: str, most: int) -> list[Any]:
        """Return a list of at most `most` values."""
        value: list[Any] = self._typed(name, list, "a list", [])
        if len(value) > most:
            self.wrong(name, f"has {len(value):,} entries; at most {most:,} are allowed")
            return []
        return value

    def mapping(self, name: str, most: int | None = None) -> Mapping[str, Any]:
        """Return an object of at most `most` members."""
        value: Mapping[str, Any] = self._typed(name, Mapping, "an object", {})
        if most is not None and len(value) > most:
            self.wrong(name, f"has {len(value):,} entries; at most {most:,} are allowed")
            return {}
        return value

    def json(self, name: str) -> Any:
        """Return any JSON value within the limits of payloads, or None."""
        try:
            return payload.normalise(self.raw(name), self.at(name))
        except ValidationError as error:
            self.findings.add_all(error)
            return None

    def object(self, name: str) -> Mapping[str, Any] | None:
        """Return an object of any JSON values within the limits of payloads, empty if absent; None if it is wrong."""
        self.mapping(name)
        value = self.json(name) if self.has(name) else {}
        return value if isinstance(value, Mapping) else None

    def not_implemented(self, *names: str) -> None:
        """Refuse fields that nothing acts on yet: what is ignored in silence would be taken for done."""
        for name in names:
            value = self.raw(name)
            if value or isinstance(value, Mapping):  # an empty object asks for the defaults
                self.wrong(name, "is not implemented yet; remove it")

    def close(self) -> None:
        """Refuse the fields that nobody read."""
        for name in self._document:
            if name not in self._read:
                self.findings.add(locate(self.path, (str(name),)), f"is unknown{nearest(str(name), self._read)}")

    def _typed(self, name: str, kind: Any, what: str, default: Any) -> Any:
        value = self.raw(name)
        if value is None:
            return default
        if not isinstance(value, kind):
            self.wrong(name, f"must be {what}, not {_kind(value)}")
            return default
        return value

    def _number(self, name: str, default: Any) -> Any:
        value = self.raw(name)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= payload.MAX_INTEGER:
            self.wrong(name, f"must be a number, not {_kind(value)}")
            return default
        return value


def repeated(values: Collection[str]) -> list[str]:
    """Return the values that are there more than once, each once."""
    return [value for value, count in _counts(values).items() if count > 1]


def _counts(values: Collection[str]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for value in values:
        counts[value] = counts.get(value, 0) + 1
    return counts


def _is_storable(value: str) -> bool:
    if "\0" in value:
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _kind(value: Any) -> str:
    """Return what a JSON value is, in the words of JSON."""
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int() | float():
            return "a number" if abs(value) <= payload.MAX_INTEGER else "one that large, infinite or NaN"
        case str():
            return "a string"
        case Mapping():
            return "an object"
        case _:
            return "a list"
