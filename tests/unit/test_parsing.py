"""From a document to a definition, or to everything that is wrong with it."""

from __future__ import annotations

from typing import Any

import pytest

from service.engine.definition import Call, Delivery, OnError, Ordering, RetryPolicy, Transform
from service.engine.expressions import Template
from service.engine.parsing import Defaults, parse
from tests.unit.documents import CATALOG, DEFAULTS, graph, places, step, the_violation, workflow, wrong

# --- what parses


def test_smallest_workflow_has_the_defaults() -> None:
    definition = parse(workflow(), CATALOG, Defaults(execution_timeout=60.0, step_timeout=5.0))
    (only,) = definition.root.steps
    assert (definition.name, definition.timeout, definition.root.ordering) == ("w", 60.0, Ordering.SEQUENTIAL)
    assert (only.timeout, only.retry, only.on_error) == (5.0, RetryPolicy(max_attempts=1), OnError.STOP)
    assert (only.delivery, only.total_timeout, only.condition) == (Delivery.AT_LEAST_ONCE, None, None)
    assert isinstance(only.action, Transform)
    assert isinstance(only.action.value, Template)
    assert only.action.value.render({}) == 1
    assert definition.document == workflow()


def test_every_field_is_read() -> None:
    document = graph(
        step("first"),
        {
            "id": "second",
            "display_name": "The second",
            "handler": "call_api",
            "params": {"url": "https://example.org/${input.id}", "json": {"n": "${steps.first.output}"}},
            "depends_on": ["first"],
            "condition": "steps.first.output > 0",
            "timeout": 10.5,
            "total_timeout": 60,
            "retry_policy": {
                "max_attempts": 5,
                "initial_interval": 2.0,
                "backoff_coefficient": 3.0,
                "max_interval": 30.0,
                "jitter": 0.0,
                "non_retryable_codes": ["HTTP_STATUS_4XX"],
            },
            "on_error": "CONTINUE",
            "assign": {"total": "result.body.total"},
            "delivery": "AT_LEAST_ONCE",
        },
        description="What it is for.",
        timeout=7200.0,
        tags=["x"],
        labels={"team": "core"},
        input_schema={"type": "object", "properties": {"id": {"type": "string"}}},
        default_priority=-5,
        output={"total": "${vars.total}"},
        budgets=[],
        max_concurrent_executions=0,
    )
    definition = parse(document, CATALOG, DEFAULTS)
    second = definition.root.by_id["second"]
    assert second.retry == RetryPolicy(5, 2.0, 3.0, 30.0, 0.0, frozenset({"HTTP_STATUS_4XX"}))
    assert (second.timeout, second.total_timeout, second.depends_on) == (10.5, 60, ("first",))
    assert (second.on_error, second.display_name) == (OnError.CONTINUE, "The second")
    assert second.condition is not None
    assert second.condition.evaluate({"steps": {"first": {"output": 1}}}) is True
    assert isinstance(second.action, Call)
    assert second.action.params.render({"input": {"id": 7}, "steps": {"first": {"output": 1}}}) == {
        "url": "https://example.org/7",
        "json": {"n": 1},
    }
    assert [name for name, _ in second.assign] == ["total"]
    assert (definition.tags, definition.labels, definition.default_priority) == (("x",), {"team": "core"}, -5)
    assert definition.root.output is not None
    assert definition.root.output.render({"vars": {"total": 3}}) == {"total": 3}


@pytest.mark.parametrize(
    ("fields", "attempts"),
    [
        ({}, 1),
        ({"on_error": "STOP"}, 1),
        ({"on_error": "RETRY"}, 3),
        ({"retry_policy": {}}, 3),
        ({"retry_policy": {"max_attempts": 0}}, 3),
        ({"retry_policy": {"max_attempts": 7}, "on_error": "CONTINUE"}, 7),
        ({"retry_policy": {"max_attempts": 1}, "on_error": "RETRY"}, 1),
    ],
)
def test_attempts(fields: dict[str, Any], attempts: int) -> None:
    assert parse(workflow(step(**fields)), CATALOG, DEFAULTS).root.steps[0].retry.max_attempts == attempts


def test_without_a_catalog_handlers_and_params_are_not_judged() -> None:
    document = workflow({"id": "a", "handler": "gone", "params": {"x": "${input.x}"}})
    assert parse(document, None, DEFAULTS).root.steps[0].handler == "gone"
    assert the_violation(document)[0] == "steps[0].handler"


