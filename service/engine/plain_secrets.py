"""Finds the credentials that a definition holds in plain text: whoever may read the workflow may read them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from service.engine import payload
from service.engine.chat import tools
from service.engine.handlers.model import Handler
from service.engine.handlers.registry import Registry
from service.engine.schema import locate
from service.engine.schema_places import Path, listed, members
from service.engine.slices import Work
from service.engine.violations import DefinitionWarning

PLAIN_SECRET = "PLAIN_SECRET"  # noqa: S105 - the code of the warning

MOST = 100
"""Warnings of one definition."""

_DESCRIPTION = (
    "is a credential in plain text, which is kept and shown with the workflow; keep it where the server finds secrets, "
    "and name it here: ${ secret('name') }"
)
_HERE = ("allOf", "anyOf", "oneOf")
_MICROSECONDS_A_VALUE = 2
_ANYTHING: Mapping[str, Any] = {}


def plain_secrets(document: Mapping[str, Any], catalog: Registry) -> Work[Sequence[DefinitionWarning]]:
    """Return a warning for each credential in the params of the steps of a sound definition, at most 100.

    That is text without a template at a place that the schema of the handler marks as `writeOnly`, or that the handler
    itself tells of.
    """
    found: list[DefinitionWarning] = []
    for field, step in _steps(document, ""):
        handler, params = catalog.get(step.get("handler", "")), step.get("params")
        yield 1
        if handler is None or not params:
            continue
        yield _MICROSECONDS_A_VALUE * payload.values(params)
        for path in _places(handler, params):
            found.append(DefinitionWarning(locate(f"{field}.params", path), PLAIN_SECRET, _DESCRIPTION))
            if len(found) == MOST:
                return found
    return found


def _steps(block: Mapping[str, Any], field: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield all steps of a block, also those of the blocks in it, each with its path."""
    for index, step in enumerate(block["steps"]):
        place = locate(field, ("steps", index))
        if (body := step.get("for_each")) is not None:
            yield from _steps(body, f"{place}.for_each")
        else:
            yield place, step
            for number, tool in tools.of_step(step):
                yield locate(place, ("params", "tools", number)), tool


def _places(handler: Handler, params: Mapping[str, Any]) -> Iterator[Path]:
    """Yield the paths of credentials in plain text, each once."""
    paths = dict.fromkeys(_Marks(handler.params_schema).paths(params)) if handler.has_marks else {}
    if handler.credentials is not None:
        paths |= dict.fromkeys(handler.credentials(params))
    return (path for path in sorted(paths, key=str) if _is_plain(_at(params, path)))


def _at(value: Any, path: Path) -> Any:
    for part in path:
        value = value[part]
    return value


def _is_plain(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, str | int | float) or value == "":
        return False
    return not isinstance(value, str) or "${" not in value.replace("$${", "")


@dataclass(frozen=True, slots=True)
class _Visit:
    """A value that is looked at with a schema in it."""

    schema: Any
    value: Any
    path: Path
    is_marked: bool


class _Marks:
    """The places that a schema marks as `writeOnly`, of themselves or with what is around them."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self._document = document
        self._seen: set[tuple[int, Path, bool]] = set()
        self._marking: dict[int, bool] = {}
        """Whether there may be marks in a schema, by its id."""

    def paths(self, value: Any) -> Iterator[Path]:
        """Yield the paths of values that are neither objects nor lists at such places; once for each way to them."""
        left = [_Visit(self._document, value, (), False)]
        while left:
            visit = left.pop()
            schema, value, path = visit.schema, visit.value, visit.path
            key = id(schema), path, visit.is_marked
            if not isinstance(schema, Mapping) or key in self._seen:
                continue
            self._seen.add(key)
            if not visit.is_marked and not self._may_mark(schema):
                continue
            is_marked = visit.is_marked or schema.get("writeOnly") is True
            if is_marked and not isinstance(value, Mapping | list):
                yield path
            here = [each for name in _HERE for each in listed(schema, name)]
            if isinstance(reference := schema.get("$ref"), str):
                here.append(self._referred(reference))
            left += (_Visit(each, value, path, is_marked) for each in here)
            left += (_Visit(each, value[name], (*path, name), is_marked) for name, each in _below(schema, value))

    def _may_mark(self, schema: Mapping[str, Any]) -> bool:
        if id(schema) not in self._marking:
            text = msgspec.json.encode(schema)
            self._marking[id(schema)] = b'"writeOnly":true' in text or b'"$ref"' in text
        return self._marking[id(schema)]

    def _referred(self, reference: str) -> Any:
        found: Any = self._document
        for part in reference.removeprefix("#").split("/")[1:]:
            found = found.get(part) if isinstance(found, Mapping) else None
        return found if reference.startswith("#") else None


def _below(schema: Mapping[str, Any], value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield the members of a value by their name or index, each with the schema that they are looked at with."""
    if isinstance(value, Mapping):
        known = members(schema, "properties")
        others = _or_anything(schema.get("additionalProperties"))
        yield from ((name, known.get(name, others)) for name in value)
    elif isinstance(value, list):
        first = listed(schema, "prefixItems")
        rest = _or_anything(schema.get("items"))
        yield from ((index, first[index] if index < len(first) else rest) for index in range(len(value)))


def _or_anything(schema: Any) -> Any:
    """Return a schema, or the one that takes anything: what is around the value may be marked."""
    return schema if isinstance(schema, Mapping) else _ANYTHING
