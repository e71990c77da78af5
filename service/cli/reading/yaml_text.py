"""YAML as JSON values: what JSON cannot hold is a fault with its place, and aliases unfold within bounds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import yaml

from service.cli.reading.document import MAX_DEPTH, TEMPLATES, Document, Fault, Lines, Path, Place, UnreadableError

# Ten times what the service takes. Aliases of aliases unfold to any number.
MAX_VALUES = 100_000

_TAG = "tag:yaml.org,2002:"
_MERGE = f"{_TAG}merge"
_QUOTES = "put it in quotes"
_construct = yaml.constructor.SafeConstructor()


def parse_yaml(text: str) -> Iterator[Document]:
    """Yield the documents of a YAML text that are not empty. Raises UnreadableError at the first that is none."""
    try:
        loader = yaml.SafeLoader(text)
        try:
            while loader.check_node():
                node = loader.get_node()
                assert node is not None  # noqa: S101 - it was looked for
                document = _Reader(text).document(node)
                if document.value is not None or document.faults:
                    yield document
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        raise _unreadable(error, text) from None
    except yaml.reader.ReaderError as error:
        description = f"is no YAML: the character U+{_code_point(error):04X} is not allowed; write it as an escape"
        raise UnreadableError(description, Lines(text).place(error.position)) from None
    except RecursionError:
        raise UnreadableError(f"it is nested more than {MAX_DEPTH} deep", Place(1, 1)) from None


class _Reader:
    def __init__(self, text: str) -> None:
        self._text = text
        self._places: dict[Path, Place] = {}
        self._faults: list[Fault] = []
        self._written: dict[Path, str] = {}
        self._left = MAX_VALUES

    def document(self, node: yaml.Node) -> Document:
        value = self._value(node, (), 0)
        return Document(value, lambda: self._places, self._faults, self._written)

    def _value(self, node: yaml.Node, path: Path, depth: int) -> Any:
        self._places.setdefault(path, _place(node))
        self._left -= 1
        if self._left < 0:
            description = f"its aliases unfold to more than {MAX_VALUES:,} values"
            raise UnreadableError(description, _place(node), is_certain=True)
        if depth > MAX_DEPTH:
            description = f"it is nested more than {MAX_DEPTH} deep, or contains itself"
            raise UnreadableError(description, _place(node), is_certain=True)
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, path)
        if node.tag not in (f"{_TAG}map", f"{_TAG}seq"):
            return self._fault(node, path, f"the tag {_tag(node)} means nothing here; remove it")
        if isinstance(node, yaml.SequenceNode):
            return [self._value(item, (*path, index), depth + 1) for index, item in enumerate(node.value)]
        assert isinstance(node, yaml.MappingNode)  # noqa: S101 - there are no others
        if self._is_template(node):
            inside = self._source(node).strip("{} \n\t")
            shown = f': "${{ {inside} }}"' if inside and len(inside) <= 60 and "\n" not in inside else ""
            return self._fault(node, path, f"{TEMPLATES}{shown}")
        return self._object(node, path, depth)

    def _object(self, node: yaml.MappingNode, path: Path, depth: int) -> dict[str, Any]:
        members: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        for key, value in node.value:
            if key.tag == _MERGE:
                for merged_name, item in self._merge(value, path, depth).items():
                    merged.setdefault(merged_name, item)
                continue
            if (name := self._key(key, path)) is None:
                continue
            place = (*path, name)
            if name in members:
                first = self._places[place].line
                self._fault(key, place, f"the key {name!r} stands twice, first in line {first}", is_left_out=False)
                place = (*path, f"{name} (again)")  # what is in it has places of its own
            self._places[place] = _place(key)
            members.setdefault(name, self._value(value, place, depth + 1))
        return merged | members

    def _merge(self, node: yaml.Node, path: Path, depth: int) -> dict[str, Any]:
        """Return what `<<` puts into an object: the members of an object, or of several of which the first counts."""
        sources = node.value if isinstance(node, yaml.SequenceNode) else [node]
        merged: dict[str, Any] = {}
        for source in sources:
            value = self._value(source, path, depth + 1)
            if not isinstance(value, dict):
                self._fault(source, path, "<< takes an object, or a list of them", is_left_out=False)
                continue
            for name, item in value.items():
                merged.setdefault(name, item)
        return merged

    def _key(self, node: yaml.Node, path: Path) -> str | None:
        """Return the name of a member; None where there cannot be one."""
        if not isinstance(node, yaml.ScalarNode):
            kind = "a list" if isinstance(node, yaml.SequenceNode) else "an object"
            self._fault(node, path, f"a key must be text, not {kind}", is_left_out=False)
            return None
        kind, text = node.tag.removeprefix(_TAG), str(node.value)
        if kind not in ("str", "value"):
            place = (*path, text)
            description = f"a key must be text; YAML reads {text or 'nothing'} as {_read(node)}: {_QUOTES}"
            self._fault(node, place, description, is_left_out=False)
        return text

    def _scalar(self, node: yaml.ScalarNode, path: Path) -> Any:
        text = str(node.value)
        try:
            match node.tag.removeprefix(_TAG):
                case "str" | "value" | "merge":
                    return text
                case "null":
                    return None
                case "bool":
                    value = _construct.construct_yaml_bool(node)
                    if text not in ("true", "false"):
                        self._written[path] = text
                    return value
                case "int":
                    return self._whole(node, path)
                case "float":
                    return _construct.construct_yaml_float(node) if ":" not in text else self._surprising(node, path)
                case "timestamp":
                    self._fault(node, path, f"YAML reads {text} as {_read(node)}: {_QUOTES}")
                    return text
        except (ValueError, KeyError, yaml.YAMLError):
            return self._fault(node, path, f"{text[:40]!r} is no {_tag(node)}")
        return self._fault(node, path, f"the tag {_tag(node)} means nothing here; remove it")

    def _whole(self, node: yaml.ScalarNode, path: Path) -> Any:
        digits = str(node.value).lstrip("+-")
        is_octal = len(digits) > 1 and digits[0] == "0" and digits[1:].replace("_", "").isdigit()
        return self._surprising(node, path) if is_octal or ":" in digits else _construct.construct_yaml_int(node)

    def _surprising(self, node: yaml.ScalarNode, path: Path) -> str:
        """Refuse 0123 and 12:30, which nobody expects to be 83 and 750."""
        self._fault(node, path, f"YAML reads {node.value} as {_read(node)}: {_QUOTES}, or write that")
        return str(node.value)

    def _is_template(self, node: yaml.MappingNode) -> bool:
        """Return whether `{{ … }}` was written, which YAML takes for an object whose key is an object."""
        keys = [key for key, _ in node.value]
        return len(keys) == 1 and isinstance(keys[0], yaml.MappingNode) and self._source(node).startswith("{{")

    def _source(self, node: yaml.Node) -> str:
        return self._text[node.start_mark.index : node.end_mark.index]

    def _fault(self, node: yaml.Node, path: Path, description: str, *, is_left_out: bool = True) -> None:
        self._faults.append(Fault(path, _place(node), description, is_left_out))


def _place(node: yaml.Node) -> Place:
    return Place(node.start_mark.line + 1, node.start_mark.column + 1)


def _tag(node: yaml.Node) -> str:
    return f"!!{node.tag.removeprefix(_TAG)}" if node.tag.startswith(_TAG) else str(node.tag)


def _read(node: yaml.ScalarNode) -> str:
    """Return what YAML takes a scalar for, in words."""
    match node.tag.removeprefix(_TAG):
        case "bool":
            return str(_construct.construct_yaml_bool(node)).lower()
        case "int":
            return f"the number {_construct.construct_yaml_int(node)}"
        case "float":
            return f"the number {_construct.construct_yaml_float(node)}"
        case "null":
            return "null"
        case "timestamp":
            return "a date"
        case _:
            return _tag(node)


def _code_point(error: yaml.reader.ReaderError) -> int:
    # An int of a text, as the stubs do not say.
    character: Any = error.character
    return character if isinstance(character, int) else ord(character)


def _unreadable(error: yaml.MarkedYAMLError, text: str) -> UnreadableError:
    mark = error.problem_mark or error.context_mark
    place = Place(mark.line + 1, mark.column + 1) if mark else Place(1, 1)
    problem = str(error.problem or error.context or "it cannot be read").replace("\\t", "a tab")
    lines = text.splitlines()
    near = lines[place.line - 1] if place.line <= len(lines) else ""
    return UnreadableError(f"is no YAML: {problem}{_hint(problem, near)}", place)


def _hint(problem: str, line: str) -> str:
    """Return what the writer of a line may have to do, as the end of a sentence."""
    if "{{" in line or "{%" in line:
        return f"; {TEMPLATES}"
    if "${" in line:
        return "; put the text with the template in quotes"
    if "a tab" in problem or line.lstrip(" ").startswith("\t"):
        return "; YAML is indented with spaces, not with tabs"
    if "mapping values are not allowed" in problem:
        return "; look at the indentation, and put text that holds ': ' in quotes"
    if "cannot start any token" in problem:
        return "; put the text in quotes"
    return ""
