"""JSON Schema, draft 2020-12, behind one small wrapper: nothing is fetched, and patterns take linear time."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import reduce
from itertools import islice
from typing import Any

import jsonschema_rs

from service.engine import payload, schema_charge
from service.engine.payload import join_path
from service.engine.schema_places import Path, SchemaError
from service.engine.schema_weight import PATTERN_TABLE_BYTES, Scale

# Large enough for `\p{L}` fifty times; a pattern that needs more costs tens of milliseconds to compile.
PATTERN_BYTES = 4 << 20
MAX_PROBLEMS = 100
_BRANCHES_NAMED = 5
_NAMES_LISTED = 40
_NAMES_REFUSED = 20
_LONGEST_COMPARED = 64
# Pairs of characters; it takes some 100 ns to compare one at worst.
_MOST_COMPARED = 20_000
# A name that is meant is looked for that many times in one value.
_NAMES_MEANT = 10
# Verdicts on a value as a whole: what a template inside it becomes may turn them.
_WHOLE_VALUE = frozenset({"Const", "Contains", "Enum", "Not", "OneOfMultipleValid", "UniqueItems"})
_FORMS = {
    "date-time": 'must be a time with a time zone, such as "2030-01-31T09:00:00Z" or "2030-01-31T10:00:00+01:00"',
    "date": 'must be a date such as "2030-01-31"',
    "time": 'must be a time of day with a time zone, such as "09:00:00Z" or "10:00:00+01:00"',
    "duration": 'must be a duration of ISO 8601, such as "PT1H30M" or "P7D"',
    "uuid": 'must be a UUID such as "019b74b8-7d10-7c2e-9d3a-3f1f4f7a6a01"',
}
_WITH_FORMS = frozenset({"AnyOf", "OneOfNotValid"})


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong at `path` of a value. The message never repeats the value, which may be a secret."""

    path: Path
    message: str


def locate(field: str, path: Path) -> str:
    """Return where in `field` a path leads, as in `steps[2].params.url`."""
    return reduce(join_path, path, field)


def nearest(name: str, known: Collection[str]) -> str:
    """Return the end of a sentence that refuses `name`: the name that was probably meant, or all there are.

    Of long names and of very many none is looked for: that takes time for each pair of characters.
    """
    is_comparable = len(name) <= _LONGEST_COMPARED and len(name) * sum(map(len, known)) <= _MOST_COMPARED
    close = get_close_matches(name, known, n=1) if is_comparable else ()
    if close:
        return f'; did you mean "{close[0]}"?'
    if not known:
        return ""
    return f"; known are: {', '.join(sorted(known))}" if len(known) <= _NAMES_LISTED else ""


