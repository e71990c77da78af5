"""The decorator `handler`: makes a Python function, sync or async, what a step can run."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
import typing
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, is_dataclass, replace
from typing import Annotated, Any, TypeVar
from weakref import WeakKeyDictionary

import pydantic
from pydantic_core import PydanticSerializationError, to_json, to_jsonable_python

from service.engine.failure import INVALID_OUTPUT, INVALID_PARAMS
from service.engine.handlers.model import Handler, HandlerError, StepContext, Suspend
from service.engine.schema import locate

Function = TypeVar("Function", bound=Callable[..., Any])

ATTRIBUTE = "flowkeep_handler"
THREADS = 32
_PROBLEMS_NAMED = 5


def handler(name: str, *, description: str = "", retry_safe: bool = True) -> Callable[[Function], Function]:
    """Return a decorator that leaves a function as it is and lets steps run it as `name`.

    The parameters' types give the schema of the step's params. A parameter annotated with StepContext gets the context.
    A single parameter that is a pydantic model, a dataclass, a TypedDict or a dict gets all params. The result may be
    JSON, a pydantic model, a dataclass or a Suspend. Sync functions run in threads, at most 32 at a time, and are not
    interrupted by a timeout or a cancel. Raises TypeError when a parameter has no JSON form.
    """

    def decorate(function: Function) -> Function:
        signature = _read(name, function)
        setattr(
            function,
            ATTRIBUTE,
            Handler(
                name=name,
                description=description or inspect.getdoc(function) or "",
                params_schema=signature.schema(),
                retry_safe=retry_safe,
                run=_runner(function, signature),
                slot=nullcontext if inspect.iscoroutinefunction(function) else _slot,
            ),
        )
        return function

    return decorate


@dataclass(frozen=True)
class _Signature:
    """How params become arguments. `fields` are the arguments' names by the model's; `whole` takes all params."""

    adapter: pydantic.TypeAdapter[Any]
    fields: Mapping[str, str]
    context: str | None = None
    whole: str | None = None

    def schema(self) -> dict[str, Any]:
        return {"type": "object", **self.adapter.json_schema()}

    def arguments(self, params: Mapping[str, Any], context: StepContext) -> dict[str, Any]:
        """Return the arguments of a call, or raise HandlerError."""
        try:
            value = self.adapter.validate_json(to_json(params))
        except pydantic.ValidationError as error:
            raise HandlerError(INVALID_PARAMS, _explain(error), retryable=False) from None
        if self.whole:
            arguments = {self.whole: value}
        else:
            # What was not given is left to the function's own defaults.
            given = value.model_fields_set & self.fields.keys()
            arguments = {self.fields[field]: getattr(value, field) for field in given} | (value.model_extra or {})
        return arguments | ({self.context: context} if self.context else {})


def _read(name: str, function: Callable[..., Any]) -> _Signature:
    hints = _hints(name, function)
    parameters = dict(inspect.signature(function).parameters)
    context = next((p for p in parameters if hints.get(p) is StepContext), None)
    parameters.pop(context or "", None)
    for parameter in parameters.values():
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.VAR_POSITIONAL):
            raise TypeError(f"handler {name!r}: parameter {parameter.name!r} cannot be given by name")
    try:
        match list(parameters.values()):
            case [only] if only.kind is not only.VAR_KEYWORD and _takes_all(hints.get(only.name)):
                return _Signature(pydantic.TypeAdapter(hints[only.name]), {}, context, only.name)
            case _:
                return replace(_fields(name, parameters, hints), context=context)
    except pydantic.errors.PydanticUserError as error:
        raise TypeError(f"handler {name!r}: a parameter has no JSON form: {error.message}") from error


def _hints(name: str, function: Callable[..., Any]) -> dict[str, Any]:
    try:
        return typing.get_type_hints(function, include_extras=True)
    except NameError as error:
        raise TypeError(f"handler {name!r}: {error}; types of parameters are defined in the module itself") from error


def _takes_all(hint: Any) -> bool:
    """Return whether a parameter of this type stands for all params."""
    kind = typing.get_origin(hint) or hint
    if not isinstance(kind, type):
        return False
    return issubclass(kind, pydantic.BaseModel | Mapping) or is_dataclass(kind)


def _fields(name: str, parameters: Mapping[str, inspect.Parameter], hints: Mapping[str, Any]) -> _Signature:
    """Return the signature of a function that takes each of the params by its name.

    The model's fields have names of their own, since a parameter's may be one that pydantic keeps to itself.
    """
    fields: dict[str, Any] = {}
    names: dict[str, str] = {}
    extra: Any = None
    for index, parameter in enumerate(parameters.values()):
        hint = hints.get(parameter.name, Any)
        if parameter.kind is parameter.VAR_KEYWORD:
            extra = hint
            continue
        default = ... if parameter.default is parameter.empty else parameter.default
        alias = pydantic.Field(alias=parameter.name)
        fields[f"argument_{index}"] = (Annotated[hint, alias], default)
        names[f"argument_{index}"] = parameter.name
    base = _open_to(extra) if extra is not None else _Closed
    return _Signature(pydantic.TypeAdapter(pydantic.create_model(name, __base__=base, **fields)), names)


class _Closed(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid", arbitrary_types_allowed=False)


def _open_to(extra: Any) -> type[pydantic.BaseModel]:
    """Return a base for models that keep unknown fields of the type `extra`."""
    namespace = {
        "__annotations__": {"__pydantic_extra__": dict[str, extra]},
        "__module__": __name__,
        "model_config": pydantic.ConfigDict(extra="allow"),
    }
    return type("Open", (pydantic.BaseModel,), namespace)


def _explain(error: pydantic.ValidationError) -> str:
    """Return what is wrong with params, without their values."""
    problems = error.errors(include_url=False, include_context=False, include_input=False)
    texts = [f"{locate('', problem['loc']) or 'params'}: {problem['msg']}" for problem in problems]
    more = len(texts) - _PROBLEMS_NAMED
    return "; ".join(texts[:_PROBLEMS_NAMED]) + (f"; and {more} more" if more > 0 else "")


def _runner(
    function: Callable[..., Any], signature: _Signature
) -> Callable[[Mapping[str, Any], StepContext], Awaitable[Any]]:
    is_async = inspect.iscoroutinefunction(function)

    async def run(params: Mapping[str, Any], context: StepContext) -> Any:
        arguments = signature.arguments(params, context)
        call = functools.partial(function, **arguments)
        return _to_json(await call() if is_async else await _in_thread(call))

    return run


async def _in_thread(call: Callable[[], Any]) -> Any:
    """Return what `call` returns, with the caller's context variables, while the event loop goes on."""

    def outcome() -> tuple[Any, BaseException | None]:
        # A future can hold neither StopIteration nor what is meant to end the process.
        try:
            return call(), None
        except BaseException as error:
            return None, error

    inside = contextvars.copy_context()
    result, error = await asyncio.get_running_loop().run_in_executor(_threads(), inside.run, outcome)
    if error is not None:
        raise error
    return result


_slots: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = WeakKeyDictionary()


def _slot() -> asyncio.Semaphore:
    """Return what admits as many sync handlers as there are threads."""
    return _slots.setdefault(asyncio.get_running_loop(), asyncio.Semaphore(THREADS))


@functools.cache
def _threads() -> ThreadPoolExecutor:
    # Not the loop's own executor: handlers that hang would stop name resolution and file access with them.
    return ThreadPoolExecutor(THREADS, thread_name_prefix="flowkeep-handler")


def _to_json(result: Any) -> Any:
    if isinstance(result, Suspend):
        if result.until.tzinfo is None:
            raise HandlerError(INVALID_OUTPUT, "Suspend.until has no time zone", retryable=False)
        return replace(result, output=_to_json(result.output))
    try:
        return to_jsonable_python(result)
    except (PydanticSerializationError, ValueError) as error:
        raise HandlerError(INVALID_OUTPUT, f"the result has no JSON form: {error}", retryable=False) from error
