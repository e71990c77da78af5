"""`${ secret('name') }` in the params of a step: a place that is filled in at the call, and stays as it is until then.

What is recorded of a step shows the places, and no secret. That a text reads like one does not make it a place: only
those are filled in that the definition has, in strings in which nothing else can read like one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from service.engine.expressions.errors import ExpressionError
from service.engine.schema_places import Path

NAME = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}"
"""Names of secrets; none leads out of a folder."""

_WRITTEN = re.compile(rf"""\s*secret\(\s*(?:'({NAME})'|"({NAME})")\s*\)\s*""")
_CALLED = re.compile(r"\s*secret\s*\(")
_PLACE = re.compile(rf"\$\{{ secret\('({NAME})'\) \}}")


@dataclass(frozen=True, slots=True)
class Secret:
    """A place for the secret of this name."""

    name: str

    def __str__(self) -> str:
        return f"${{ secret('{self.name}') }}"


def secret_of(source: str) -> Secret | None:
    """Return the secret that is named between `${` and `}`, None where there is CEL. Raises ExpressionError."""
    if found := _WRITTEN.fullmatch(source):
        return Secret(found[1] or found[2])
    if _CALLED.match(source):
        raise ExpressionError(
            "secret('name') takes the name of a secret, and stands alone between ${ and }: letters, digits, _ . and -"
        )
    return None


def count_of_places(text: str) -> int:
    """Return how often a text reads as if a secret belonged into it."""
    return len(_PLACE.findall(text))


def filled(text: str, values: Mapping[str, str]) -> str:
    """Return a text with the secrets of these names in their places."""
    return _PLACE.sub(lambda found: values.get(found[1], found[0]), text)


def paths_of(value: Any, path: Path = ()) -> Iterator[tuple[Path, frozenset[str]]]:
    """Yield the paths of a parsed template at which strings have places, with the names of their secrets."""
    if isinstance(value, Mapping):
        for name, member in value.items():
            yield from paths_of(member, (*path, name))
    elif isinstance(value, list):
        for index, member in enumerate(value):
            yield from paths_of(member, (*path, index))
    elif isinstance(value, Secret):
        yield path, frozenset({value.name})
    elif names := getattr(value, "secrets", frozenset[str]()):
        yield path, names


def fill(value: Any, places: Mapping[Path, frozenset[str]], values: Mapping[str, str]) -> Any:
    """Return params with the secrets in the places that their template has; what has none is the same object."""
    ways = {path[:length] for path in places for length in range(len(path) + 1)}

    def within(value: Any, path: Path) -> Any:
        if path not in ways:
            return value
        if isinstance(value, Mapping):
            return {name: within(member, (*path, name)) for name, member in value.items()}
        if isinstance(value, list):
            return [within(member, (*path, index)) for index, member in enumerate(value)]
        if isinstance(value, str) and path in places:
            return filled(value, {name: values[name] for name in places[path]})
        return value

    return within(value, ())
