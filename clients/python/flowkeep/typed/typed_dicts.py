"""Typed dicts of the standard library before Python 3.12, which pydantic does not take, as those that it takes."""

from __future__ import annotations

import functools
import operator
import sys
import types
import typing
from typing import Annotated, Any, Literal, NotRequired, Required, get_args, get_origin

import typing_extensions

_Known = dict[int, Any]


def readable(hint: Any) -> Any:
    """Return the type with its typed dicts in the form that pydantic takes."""
    return hint if sys.version_info >= (3, 12) else _readable(hint, {})


def _readable(hint: Any, known: _Known) -> Any:
    if isinstance(hint, type) and typing.is_typeddict(hint) and type(hint).__module__ == "typing":
        return _copied(hint, known)
    if get_origin(hint) in (None, Literal):
        return hint
    before = get_args(hint)
    if get_origin(hint) is Annotated:
        return typing.cast(Any, Annotated)[(_readable(before[0], known), *hint.__metadata__)]
    after = tuple(each if isinstance(each, list) else _readable(each, known) for each in before)
    if after == before:
        return hint
    if isinstance(hint, types.UnionType):
        return functools.reduce(operator.or_, after)
    return hint.copy_with(after) if hasattr(hint, "copy_with") else get_origin(hint)[after]


def _copied(kind: Any, known: _Known) -> Any:
    if id(kind) in known:
        return known[id(kind)]
    known[id(kind)] = kind  # one that contains itself stays as it is
    fields = {}
    for name, hint in typing.get_type_hints(kind, include_extras=True).items():
        said = get_origin(hint)
        inner = _readable(get_args(hint)[0] if said in (Required, NotRequired) else hint, known)
        is_required = said is Required or (said is not NotRequired and name in kind.__required_keys__)
        fields[name] = Required[inner] if is_required else NotRequired[inner]
    copy = typing.cast(Any, typing_extensions.TypedDict)(kind.__name__, fields)
    copy.__doc__, copy.__module__ = kind.__doc__, kind.__module__
    if "__pydantic_config__" in vars(kind):
        copy.__pydantic_config__ = kind.__pydantic_config__
    known[id(kind)] = copy
    return copy
