"""How much work a schema may make: some few lines of references cost hours to check."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from typing import Any
from urllib.parse import unquote

from service.engine import schema_charge as charge
from service.engine.graph import Walk
from service.engine.payload import MAX_DEPTH
from service.engine.schema_charge import MAX_TEXT, NOTHING, Weight
from service.engine.schema_places import Children, Path, Place, SchemaError, listed, members
from service.engine.schema_texts import Text, Texts
from service.engine.slices import Work, in_one_go

# What a pattern that is being used may keep; all of it is there for each pattern.
PATTERN_TABLE_BYTES = 256 << 10

MAX_WEIGHT = 1000
MAX_PATTERNS = 50
# Each takes up to 1 µs to compile, a schema some 10 µs.
MAX_PROGRAMS = 150_000
MAX_SCHEMAS = 5_000

_LONGEST_SHOWN = 100

_HERE_ONE = ("not", "if", "then", "else")
_HERE_MANY = ("allOf", "anyOf", "oneOf")
_REFERENCE = '"#" or a pointer such as "#/$defs/address"'
_REFUSED = ("$id", "$anchor", "$dynamicRef", "$dynamicAnchor", "$recursiveRef")

_PIECE = 100
_BARE = Weight(1, charge.VERDICT)


class Scale:
    """A schema and what it weighs: `weights` by how far below the whole a value lies, until nothing looks deeper.

    A schema that refers to itself is unrolled as deep as payloads may be nested, and no further.
    """

    def __init__(self, root: Mapping[str, Any], *, is_bounded: bool) -> None:
        self.root = root
        self.weights: tuple[Weight, ...] = ()
        self.form_of_all = self.form_of_members = (0, 0)
        """Of the dearest `anyOf` or `oneOf` for the whole, or for what is in it: the verdicts on its own value, and on
        each value in that."""
        self._is_bounded = is_bounded
        self._places: dict[int, Place] = {}
        self._patterns = self._programs = 0

    def weigh(self) -> Work[None]:
        """Find the weights. Raises SchemaError for what is beyond the limits, or a reference that leads nowhere."""
        yield from self._look_around()
        sequence = yield from self._sequence()
        weights: list[Weight] = []
        above: dict[int, Weight] = {}
        for depth in range(MAX_DEPTH + 1):
            found: dict[int, Weight] = {}
            for number, place in enumerate(sequence):
                found[id(place.schema)] = self._sum(place, depth, found, above)
                if number % _PIECE == 0:
                    yield 3 * _PIECE
            above, weight = found, found[id(self.root)]
            if depth and weight == NOTHING:
                break
            weights.append(weight)
        self.weights = tuple(weights)
        self._weigh_forms()
        if self._is_bounded and (most := max(weight.text for weight in weights)) > MAX_TEXT:
            raise SchemaError((), _too_dear(most))

    @property
    def compile_cost(self) -> int:
        """Microseconds that the schema takes to compile, about."""
        return 10 * len(self._places) + self._programs // 3

    @property
    def bytes(self) -> int:
        """About how much of memory the compiled schema takes, tables of its patterns included."""
        return 1_500 * len(self._places) + 50 * self._programs + 2 * PATTERN_TABLE_BYTES * self._patterns

    def texts_cost(self, value: Any) -> tuple[int, Text | None]:
        """Return what patterns take for the texts in a value, and the dearest of these."""
        worst = max((weight.text for weight in self.weights), default=0)
        texts = Texts(self.root, self._places, worst, value)
        return texts.cost, texts.dearest

    def _look_around(self) -> Work[None]:
        """Find all schemas that are there or referred to."""
        pending: Children = [((), self.root)]
        for path, schema in pending:  # it grows
            if not isinstance(schema, Mapping) or id(schema) in self._places:
                continue
            place = self._look(schema, path)
            pending.extend(((*path, *at), child) for at, child in chain(place.here, place.below, place.apart))
            if len(self._places) % _PIECE == 0:
                yield 20 * _PIECE

    def _look(self, schema: Mapping[str, Any], path: Path) -> Place:
        for keyword in _REFUSED:
            if keyword in schema and (path or keyword != "$id"):
                raise SchemaError((*path, keyword), f"is not supported; refer by {_REFERENCE}")
        self._count(schema, path)
        place = self._places[id(schema)] = Place(schema, path, [*self._here(schema, path)])
        return place

    def _sequence(self) -> Work[list[Place]]:
        """Return the schemas, each behind those that look at the same value for it."""
        here = {key: [id(child) for _, child in place.here] for key, place in self._places.items()}
        walk = Walk(here)
        yield from walk.go()
        for *_, last, first in walk.circles:
            place = self._places[last]
            at = next(at for at, child in place.here if id(child) == first)
            raise SchemaError((*place.path, *at), "refers to itself without going deeper into the value")
        return [self._places[key] for key in walk.sequence]

    def _sum(self, place: Place, depth: int, found: Mapping[int, Weight], above: Mapping[int, Weight]) -> Weight:
        """Return the weight on one value `depth` levels below the value that a schema is for."""
        weight = place.value if depth == 0 else place.keys if depth == 1 else NOTHING
        for _, child in place.here:
            weight = weight.plus(_known(child, depth, found).times(place.factor))
        if depth:
            for _, child in place.below:
                weight = weight.plus(_known(child, depth - 1, above))
            most = NOTHING
            for _, child in place.apart:
                most = most.larger(_known(child, depth - 1, above))
            weight = weight.plus(most)
        if self._is_bounded and weight.verdicts > MAX_WEIGHT:
            raise SchemaError(place.path, f"is too costly: one value could take over {MAX_WEIGHT:,} comparisons")
        place.first, place.deeper = (place.first, place.deeper + weight.verdicts) if depth else (weight.verdicts, 0)
        return weight

    def _count(self, schema: Mapping[str, Any], path: Path) -> None:
        patterns = [*members(schema, "patternProperties"), *_texts(schema.get("pattern"))]
        self._patterns += len(patterns)
        self._programs += sum(map(charge.program_size, patterns))
        if not self._is_bounded:
            return
        if len(self._places) >= MAX_SCHEMAS:
            raise SchemaError((), f"has more than {MAX_SCHEMAS:,} schemas in it")
        if self._patterns > MAX_PATTERNS:
            raise SchemaError((), f"has at least {self._patterns} patterns; at most {MAX_PATTERNS} are allowed")
        if self._programs > MAX_PROGRAMS:
            at = (*path, "pattern" if "pattern" in schema else "patternProperties")
            raise SchemaError(at, "is too large, or with the other patterns of the schema: repeat less in it")

    def _here(self, schema: Mapping[str, Any], path: Path) -> Iterator[tuple[Path, Any]]:
        """Yield the schemas that look at the same value."""
        yield from (((name,), schema[name]) for name in _HERE_ONE if name in schema)
        for name in _HERE_MANY:
            yield from (((name, index), child) for index, child in enumerate(listed(schema, name)))
        for key, child in members(schema, "dependentSchemas").items():
            yield ("dependentSchemas", key), child
        if "$ref" in schema:
            yield ("$ref",), self._target(schema["$ref"], (*path, "$ref"))

    def _target(self, reference: Any, path: Path) -> Any:
        if not isinstance(reference, str) or not (reference == "#" or reference.startswith("#/")):
            raise SchemaError(path, f"must lead into the schema itself, by {_REFERENCE}")
        place: Any = self.root
        for part in unquote(reference).split("/")[1:]:
            name = part.replace("~1", "/").replace("~0", "~")
            try:
                place = place[int(name) if isinstance(place, list) else name]
            except (KeyError, IndexError, ValueError, TypeError):
                shown = reference[:_LONGEST_SHOWN]
                raise SchemaError(path, f"leads nowhere: {shown} does not exist in the schema") from None
        return place

    def _weigh_forms(self) -> None:
        of_all = {id(self.root): self._places[id(self.root)]}
        pending = [*of_all.values()]
        for place in pending:  # it grows
            found = [self._places[id(child)] for _, child in place.here if isinstance(child, Mapping)]
            pending.extend(each for each in found if id(each.schema) not in of_all)
            of_all.update((id(each.schema), each) for each in found)
        self.form_of_all = _dearest(of_all.values())
        self.form_of_members = _dearest(place for key, place in self._places.items() if key not in of_all)


def weigh(document: Mapping[str, Any], *, is_bounded: bool = True) -> Scale:
    """Return a schema with what it weighs, or raise SchemaError for a reference that leads nowhere.

    Bounded, as one of unknown origin must be, it raises SchemaError for what is beyond the limits, too.
    """
    scale = Scale(document, is_bounded=is_bounded)
    in_one_go(scale.weigh())
    return scale


def _dearest(places: Iterable[Place]) -> tuple[int, int]:
    forms = [place for place in places if place.has_forms]
    return max((form.first for form in forms), default=0), max((form.deeper for form in forms), default=0)


def _known(schema: Any, depth: int, found: Mapping[int, Weight]) -> Weight:
    if isinstance(schema, Mapping):
        return found[id(schema)]
    return NOTHING if depth else _BARE


def dialect() -> Scale:
    """Return what the schema of schemas weighs, as measured: it refers to itself in ways of its own."""
    scale = Scale({}, is_bounded=False)
    scale.weights = (Weight(verdicts=1, value=1_000),) * (MAX_DEPTH + 1)
    scale.form_of_all = scale.form_of_members = (4, 0)
    return scale


def _too_dear(most: int) -> str:
    return (
        f"is too costly: its patterns could take {most / 1000:,.0f} µs for one character, and at most "
        f"{MAX_TEXT / 1000:g} are allowed; repeat less in them, and refer to them less often"
    )


def _texts(pattern: Any) -> tuple[str, ...]:
    return (pattern,) if isinstance(pattern, str) else ()
