"""Reads the parameters of a declared function: what JSON they take, and how params become arguments."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, is_dataclass, replace
from typing import Annotated, Any, Unpack, cast, get_args, get_origin

import pydantic
from pydantic.fields import FieldInfo
from pydantic_core import PydanticSerializationError, to_json, to_jsonable_python

from flowkeep.handlers.context import StepContext
from flowkeep.handlers.errors import HandlerError
from flowkeep.typed.annotations import IMPORT_IT, layers, plain_type, takes_context, types_of
from flowkeep.typed.docstrings import parameter_texts
from flowkeep.typed.param_schema import ParamSchema
from flowkeep.typed.places import Check, located

INVALID_PARAMS = "INVALID_PARAMS"
_PROBLEMS_NAMED = 5
_BY_NAME_ONLY = "cannot be given by name, as params are"


@dataclass(frozen=True)
class Signature:
    """How params become arguments.

    `fields` are the arguments' names by the model's fields. `whole` takes all params, or what `build` makes of them.
    `always` are the fields that are passed even when they were not given, since the function has no default of its own.
    """

    adapter: pydantic.TypeAdapter[Any]
    schema: Mapping[str, Any]
    fields: Mapping[str, str]
    always: frozenset[str] = frozenset()
    contexts: tuple[str, ...] = ()
    whole: str = ""
    build: Callable[..., Any] | None = None

    def arguments(self, params: Mapping[str, Any], context: StepContext) -> dict[str, Any]:
        """Return the arguments of a call, or raise HandlerError."""
        try:
            value = self.adapter.validate_json(to_json(params))
        except pydantic.ValidationError as error:
            raise HandlerError(INVALID_PARAMS, _explain(error), retryable=False) from None
        arguments = self._of_fields(value) if self.fields else {}
        if self.whole:
            arguments = {self.whole: self.build(**arguments) if self.build else value}
        return arguments | dict.fromkeys(self.contexts, context) if self.contexts else arguments

    def _of_fields(self, value: Any) -> dict[str, Any]:
        # What was not given is left to the function's own defaults.
        given = (value.model_fields_set | self.always) & self.fields.keys()
        return {self.fields[field]: getattr(value, field) for field in given} | (value.model_extra or {})


def read(function: Callable[..., Any], check: Check) -> Signature:
    """Return the signature of a function, or raise TypeError that names the parameter at fault.

    `check` finds what keeps defaults and schemas from being kept and sent.
    """
    parameters = _parameters(function)
    hints = types_of(function, parameters)
    contexts = tuple(name for name in parameters if takes_context(hints[name]))
    taken = {name: parameter for name, parameter in parameters.items() if name not in contexts}
    for parameter in parameters.values():
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.VAR_POSITIONAL):
            raise TypeError(f"parameter {parameter.name!r} {_BY_NAME_ONLY}")
    signature = _whole(taken, hints, check) or _fields(taken, hints, check)
    return replace(signature, contexts=contexts, schema=_told(signature.schema, function, check))


def _told(schema: Mapping[str, Any], function: Callable[..., Any], check: Check) -> Mapping[str, Any]:
    """Return the schema with what the docstring says of parameters that have no description of their own."""
    *_, inner = layers(function)
    docstring = getattr(inner, "__doc__", None)
    texts = parameter_texts(docstring) if isinstance(docstring, str) else {}
    properties = {
        name: {"description": texts[name], **about} if name in texts and isinstance(about, dict) else about
        for name, about in schema.get("properties", {}).items()
    }
    told = {**schema, "properties": properties} if properties else schema
    return schema if check(told) else told


def _parameters(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """Return the parameters that are still open: what a partial has bound is nobody else's to give."""
    try:
        parameters = dict(inspect.signature(function).parameters)
    except ValueError:
        raise TypeError("its parameters are not known; write a function around it") from None
    while isinstance(function, functools.partial):
        for name in function.keywords:
            parameters.pop(name, None)
        function = function.func
    return parameters


def _whole(taken: Mapping[str, inspect.Parameter], hints: Mapping[str, Any], check: Check) -> Signature | None:
    """Return the signature of a function whose only parameter stands for all params, if it is one."""
    if len(taken) != 1:
        return None
    (only,) = taken.values()
    kind = plain_type(hints[only.name])
    if only.kind is only.VAR_KEYWORD or not isinstance(kind, type):
        return None
    if issubclass(kind, tuple) and hasattr(kind, "_fields"):  # a named tuple, whose own JSON form is a list
        own = dict(inspect.signature(kind).parameters)
        return replace(_fields(own, types_of(kind, own), check), whole=only.name, build=kind)
    if not (issubclass(kind, pydantic.BaseModel | Mapping) or is_dataclass(kind)):
        return None
    adapter, schema = _adapter(only.name, hints[only.name], check)
    if schema.get("type", "object") != "object":  # a root model of a list, say
        return None
    return Signature(adapter, {**schema, "type": "object"}, {}, whole=only.name)


