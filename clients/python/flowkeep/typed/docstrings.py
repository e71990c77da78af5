"""What a docstring says of the parameters, in the forms that people write: Google's, NumPy's and Sphinx's."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Sequence

_GOOGLE = re.compile(r"(?:Args|Arguments|Parameters|Params|Keyword Args|Other Parameters):\s*")
_NUMPY = re.compile(r"(?:Other )?Parameters\s*")
_RULE = re.compile(r"-{3,}\s*")
_SPHINX = re.compile(r":(?:param|parameter|arg|argument|key)\s+(?:[^:]*\s)?\*{0,2}(\w+)\s*:\s*(.*)")
_OTHER_FIELD = re.compile(r":\w+[^:]*:")
_ENTRY = re.compile(r"\*{0,2}(\w+)\s*(?:\([^)]*(?:\([^)]*\)[^)]*)*\))?\s*:\s*(.*)")
_NAMES = re.compile(r"(\*{0,2}\w+(?:\s*,\s*\*{0,2}\w+)*)\s*(?::.*)?")


def parameter_texts(docstring: str) -> dict[str, str]:
    """Return what is said of each parameter, on one line; of others nothing. Of two texts the first counts."""
    lines = inspect.cleandoc(docstring).splitlines()
    found: dict[str, str] = {}
    for name, text in (*_of_sections(lines), *_of_fields(lines)):
        if said := " ".join(text.split()):
            found.setdefault(name, said)
    return found


def _of_sections(lines: Sequence[str]) -> Iterator[tuple[str, str]]:
    for index, line in enumerate(lines):
        if _GOOGLE.fullmatch(line):
            yield from _google(_indented(lines[index + 1 :]))
        elif _NUMPY.fullmatch(line) and index + 1 < len(lines) and _RULE.fullmatch(lines[index + 1]):
            yield from _numpy(lines[index + 2 :])


def _google(lines: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield the entries of a section, whose lines stand as far in as the first of them; more of one further in."""
    name, texts, margin = "", list[str](), None
    for line in filter(str.strip, lines):
        depth = len(line) - len(line.lstrip())
        margin = depth if margin is None else margin
        entry = _ENTRY.fullmatch(line.strip()) if depth <= margin else None
        if entry:
            yield name, " ".join(texts)
            name, texts = entry[1], [entry[2]]
        else:
            texts.append(line)
    yield name, " ".join(texts)


def _numpy(lines: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield the entries of a section, whose names stand at the margin, up to the next title."""
    names, texts = list[str](), list[str]()
    for index, line in enumerate(lines):
        if index + 1 < len(lines) and _RULE.fullmatch(lines[index + 1]):
            break
        if line[:1].strip() and (entry := _NAMES.fullmatch(line)):
            yield from ((name, " ".join(texts)) for name in names)
            names, texts = [each.strip(" *") for each in entry[1].split(",")], []
        else:
            texts.append(line)
    yield from ((name, " ".join(texts)) for name in names)


def _of_fields(lines: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield the fields `:param name: text`, each up to the next field or an empty line."""
    name, texts = "", list[str]()
    for line in (*lines, ""):
        field = _SPHINX.fullmatch(line.strip())
        if field or not line.strip() or _OTHER_FIELD.match(line.strip()):
            yield name, " ".join(texts)
            name, texts = (field[1], [field[2]]) if field else ("", [])
        elif name:
            texts.append(line)


def _indented(lines: Sequence[str]) -> list[str]:
    """Return the lines up to the first that stands at the margin."""
    found = []
    for line in lines:
        if line[:1].strip():
            break
        found.append(line)
    return found
