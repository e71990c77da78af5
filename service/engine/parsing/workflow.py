"""Parses a workflow: everything that is wrong with it is said at once, and nothing is run before."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from service.engine.definition import MAX_BYTES as MAX_EXECUTION_BYTES
from service.engine.definition import Block, Definition, Ordering, StepSpec
from service.engine.expressions import Template
from service.engine.graph import Precedence, Walk
from service.engine.handlers.registry import Registry
from service.engine.parsing.fields import TEN_YEARS, Fields, Findings, repeated
from service.engine.parsing.input import read_input_schema
from service.engine.parsing.sources import VARIABLES, Sources
from service.engine.parsing.steps import MAX_STEPS, StepReader
from service.engine.schema import nearest
from service.engine.slices import Work, at_once

MAX_BYTES = 256 << 10
MAX_VALUES = 50_000
# In microseconds: what it takes to look for the name that was meant.
_SUGGESTION = 2_000
STEPS_SHOWN = 10
NAME = r"[A-Za-z][A-Za-z0-9._-]*"
NAME_WORDS = "letters, digits, ., _ and -, and begin with a letter"
UUID = re.compile(r"[0-9a-fA-F]{8}-?(?:[0-9a-fA-F]{4}-?){3}[0-9a-fA-F]{12}")


@dataclass(frozen=True, slots=True)
class Defaults:
    """What holds where a definition says nothing; times in seconds. `max_bytes` is what an execution may write."""

    execution_timeout: float = 3600.0
    step_timeout: float = 300.0
    max_bytes: int = MAX_EXECUTION_BYTES


def parse(document: Mapping[str, Any], catalog: Registry | None, defaults: Defaults) -> Definition:
    """Do the work of `parsing` in one go."""
    return at_once(parsing(document, catalog, defaults))


def parsing(document: Mapping[str, Any], catalog: Registry | None, defaults: Defaults) -> Work[Definition]:
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


def _read(
    fields: Fields, catalog: Registry | None, defaults: Defaults, document: Mapping[str, Any]
) -> Work[Definition]:
    fields.not_implemented("budgets", "max_concurrent_executions")
    sources = Sources(fields.findings, is_written_now=catalog is not None)
    ordering = fields.choice("ordering", Ordering, Ordering.SEQUENTIAL)
    # An ordering that nobody knows: what waits for what cannot be judged.
    known = None if fields.is_wrong("ordering") else ordering
    reader = StepReader(known, catalog, defaults.step_timeout, sources)
    name = _name(fields)
    steps = yield from _steps(fields, reader)
    definition = Definition(
        name=name,
        root=Block(steps, ordering, (yield from _output(fields, sources))),
        timeout=fields.seconds("timeout", TEN_YEARS) or defaults.execution_timeout,
        description=fields.text("description", 4096),
        tags=_tags(fields),
        labels=_labels(fields),
        input_schema=(yield from read_input_schema(fields)),
        default_priority=fields.whole("default_priority", -100, 100),
        document=document,
        max_bytes=defaults.max_bytes,
    )
    order = yield from _order(steps, reader, fields.findings)
    yield from sources.check_uses(_positions(steps), reader.misnamed, order, ordering is Ordering.GRAPH)
    fields.close()
    return definition


def _name(fields: Fields) -> str:
    name = fields.text("name", 128, NAME, NAME_WORDS, required=True)
    if UUID.fullmatch(name):
        fields.wrong("name", "has the form of a UUID, and would be taken for an id; choose another")
    return name


def _output(fields: Fields, sources: Sources) -> Work[Template | None]:
    if not fields.has("output"):
        return None
    return (yield from sources.template(fields.json("output"), "output", "", VARIABLES))


def _steps(fields: Fields, reader: StepReader) -> Work[tuple[StepSpec, ...]]:
    documents = fields.items("steps", MAX_STEPS)
    if not documents and fields.raw("steps") in (None, []):
        fields.wrong("steps", "is required: a workflow has 1 to 500 steps")
    path, findings = fields.at("steps"), fields.findings
    read = []
    for index, document in enumerate(documents):
        read.append((yield from reader.read(Fields(document, f"{path}[{index}]", findings))))
    steps = tuple(read)
    first = _positions(steps)
    for index, step in enumerate(steps):
        if step.id and first[step.id] != index:
            findings.add(
                f"{path}[{index}].id", f'"{step.id}" is the id of {path}[{first[step.id]}] too; ids are unique'
            )
    return steps


def _positions(steps: Sequence[StepSpec]) -> dict[str, int]:
    """Return where each id stands first."""
    return {step.id: index for index, step in reversed(list(enumerate(steps))) if step.id}


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


def _order(steps: Sequence[StepSpec], reader: StepReader, findings: Findings) -> Work[Precedence | None]:
    """Return which steps end before which others start, None when that cannot be told, or goes in a circle."""
    positions = _positions(steps)
    if reader.ordering is None:
        return None
    if reader.ordering is Ordering.SEQUENTIAL:
        names = sorted(positions, key=positions.__getitem__)
        return (yield from _arranged({name: names[max(0, at - 1) : at] for at, name in enumerate(names)}, names))
    for index, step in enumerate(steps):
        for name in dict.fromkeys(step.depends_on):
            if name not in positions and name not in reader.misnamed:
                yield _SUGGESTION
                message = f'names step "{name}", which does not exist{nearest(name, positions)}'
                findings.add(f"steps[{index}].depends_on", message)
        yield len(step.depends_on)
    known = {steps[at].id: [d for d in steps[at].depends_on if d in positions] for at in sorted(positions.values())}
    waits = {name: [waited for waited in before if waited != name] for name, before in known.items()}
    walk = Walk(waits)
    yield from walk.go()
    for circle in walk.circles:
        message = f"makes steps wait for each other: {_shown(circle)}; remove one of these dependencies"
        findings.add(f"steps[{positions[circle[0]]}].depends_on", message)
    return None if walk.circles else (yield from _arranged(waits, walk.sequence))


def _arranged(waits: Mapping[str, Sequence[str]], sequence: Sequence[str]) -> Work[Precedence]:
    order = Precedence()
    yield from order.arrange(waits, sequence)
    return order


def _shown(circle: list[str]) -> str:
    if len(circle) > 2 * STEPS_SHOWN:
        circle = [*circle[:STEPS_SHOWN], f"({len(circle) - 1 - STEPS_SHOWN} more)", circle[-1]]
    return " -> ".join(circle)
