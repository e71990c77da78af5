"""Checks the handler of a step and the params that it will get, and makes an action of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from service.engine import payload
from service.engine.definition import Action, Call, OnError
from service.engine.expressions import Expression, Template, hints
from service.engine.handlers.builtin import ENGINE_HANDLERS
from service.engine.handlers.model import Handler, Params, Source
from service.engine.handlers.registry import Catalog
from service.engine.parsing.fields import Fields
from service.engine.parsing.sources import IN_PARAMS, VARIABLES, Sources
from service.engine.schema import locate, nearest
from service.engine.schema_places import Path
from service.engine.slices import Work

NOTHING = Template.constant({}, "params")

_BYTES_A_MICROSECOND = 4

OF_ATTEMPTS = ("timeout", "retry_policy", "delivery", "total_timeout")
"""What is said of attempts; it has no meaning where there are none."""

_Compiler = Callable[[Source], Work[Expression | None]]


def read_action(fields: Fields, sources: Sources, catalog: Catalog | None, reader: str) -> Work[Action | None]:
    """Return what a step does, None when something is wrong. Without a catalog, as little as can be is judged."""
    name, handler = _handler(fields, catalog)
    given = fields.object("params")
    params = given or {}
    own = _sources(handler, params)
    is_call = handler is None or handler.compile is None
    names = IN_PARAMS if is_call else VARIABLES
    cel_at = {locate(fields.at("params"), source.path) for source in own}
    template = yield from sources.template(params, fields.at("params"), reader, names, cel_at, may_hold_secrets=is_call)
    cel: Mapping[Path, Expression] | None = {}

    def compiled(source: Source) -> Work[Expression | None]:
        if source.names is not None:
            return sources.of_handler(source.text, locate(fields.at("params"), source.path), source.names)
        compiler = sources.condition if source.is_condition else sources.value
        return compiler(source.text, locate(fields.at("params"), source.path), reader, names)

    if handler is not None and given is not None:
        cel = yield from _judge(handler, params, own, fields, compiled)
    if not name or given is None or template is None or cel is None:
        return None
    if handler is None or handler.compile is None:
        return Call(name, template)
    return handler.compile(Params(params, template, cel))


def read_call(
    fields: Fields, sources: Sources, catalog: Catalog | None, reader: str, params: str
) -> Work[Action | None]:
    """Return the call of a handler whose params are what this template gives, which is judged when it is called."""
    name, handler = _handler(fields, catalog)
    if handler is not None and handler.compile is not None:
        fields.wrong("params", f"is required with {name}")
    template = yield from sources.template(params, fields.at("params"), reader, IN_PARAMS)
    return Call(name, template) if name and template is not None else None


def check_effects(fields: Fields, catalog: Catalog | None) -> None:
    """Note what has no effect on a step that the server runs itself; what was kept before is as good as it was."""
    name = fields.raw("handler")
    handler = catalog.get(name) if catalog is not None and isinstance(name, str) else None
    if handler is not None and not handler.is_remote and fields.has("worker"):
        fields.wrong("worker", f"has no effect on {name}, which the server runs itself; remove it")
    if handler is None or handler.compile is None:
        return
    for field in OF_ATTEMPTS:
        if fields.has(field):
            fields.wrong(field, f"has no effect on {name}, which the server runs itself; remove it")
    if fields.raw("on_error") == OnError.RETRY:
        fields.wrong("on_error", f"cannot be RETRY with {name}, which the server runs itself; use STOP or CONTINUE")


def _handler(fields: Fields, catalog: Catalog | None) -> tuple[str, Handler | None]:
    """Return the name of the handler that the fields tell, and the handler if it is known."""
    name = fields.text("handler", 128, required=True, what="the name of what the step runs, such as call_api")
    handler = ENGINE_HANDLERS.get(name) if catalog is None else catalog.get(name)
    if name and handler is None and catalog is not None:
        hint = nearest(name, catalog.names())
        of_workers = "" if hint.endswith("?") else "; one of workers is known once a worker has registered it"
        fields.wrong("handler", f'"{name}" is unknown{hint}{of_workers}')
    return name, handler


def _sources(handler: Handler | None, params: Mapping[str, Any]) -> Sequence[Source]:
    """Return the CEL among the params; what is no text there breaks the schema, which says so."""
    found = handler.sources(params) if handler is not None and handler.sources else ()
    return [source for source in found if type(source.text) is str]


def _judge(
    handler: Handler, params: Mapping[str, Any], own: Sequence[Source], fields: Fields, compiled: _Compiler
) -> Work[Mapping[Path, Expression] | None]:
    """Return the CEL of the handler's own, None when anything is wrong."""
    text = payload.encode(params)
    opaque = frozenset(_templates(params, ())) if b"${" in text else frozenset()
    field = fields.at("params")
    yield len(text) // _BYTES_A_MICROSECOND
    problems = handler.problems(params, opaque)
    for problem in problems:
        fields.findings.add_problem(field, problem)
    cel: dict[Path, Expression] = {}
    for source in own:
        if source.path not in opaque:
            expression = yield from compiled(source)
            if expression is not None:
                cel[source.path] = expression
        else:
            fields.findings.add(locate(field, source.path), hints.AS_IT_STANDS)
    literal = () if handler.is_templated else opaque.difference(source.path for source in own)
    for path in sorted(literal, key=str):
        fields.findings.add(locate(field, path), "is compiled with the workflow: it cannot hold templates")
    return None if problems or literal or len(cel) < len(own) else cel


def _templates(value: Any, path: Path) -> Iterator[Path]:
    """Yield the paths of the strings that hold templates."""
    if isinstance(value, Mapping):
        for name, member in value.items():
            yield from _templates(member, (*path, name))
    elif isinstance(value, list):
        for index, member in enumerate(value):
            yield from _templates(member, (*path, index))
    elif isinstance(value, str) and _is_template(value):
        yield path


def _is_template(text: str) -> bool:
    return "${" in text.replace("$${", "")
