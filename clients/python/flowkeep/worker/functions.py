"""What a worker runs: declared functions, with what their params are."""

from __future__ import annotations

import inspect
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any, NamedTuple

from pydantic_core import PydanticSerializationError, to_jsonable_python

from flowkeep.handlers import HandlerError, StepContext, Suspend
from flowkeep.handlers.declaration import Declaration, declarations
from flowkeep.handlers.errors import INVALID_OUTPUT
from flowkeep.payload import to_struct
from flowkeep.typed.annotations import is_async, layers, place
from flowkeep.typed.signature import Signature, read
from flowkeep.v1.handler_pb2 import Handler

INVALID_PARAMS = "INVALID_PARAMS"


class _Found(NamedTuple):
    field: str
    description: str

    def __str__(self) -> str:
        return f"{self.field}: {self.description}" if self.field else self.description


@dataclass(frozen=True)
class Function:
    """A declared function, how params become its arguments, and whether it runs on the event loop."""

    declaration: Declaration
    call: Callable[..., Any]
    signature: Signature
    is_async: bool

    def message(self) -> Handler:
        """Return what the server is told of it."""
        return Handler(
            name=self.declaration.name,
            description=self.declaration.description,
            params_schema=to_struct(self.signature.schema),
            effect=Handler.Effect.Value(f"EFFECT_{self.declaration.effect.name}"),
        )

    def arguments(self, params: bytes, context: StepContext) -> dict[str, Any]:
        """Return the arguments of a call. Raises HandlerError."""
        try:
            given = json.loads(params or b"{}")
        except ValueError as error:
            raise HandlerError(INVALID_PARAMS, f"the params are no JSON: {error}", retryable=False) from None
        return self.signature.arguments(given, context)


def functions(handlers: Any) -> Mapping[str, Function]:
    """Return by name what modules, classes, functions, or a list of such declare.

    Raises TypeError and ValueError that say which is wrong.
    """
    found: dict[str, Function] = {}
    for declaration, call in _declared(handlers if isinstance(handlers, Iterable) else [handlers]):
        name = declaration.name
        if name in found and found[name].declaration is not declaration:
            raise ValueError(f"there are two handlers named {name!r}")
        found[name] = _function(declaration, call)
    if not found:
        raise ValueError("there is no function decorated with @handler(...) among the handlers of the worker")
    return found


def _declared(things: Iterable[Any]) -> Iterator[tuple[Declaration, Callable[..., Any]]]:
    for thing in things:
        if isinstance(thing, ModuleType):
            for member in list(vars(thing).values()):
                yield from ((each, each.function) for each in declarations(member))
        elif own := declarations(thing):
            yield from ((each, each.function) for each in own)
        else:
            raise TypeError(f"handlers: {thing!r} is neither a module nor a function decorated with @handler(...)")


def _function(declaration: Declaration, call: Callable[..., Any]) -> Function:
    try:
        if any(map(inspect.isasyncgenfunction, layers(call))):
            raise TypeError("it yields; an async handler returns its result")
        signature = read(call, _unsendable)
    except TypeError as error:
        where = f"{at}: " if (at := place(call)) else ""
        raise TypeError(f"{where}handler {declaration.name!r}: {error}") from error
    return Function(declaration, call, signature, any(map(is_async, layers(call))))


def _unsendable(value: Any) -> Sequence[_Found]:
    """Return why a default or a schema cannot be sent; the server has more rules, and says so when it is registered."""
    try:
        text = json.dumps(value, allow_nan=False, ensure_ascii=False)
        text.encode()
    except (TypeError, ValueError, RecursionError) as error:
        return [_Found("", f"has no JSON form: {error}")]
    return [_Found("", "must not contain the character NUL (U+0000)")] if "\\u0000" in text else []


def to_json(result: Any) -> bytes:
    """Return the JSON of what a function gives. Raises HandlerError."""
    if isinstance(result, HandlerError):
        raise HandlerError(INVALID_OUTPUT, "a HandlerError is raised, not returned", retryable=False)
    if isinstance(result, Suspend):
        text = "a worker cannot suspend a step: only handlers of the server's own process can; use a `wait` step"
        raise HandlerError(INVALID_OUTPUT, text, retryable=False)
    if isinstance(result, float) and not math.isfinite(result):
        raise HandlerError(INVALID_OUTPUT, "output: must be a finite number", retryable=False)
    try:
        plain = to_jsonable_python(result)
        return json.dumps(plain, allow_nan=False, ensure_ascii=False, separators=(",", ":")).encode()
    except (PydanticSerializationError, ValueError, TypeError, RecursionError) as error:
        raise HandlerError(INVALID_OUTPUT, f"the result has no JSON form: {error}", retryable=False) from error