class Schema:
    """A compiled schema. Formats are checked; references lead only into the schema itself.

    A check takes at most some 50 ms: what could take longer is a problem of the value.
    """

    def __init__(self, document: Mapping[str, Any], scale: Scale) -> None:
        """Compile what was weighed, see schema_weight; or raise SchemaError."""
        self.document = document
        self._scale = scale
        self._is_light = schema_charge.largest_cost(scale.weights) <= schema_charge.BUDGET
        self._suggestions = 0
        try:
            self._validator = jsonschema_rs.Draft202012Validator(
                dict(document),
                mask="the value",
                offline=True,  # LIBRARIES J1
                pattern_options=jsonschema_rs.RegexOptions(PATTERN_BYTES, PATTERN_TABLE_BYTES),
                validate_formats=True,
            )
        except jsonschema_rs.ValidationError as error:
            path = tuple(error.instance_path)
            raise SchemaError(path, _refusal(error, path)) from None
        except ValueError as error:
            raise SchemaError((), str(error)) from None

    @property
    def compile_cost(self) -> int:
        """Microseconds that it took to compile, about."""
        return self._scale.compile_cost

    def problems(self, value: Any, opaque: Collection[Path] = ()) -> list[Problem]:
        """Return all that is wrong with `value`, at most 100 problems.

        `opaque` are the paths of strings that stand for a value not yet known: nothing is said about them.
        """
        if not self._is_light and (problem := self._too_costly(value)):
            return [problem]
        if self._validator.is_valid(value):
            return []
        hidden = frozenset(opaque)
        holding = frozenset(path[:length] for path in opaque for length in range(len(path) + 1))
        self._suggestions = _NAMES_MEANT
        errors = self._errors(value)
        if errors is None:
            return [Problem((), "does not meet the schema; it is too large to say where")]
        found = (p for error in errors if _stands(error, hidden, holding) for p in self._describe(error))
        return list(dict.fromkeys(islice(found, MAX_PROBLEMS)))

    def cost(self, value: Any, *, is_wrong: bool) -> int:
        """Return about how many microseconds `problems` takes at most of a value, by whether it finds any."""
        weights, sizes = self._scale.weights, schema_charge.extents(value)
        cost = schema_charge.values_cost(weights, sizes) + schema_charge.texts_cost(weights, sizes)
        if is_wrong:
            cost += schema_charge.errors_cost(weights, sizes, payload.size(value))
        return min(cost, schema_charge.BUDGET) // 1_000

    def _too_costly(self, value: Any) -> Problem | None:
        """Return what makes the check of a value take too long, if something does."""
        weights, sizes = self._scale.weights, schema_charge.extents(value)
        left = schema_charge.BUDGET - schema_charge.values_cost(weights, sizes)
        if left < 0:
            return Problem((), "has too many values for the schema, whose check would take too long; send fewer")
        if schema_charge.texts_cost(weights, sizes) <= left:
            return None
        cost, text = self._scale.texts_cost(value)
        if cost <= left:
            return None
        if text is None or text.cost <= left:
            return Problem((), "has too much text for the patterns of the schema, which would take too long; send less")
        most = text.length * left // text.cost
        return Problem(text.path, f"has {text.length:,} characters; its patterns can be checked in at most {most:,}")

    def _errors(self, value: Any) -> Iterable[jsonschema_rs.ValidationError] | None:
        """Return the errors, all at once as the library gives them, or the first of too many, or None."""
        sizes, size = schema_charge.extents(value), payload.size(value)
        if schema_charge.errors_cost(self._scale.weights, sizes, size) <= schema_charge.BUDGET:
            return self._validator.iter_errors(value)
        members = list(value.values()) if isinstance(value, Mapping) else value if isinstance(value, list) else []
        largest = max(map(payload.size, members), default=0), max(map(schema_charge.count, members), default=0)
        total = sum(extent.values for extent in sizes)
        cost = schema_charge.first_error_cost(self._scale.form_of_all, size, total)
        cost = max(cost, schema_charge.first_error_cost(self._scale.form_of_members, *largest))
        if cost > schema_charge.BUDGET:
            return None
        try:
            self._validator.validate(value)
        except jsonschema_rs.ValidationError as error:
            return (error,)
        return ()

    def _describe(self, error: jsonschema_rs.ValidationError) -> Iterator[Problem]:
        path = tuple(error.instance_path)
        match type(error.kind).__name__:
            case "Required":
                yield Problem((*path, error.kind.as_dict()["property"]), "is required")
            case "AdditionalProperties" | "UnevaluatedProperties":
                known = self._known(error)
                for name in error.kind.as_dict()["unexpected"][:_NAMES_REFUSED]:
                    yield Problem((*path, name), f"is unknown{self._nearest(name, known)}")
            case "OneOfNotValid" | "OneOfMultipleValid" if choices := self._choices(error):
                yield Problem(path, f"must have exactly one of {', '.join(choices)}")
            case "OneOfNotValid" | "AnyOf":
                yield Problem(path, f"has none of the allowed forms: {self._branches(error, path)}")
            case "OneOfMultipleValid":
                yield Problem(path, "has more than one of the forms of which one is allowed")
            case "Contains":
                yield Problem(path, "has no element of the kind that it must have")
            case "Format" if right := _FORMS.get(error.kind.as_dict()["format"]):
                yield Problem(path, right)
            case "FalseSchema":
                yield Problem(path, "is not allowed here")
            case _:
                yield Problem(path, error.message)

    def _branches(self, error: jsonschema_rs.ValidationError, path: Path) -> str:
        """Return what is first wrong in each form, without repeating the path of the whole."""
        texts, context = [], error.kind.as_dict()["context"]
        for problem in (next(self._describe(branch[0])) for branch in context[:_BRANCHES_NAMED] if branch):
            below = locate("", problem.path[len(path) :])
            texts.append(f"{below} {problem.message}" if below else problem.message)
        return "; or ".join(dict.fromkeys(texts))

    def _nearest(self, name: str, known: Collection[str]) -> str:
        self._suggestions -= 1
        return nearest(name, known) if self._suggestions >= 0 else ""

    def _known(self, error: jsonschema_rs.ValidationError) -> list[str]:
        """Return the properties that the object may have, as far as they can be told."""
        place = self._place(error.schema_path[:-1])
        return list(place.get("properties", ())) if isinstance(place, Mapping) else []

    def _choices(self, error: jsonschema_rs.ValidationError) -> list[str]:
        """Return the properties of which one is wanted, if that is all that the forms differ in."""
        forms = self._place(error.schema_path)
        names = [_only_required(form) for form in forms] if isinstance(forms, list) else []
        return [name for name in names if name] if all(names) else []

    def _place(self, path: list[str | int]) -> Any:
        """Return what stands at a path of the schema, None where a reference is on the way."""
        place: Any = self.document
        for part in path:
            try:
                place = place[part]
            except (KeyError, IndexError, TypeError):
                return None
        return place


def _only_required(form: Any) -> str:
    """Return the property that a form requires, empty if it requires something else or more."""
    match form:
        case {"required": [str(name)]} if len(form) == 1:
            return name
        case _:
            return ""


def _stands(error: jsonschema_rs.ValidationError, opaque: frozenset[Path], holding: frozenset[Path]) -> bool:
    """Return whether an error stays whatever the opaque strings become."""
    if not opaque:
        return True
    path = tuple(error.instance_path)
    if any(path[:length] in opaque for length in range(len(path) + 1)):
        return False
    if path in holding and type(error.kind).__name__ in _WHOLE_VALUE:
        return False
    branches = error.kind.as_dict()["context"] if type(error.kind).__name__ in _WITH_FORMS else ()
    return not branches or all(any(_stands(e, opaque, holding) for e in branch) for branch in branches)


def _refusal(error: jsonschema_rs.ValidationError, path: Path) -> str:
    """Return why a document is no schema. Only the keyword at fault tells a pattern from other trouble."""
    if "pattern" in path[-1:] or "patternProperties" in path[-2:]:
        return "is no regular expression that takes linear time (look-around and back-references do not), or too large"
    return error.message.replace("Retrieval is disabled, cannot fetch", "only references into the schema itself:")
