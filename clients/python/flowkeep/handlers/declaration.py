"""The decorator `handler`: notes on a function that steps may run it, and changes nothing else."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from flowkeep.handlers import arguments
from flowkeep.handlers.effect import Effect, EffectName, effect_of

Function = TypeVar("Function", bound=Callable[..., Any])

ATTRIBUTE = "flowkeep_handler"
MAX_NAME = 128


@dataclass(frozen=True, slots=True, eq=False)
class Declaration:
    """That steps may run `function` as `name`; `process`: in a process of a pool."""

    name: str
    function: Callable[..., Any]
    description: str = ""
    effect: Effect = Effect.IDEMPOTENT
    process: bool = False


def handler(
    name: str, *, description: str = "", effect: Effect | EffectName = Effect.IDEMPOTENT, process: bool = False
) -> Callable[[Function], Function]:
    """Return a decorator that leaves a function as it is and lets steps run it as `name`.

    The server reads the function's parameters when it loads the module: their types give the schema of the step's
    params. `description` defaults to the docstring. `effect` is what an attempt does outside of the execution; Effect
    says more of each:

    "none"        nothing: it may be run again, unseen, after a crash or whenever that is of use
    "idempotent"  something that is the same after a second attempt, given the idempotency token
    "external"    something that a second attempt may do again

    With `process` a sync function runs in one of a few processes beside the server, instead of a thread of it: for what
    keeps a processor busy, may crash, or must be stopped at once when its time is over.

    Raises TypeError or ValueError when an argument is not as it must be.
    """
    if callable(name):
        raise TypeError('@handler needs the name by which steps call the function: @handler("name")')
    _check("name", _name, name)
    _check(f"handler {name!r}: description", arguments.storable, description)
    promised = _check(f"handler {name!r}: effect", effect_of, effect)
    is_apart = _check(f"handler {name!r}: process", arguments.flag, process)

    def decorate(function: Function) -> Function:
        if isinstance(function, type) or not (callable(function) or isinstance(function, classmethod)):
            raise TypeError(f"handler {name!r}: {function!r} is no function and has no __call__")
        about = _check(f"handler {name!r}: docstring", arguments.storable, description or _docstring(function))
        declared = Declaration(str.__str__(name), function, about, promised, is_apart)
        return _noted(function, (*declarations(function), declared))

    return decorate


def declarations(thing: Any) -> Sequence[Declaration]:
    """Return what was declared of a function, without asking the thing itself: it may be anything."""
    try:
        found = inspect.getattr_static(thing, ATTRIBUTE, ())
    except Exception:  # of a class or a module that overrides how it is looked at
        return ()
    return found if isinstance(found, tuple) and all(isinstance(each, Declaration) for each in found) else ()


def _noted(function: Function, declared: Sequence[Declaration]) -> Function:
    try:
        setattr(function, ATTRIBUTE, declared)
    except (AttributeError, TypeError):  # a bound method or a built-in function carries nothing
        function = cast(Function, functools.partial(function))
        setattr(function, ATTRIBUTE, declared)
    return function


def _docstring(function: Any) -> str:
    while isinstance(function, functools.partial):
        function = function.func
    said = function.__doc__  # not what is inherited, such as "Call self as a function."
    return inspect.cleandoc(said) if isinstance(said, str) else ""


def _check(what: str, check: Callable[[Any], Any], value: Any) -> Any:
    try:
        return check(value)
    except ValueError as error:
        raise ValueError(f"@handler: {what} {error}") from None


def _name(value: Any) -> str:
    name = arguments.storable(value)
    if not 0 < len(name) <= MAX_NAME:
        raise ValueError(f"must have 1 to {MAX_NAME} characters, but has {len(name)}")
    if not name.isprintable() or name != name.strip():
        raise ValueError(f"must be printable and neither begin nor end with a space, not {name!r}")
    return name
