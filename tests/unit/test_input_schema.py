"""Schemas of inputs, inputs against them, and definitions of the largest size."""

from __future__ import annotations

from typing import Any

import pytest

from service.engine.handlers.registry import Handler
from service.engine.parsing import check_input, parse
from service.engine.schema_charge import pattern_cost
from service.engine.violations import ValidationError
from tests.unit.documents import CATALOG, DEFAULTS, graph, step, the_violation, workflow, wrong

# --- the input schema


@pytest.mark.parametrize(
    ("schema", "field", "words"),
    [
        ([], "input_schema", "must be an object"),
        ({"type": "array"}, "input_schema.type", 'must be "object"'),
        ({"type": "object", "properties": []}, "input_schema.properties", "object"),
        ({"type": "object", "required": "x"}, "input_schema.required", "array"),
        ({"properties": {"x": {"minimum": "1"}}}, "input_schema.properties.x.minimum", 'not of type "number"'),
        ({"properties": {"x": {"type": "text"}}}, "input_schema.properties.x.type", "not one of"),
        ({"properties": {"x": {"pattern": "(?=a)"}}}, "input_schema.properties.x.pattern", "linear time"),
        ({"properties": {"x": {"pattern": "((a{500}){50}){50}"}}}, "input_schema.properties.x.pattern", "too large"),
        ({"properties": {"x": {"$ref": "http://h/s"}}}, 'input_schema.properties.x["$ref"]', "into the schema itself"),
        ({"properties": {"x": {"$ref": "file:///etc/passwd"}}}, 'input_schema.properties.x["$ref"]', "itself"),
        ({"properties": {"x": {"$ref": "#/$defs/y"}}}, 'input_schema.properties.x["$ref"]', "does not exist"),
        ({"$ref": "#"}, 'input_schema["$ref"]', "refers to itself"),
        ({"$schema": "http://json-schema.org/draft-07/schema#"}, 'input_schema["$schema"]', "2020-12"),
        ({"patternProperties": {f"^{n}": True for n in range(51)}}, "input_schema", "51 patterns"),
    ],
)
def test_input_schema_that_is_none(schema: Any, field: str, words: str) -> None:
    found = the_violation(workflow(input_schema=schema))
    assert found[0] == field
    assert words in found[1]


TREE = {
    "$defs": {
        "node": {
            "type": "object",
            "properties": {"left": {"$ref": "#/$defs/node"}, "right": {"$ref": "#/$defs/node"}},
            "additionalProperties": False,
        }
    },
    "type": "object",
    "properties": {"root": {"$ref": "#/$defs/node"}},
}


