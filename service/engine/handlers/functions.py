"""Makes handlers of declared functions, sync or async."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any

from pydantic_core import PydanticSerializationError, to_jsonable_python

from service.engine import payload
from service.engine.failure import INVALID_OUTPUT
from service.engine.handlers.annotations import is_async, layers, place
from service.engine.handlers.model import Declaration, Handler, HandlerError, StepContext, Suspend
from service.engine.handlers.processes import processes
from service.engine.handlers.signature import Signature, read
from service.engine.handlers.threads import in_thread


def compiled(
    declaration: Declaration, function: Callable[..., Any] | None = None, origin: str | None = None
) -> Handler:
    """Return the handler of a declared function, or of what is to be called for it.

    `origin` is the module or file by which another process finds it, empty for an entry point.

    The parameters' types give the schema of the step's params. A parameter annotated with StepContext gets the context.
    A single parameter that is a pydantic model, a dataclass, a named tuple, a TypedDict or a dict gets all params. The
    result may be JSON, a pydantic model, a dataclass or a Suspend. What a function returns that can be awaited is
    awaited. Sync functions run in threads, at most 32 at a time; a timeout or a cancel does not interrupt them, but
    they can ask `context.cancelled`.

    Raises TypeError when a parameter cannot be had from JSON; it names the handler, the parameter and where it stands.
    """
    call = function or declaration.function
    try:
        if any(map(inspect.isasyncgenfunction, layers(call))):
            raise TypeError("it yields; an async handler returns its result")
        signature = read(call)
    except TypeError as error:
        where = f"{at}: " if (at := place(call)) else ""
        raise TypeError(f"{where}handler {declaration.name!r}: {error}") from error
    on_the_loop = runs_on_the_loop(call)
    if declaration.process:
        return _apart(declaration, signature, origin, on_the_loop=on_the_loop)
    return Handler(
        name=declaration.name,
        description=declaration.description,
        params_schema=signature.schema,
        effect=declaration.effect,
        run=_runner(call, signature, on_the_loop),
        is_threaded=not on_the_loop,
        takes_context=bool(signature.contexts),
    )


def _apart(declaration: Declaration, signature: Signature, origin: str | None, *, on_the_loop: bool) -> Handler:
    """Return the handler of a function that runs in another process."""
    name = declaration.name
    if on_the_loop:
        raise TypeError(f"handler {name!r}: process=True is for functions that are not async")
    if origin is None:
        raise TypeError(f"handler {name!r}: process=True needs a module or file, by which another process finds it")
    takes_context = bool(signature.contexts)

    async def run(params: Mapping[str, Any], context: StepContext) -> Any:
        return await processes().run(origin, name, params, context if takes_context else None)

    async def close() -> None:
        await processes().close()

    return Handler(
        name=name,
        description=declaration.description,
        params_schema=signature.schema,
        effect=declaration.effect,
        run=run,
        close=close,
        is_threaded=True,
        slots=processes,
        takes_context=takes_context,
    )


def runs_on_the_loop(function: Callable[..., Any]) -> bool:
    """Return whether a function is async, or a wrapper of one: then all of it runs on the event loop.

    A wrapper that runs what it wraps on a loop of its own is as sync as any other function.
    """
    for layer in layers(function):
        if is_async(layer):
            return True
        if _drives_a_loop(layer):
            return False
    return False


def _drives_a_loop(function: Any) -> bool:
    """Return whether the code of a function names what runs coroutines to their end, such as asyncio.run."""
    code, known = getattr(function, "__code__", None), getattr(function, "__globals__", {})
    names = frozenset(code.co_names if code else ())
    # By identity: what else stands there may be an array, which has no answer to whether it is equal.
    values = {id(known.get(name)) for name in names}
    return "run_until_complete" in names or id(asyncio.run) in values or (id(asyncio) in values and "run" in names)


def _runner(
    function: Callable[..., Any], signature: Signature, on_the_loop: bool
) -> Callable[[Mapping[str, Any], StepContext], Awaitable[Any]]:
    async def run(params: Mapping[str, Any], context: StepContext) -> Any:
        arguments = signature.arguments(params, context)
        if not on_the_loop:
            is_whole, result = await in_thread(lambda: finished(function(**arguments)))
            if is_whole:
                return result
        else:
            result = function(**arguments)
        while type(result) not in _PLAIN and inspect.isawaitable(result):
            result = await result
        return _to_json(result)

    return run


_PLAIN = frozenset({dict, list, str, int, float, bool, type(None)})
"""What most functions return: it need not be asked what it is, which takes as long as to call some of them."""


def finished(result: Any) -> tuple[bool, Any]:
    """Return whether a result is whole, and its JSON then, made here where it may take its time."""
    if inspect.isawaitable(result):
        return False, result
    return True, _to_json(list(result) if inspect.isgenerator(result) else result)


def _to_json(result: Any) -> Any:
    if isinstance(result, HandlerError):
        raise HandlerError(INVALID_OUTPUT, "a HandlerError is raised, not returned", retryable=False)
    if isinstance(result, Suspend):
        return replace(result, output=_to_json(result.output))
    if payload.has_too_many_values(result):
        raise HandlerError(INVALID_OUTPUT, f"output: {payload.TOO_MANY_VALUES}", retryable=False)
    try:
        return to_jsonable_python(result)
    except (PydanticSerializationError, ValueError) as error:
        raise HandlerError(INVALID_OUTPUT, f"the result has no JSON form: {error}", retryable=False) from error
