"""The tools of an MCP server: their names, and what their arguments must be."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import cache, cached_property
from typing import Any

import msgspec

from service.engine.schema import Problem, Schema
from service.engine.schema_places import SchemaError
from service.engine.schema_weight import Scale, dialect
from service.engine.slices import Work, in_slices

MOST_TOOLS = 1_000

LONGEST_DESCRIPTION = 2_000
"""Characters that are kept."""

_DIALECT = "https://json-schema.org/draft/2020-12/schema"


class Tool:
    """One tool, as its server described it when it was asked."""

    def __init__(self, name: str, input_schema: Mapping[str, Any], description: str = "") -> None:
        self.name = name
        self.description = description[:LONGEST_DESCRIPTION]
        self.input_schema = input_schema
        self._schema: Schema | None = None
        self._is_compiled = False

    @cached_property
    def schema_hash(self) -> str:
        """The SHA-256 of the input schema as JSON with sorted keys and without spaces, in UTF-8."""
        text = json.dumps(self.input_schema, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()

    async def problems(self, arguments: Mapping[str, Any]) -> list[Problem]:
        """Return what is wrong with arguments. A schema that is none, or too costly, is left to the server."""
        if not self._is_compiled:
            self._schema = await in_slices(_compile(self.input_schema))
            self._is_compiled = True
        return [] if self._schema is None else self._schema.problems(arguments)


def described(raw: Any) -> dict[str, Tool]:
    """Return the tools among what a server lists, by name. What is no tool is left out."""
    found = raw if isinstance(raw, list) else []
    tools: dict[str, Tool] = {}
    for each in found:
        match each:
            case {"name": str(name), "inputSchema": dict(schema)} if len(tools) < MOST_TOOLS:
                description = each.get("description")
                tools[name] = Tool(name, schema, description if isinstance(description, str) else "")
    return tools


def _compile(document: Mapping[str, Any]) -> Work[Schema | None]:
    # Many servers name an older draft, which means the same in nearly all that schemas of tools say.
    plain = {name: value for name, value in document.items() if name != "$schema"}
    size = len(msgspec.json.encode(plain))
    yield size // 10
    if _dialect().problems(plain):
        return None
    yield size // 10
    try:
        scale = Scale(plain, is_bounded=True)
        yield from scale.weigh()
        schema = Schema(plain, scale)
    except SchemaError:
        return None
    yield scale.compile_cost
    return schema


@cache
def _dialect() -> Schema:
    """Return the schema of schemas."""
    return Schema({"$ref": _DIALECT}, dialect())
