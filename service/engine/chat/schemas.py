"""The JSON Schemas that what a model gives must meet, and what is wrong with what does not."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import msgspec

from service.engine import payload
from service.engine.kept import Kept
from service.engine.schema import Problem, Schema, locate
from service.engine.schema_places import SchemaError
from service.engine.schema_weight import dialect, weigh

LARGEST = 16 << 10
"""Bytes of all schemas of a step as JSON: they are compiled in one go."""

_MOST_COMPILING = 20_000
_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_PROBLEMS_TOLD = 10
# Many models put one around JSON, whatever they are told.
_FENCE = re.compile(r"\s*```(?:json)?[ \t]*\n(.*)\n[ \t]*```\s*", re.DOTALL | re.IGNORECASE)

# With what they took to compile, by their text, since the params of each attempt are checked.
_compiled: Kept[bytes, tuple[Schema, int]] = Kept(4 << 20)


class FaultyAnswerError(Exception):
    """What a model gives is not what was asked for; each of `problems` says where and why."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


def plain(document: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a schema without the dialect that it names: others mean the same in nearly all that is said of answers."""
    return {name: value for name, value in document.items() if name != "$schema"}


class Checking:
    """Finds what is wrong with the schemas of a step, which are bounded together."""

    def __init__(self) -> None:
        self._bytes = LARGEST
        self._compiling = _MOST_COMPILING

    def problems(self, document: Mapping[str, Any]) -> Iterator[Problem]:
        """Find what is wrong with one more schema."""
        bare = plain(document)
        self._bytes -= len(msgspec.json.encode(bare))
        if self._bytes < 0:
            yield Problem((), f"is too large: the schemas of a step have at most {LARGEST:,} bytes as JSON")
            return
        if problems := _of_schemas().problems(bare):
            yield from problems
            return
        try:
            self._compiling -= _schema(bare, self._compiling)[1]
        except SchemaError as error:
            yield Problem(error.path, error.message)


def read(text: str, document: Mapping[str, Any], name: str) -> Any:
    """Return the value that a text stands for, which meets a schema without problems. Raises FaultyAnswerError.

    The problems call it by its name, and repeat nothing of the text.
    """
    fenced = _FENCE.fullmatch(text)
    try:
        value = msgspec.json.decode(fenced[1] if fenced else text)
    except RecursionError:
        raise FaultyAnswerError([f"{name} is JSON that is nested too deep"]) from None
    except (msgspec.DecodeError, UnicodeError) as error:
        raise FaultyAnswerError([f"{name} is not JSON alone: {error}"]) from None
    if beyond := payload.check(value, name):
        raise FaultyAnswerError([f"{each.field} {each.description}" for each in beyond[:_PROBLEMS_TOLD]])
    if found := _schema(plain(document))[0].problems(value):
        raise FaultyAnswerError([f"{locate(name, each.path)} {each.message}" for each in found[:_PROBLEMS_TOLD]])
    return value


def _schema(document: Mapping[str, Any], most: int = _MOST_COMPILING) -> tuple[Schema, int]:
    """Return a compiled schema, and how many microseconds it took about. Raises SchemaError when it takes too many."""
    text = msgspec.json.encode(document)
    if (known := _compiled.get(text)) is None:
        scale = weigh(document)
        if scale.compile_cost > most:
            raise _too_costly()
        known = Schema(document, scale), scale.compile_cost
        _compiled.put(text, known, scale.bytes + len(text))
    if known[1] > most:
        raise _too_costly()
    return known


def _too_costly() -> SchemaError:
    return SchemaError((), "is too costly to compile, with the other schemas of the step: repeat less in it")


@cache
def _of_schemas() -> Schema:
    """Return the schema of schemas."""
    return Schema({"$ref": _DIALECT}, dialect())
