"""JSON as its standard says, read by one that remembers where everything stood and says what a writer meant."""

from __future__ import annotations

import json
import re
from json.decoder import scanstring  # type: ignore[attr-defined]  # the stubs leave it out
from typing import Any

from service.cli.reading.document import MAX_DEPTH, TEMPLATES, Document, Fault, Lines, Path, UnreadableError

_SPACE = re.compile(r"[ \t\n\r]*")
_NUMBER = re.compile(r"(-?(?:0|[1-9][0-9]*))(\.[0-9]+)?([eE][-+]?[0-9]+)?")
_WORD = re.compile(r"-?[A-Za-z_][A-Za-z0-9_]*")
_LITERALS = {"true": True, "false": False, "null": None}
_NO_NUMBERS = ("NaN", "Infinity", "-Infinity")
_MEANT = {"true": "true", "false": "false", "none": "null", "null": "null", "nil": "null", "undefined": "null"}
_LONGEST_WHOLE = 400


def parse_json(text: str) -> list[Document]:
    """Return the documents of a JSON text: one, or several behind each other, with or without `---` between.

    What is JSON but for NaN, infinities and keys that stand twice is read, with faults. Raises UnreadableError.
    """
    try:
        # A hundred times as fast, and sound texts are the rule.
        value = json.loads(text, object_pairs_hook=_members, parse_constant=_refuse)
        return [Document(value, lambda: _parse_slowly(text)[0].places)]
    except (ValueError, RecursionError):
        return _parse_slowly(text)


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        raise ValueError("a key stands twice")
    return members


def _refuse(word: str) -> None:
    raise ValueError(f"{word} is no number")


def _parse_slowly(text: str) -> list[Document]:
    """Return the documents as `parse_json` does, with everything that there is to tell of them."""
    reader, documents = _Reader(text), list[Document]()
    at = reader.skip(0)
    while at < len(text):
        documents.append(reader.document(at))
        at = reader.skip(reader.end)
        if documents and text.startswith("---", at):
            at = reader.skip(at + 3)
    return documents


