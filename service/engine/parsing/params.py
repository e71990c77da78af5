"""Checks the handler of a step and the params that it will get."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from service.engine import payload
from service.engine.expressions import Template, hints
from service.engine.handlers.registry import Handler, Registry, Source
from service.engine.parsing.fields import Fields
from service.engine.parsing.sources import IN_PARAMS, Sources
from service.engine.schema import Path, locate, nearest
from service.engine.slices import Work

_BYTES_A_MICROSECOND = 4


def read_params(
    fields: Fields, sources: Sources, catalog: Registry | None, reader: str
) -> Work[tuple[str, Template | None]]:
    """Return the name of the handler and the template of its params. Without a catalog neither is judged."""
    name = fields.text("handler", 128, required=True, what="the name of what the step runs, such as call_api")
    params = fields.object("params")
    handler = catalog.get(name) if catalog is not None and name else None
    own = _sources(handler, params or {})
    cel_at = {locate(fields.at("params"), source.path) for source in own}
    template = yield from sources.template(params or {}, fields.at("params"), reader, IN_PARAMS, cel_at)
    if handler is not None and params is not None:
        yield from _judge(handler, params, own, fields, sources, reader)
    elif catalog is not None and name and handler is None:
        fields.wrong("handler", f'"{name}" is unknown{nearest(name, catalog.names())}')
    return name, template


def _sources(handler: Handler | None, params: Mapping[str, Any]) -> Sequence[Source]:
    """Return the CEL among the params; what is no text there breaks the schema, which says so."""
    found = handler.sources(params) if handler is not None and handler.sources else ()
    return [source for source in found if type(source.text) is str]


def _judge(
    handler: Handler, params: Mapping[str, Any], own: Sequence[Source], fields: Fields, sources: Sources, reader: str
) -> Work[None]:
    text = payload.encode(params)
    opaque = frozenset(_templates(params, ())) if b"${" in text else frozenset()
    field = fields.at("params")
    yield len(text) // _BYTES_A_MICROSECOND
    for problem in handler.problems(params, opaque):
        fields.findings.add_problem(field, problem)
    for source in own:
        place = locate(field, source.path)
        if source.path in opaque:
            fields.findings.add(place, hints.AS_IT_STANDS)
        else:
            compiler = sources.condition if source.is_condition else sources.value
            yield from compiler(source.text, place, reader, IN_PARAMS)


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
