"""Finds declared functions: in modules and files named at start, and in what installed packages offer."""

from __future__ import annotations

import importlib
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

from service.engine.handlers import imports
from service.engine.handlers.annotations import place as place_of
from service.engine.handlers.functions import compiled
from service.engine.handlers.model import Declaration, Handler, HandlerLoadError, declarations

ENTRY_POINT_GROUP = "flowkeep.handlers"


@dataclass(frozen=True, slots=True)
class Found:
    """A declaration, its handler, where it stands, and what is called for it."""

    declaration: Declaration
    handler: Handler
    where: str
    function: Callable[..., Any]


def load(place: str) -> list[Found]:
    """Return the handlers of a module, named `package.module` or as a path that ends in `.py`.

    Raises HandlerLoadError.
    """
    is_file = place.endswith(".py")
    if not is_file and not all(part.isidentifier() for part in place.split(".")):
        raise HandlerLoadError(f"{place!r} is neither a module, such as my.handlers, nor a file that ends in .py")
    # Types are read inside, too: they are looked up where their module is known by its name.
    with imports.beside(imports.folder_of(place)):
        read = (lambda: imports.import_file(Path(place))) if is_file else (lambda: importlib.import_module(place))
        return _handlers(_imported(read, place), place, place)


def load_entry_points() -> Iterator[list[Found]]:
    """Yield the handlers of each entry point of the group `flowkeep.handlers`: modules or decorated functions.

    Raises HandlerLoadError.
    """
    for point in sorted(entry_points(group=ENTRY_POINT_GROUP), key=lambda each: (each.name, each.value)):
        place = f"entry point {point.name} = {point.value}{_offered_by(point)}"
        yield _handlers(_imported(point.load, place), place, "")


def _offered_by(point: EntryPoint) -> str:
    return f" of {point.dist.name}" if point.dist is not None else ""


def _imported(read: Callable[[], Any], place: str) -> Any:
    try:
        return read()
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # sys.exit() of a module must not end the server without a word
        raise HandlerLoadError(f"cannot load {place!r}: {_why(error, place)}") from error


def _why(error: BaseException, place: str) -> str:
    said = "".join(traceback.format_exception_only(error)).strip().splitlines()[-1]
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith("<frozen")]
    inside = [f for f in frames if f.filename.endswith(".py") and "importlib" not in f.filename][-1:]
    at = "".join(f" ({f.filename}, line {f.lineno})" for f in inside if f.filename != __file__)
    if isinstance(error, SyntaxError) and error.filename:
        at = f" ({error.filename}, line {error.lineno})"
    return f"{said}{at}{_hint(error, place)}"


def _hint(error: BaseException, place: str) -> str:
    if isinstance(error, ImportError) and "no known parent package" in str(error):
        return "; a file of a package is named as a module, such as my.handlers"
    if isinstance(error, ModuleNotFoundError) and error.name and place.split(".")[0] == error.name.split(".")[0]:
        return "; it is neither installed nor in the current folder"
    return ""


def _handlers(found: Any, place: str, origin: str) -> list[Found]:
    """Return the handlers of a module or function; `origin` is what another process finds them by."""
    declared = dict(_of_module(found) if isinstance(found, ModuleType) else _of(found))
    if not declared:
        more = (
            f"; it is a module of Python itself: name a file as {place}.py" if place in sys.stdlib_module_names else ""
        )
        raise HandlerLoadError(f"{place!r} has no function decorated with @handler(...){more}")
    try:
        return [
            Found(each, compiled(each, function, origin), place_of(function), function)
            for each, function in declared.items()
        ]
    except (TypeError, ValueError) as error:
        raise HandlerLoadError(f"cannot load {place!r}: {error}") from error


def _of_module(module: ModuleType) -> Iterator[tuple[Declaration, Callable[..., Any]]]:
    for member in list(vars(module).values()):
        yield from _of(member)
        if isinstance(member, type) and member.__module__ == module.__name__:
            yield from _of_class(member)


def _of(thing: Any) -> Iterator[tuple[Declaration, Callable[..., Any]]]:
    for each in declarations(thing):
        yield each, each.function


def _of_class(kind: type) -> Iterator[tuple[Declaration, Callable[..., Any]]]:
    for name, member in list(vars(kind).items()):
        is_bound = isinstance(member, staticmethod | classmethod)
        for each in declarations(member) or (declarations(member.__func__) if is_bound else ()):
            if isinstance(member, FunctionType):
                raise HandlerLoadError(
                    f"{place_of(member)}: handler {each.name!r} is a method, which needs an object: make it a "
                    f'staticmethod, or declare it of an object: handler("{each.name}")({kind.__name__}().{name})'
                )
            yield each, getattr(kind, name) if is_bound else each.function
