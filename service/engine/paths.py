"""Paths of steps: `fan_out[3].fetch` is the step `fetch` of item 3 of `fan_out`, and its place is `fan_out.fetch`.

A place tells a step in the definition, a path tells it in an execution. The scope of a step is the path of what runs
its block: empty in the root, `fan_out[3]` in the body.
"""

from __future__ import annotations

import re
from functools import lru_cache

_KEPT = 4_096  # of the steps that are in work now; each is asked for several times
_INDEX = re.compile(r"\[(\d+)\]")


@lru_cache(_KEPT)
def place(path: str) -> str:
    """Return the place in the definition of the step at `path`."""
    return _INDEX.sub("", path) if "[" in path else path


def indexes(path: str) -> tuple[int, ...]:
    """Return the numbers of the items that a path goes through, the outermost first."""
    return tuple(map(int, _INDEX.findall(path))) if "[" in path else ()


@lru_cache(_KEPT)
def split(path: str) -> tuple[str, str]:
    """Return the scope of a step and its id in its block."""
    scope, _, step_id = path.rpartition(".")
    return scope, step_id


def join(scope: str, step_id: str) -> str:
    """Return the path of a step in a scope; or the place of one, whose block has the place `scope`."""
    return f"{scope}.{step_id}" if scope else step_id


def item(path: str, index: int) -> str:
    """Return the scope of an item of the step at `path`."""
    return f"{path}[{index}]"


def owner(scope: str) -> tuple[str, int]:
    """Return the path of the step that runs an item, and the number of the item. The scope is not the root's."""
    path, _, index = scope.rpartition("[")
    return path, int(index[:-1])
