"""Parses a workflow: everything that is wrong with it is said at once, and nothing is run before."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from service.engine.definition import MAX_BYTES as MAX_EXECUTION_BYTES
from service.engine.definition import Definition
from service.engine.durations import TEN_YEARS
from service.engine.handlers.registry import Catalog
from service.engine.parsing.blocks import BlockReader
from service.engine.parsing.fields import Fields, Findings, repeated
from service.engine.parsing.input import read_input_schema
from service.engine.parsing.selectors import read_selector
from service.engine.parsing.sources import Sources
from service.engine.slices import Work, in_one_go

MAX_BYTES = 256 << 10
MAX_VALUES = 50_000
NAME = r"[A-Za-z][A-Za-z0-9._-]*"
NAME_WORDS = "letters, digits, ., _ and -, and begin with a letter"
UUID = re.compile(r"[0-9a-fA-F]{8}-?(?:[0-9a-fA-F]{4}-?){3}[0-9a-fA-F]{12}")


@dataclass(frozen=True, slots=True)
class Defaults:
    """What holds where a definition says nothing; times in seconds. `max_bytes` is what an execution may write."""

    execution_timeout: float = 3600.0
    step_timeout: float = 300.0
    max_bytes: int = MAX_EXECUTION_BYTES


def parse(document: Mapping[str, Any], catalog: Catalog | None, defaults: Defaults) -> Definition:
    """Do the work of `parsing` in one go."""
    return in_one_go(parsing(document, catalog, defaults))


def parsing(document: Mapping[str, Any], catalog: Catalog | None, defaults: Defaults) -> Work[Definition]:
    """Return the workflow that a document describes, or raise ValidationError with all that is wrong with it.

    The document is JSON with the proto's names of fields, short names of enums, durations in seconds, and absent
    fields where nothing is set. Without a catalog, as when a stored definition is loaded, handlers and their params
    are not judged: a handler may be gone.
    """
    findings = Findings()
    _check_size(document, findings)
    findings.settle()
    if catalog is not None:  # what is kept may be of a time when more was allowed
        yield _check_count(document, findings)
    findings.settle()
    definition = yield from _read(Fields(document, "", findings), catalog, defaults, document)
    findings.settle()
    return definition


def _check_size(document: Any, findings: Findings) -> None:
    try:
        size = len(msgspec.json.encode(document))
    except RecursionError:
        findings.add("definition", "is nested too deep")
    except (TypeError, ValueError) as error:
        findings.add("definition", f"is no JSON: {error}")
    else:
        if size > MAX_BYTES:
            findings.add("definition", f"has {size:,} bytes as JSON; at most {MAX_BYTES:,} are allowed")


def _check_count(document: Any, findings: Findings) -> int:
    """Note if there are too many values. Returns how many were looked at."""
    seen, level = 1, [document]
    for each in level:  # it grows
        below = each.values() if isinstance(each, Mapping) else each if isinstance(each, list) else ()
        seen += len(below)
        if seen > MAX_VALUES:
            findings.add("definition", f"must have at most {MAX_VALUES:,} values in all")
            break
        level.extend(below)
    return seen // 10


def _read(fields: Fields, catalog: Catalog | None, defaults: Defaults, document: Mapping[str, Any]) -> Work[Definition]:
    fields.not_implemented("budgets", "max_concurrent_executions")
    sources = Sources(fields.findings, is_written_now=catalog is not None)
    name = _name(fields)
    definition = Definition(
        name=name,
        root=(yield from BlockReader(catalog, defaults.step_timeout, read_selector(fields)).read(fields, sources)),
        timeout=fields.seconds("timeout", TEN_YEARS) or defaults.execution_timeout,
        description=fields.text("description", 4096),
        tags=_tags(fields),
        labels=_labels(fields),
        input_schema=(yield from read_input_schema(fields)),
        default_priority=fields.whole("default_priority", -100, 100),
        document=document,
        max_bytes=defaults.max_bytes,
    )
    fields.close()
    return definition


def _name(fields: Fields) -> str:
    name = fields.text("name", 128, NAME, NAME_WORDS, required=True)
    if UUID.fullmatch(name):
        fields.wrong("name", "has the form of a UUID, and would be taken for an id; choose another")
    return name


def _tags(fields: Fields) -> tuple[str, ...]:
    tags = fields.texts("tags", 32, 128)
    for tag in repeated(tags):
        fields.wrong("tags", f'has "{tag}" more than once')
    return tags


def _labels(fields: Fields) -> Mapping[str, str]:
    given = fields.mapping("labels", 32)
    field = fields.at("labels")
    labels = Fields(given, field, fields.findings)
    for key, value in given.items():
        if labels.is_text(f"{field}, key {str(key)[:32]!r}", key, 128, shortest=1):
            labels.is_text(labels.at(key), value, 1024)
    return given
