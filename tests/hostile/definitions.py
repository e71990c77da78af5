"""Definitions and schemas that are more work than they look, and what must come out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tests.hostile.cases import Case
from tests.integration.stage import step

LONG = "x" * 60
PATTERN = "^(?:[ab]*a[ab]{1000}[cd])"
AB = "abbabaab" * 31_000
UUID = "^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$"
A_UUID = "019b74b8-7d10-7c2e-9d3a-3f1f4f7a6a01"
IDEOGRAPHS = "".join(chr(0x4E00 + n % 20_000) for n in range(80_000))


def lists(steps: int, values: int, value: Any = 0) -> list[dict[str, Any]]:
    return [step(f"s{n}", "transform", value=[value] * values) for n in range(steps)]


def nested(levels: int) -> dict[str, Any]:
    """Each level asks what the two below it have looked at."""
    if not levels:
        return {"properties": {}}
    return {"unevaluatedProperties": {"type": "integer"}, "anyOf": [nested(levels - 1)] * 2}


def circles() -> list[dict[str, Any]]:
    """Two hundred pairs that wait for each other, each of them for all pairs before, too."""
    names = [f"s{n}" for n in range(400)]
    return [
        {**step(name, "transform", value=1), "depends_on": [*names[: n - n % 2][-90:], names[n ^ 1]]}
        for n, name in enumerate(names)
    ]


# `right` are the words of the first violation that ValidateWorkflow gives, empty where there is none; where the request
# is refused as a whole, its code comes first.
DEFINITIONS = [
    Case("lists-480x220", {"steps": lists(480, 220)}, "INVALID_ARGUMENT must be at most 262,144 bytes"),
    Case("lists-480x105", {"steps": lists(480, 105, "")}, "must have at most 50,000 values"),
    Case("lists-480x90", {"steps": lists(480, 90)}, ""),
    Case("lists-480x40", {"steps": lists(480, 40)}, ""),
    Case(
        "lists-of-lists-as-output", {"output": [[None] * 900] * 100}, "INVALID_ARGUMENT must have at most 10,240 values"
    ),
    Case("circles", {"ordering": "GRAPH", "steps": circles()}, "makes steps wait for each other"),
    Case(
        "long-names-that-are-none",
        {
            "steps": [
                *(step(f"{LONG}{n}", "transform", value=1) for n in range(300)),
                *(
                    {**step(f"t{n}", "transform", value=1), "condition": f"steps.{LONG}y{n}.state == ''"}
                    for n in range(99)
                ),
            ]
        },
        "does not exist",
    ),
    Case(
        "long-expressions",
        {
            "steps": [
                step(f"s{n}", "transform", value="${ [" + ",".join([f"input.a + {n} == 1"] * 120) + "] }")
                for n in range(20)
            ]
        },
        "",
    ),
    Case(
        "many-expressions",
        {"steps": [{**step(f"s{n}", "transform", value=[f"${{ {n} + {m} }}" for m in range(25)])} for n in range(80)]},
        "",
    ),
    Case(
        "more-expressions-than-a-template-may-have",
        {"steps": [step("a", "transform", value=[f"${{input.a+input.b+{n}}}" for n in range(4_990)])]},
        "has more than 256 expressions",
    ),
    Case(
        "long-expressions-that-do-not-compile",
        {"steps": [step("a", "transform", value=["${" + "input.a+" * 480 + f"{n} @}}" for n in range(60)])]},
        "unexpected '@'",
    ),
    Case(
        "expressions-that-end-nowhere",
        {"steps": [step("a", "transform", value=["${ " + "x" * 60] * 3_000)]},
        "without its closing }",
    ),
    Case("mustaches", {"steps": [step("a", "transform", value=["{{ input.a }}"] * 9_000)]}, "templates are ${"),
    Case(
        "unknown-fields",
        {"steps": [step("a", "call_api", url="http://h/", **{f"ur{n}": 1 for n in range(5_000)})]},
        "is unknown",
    ),
]


@dataclass(frozen=True)
class Schema:
    """A schema of the input of a workflow, and an input of it."""

    schema: Mapping[str, Any]
    input: Mapping[str, Any]


def of_s(schema: Mapping[str, Any], value: Any) -> Schema:
    """A schema of one member of the input."""
    return Schema({"type": "object", "properties": {"s": schema}}, {"s": value})


def _referred(times: int) -> Schema:
    schema = {"$defs": {"p": {"not": {"pattern": PATTERN}}}, "allOf": [{"$ref": "#/properties/s/$defs/p"}] * times}
    return of_s(schema, AB)


# `right` is what the definition is refused with, or what Execute gives: words of the first violation, empty where it
# is accepted.
TOO_LARGE, TOO_MANY = "its patterns can be checked in at most", "has too many values for the schema"
AT_APPLY: Sequence[Case] = [
    Case("60-references", _referred(60), "is too costly"),
    Case("300-references", _referred(300), "is too costly"),
    Case("repeated-repetition", of_s({"pattern": "^(?:[ab]*a[ab]{100}{20}[cd])"}, AB), "regex"),
    Case("free-spacing", of_s({"pattern": "(?x)^(?:[ab]*a(?:[ab]{10}) {200}[cd])"}, AB), "regex"),
    Case("largest-repetition", of_s({"pattern": "((a{500}){50}){50}"}, ""), "too large"),
    Case("classes-of-unicode", of_s({"pattern": r"\p{L}{1000}"}, ""), "too large"),
    Case(
        "patterns-of-classes", of_s({"allOf": [{"pattern": r"\p{L}{3}" + str(n)} for n in range(49)]}, ""), "too large"
    ),
    Case("unevaluated-within-unevaluated", of_s(nested(8), {f"k{n}": n for n in range(300)}), "is too costly"),
    Case(
        "names-that-others-need",
        of_s({"items": {"dependentRequired": {f"p{n}": ["x"] for n in range(4_900)}}}, [{"x": 1}] * 4_900),
        "is too costly",
    ),
]
AT_EXECUTE: Sequence[Case] = [
    Case("pattern", of_s({"pattern": PATTERN}, AB), TOO_LARGE),
    Case("pattern-that-is-met-never", of_s({"not": {"pattern": PATTERN}}, AB), TOO_LARGE),
    Case("pattern-of-keys", Schema({"patternProperties": {PATTERN: {}}}, {AB: 1}), TOO_LARGE),
    Case("pattern-of-names", Schema({"propertyNames": {"pattern": PATTERN}}, {AB: 1}), TOO_LARGE),
    Case("pattern-in-a-list", of_s({"items": {"pattern": PATTERN}}, [AB[:99]] * 2_000), "has too much text"),
    Case("pattern-with-any-character", of_s({"pattern": "^.*a.{300}z"}, AB), TOO_LARGE),
    Case("enum-of-all-kinds", of_s({"items": {"enum": [None, *map(str, range(9_000))]}}, ["8999"] * 9_000), TOO_MANY),
    Case(
        "enum-of-objects", of_s({"items": {"enum": [{"a": n} for n in range(4_000)]}}, [{"a": 3_999}] * 4_000), TOO_MANY
    ),
    Case("remainders", of_s({"items": {"multipleOf": 0.01}}, [1.7e308] * 9_000), TOO_MANY),
    Case("international-names", of_s({"anyOf": [{"format": "idn-hostname"}] * 20}, IDEOGRAPHS), TOO_LARGE),
    Case("wrong-in-every-item", of_s({"items": {"type": "string"}}, [0] * 9_000), 'is not of type "string"'),
    Case(
        "wrong-in-every-form",
        of_s({"items": {"anyOf": [{"type": "string"}] * 20}}, [0] * 9_000),
        "too large to say where",
    ),
    Case("long-text-wrong-in-many-ways", of_s({"allOf": [{"minLength": 10**6}] * 900}, "x" * 250_000), "is shorter"),
    Case(
        "large-input-that-lacks-much",
        Schema({"required": [f"p{n}" for n in range(900)]}, {"a": "x" * 200_000}),
        "is required",
    ),
    Case(
        "long-names-that-are-meant",
        Schema(
            {
                "additionalProperties": {
                    "additionalProperties": False,
                    "properties": {f"{LONG}{n}": {} for n in range(2_000)},
                }
            },
            {f"k{n}": {f"{LONG}y{m}": 1 for m in range(20)} for n in range(100)},
        ),
        "is unknown",
    ),
    # What people write goes on.
    Case("base64", of_s({"pattern": "^[A-Za-z0-9+/]+={0,2}$"}, "QUJD" * 60_000), ""),
    Case("uuids", of_s({"items": {"pattern": UUID}}, [A_UUID] * 2_000), ""),
    Case("prices", of_s({"items": {"multipleOf": 0.01}}, [n / 4 for n in range(2_000)]), ""),
    Case(
        "pattern-beside-a-long-text",
        Schema({"properties": {"id": {"pattern": UUID}, "text": {}}}, {"id": A_UUID, "text": AB}),
        "",
    ),
    Case(
        "four-thousand-properties",
        Schema(
            {"properties": {f"p{n}": {"type": "string"} for n in range(4_000)}}, {f"p{n}": "x" for n in range(4_000)}
        ),
        "",
    ),
]