def test_input_schema_that_would_take_for_ever() -> None:
    doubling = {f"d{n}": {"allOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(40)} | {"d40": {}}
    explosive = {"type": "object", "$defs": doubling, "$ref": "#/$defs/d0"}
    recursive = {"type": "object", "properties": {"c": {"oneOf": [{"$ref": "#"}, {"$ref": "#"}]}}}
    for schema in (explosive, recursive):
        field, words = the_violation(workflow(input_schema=schema))
        assert field.startswith("input_schema")
        assert "too costly" in words
    assert wrong(workflow(input_schema=TREE)) == []


def test_check_input() -> None:
    schema = {
        "type": "object",
        "properties": {
            "email": {"type": "string", "format": "email"},
            "items": {"type": "array", "items": {"type": "integer", "minimum": 1}},
        },
        "required": ["email"],
        "additionalProperties": False,
    }
    definition = parse(workflow(input_schema=schema), CATALOG, DEFAULTS)
    check_input(definition, {"email": "a@example.org", "items": [1, 2]})
    with pytest.raises(ValidationError) as caught:
        check_input(definition, {"items": [1, 0, "geheim"], "emial": "x"})
    assert {(v.field, v.description) for v in caught.value.violations} == {
        ("input.items[1]", "the value is less than the minimum of 1"),
        ("input.items[2]", 'the value is not of type "integer"'),
        ("input.email", "is required"),
        ("input.emial", 'is unknown; did you mean "email"?'),
    }
    with pytest.raises(ValidationError, match="email"):
        check_input(definition, {"email": "nobody"})


def test_check_input_without_a_schema_and_of_a_tree() -> None:
    check_input(parse(workflow(), CATALOG, DEFAULTS), {"anything": 1})
    definition = parse(workflow(input_schema=TREE), CATALOG, DEFAULTS)
    node: dict[str, Any] = {}
    for _ in range(10):
        node = {"left": node, "right": {}}
    check_input(definition, {"root": node})
    with pytest.raises(ValidationError, match=r"input\.root\.left\.middle"):
        check_input(definition, {"root": {"left": {"middle": 1}}})


# --- speed


def test_five_hundred_steps_take_well_under_a_second() -> None:
    names = [f"s{n}" for n in range(500)]
    steps = [
        step(
            name,
            depends_on=names[max(0, n - 40) : n],
            params={"value": {"a": "${input.a}", "b": f"${{steps.s0.output + {n}}}" if n else 1}},
            condition=f"input.n > {n}",
            assign={"v": f"result + {n}"},
        )
        for n, name in enumerate(names)
    ]
    assert len(parse(graph(*steps), CATALOG, DEFAULTS).root.steps) == 500


def test_many_expressions_and_many_mistakes_are_cut_short() -> None:
    many = [step(f"s{n}", assign={f"v{m}": f"{n} + {m}" for m in range(20)}) for n in range(400)]
    misspelt = [step(f"s{n}", **{f"conditio{m}": 1 for m in range(20)}) for n in range(400)]
    unknown = [step(f"s{n}", condition=f"steps.t{n}.output") for n in range(400)]
    for steps, words in ((many, "5,000 expressions"), (misspelt, "is unknown"), (unknown, "does not exist")):
        found = wrong(workflow(*steps))
        assert words in found[0][1]
        assert len(found) <= 100


@pytest.mark.parametrize(
    "items",
    [
        {"enum": [f"e{n}" for n in range(5_000)]},
        {"type": "integer", "minimum": 5},
        {"anyOf": [{"type": "integer"}] * 20},
        {"pattern": "a" * 10_000},
        {"const": ["x" * 10_000]},
    ],
)
def test_check_of_a_large_wrong_input_is_short(items: dict[str, Any]) -> None:
    schema = {"type": "object", "properties": {"xs": {"items": items}}}
    definition = parse(workflow(input_schema=schema), CATALOG, DEFAULTS)
    with pytest.raises(ValidationError) as caught:
        check_input(definition, {"xs": ["x"] * 9_000})
    assert len(caught.value.violations) <= 100


@pytest.mark.parametrize(
    ("pattern", "least", "most"),
    [
        ("^[a-z]+$", 0, 10),
        ("^[A-Za-z0-9+/]+={0,2}$", 0, 10),
        ("^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{12}$", 0, 10),
        (r"^[\p{L} '-]+$", 0, 10),
        ("x" * 10_000, 0, 10),
        ("^(?:[ab]*a[ab]{1000}[cd])", 15_000, 50_000),
        ("^(?:[ab]*a[ab]{100}{10}[cd])", 15_000, 50_000),
        ("^(?:[ab]*a(?:[ab]{10})?{100}[cd])", 15_000, 50_000),
        ("^(?:[ab]*a(?:[ab]{10})+{100}[cd])", 15_000, 50_000),
        ("(?x)^(?:[ab]*a(?:[ab]{10}) {100}[cd])", 15_000, 10**8),
        ("(?ix)a", 15_000, 10**8),
        ("a{1000}$", 15_000, 50_000),
        ("^.*a.{300}z", 5_000, 50_000),
        (r"^(?:\b\w+\b *)+$", 100, 1_500),
    ],
)
def test_what_a_pattern_may_take_for_a_character(pattern: str, least: int, most: int) -> None:
    assert least <= pattern_cost(pattern) <= most


def test_schemas_of_handlers_are_charged_too() -> None:
    async def run(params: Any, context: Any) -> None: ...

    handler = Handler("h", run, params_schema={"properties": {"s": {"pattern": "^(?:[ab]*a[ab]{1000}[cd])"}}})
    assert handler.validate({"s": "a" * 1_000}) == [("s", 'the value does not match "^(?:[ab]*a[ab]{1000}[cd])"')]
    ((path, words),) = handler.validate({"s": "a" * 200_000})
    assert (path, "has 200,000 characters" in words) == ("s", True)


def test_large_input_schema_is_weighed_quickly() -> None:
    schema = {"type": "object", "properties": {f"p{n}": {"type": "string"} for n in range(4_000)}}
    definition = parse(workflow(input_schema=schema), CATALOG, DEFAULTS)
    check_input(definition, {f"p{n}": "x" for n in range(4_000)})
