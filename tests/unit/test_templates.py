"""Templates: `${ CEL }` inside of JSON-like values."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.engine import payload
from service.engine.expressions import ExpressionError, Template
from service.engine.violations import ValidationError

NAMES = frozenset({"input", "steps"})
VARIABLES: dict[str, Any] = {
    "input": {"n": 7, "s": "text", "rate": 0.5, "yes": True, "none": None, "list": [1, {"b": 1, "a": 2}]},
    "steps": {"one": {"output": {"id": 3}}},
}


def render(value: Any, variables: Any = VARIABLES) -> Any:
    return Template.parse(value, NAMES).render(variables)


def violations(value: Any, field: str = "params") -> dict[str, str]:
    with pytest.raises(ValidationError) as caught:
        Template.parse(value, NAMES, field)
    return {violation.field: violation.description for violation in caught.value.violations}


texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
json_values = st.recursive(
    st.none() | st.booleans() | texts | st.integers(-(2**53) + 1, 2**53 - 1) | st.floats(0.1, 0.9),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(texts, inner, max_size=5),
    max_leaves=20,
)


@given(json_values.filter(lambda value: "${" not in json.dumps(value)))
def test_a_constant_is_the_same_object(value: Any) -> None:
    template = Template.parse(value, NAMES)
    assert template.is_constant
    assert template.references == frozenset()
    assert template.render({}) is value


@given(json_values)
def test_any_value_can_be_written_as_a_template(value: Any) -> None:
    def escape(item: Any) -> Any:
        if isinstance(item, str):
            return item.replace("${", "$${")
        if isinstance(item, list):
            return [escape(inner) for inner in item]
        return {key: escape(inner) for key, inner in item.items()} if isinstance(item, dict) else item

    assert render(escape(value)) == value


@given(json_values)
def test_a_whole_string_keeps_the_type_of_the_result(value: Any) -> None:
    result = render({"a": "${ input }", "b": ["${input.x}"]}, {"input": {"x": value}})
    assert result == {"a": {"x": value}, "b": [value]}


@given(st.text(max_size=40) | st.text("${}'\"\\/r \nainput.n", max_size=40))
def test_any_text_parses_or_is_refused(text: str) -> None:
    try:
        template = Template.parse({"a": text}, NAMES)
        template.render(VARIABLES)
    except (ValidationError, ExpressionError) as refused:
        assert "params" in str(refused)


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("${ input.n }", 7),
        ("${input.list}", [1, {"a": 2, "b": 1}]),
        ("${ input.none }", None),
        ("n=${ input.n }", "n=7"),
        (" ${ input.n }", " 7"),
        ("${ input.n }${ input.s }", "7text"),
        ("${ input.list }!", '[1,{"a":2,"b":1}]!'),
        ("is ${ input.none } ${ input.yes } ${ input.rate }", "is null true 0.5"),
        ("$${ input.n }", "${ input.n }"),
        ("$${ ${ input.n } }", "${ 7 }"),
        ("$$${ input.n }", "$${ input.n }"),
        ("$ { $x }", "$ { $x }"),
        ("cost: $5", "cost: $5"),
        ("${ {'a': 1}.a }", 1),
        ("${ {'a': {'b': '}'}} }", {"a": {"b": "}"}}),
        ("${ '}' }", "}"),
        ('${ "}" + \'"}\' }', '}"}'),
        ("${ '\\'}' }", "'}"),
        ("${ r'\\}' + '}' }", "\\}}"),
        ('${ """a"}\'b""" }', "a\"}'b"),
        ("${ '''}''' + r'''\\}''' }x", "}\\}x"),
        ("${ b'}' == b'}' }", True),
        ("${ 1 // } not the end\n }", 1),
        ("${ '$${' }", "$${"),
    ],
)
def test_texts(text: str, result: Any) -> None:
    assert render(text) == result
    assert render({"a": [text]}) == {"a": [result]}


def test_keys_are_not_templates() -> None:
    assert render({"${ input.n }": "${ input.n }"}) == {"${ input.n }": 7}