def test_absent_output_and_null_output_differ() -> None:
    assert parse(workflow(), CATALOG, DEFAULTS).root.output is None
    definition = parse(workflow(output=[None, "${input.x}"]), CATALOG, DEFAULTS)
    assert definition.root.output is not None
    assert definition.root.output.render({"input": {"x": 1}}) == [None, 1]


# --- everything at once


def test_all_violations_are_said_at_once() -> None:
    document = {
        "nmae": "w",
        "steps": [
            {"id": "a", "handler": "call_apii"},
            {"id": "a", "handler": "call_api", "params": {"url": 5}, "retry_policy": {"max_attempts": -1}},
            {"id": "c", "handler": "call_api", "params": {"url": "https://a"}, "condition": "inptu.x >", "timeout": 0},
        ],
    }
    assert places(document) == [
        "name",
        "steps[0].handler",
        "steps[1].params.url",
        "steps[1].retry_policy.max_attempts",
        "steps[2].timeout",
        "steps[2].condition",
        "steps[1].id",
        "nmae",
    ]


@pytest.mark.parametrize(
    ("document", "field", "words"),
    [
        ([], "definition", "must be an object, not a list"),
        (None, "definition", "must be an object, not null"),
        (workflow(name=""), "name", "is required"),
        (workflow(name="1st"), "name", "begin with a letter"),
        (workflow(name="x" * 129), "name", "has 129 characters; at most 128"),
        (workflow(name="a0000000-0000-7000-8000-000000000000"), "name", "form of a UUID"),
        (workflow(name=5), "name", "must be a string, not a number"),
        ({"name": "w"}, "steps", "is required"),
        ({"name": "w", "steps": []}, "steps", "is required"),
        ({"name": "w", "steps": {}}, "steps", "must be a list, not an object"),
        (workflow(*[step(f"s{n}") for n in range(501)]), "steps", "has 501 entries; at most 500"),
        (workflow(description="x" * 4097), "description", "4,097 characters"),
        (workflow(description="a\0b"), "description", "NUL"),
        (workflow(ordering="RANDOM"), "ordering", "must be one of SEQUENTIAL, GRAPH"),
        (workflow(timeout=0), "timeout", "more than 0 and at most 10 years"),
        (workflow(timeout=315360001), "timeout", "at most 10 years"),
        (workflow(timeout="1h"), "timeout", "must be a number, not a string"),
        (workflow(timeout=float("nan")), "timeout", "must be a number"),
        (workflow(timeout=2**60), "timeout", "must be a number, not one that large"),
        (workflow(timeout=10**400), "timeout", "must be a number, not one that large"),
        (workflow(timeout=True), "timeout", "must be a number, not a boolean"),
        (workflow(default_priority=101), "default_priority", "between -100 and 100"),
        (workflow(default_priority=1.5), "default_priority", "whole number"),
        (workflow(tags=["x"] * 2), "tags", '"x" more than once'),
        (workflow(tags=[f"t{n}" for n in range(33)]), "tags", "at most 32"),
        (workflow(tags=[""]), "tags[0]", "must not be empty"),
        (workflow(tags=["x" * 129]), "tags[0]", "at most 128"),
        (workflow(labels={"k": "x" * 1025}), "labels.k", "at most 1,024"),
        (workflow(labels={"k": 1}), "labels.k", "must be a string"),
        (workflow(labels={f"k{n}": "" for n in range(33)}), "labels", "at most 32"),
        (workflow(colour="red"), "colour", "is unknown"),
        (workflow(orderign="GRAPH"), "orderign", 'did you mean "ordering"?'),
        (workflow("a"), "steps[0]", "must be an object, not a string"),
        (workflow(step("1a")), "steps[0].id", "begin with a letter or _"),
        (workflow(step("a-b")), "steps[0].id", "letters, digits and _"),
        (workflow(step("a" * 65)), "steps[0].id", "at most 64"),
        (workflow(step("")), "steps[0].id", "is required"),
        (workflow(step(), step()), "steps[1].id", "is the id of steps[0] too"),
        (workflow(step(timeout_s=3)), "steps[0].timeout_s", "did you mean"),
        (workflow(step(display_name="x" * 257)), "steps[0].display_name", "at most 256"),
        (workflow(step(handler="")), "steps[0].handler", "is required"),
        (workflow(step(handler="trasform")), "steps[0].handler", 'did you mean "transform"?'),
        (
            workflow(step(handler="zzz")),
            "steps[0].handler",
            "known are: ask_model, call_api, condition, create_task, mcp_tool, send_",
        ),
        (workflow(step(params=[])), "steps[0].params", "must be an object, not a list"),
        (workflow(step(on_error="IGNORE")), "steps[0].on_error", "must be one of STOP, CONTINUE, RETRY"),
        (workflow(step(delivery="EXACTLY_ONCE")), "steps[0].delivery", "AT_LEAST_ONCE, AT_MOST_ONCE"),
        (workflow(step(total_timeout=-1)), "steps[0].total_timeout", "more than 0"),
        (workflow(step(assign={"a b": "1"})), 'steps[0].assign["a b"]', "no name of a variable"),
        (workflow(step(assign={"x": ""})), "steps[0].assign.x", "must not be empty"),
        (workflow(step(assign={f"v{n}": "1" for n in range(65)})), "steps[0].assign", "at most 64"),
        (workflow(step(condition="x" * 4097)), "steps[0].condition", "at most 4,096"),
        (workflow(step(retry_policy={"max_attempts": 1001})), "steps[0].retry_policy.max_attempts", "1000"),
        (workflow(step(retry_policy={"jitter": 1.1})), "steps[0].retry_policy.jitter", "between 0 and 1"),
        (workflow(step(retry_policy={"backoff_coefficient": 0.5})), "steps[0].retry_policy.backoff_coefficient", "100"),
        (workflow(step(retry_policy={"initial_interval": 0})), "steps[0].retry_policy.initial_interval", "more than 0"),
        (
            workflow(step(retry_policy={"initial_interval": 1e-9})),
            "steps[0].retry_policy.initial_interval",
            "is 1e-09 s; it must be at least 0.01 s and at most 1 years",
        ),
        (workflow(step(retry_policy={"max_interval": 0.009})), "steps[0].retry_policy.max_interval", "at least 0.01 s"),
        (workflow(step(retry_policy={"max": 2})), "steps[0].retry_policy.max", "is unknown"),
        (
            workflow(step(retry_policy={"initial_interval": 90})),
            "steps[0].retry_policy.initial_interval",
            "is 90 s, longer than max_interval (60 s, the default); raise that",
        ),
        (
            workflow(step(retry_policy={"initial_interval": 9, "max_interval": 3})),
            "steps[0].retry_policy.initial_interval",
            "longer than max_interval (3 s)",
        ),
        (
            workflow(step(delivery="AT_MOST_ONCE", retry_policy={})),
            "steps[0].retry_policy",
            "cannot be given with AT_MOST_ONCE",
        ),
        (workflow(step(delivery="AT_MOST_ONCE", on_error="RETRY")), "steps[0].on_error", "use STOP or CONTINUE"),
    ],
)
def test_what_is_wrong_and_what_would_be_right(document: Any, field: str, words: str) -> None:
    found = the_violation(document)
    assert found[0] == field
    assert words in found[1]


