"""Reads a block of steps: the root of a workflow, or the body of a `for_each`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from service.engine.definition import Block, OnError, OnItemError, Ordering, Repeat, StepSpec
from service.engine.expressions import Template
from service.engine.graph import Precedence, Walk
from service.engine.handlers.registry import Catalog
from service.engine.parsing.agents import BLOCKS, AgentReader, is_agent
from service.engine.parsing.fields import Fields, Findings
from service.engine.parsing.params import OF_ATTEMPTS, check_effects, read_action
from service.engine.parsing.sources import LONGEST, VARIABLES, Sources
from service.engine.parsing.steps import MAX_STEPS, StepReader
from service.engine.schema import nearest
from service.engine.slices import Work
from service.engine.wishes import WorkerSelector

MAX_DEPTH = 8
"""Blocks that may lie within each other: each is a piece of the paths of its steps."""

MAX_PARALLEL, PARALLEL = 100, 10
STEPS_SHOWN = 10
# In microseconds: what it takes to look for the name that was meant.
_SUGGESTION = 2_000


class BlockReader:
    """Reads the blocks of one workflow, which have a number of steps in all."""

    def __init__(self, catalog: Catalog | None, timeout: float, worker: WorkerSelector | None = None) -> None:
        self._catalog = catalog
        self._timeout = timeout
        self._worker = worker
        self._count = 0

    def read(self, fields: Fields, sources: Sources, depth: int = 1) -> Work[Block]:
        """Return the block that the fields describe."""
        ordering = fields.choice("ordering", Ordering, Ordering.SEQUENTIAL)
        # An ordering that nobody knows: what waits for what cannot be judged.
        known = None if fields.is_wrong("ordering") else ordering
        reader = StepReader(known, self._catalog, self._timeout, sources, self._worker)
        steps = yield from self._steps(fields, reader, depth)
        output = yield from _output(fields, sources)
        order = yield from _order(fields.at("steps"), steps, reader, fields.findings)
        yield from sources.check_uses(_positions(steps), reader.misnamed, order, ordering is Ordering.GRAPH)
        return Block(steps, ordering, output)

    def _steps(self, fields: Fields, reader: StepReader, depth: int) -> Work[tuple[StepSpec, ...]]:
        what, most = ("a workflow", MAX_STEPS) if depth == 1 else ("for_each", MAX_STEPS - 1)
        documents = fields.items("steps", most)
        if not documents and fields.raw("steps") in (None, []):
            fields.wrong("steps", f"is required: {what} has 1 to {most} steps")
        self._count += len(documents)
        if self._count > MAX_STEPS:
            fields.wrong("steps", f"goes beyond the {MAX_STEPS} steps that a workflow may have in all blocks")
            documents = []
        path, findings = fields.at("steps"), fields.findings
        read = []
        for index, document in enumerate(documents):
            read.append((yield from self._step(Fields(document, f"{path}[{index}]", findings), reader, depth)))
        steps = tuple(read)
        first = _positions(steps)
        for index, step in enumerate(steps):
            if step.id and first[step.id] != index:
                findings.add(
                    f"{path}[{index}].id", f'"{step.id}" is the id of {path}[{first[step.id]}] too; ids are unique'
                )
        return steps

    def _step(self, fields: Fields, reader: StepReader, depth: int) -> Work[StepSpec]:
        step_id = reader.step_id(fields)
        if is_agent(fields) and not fields.has("for_each"):
            return (yield from self._agent(fields, reader, step_id, depth))
        if not fields.has("for_each"):
            check_effects(fields, self._catalog)
            action = yield from read_action(fields, reader.sources, self._catalog, step_id)
            return (yield from reader.read(fields, step_id, action))
        for name in ("params", "worker", *OF_ATTEMPTS):
            if fields.has(name):
                fields.wrong(name, "has no effect on for_each; give it to the steps of the body")
        if fields.has("handler"):
            fields.wrong("handler", "cannot be given with for_each; put a step with this handler into its body")
        if fields.raw("on_error") == OnError.RETRY:
            fields.wrong("on_error", "cannot be RETRY with for_each; give it to the steps of the body")
        body = Fields(fields.mapping("for_each"), fields.at("for_each"), fields.findings)
        repeat = yield from self._repeat(body, reader.sources, step_id, depth)
        return (yield from reader.read(fields, step_id, repeat))

    def _agent(self, fields: Fields, reader: StepReader, step_id: str, depth: int) -> Work[StepSpec]:
        agents = AgentReader(self._catalog, self._timeout, self._worker)
        self._count += agents.steps(fields)
        if depth + BLOCKS > MAX_DEPTH:
            fields.wrong("params", f"lies too deep: with tools, at most {MAX_DEPTH} blocks lie within each other")
        if self._count > MAX_STEPS:
            fields.wrong("params", f"goes beyond the {MAX_STEPS} steps that a workflow may have in all blocks")
        return (yield from agents.read(fields, reader, step_id))

    def _repeat(self, fields: Fields, sources: Sources, step_id: str, depth: int) -> Work[Repeat | None]:
        if depth == MAX_DEPTH:
            fields.findings.add(fields.path, f"lies too deep: at most {MAX_DEPTH} blocks lie within each other")
            return None
        source = fields.text("items", LONGEST, required=True, what="CEL that gives the list")
        items = (yield from sources.value(source, fields.at("items"), step_id, VARIABLES)) if source else None
        most = fields.whole("max_parallel", 1, MAX_PARALLEL)
        on_item_error = fields.choice("on_item_error", OnItemError, OnItemError.STOP)
        until, end = None, fields.text("until", LONGEST)
        inner = sources.of_body(step_id, is_round=bool(end))
        if end:
            until = yield from inner.condition(end, fields.at("until"), "")
            if most > 1:
                fields.wrong("max_parallel", "must be 1 with until: rounds come one after the other; remove it")
        body = yield from self.read(fields, inner, depth + 1)
        fields.close()
        return None if items is None else Repeat(items, body, most or (1 if end else PARALLEL), on_item_error, until)


def _output(fields: Fields, sources: Sources) -> Work[Template | None]:
    if not fields.has("output"):
        return None
    return (yield from sources.template(fields.json("output"), fields.at("output"), "", VARIABLES))


def _positions(steps: Sequence[StepSpec]) -> dict[str, int]:
    """Return where each id stands first."""
    return {step.id: index for index, step in reversed(list(enumerate(steps))) if step.id}


def _order(path: str, steps: Sequence[StepSpec], reader: StepReader, findings: Findings) -> Work[Precedence | None]:
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
                findings.add(f"{path}[{index}].depends_on", message)
        yield len(step.depends_on)
    known = {steps[at].id: [d for d in steps[at].depends_on if d in positions] for at in sorted(positions.values())}
    waits = {name: [waited for waited in before if waited != name] for name, before in known.items()}
    walk = Walk(waits)
    yield from walk.go()
    for circle in walk.circles:
        message = f"makes steps wait for each other: {_shown(circle)}; remove one of these dependencies"
        findings.add(f"{path}[{positions[circle[0]]}].depends_on", message)
    return None if walk.circles else (yield from _arranged(waits, walk.sequence))


def _arranged(waits: Mapping[str, Sequence[str]], sequence: Sequence[str]) -> Work[Precedence]:
    order = Precedence()
    yield from order.arrange(waits, sequence)
    return order


def _shown(circle: list[str]) -> str:
    if len(circle) > 2 * STEPS_SHOWN:
        circle = [*circle[:STEPS_SHOWN], f"({len(circle) - 1 - STEPS_SHOWN} more)", circle[-1]]
    return " -> ".join(circle)
