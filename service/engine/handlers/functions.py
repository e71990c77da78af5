"""Makes handlers of declared functions, sync or async."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any

from pydantic_core import PydanticSerializationError, to_jsonable_python

from service.engine.failure import INVALID_OUTPUT
from service.engine.handlers.annotations import layers, place
from service.engine.handlers.copies import Copies
from service.engine.handlers.model import Declaration, Handler, HandlerError, StepContext, Suspend
from service.engine.handlers.signature import Signature, read
from service.engine.handlers.threads import in_thread


def compiled(declaration: Declaration, function: Callable[..., Any] | None = None) -> Handler:
    """Return the handler of a declared function, or of what is to be called for it.

    The parameters' types give the schema of the step's params. A parameter annotated with StepContext gets the context.
    A single parameter that is a pydantic model, a dataclass, a named tuple, a TypedDict or a dict gets all params. The
    result may be JSON, a pydantic model, a dataclass or a Suspend. What a function returns that can be awaited is
    awaited. Sync functions run in threads, at most 32 at a time; a timeout or a cancel does not interrupt them, but
    they can ask `context.cancelled`.

    Raises TypeError when a parameter cannot be had from JSON; it names the handler, the parameter and where it stands.
    """
    call = function or declaration.function
    try:
        signature = read(call)
    except TypeError as error:
        where = f"{at}: " if (at := place(call)) else ""
        raise TypeError(f"{where}handler {declaration.name!r}: {error}") from error
    is_async = runs_on_the_loop(call)
    return Handler(
        name=declaration.name,
        description=declaration.description,
        params_schema=signature.schema,
        retry_safe=declaration.retry_safe,
        run=_runner(call, signature, is_async),
        is_threaded=not is_async,
    )


def runs_on_the_loop(function: Callable[..., Any]) -> bool:
    """Return whether a function is async, or a wrapper of one: then all of it runs on the event loop."""
    return any(map(inspect.iscoroutinefunction, layers(function)))


def _runner(
    function: Callable[..., Any], signature: Signature, is_async: bool
) -> Callable[[Mapping[str, Any], StepContext], Awaitable[Any]]:
    async def run(params: Mapping[str, Any], context: StepContext) -> Any:
        own = replace(context, variables=Copies(context.variables))
        call = functools.partial(function, **signature.arguments(params, own))
        result = call() if is_async else await in_thread(lambda: _exhausted(call()))
        while inspect.isawaitable(result):
            result = await result
        return _to_json(result)

    return run


def _exhausted(result: Any) -> Any:
    """Return what a generator yields as a list, made here where it may take its time."""
    return list(result) if inspect.isgenerator(result) else result


def _to_json(result: Any) -> Any:
    if isinstance(result, Suspend):
        return replace(result, output=_to_json(result.output))
    try:
        return to_jsonable_python(result)
    except (PydanticSerializationError, ValueError) as error:
        raise HandlerError(INVALID_OUTPUT, f"the result has no JSON form: {error}", retryable=False) from error
