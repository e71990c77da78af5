"""Finds out the types of a function's parameters, one by one: what is not needed may stay unknown."""

from __future__ import annotations

import functools
import inspect
import sys
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, Union, get_args, get_origin

from flowkeep.handlers.context import StepContext
from flowkeep.handlers.errors import HandlerError
from flowkeep.handlers.suspension import Suspend
from flowkeep.typed.typed_dicts import readable

# Known without an import at run time, as where `if TYPE_CHECKING:` imports them.
_KNOWN = {each.__name__: each for each in (HandlerError, StepContext, Suspend)} | {"typing": typing}

IMPORT_IT = "import it outside of `if TYPE_CHECKING:`, or define it in the module itself"


def types_of(function: Callable[..., Any], parameters: Mapping[str, inspect.Parameter]) -> dict[str, Any]:
    """Return the type of each parameter, Any where none is written. Raises TypeError that names the parameter."""
    names = {**_KNOWN, **_names(function)}
    return {name: _type(parameter, names) for name, parameter in parameters.items()}


def layers(function: Callable[..., Any]) -> Iterator[Callable[..., Any]]:
    """Yield a function and what it is made around: below partials, wrappers and methods; the last holds the code."""
    seen: set[int] = set()
    inner: Any = function
    while inner is not None and id(inner) not in seen:
        seen.add(id(inner))
        yield inner
        inner = _below(inner)


def _below(function: Any) -> Any:
    if isinstance(function, functools.partial):
        return function.func
    if isinstance(function, types.MethodType | staticmethod):
        return function.__func__
    if (wrapped := inspect.getattr_static(function, "__wrapped__", None)) is not None:
        return wrapped
    if isinstance(function, type | types.FunctionType):
        return None
    call = inspect.getattr_static(type(function), "__call__", None)
    return call if isinstance(call, types.FunctionType) else None


def is_async(function: Any) -> bool:
    """Return whether a call of it, be it a function or an object, gives a coroutine."""
    call = inspect.getattr_static(type(function), "__call__", None)
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(call)


def place(function: Callable[..., Any]) -> str:
    """Return file and line of a function, as far as they are known."""
    *_, inner = layers(function)
    code = getattr(inner, "__code__", None)
    return f"{code.co_filename}:{code.co_firstlineno}" if code else ""


def takes_context(hint: Any) -> bool:
    """Return whether a parameter of this type gets the context."""
    kind = _bare(hint)
    if get_origin(kind) in (Union, types.UnionType):
        return {_bare(each) for each in get_args(kind)} - {types.NoneType} == {StepContext}
    return kind is StepContext


def plain_type(hint: Any) -> Any:
    """Return the type without notes and parameters."""
    kind = _bare(hint)
    return get_origin(kind) or kind


def _bare(hint: Any) -> Any:
    return get_args(hint)[0] if get_origin(hint) is Annotated else hint


def _names(function: Callable[..., Any]) -> Mapping[str, Any]:
    """Return the names that are known where the parameters' types are written."""
    *_, inner = layers(function)
    if isinstance(inner, type):
        return vars(sys.modules[inner.__module__])
    return getattr(inner, "__globals__", {})


def _type(parameter: inspect.Parameter, names: Mapping[str, Any]) -> Any:
    if parameter.annotation is parameter.empty:
        return Any
    written = types.SimpleNamespace(__annotations__={"it": parameter.annotation})
    try:
        return readable(typing.get_type_hints(written, dict(names), include_extras=True)["it"])
    except Exception as error:
        why = f"{type(error).__name__}: {error}"
        if isinstance(error, NameError):
            why = f"{error}; {IMPORT_IT}"
        raise TypeError(
            f"parameter {parameter.name!r}: its type {_shown(parameter.annotation)} is not known at run time: {why}"
        ) from None


def _shown(annotation: Any) -> str:
    return annotation if isinstance(annotation, str) else getattr(annotation, "__qualname__", str(annotation))
