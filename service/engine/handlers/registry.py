"""The handlers that this process can run: built-in ones, and those of modules named at start."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterable, Sequence
from hashlib import sha256
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

from service.engine.handlers.call_api import call_api
from service.engine.handlers.condition import condition
from service.engine.handlers.functions import compiled
from service.engine.handlers.model import (
    Declaration,
    Handler,
    HandlerError,
    HandlerLoadError,
    Source,
    StepContext,
    Suspend,
    declarations,
)
from service.engine.handlers.transform import transform
from service.engine.handlers.wait import wait

__all__ = [
    "Handler",
    "HandlerError",
    "HandlerLoadError",
    "Registry",
    "Source",
    "StepContext",
    "Suspend",
]

ENTRY_POINT_GROUP = "flowkeep.handlers"
MAX_NAME = 128


class Registry:
    """Handlers by name."""

    def __init__(self, handlers: Iterable[Handler] = ()) -> None:
        self._handlers: dict[str, Handler] = {}
        self._declared: set[Declaration] = set()
        for handler in handlers:
            self.register(handler)

    @classmethod
    def with_builtins(cls) -> Registry:
        """Return a registry of the handlers that need nothing else."""
        return cls((call_api(), wait(), condition(), transform()))

    def register(self, handler: Handler) -> None:
        """Add a handler. Raises ValueError if another one has its name, SchemaError if its schema is none."""
        if not 0 < len(handler.name) <= MAX_NAME:
            raise ValueError(f"the name of a handler has 1 to {MAX_NAME} characters, not {handler.name!r}")
        if self._handlers.get(handler.name, handler) is not handler:
            raise ValueError(f"there are two handlers named {handler.name!r}")
        handler.problems({})  # compiles the schema, so that a bad one stops the start and not an execution
        self._handlers[handler.name] = handler

    def get(self, name: str) -> Handler | None:
        """Return the handler of this name."""
        return self._handlers.get(name)

    def names(self) -> Sequence[str]:
        """Return all names, sorted."""
        return sorted(self._handlers)

    def all(self) -> Sequence[Handler]:
        """Return all handlers, sorted by name."""
        return [self._handlers[name] for name in self.names()]

    def load(self, places: Iterable[str]) -> None:
        """Register the decorated functions of modules, named `package.module` or as a path that ends in `.py`.

        Raises HandlerLoadError.
        """
        for place in places:
            try:
                module = _file(Path(place)) if place.endswith(".py") else importlib.import_module(place)
            except Exception as error:
                raise HandlerLoadError(f"cannot load {place!r}: {type(error).__name__}: {error}") from error
            self._scan(module, place)

    def load_entry_points(self) -> None:
        """Register what installed packages offer in the group `flowkeep.handlers`: modules or decorated functions.

        Raises HandlerLoadError.
        """
        for point in entry_points(group=ENTRY_POINT_GROUP):
            place = f"entry point {point.name} = {point.value}"
            try:
                found = point.load()
            except Exception as error:
                raise HandlerLoadError(f"cannot load {place}: {type(error).__name__}: {error}") from error
            self._scan(found, place)

    async def close(self) -> None:
        """Free what the handlers keep open."""
        for handler in self._handlers.values():
            if handler.close is not None:
                await handler.close()

    def _scan(self, found: Any, place: str) -> None:
        members = vars(found).values() if isinstance(found, ModuleType) else (found,)
        declared = list(dict.fromkeys(each for member in members for each in declarations(member)))
        if not declared:
            raise HandlerLoadError(f"{place!r} has no function decorated with @handler(...)")
        for declaration in declared:
            if declaration in self._declared:
                continue
            try:
                self.register(compiled(declaration))
            except (TypeError, ValueError) as error:
                raise HandlerLoadError(f"cannot load {place!r}: {error}") from error
            self._declared.add(declaration)


def _file(path: Path) -> ModuleType:
    """Import a file under a name of its own, once; the folders of two files may hold the same names."""
    path = path.resolve()
    name = f"flowkeep_handlers_{sha256(str(path).encode()).hexdigest()[:16]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