@pytest.mark.parametrize(
    "document",
    [
        workflow(max_concurrent_executions=2),
        workflow(budgets=[{"resource": "STEPS", "limit": 1}]),
        workflow(step(compensation={"handler": "wait"})),
        workflow(step(quality_gate={"score": "1"})),
        workflow(step(cache={"key": "'x'"})),
    ],
)
def test_what_nothing_acts_on_yet_is_refused(document: Any) -> None:
    assert the_violation(document)[1] == "is not implemented yet; remove it"


def test_definition_of_more_than_256_kib() -> None:
    field, words = the_violation(workflow(step(params={"value": "x" * (256 << 10)})))
    assert field == "definition"
    assert "at most 262,144" in words


def test_definition_that_is_nested_without_end() -> None:
    deep: Any = 1
    for _ in range(100_000):
        deep = [deep]
    assert the_violation(workflow(step(params={"value": deep})))[0] == "definition"


def test_params_nested_too_deep() -> None:
    deep: Any = 1
    for _ in range(30):
        deep = [deep]
    assert the_violation(workflow(step(params={"value": deep})))[0] == "steps[0].params"


# --- params against the schema of the handler


def api(**params: Any) -> dict[str, Any]:
    return {"id": "a", "handler": "call_api", "params": params}


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({"url": "http://h/", "timeout": "5"}, ["steps[0].params.timeout"]),
        ({"url": "http://h/", "methd": "GET"}, ["steps[0].params.methd"]),
        ({"method": "GET"}, ["steps[0].params.url"]),
        ({"url": "ftp://h/"}, ["steps[0].params.url"]),
        ({"url": "http://h/", "json": 1, "form": {}}, ["steps[0].params.form"]),
        # What a template becomes is not known yet.
        ({"url": "${input.url}", "timeout": "${input.t}", "method": "${input.m}"}, []),
        ({"url": "${input.base}/x"}, []),
        ({"url": "http://h/", "query": "${input.query}", "auth": {"basic": "${vars.login}"}}, []),
        ({"url": "http://h/", "success_codes": ["${input.code}", 200]}, []),
        ({"url": "http://h/", "success_codes": ["${input.code}", 99]}, ["steps[0].params.success_codes[1]"]),
        ({"timeout": "${input.t}", "x": "${input.x}"}, ["steps[0].params.url", "steps[0].params.x"]),
        # A literal `${` is no template.
        ({"url": "http://h/", "timeout": "$${input.t}"}, ["steps[0].params.timeout"]),
    ],
)
def test_params(params: dict[str, Any], expected: list[str]) -> None:
    assert sorted(places(workflow(api(**params)))) == sorted(expected)


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({"outcomes": "${input.outcomes}"}, ["steps[0].params.outcomes"]),
        ({"outcomes": [{"name": "${input.name}", "when": "true"}]}, ["steps[0].params.outcomes[0].name"]),
        ({"expression": "input.x > 1"}, []),
        ({"expression": "inptu.x > 1"}, ["steps[0].params.expression"]),
        ({"expression": "steps.nope.output"}, ["steps[0].params.expression"]),
        ({"expression": "${input.x} > 1"}, ["steps[0].params.expression"]),
        ({"expression": 5}, ["steps[0].params.expression"]),
        ({"outcomes": [{"name": "a", "when": [1]}]}, ["steps[0].params.outcomes[0].when"]),
        ({"outcomes": [{"name": "a", "when": "input.x >"}, {"name": "b"}]}, ["steps[0].params.outcomes[0].when"]),
        ({"outcomes": [{"name": "a", "when": "true"}, {"nmae": "b", "when": "x"}]}, None),
    ],
)
def test_cel_inside_of_params(params: dict[str, Any], expected: list[str] | None) -> None:
    found = places(workflow({"id": "a", "handler": "condition", "params": params}))
    if expected is None:
        at = "steps[0].params.outcomes[1]"
        assert sorted(found) == [f"{at}.name", f"{at}.nmae", f"{at}.when"]
    else:
        assert found == expected