def _fields(taken: Mapping[str, inspect.Parameter], hints: Mapping[str, Any], check: Check) -> Signature:
    """Return the signature of a function that takes each of the params by its name.

    The model's fields have names of their own, since a parameter's may be one that pydantic keeps to itself.
    """
    fields: dict[str, Any] = {}
    names: dict[str, str] = {}
    always: set[str] = set()
    base: type[pydantic.BaseModel] = _Closed
    for index, parameter in enumerate(taken.values()):
        hint = hints[parameter.name]
        if parameter.kind is parameter.VAR_KEYWORD:
            if get_origin(hint) is Unpack:
                raise TypeError(f"parameter {parameter.name!r}: take the typed dict itself as the only parameter")
            _adapter(parameter.name, hint, check)
            base = _open_to(hint)
            continue
        field = f"argument_{index}"
        fields[field] = _field(parameter, hint, check)
        names[field] = parameter.name
        if parameter.default is parameter.empty or isinstance(parameter.default, FieldInfo):
            always.add(field)
    adapter = pydantic.TypeAdapter(pydantic.create_model("Params", __base__=base, **fields))
    schema = adapter.json_schema(schema_generator=ParamSchema)
    schema.pop("title")
    return Signature(adapter, schema, names, frozenset(always))


def _field(parameter: inspect.Parameter, hint: Any, check: Check) -> tuple[Any, Any]:
    """Return the type and the default of a field, after a look at them alone, so that an error names the parameter."""
    bare, *notes = get_args(hint) if get_origin(hint) is Annotated else (hint,)
    named = cast(Any, Annotated)[(bare, pydantic.Field(alias=parameter.name), *notes)]
    if parameter.default is parameter.empty:
        default: Any = ...
    else:
        default = parameter.default
        if not isinstance(default, FieldInfo):
            _check_default(parameter.name, default, check)
    with _blamed(parameter.name):
        model = pydantic.create_model("Param", argument=(named, default))
        model.model_rebuild(raise_errors=True)
        schema = model.model_json_schema(schema_generator=ParamSchema)
    _sendable(parameter.name, schema, check)
    return named, default


def _check_default(name: str, default: Any, check: Check) -> None:
    """Raise TypeError for a default that the schema, and with it the list of handlers, could not show."""
    try:
        found = check(to_jsonable_python(default))
    except (PydanticSerializationError, ValueError, TypeError):
        raise TypeError(
            f"parameter {name!r}: its default, of type {type(default).__name__}, cannot be written as JSON; take None"
        ) from None
    if found:
        place = found[0].field
        raise TypeError(f"parameter {name!r}: its default {place + ' ' if place else ''}{found[0].description}")


def _adapter(name: str, hint: Any, check: Check) -> tuple[pydantic.TypeAdapter[Any], dict[str, Any]]:
    """Return what reads a type, and its schema, or raise TypeError that names the parameter."""
    with _blamed(name):
        adapter = pydantic.TypeAdapter(hint)
        adapter.rebuild(raise_errors=True)  # tells which name is missing in a class that is not fully defined
        schema = adapter.json_schema(schema_generator=ParamSchema)
    return adapter, _sendable(name, schema, check)


def _sendable(name: str, schema: dict[str, Any], check: Check) -> dict[str, Any]:
    if found := check(schema):
        raise TypeError(f"parameter {name!r}: its schema cannot be listed: {found[0]}")
    return schema


@contextmanager
def _blamed(name: str) -> Iterator[None]:
    """Raise TypeError that names the parameter for whatever pydantic, or the type itself, finds wrong with it."""
    try:
        yield
    except Exception as error:
        raise TypeError(f"parameter {name!r} has no JSON form: {_why(error)}") from error


def _why(error: Exception) -> str:
    """Return the line of an error that says what is wrong, without what pydantic advises its own users."""
    if isinstance(error, pydantic.errors.PydanticUndefinedAnnotation):
        return f"{error.message}; {IMPORT_IT}"
    said = getattr(error, "message", "") or f"{type(error).__name__}: {error}"
    return said.partition("\n")[0].partition(". Set `arbitrary_types_allowed")[0]


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
    texts = [f"{located(problem['loc']) or 'params'}: {problem['msg']}" for problem in problems]
    more = len(texts) - _PROBLEMS_NAMED
    return "; ".join(texts[:_PROBLEMS_NAMED]) + (f"; and {more} more" if more > 0 else "")