def test_references_are_those_of_all_expressions() -> None:
    template = Template.parse({"a": "${ steps.one.output }", "b": ["x ${ steps['two'].x } steps.three"]}, NAMES)
    assert template.references == {"one", "two"}
    assert not template.is_constant


def test_every_error_is_collected_with_its_path() -> None:
    value = {"a": "${ nope }", "b": [{"c d": "x ${ 1 + }"}, "${ input", "ok"], "c": "${ }", "d": "${ '}' "}
    found = violations(value, "definition.steps[2].params")
    unclosed = "has a ${ without its closing }; write $${ for a literal ${"
    assert found == {
        "definition.steps[2].params.a": "line 1, column 1: unknown variable 'nope'; known are input, steps",
        'definition.steps[2].params.b[0]["c d"]': "line 1, column 4: unexpected end",
        "definition.steps[2].params.b[1]": unclosed,
        "definition.steps[2].params.c": "is empty",
        "definition.steps[2].params.d": unclosed,
    }


def test_an_expression_that_never_ends() -> None:
    assert violations("${ " + "x" * 5_000)["params"] == "has a ${ that is not closed within 4096 characters"
    assert render("${ " + " " * 4_000 + "1 }") == 1


def test_rendering_errors_name_the_path_inside_of_the_step() -> None:
    template = Template.parse({"body": {"items": ["${ input.nope }"]}}, NAMES, "definition.steps[0].params")
    with pytest.raises(ExpressionError) as caught:
        template.render(VARIABLES)
    assert str(caught.value).startswith("params.body.items[0]: there is no input.nope")


def test_as_many_expressions_as_allowed() -> None:
    assert render(["${ 1 }"] * 256) == [1] * 256
    assert violations(["${ 1 }"] * 257) == {"params": "has more than 256 expressions"}


def test_what_is_rendered_is_within_the_limits_of_payloads() -> None:
    half = {"input": {"s": "x" * (payload.MAX_PAYLOAD_BYTES // 2)}}
    assert len(render("${ input.s }", half)) == payload.MAX_PAYLOAD_BYTES // 2
    with pytest.raises(ExpressionError, match="params: must be at most 262,144 bytes"):
        render("${ input.s }${ input.s }", half)
    deep = {"input": {"d": json.loads("[" * 24 + "]" * 24)}}
    with pytest.raises(ExpressionError, match="24 levels"):
        render({"a": "${ input.d }"}, deep)


def test_all_expressions_of_a_template_share_one_limit_on_work() -> None:
    large = {"input": {"s": "x" * 200_000}}
    with pytest.raises(ExpressionError, match=r"^params\[\d+\]: may be too much work"):
        render(["${ input.s.size() }"] * 256, large)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("{{ input.name }}", "has {{ input.name }}, but templates are ${ input.name }; "),
        ("Hello {{input.name}}!", "has {{input.name}}, but templates are ${ input.name }; "),
        (
            "${ input.n } {{- steps['one'].output | upper -}}",
            "has {{- steps['one'].output | upper -}}, but templates are ",
        ),
    ],
)
def test_what_a_template_was_surely_meant_by_is_said_where_it_is_written(text: str, meant: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Template.parse({"a": [text]}, NAMES, is_written_now=True)
    (violation,) = caught.value.violations
    assert violation.field == "params.a[0]"
    assert violation.description.startswith(meant)
    # The advice for those who do mean the text gives just the text.
    as_text = violation.description.partition("; for the text itself write ")[2]
    assert render(as_text) == text[text.index("{{") : text.index("}}") + 2]
    assert render(text)  # a definition that is kept already goes on as it is


@pytest.mark.parametrize(
    "text",
    ["{{ name }}", "{{ user.name }}", "{{#each items}}", "{{ input }}", "{% if input.x %}", "${ '{{ input.n }}' }"],
)
def test_braces_that_may_be_meant_for_others_are_kept(text: str) -> None:
    rendered = Template.parse(text, NAMES, is_written_now=True).render(VARIABLES)
    assert rendered == ("{{ input.n }}" if text.startswith("$") else text)
