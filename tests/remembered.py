"""What is the same in every test of a process, and dear to find out anew: it is found out once."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection
from functools import cache, cached_property
from importlib.metadata import EntryPoints, entry_points
from types import CodeType, FunctionType, SimpleNamespace
from typing import Any

import asyncpg

from service.engine.handlers import functions, loading
from service.engine.handlers import signature as signatures_of
from service.engine.handlers.model import Handler
from service.engine.handlers.registry import Registry
from service.engine.handlers.signature import Signature
from service.engine.schema import Schema

STAGE = "tests.integration.stage"
"""The module whose handlers most servers of tests have."""

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


def remember_handlers() -> None:
    """Have the handlers that every server has read, weighed, compiled and measured once, not at each start.

    Those are the built-in ones and the stage's, which are functions made anew of the same code.
    """
    known = {id(handler.params_schema): handler.params_schema for handler in Registry.with_builtins().all()}
    signatures: dict[CodeType, Signature] = {}
    schemas: dict[int, Schema] = {}
    sizes: dict[tuple[str, str, int], int] = {}

    def signature(function: Callable[..., Any]) -> Signature:
        if not isinstance(function, FunctionType) or function.__module__ != STAGE:
            return read(function)
        if function.__code__ not in signatures:
            signatures[function.__code__] = found = read(function)
            known[id(found.schema)] = found.schema
        return signatures[function.__code__]

    def schema(handler: Handler) -> Schema:
        document = handler.params_schema
        if id(document) not in known:
            return compiled(handler)
        if id(document) not in schemas:
            schemas[id(document)] = compiled(handler)
        return schemas[id(document)]

    def measure(registry: Registry, handler: Handler) -> None:
        key = handler.name, handler.description, id(handler.params_schema)
        if key in sizes:
            registry._bytes += sizes[key]
            return
        before = registry._bytes
        measured(registry, handler)
        if key[-1] in known:
            sizes[key] = registry._bytes - before

    read, measured = signatures_of.read, Registry._measure
    compiled: Callable[[Handler], Schema] = vars(Handler)["_schema"].func
    vars(functions)["read"] = signature
    remembered = cached_property(schema)
    remembered.__set_name__(Handler, "_schema")
    Handler._schema = remembered  # type: ignore[assignment,method-assign]
    Registry._measure = measure  # type: ignore[assignment,method-assign]


def remember_packages() -> None:
    """Have installed packages searched for handlers once for each path of imports, which each server does."""

    @cache
    def found(path: tuple[str, ...], group: str) -> EntryPoints:
        return entry_points(group=group)

    def search(*, group: str) -> EntryPoints:
        return found(tuple(sys.path), group)

    vars(loading)["entry_points"] = search
