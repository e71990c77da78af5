"""Reads the parameters of a declared function: what JSON they take, and how params become arguments."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, is_dataclass, replace
from typing import Annotated, Any

import pydantic
from pydantic_core import to_json

from service.engine.failure import INVALID_PARAMS
from service.engine.handlers.model import HandlerError, StepContext
from service.engine.schema import locate

_PROBLEMS_NAMED = 5


@dataclass(frozen=True)
class Signature:
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


def read(name: str, function: Callable[..., Any]) -> Signature:
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
                return Signature(pydantic.TypeAdapter(hints[only.name]), {}, context, only.name)
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


def _fields(name: str, parameters: Mapping[str, inspect.Parameter], hints: Mapping[str, Any]) -> Signature:
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
    return Signature(pydantic.TypeAdapter(pydantic.create_model(name, __base__=base, **fields)), names)


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