def test_double_braces_are_told_where_a_definition_is_written() -> None:
    braces, meant = "{{ input.x }}", "has {{ input.x }}, but templates are ${ input.x }; "
    document = workflow(
        step("a", params={"value": [braces]}),
        step("b", params={"expression": braces}),
        step("c", condition=braces, assign={"x": braces}),
        output={"x": braces},
    )
    found = dict(wrong(document))
    assert found["steps[0].params.value[0]"].startswith(meant)
    assert found["output.x"].startswith(meant)
    no_cel = "line 1, column 1: {{ }} is no CEL; write the expression without it"
    assert {field for field, words in found.items() if words == no_cel} == {
        "steps[1].params.expression", "steps[2].condition", "steps[2].assign.x",
    }  # fmt: skip
    assert len(found) == 5
    kept = workflow(step("a", params={"value": braces}))
    assert wrong(kept, None) == []


# --- the same fault once


def test_what_follows_from_an_unknown_ordering_is_not_told() -> None:
    second = step("b", depends_on=["a"], params={"value": "${steps.c.output}"})
    document = workflow(step("a"), second, step("c"), ordering="GRAPHS")
    assert places(document) == ["ordering"]


def test_what_names_a_step_whose_id_is_none_is_not_wrong_too() -> None:
    second = step("b", depends_on=["a-1"], params={"value": "${steps['a-1'].output}"})
    assert places(graph(step("a-1"), second)) == ["steps[0].id"]


def test_an_interval_is_not_compared_with_the_default_of_a_wrong_one() -> None:
    policy = {"initial_interval": 3600.0, "max_interval": -1.0}
    assert places(workflow(step("a", retry_policy=policy))) == ["steps[0].retry_policy.max_interval"]


@pytest.mark.parametrize(
    ("handler", "params"),
    [
        ("transform", {"value": 1}),
        ("condition", {"outcomes": [{"name": "yes", "when": "true"}]}),
        ("wait", {"duration": "1s"}),
    ],
)
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("timeout", 1),
        ("total_timeout", 1),
        ("retry_policy", {"max_attempts": 2}),
        ("delivery", "AT_MOST_ONCE"),
        ("on_error", "RETRY"),
    ],
)
def test_what_has_no_effect_on_steps_of_the_server_is_refused(
    handler: str, params: Any, field: str, value: Any
) -> None:
    document = workflow({"id": "a", "handler": handler, "params": params, field: value})
    (found,) = wrong(document)
    assert found[0] == f"steps[0].{field}"
    assert f"{handler}, which the server runs itself; " in found[1]
    assert wrong(document, catalog=None) == []
