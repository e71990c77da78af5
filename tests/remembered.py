"""What is the same in every test of a process, and dear to find out anew: it is found out once."""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping
from functools import cache
from importlib.metadata import EntryPoints, entry_points
from types import SimpleNamespace
from typing import Any

import asyncpg

from service.engine.handlers import loading, model
from service.engine.handlers.registry import Registry
from service.engine.schema_weight import Scale, weigh

_FIRST_OWN = 16384
"""The lowest id of what is no part of Postgres itself (FirstNormalObjectId)."""


def remember_types() -> None:
    """Have connections ask once what Postgres's own types are made of, such as arrays of ids.

    Each connection asks by itself, which costs more than all else that a short test does with it; the answer is the
    same in all databases.
    """
    ask: Any = asyncpg.Connection._introspect_types  # type: ignore[attr-defined]  # the driver's own
    known: dict[frozenset[int], Any] = {}

    async def asked(connection: Any, types: Collection[int], timeout: float) -> tuple[Any, Any]:
        key = frozenset(types)
        if max(key) >= _FIRST_OWN:
            found: tuple[Any, Any] = await ask(connection, types, timeout)
            return found
        if key not in known:
            known[key], statement = await ask(connection, types, timeout)
            return known[key], statement
        # A statement that has a name: no other one was sent, so what has been prepared without a name still stands.
        return known[key], SimpleNamespace(name="remembered")

    asyncpg.Connection._introspect_types = asked  # type: ignore[attr-defined]


def remember_weights() -> None:
    """Have the schemas of built-in handlers weighed once, which each server does when it starts."""
    known: dict[int, Scale] = {}

    def weighed(document: Mapping[str, Any], *, is_bounded: bool = True) -> Scale:
        scale = known.get(id(document))  # as long as the scale is kept, its document is
        if scale is None or is_bounded:
            scale = weigh(document, is_bounded=is_bounded)
            if not is_bounded and id(document) in builtin:
                known[id(document)] = scale
        return scale

    builtin = {id(handler.params_schema) for handler in Registry.with_builtins().all()}
    vars(model)["weigh"] = weighed


def remember_packages() -> None:
    """Have installed packages searched for handlers once for each path of imports, which each server does."""

    @cache
    def found(path: tuple[str, ...], group: str) -> EntryPoints:
        return entry_points(group=group)

    def search(*, group: str) -> EntryPoints:
        return found(tuple(sys.path), group)

    vars(loading)["entry_points"] = search