class _Reader:
    def __init__(self, text: str) -> None:
        self._text = text
        self._lines = Lines(text)
        self._opened: list[int] = []  # where the objects and lists begin that are not closed yet
        self.end = 0

    def document(self, at: int) -> Document:
        """Return the document that begins at an offset, and set `end` to the offset behind it."""
        self._offsets: dict[Path, int] = {}
        self._faults: list[Fault] = []
        value, self.end = self._value(at, (), 0)
        offsets, place = self._offsets, self._lines.place
        return Document(value, lambda: {path: place(offset) for path, offset in offsets.items()}, self._faults)

    def skip(self, at: int) -> int:
        """Return the offset of the next character that is no space."""
        match = _SPACE.match(self._text, at)
        return match.end() if match else at

    def _value(self, at: int, path: Path, depth: int) -> tuple[Any, int]:
        self._offsets.setdefault(path, at)
        if depth > MAX_DEPTH:
            raise self._unreadable(f"it is nested more than {MAX_DEPTH} deep", at, is_certain=True)
        match self._text[at : at + 1]:
            case '"':
                return self._string(at)
            case "{":
                return self._object(at, path, depth)
            case "[":
                return self._list(at, path, depth)
        if number := _NUMBER.match(self._text, at):
            return self._number(number, path), number.end()
        return self._word(at, path)

    def _string(self, at: int) -> tuple[str, int]:
        try:
            value, end = scanstring(self._text, at + 1, True)
        except json.JSONDecodeError as error:
            raise self._unreadable(_lower(error.msg.removesuffix(" at")), error.pos) from None
        return value, end

    def _number(self, number: re.Match[str], path: Path) -> int | float:
        whole, fraction, exponent = number.groups()
        if fraction or exponent:
            return float(number.group())
        if len(whole) <= _LONGEST_WHOLE:
            return int(whole)
        self._fault(path, number.start(), f"has {len(whole):,} digits; a number that long is sent as a string")
        return 0

    def _word(self, at: int, path: Path) -> tuple[Any, int]:
        match = _WORD.match(self._text, at)
        word = match.group() if match else ""
        if word in _LITERALS:
            return _LITERALS[word], at + len(word)
        if word in _NO_NUMBERS:
            self._fault(path, at, f"{word} is no number of JSON; leave it out, or send null or a string")
            return None, at + len(word)
        raise self._unexpected(at, "a value")

    def _object(self, at: int, path: Path, depth: int) -> tuple[dict[str, Any], int]:
        members: dict[str, Any] = {}
        self._opened.append(at)
        at = self.skip(at + 1)
        while self._text[at : at + 1] != "}" or members:
            if self._text[at : at + 1] != '"':
                raise self._unexpected(at, "a name in double quotes")
            name_at, place = at, path
            name, at = self._string(at)
            at = self._expect(":", self.skip(at))
            place = (*path, name)
            if name in members:
                first = self._lines.place(self._offsets[place])
                self._fault(
                    place, name_at, f"the key {json.dumps(name)} stands twice, first in line {first.line}", False
                )
                place = (*path, f"{name} (again)")  # what is in it has places of its own
            self._offsets[place] = name_at
            value, at = self._value(at, place, depth + 1)
            members.setdefault(name, value)
            at = self.skip(at)
            if self._text[at : at + 1] == "}":
                break
            at = self._expect(",", at)
        self._opened.pop()
        return members, at + 1

    def _list(self, at: int, path: Path, depth: int) -> tuple[list[Any], int]:
        items: list[Any] = []
        self._opened.append(at)
        at = self.skip(at + 1)
        while self._text[at : at + 1] != "]" or items:
            value, at = self._value(at, (*path, len(items)), depth + 1)
            items.append(value)
            at = self.skip(at)
            if self._text[at : at + 1] == "]":
                break
            at = self._expect(",", at)
        self._opened.pop()
        return items, at + 1

    def _expect(self, sign: str, at: int) -> int:
        if self._text[at : at + 1] != sign:
            raise self._unexpected(at, f"a {sign!r}" if sign == ":" else "a ',' or the end")
        return self.skip(at + 1)

    def _fault(self, path: Path, at: int, description: str, is_left_out: bool = True) -> None:
        self._faults.append(Fault(path, self._lines.place(at), description, is_left_out))

    def _unexpected(self, at: int, wanted: str) -> UnreadableError:
        """Return the error for something else than what was wanted, which says what the writer may have meant."""
        here = self._text[at : at + 2]
        word = _WORD.match(self._text, at)
        if not here:
            line = self._lines.place(self._opened[-1] if self._opened else 0).line
            return self._unreadable(f"it ends in the middle; what began in line {line} is not closed", at)
        if here in ("//", "/*") or here[0] == "#":
            # YAML would take the first two for text.
            return self._unreadable(
                "JSON has no comments; remove it, or write YAML, where they begin with #", at, is_certain=here[0] == "/"
            )
        if here == "{{" or self._text[max(0, at - 1) : at + 1] == "{{":
            return self._unreadable(TEMPLATES, at)
        if here[0] in "}]":
            return self._unreadable(f"there must be {wanted}; a comma too many stands before {here[0]!r}", at)
        if here[0] == "'":
            return self._unreadable("strings stand in double quotes", at)
        if word and word.group().lower() in _MEANT:
            return self._unreadable(f"write {_MEANT[word.group().lower()]}, not {word.group()}", at)
        if word and "name" in wanted:
            return self._unreadable("names stand in double quotes", at)
        shown = word.group()[:40] if word else self._text[at]
        return self._unreadable(f"there must be {wanted}, not {shown!r}", at)

    def _unreadable(self, description: str, at: int, *, is_certain: bool = False) -> UnreadableError:
        return UnreadableError(f"is no JSON: {description}", self._lines.place(at), is_certain=is_certain)


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]
