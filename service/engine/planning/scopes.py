"""Where steps stand in the blocks of a definition, told from their paths in an execution."""

from __future__ import annotations

from collections.abc import Iterator

from service.engine import paths
from service.engine.definition import Block, Definition

Place = tuple[int, ...]
"""Where a step stands in the order of the definition, items among themselves by number: what comes first goes first."""


def block_of(definition: Definition, scope: str) -> Block:
    """Return the block that runs in a scope."""
    return definition.blocks[paths.place(scope)] if scope else definition.root


def outwards(scope: str) -> Iterator[str]:
    """Yield a scope and those around it, the root's last."""
    yield scope
    while scope:
        scope, _ = paths.split(paths.owner(scope)[0])
        yield scope


def order(definition: Definition, path: str) -> Place:
    """Return where the step at a path stands."""
    if "[" not in path:
        return (definition.positions[path],)
    at: list[int] = []
    place = ""
    for name, index in zip(paths.place(path).split("."), (*paths.indexes(path), None), strict=True):
        place = paths.join(place, name)
        at.append(definition.positions[place])
        if index is not None:
            at.append(index)
    return tuple(at)
