"""What expressions of a definition may say, and which steps may wait for which."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from tests.unit.documents import graph, step, the_violation, workflow, wrong

# --- expressions


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"condition": "inputs.x"}, "steps[1].condition"),
        ({"condition": "input.x >"}, "steps[1].condition"),
        ({"condition": "attempt > 1"}, "steps[1].condition"),
        ({"condition": "result.x"}, "steps[1].condition"),
        ({"params": {"value": ["${nope.x}"]}}, "steps[1].params.value[0]"),
        ({"params": {"value": "${item}"}}, "steps[1].params.value"),
        ({"params": {"value": "${input.x"}}, "steps[1].params.value"),
        ({"assign": {"x": "results"}}, "steps[1].assign.x"),
    ],
)
def test_expressions_that_do_not_compile(fields: dict[str, Any], field: str) -> None:
    assert the_violation(workflow(step("z"), step("b", **fields)))[0] == field


@pytest.mark.parametrize(
    "fields",
    [
        {"condition": "steps.z.state == 'COMPLETED' && has(input.x) && execution.id != '' && has(vars.y)"},
        {"handler": "call_api", "params": {"url": "http://h/${attempt}"}},
        {"assign": {"x": "result.x", "y": "steps.z.output"}},
    ],
)
def test_names_that_expressions_see(fields: dict[str, Any]) -> None:
    assert wrong(workflow(step("z"), step("b", **fields))) == []


@pytest.mark.parametrize(
    "fields",
    [
        {"condition": "steps.READ.output == 1"},
        {"params": {"value": {"x": ["${steps.READ.output}"]}}},
        {"assign": {"x": "steps.READ.output"}},
        {"handler": "transform", "params": {"expression": "steps.READ.output"}},
    ],
)
@pytest.mark.parametrize(
    ("read", "words"),
    [
        ("a", None),
        ("b", None),
        ("c", "reads its own step"),
        ("d", "runs later"),
        ("aa", 'does not exist; did you mean "a"?'),
    ],
)
def test_sequential_steps_read_only_earlier_ones(fields: dict[str, Any], read: str, words: str | None) -> None:
    fields = replaced(fields, read)
    found = wrong(workflow(step("a"), step("b"), step("c", **fields), step("d")))
    assert [words in text for _, text in found] == ([True] if words else []) if words else found == []


def replaced(value: Any, read: str) -> Any:
    if isinstance(value, Mapping):
        return {name: replaced(member, read) for name, member in value.items()}
    if isinstance(value, list):
        return [replaced(member, read) for member in value]
    return value.replace("READ", read)


@pytest.mark.parametrize(
    ("read", "words"),
    [
        ("a", None),
        ("b", None),
        ("side", 'add "side" to depends_on'),
        ("c", "reads its own step"),
        ("after", 'without waiting for it; add "after" to depends_on'),
        ("zz", "does not exist"),
    ],
)
def test_graph_steps_read_only_what_they_wait_for(read: str, words: str | None) -> None:
    document = graph(
        step("a"),
        step("b", depends_on=["a"]),
        step("side", depends_on=["a"]),
        step("c", depends_on=["b"], condition=f"steps.{read}.output == 1"),
        step("after", depends_on=["c"]),
    )
    if words is None:
        assert wrong(document) == []
    else:
        field, text = the_violation(document)
        assert field == "steps[3].condition"
        assert words in text


def test_output_reads_any_step() -> None:
    document = workflow(step("a"), step("b"), output={"x": "${steps.b.output}"})
    assert wrong(document) == []
    document["output"]["y"] = "${steps.c.output}"
    assert the_violation(document)[0] == "output"
    assert the_violation(workflow(output="${attempt}"))[0] == "output"


# --- dependencies


@pytest.mark.parametrize(
    ("depends_on", "words"),
    [
        (["nope"], 'names step "nope", which does not exist'),
        (["a", "a"], 'names "a" more than once'),
        (["b"], 'names the step itself, "b"'),
    ],
)
def test_dependencies(depends_on: list[str], words: str) -> None:
    field, text = the_violation(graph(step("a"), step("b", depends_on=depends_on)))
    assert field == "steps[1].depends_on"
    assert words in text


def test_dependencies_only_in_graphs() -> None:
    field, text = the_violation(workflow(step("a"), step("b", depends_on=["a"])))
    assert field == "steps[1].depends_on"
    assert "set ordering to GRAPH" in text


def test_cycles_are_named() -> None:
    document = graph(
        step("start"),
        step("a", depends_on=["start", "c"]),
        step("b", depends_on=["a"]),
        step("c", depends_on=["b"]),
        step("x", depends_on=["y", "c"]),
        step("y", depends_on=["x"]),
        step("end", depends_on=["y"]),
    )
    assert wrong(document) == [
        ("steps[1].depends_on", "makes steps wait for each other: a -> c -> b -> a; remove one of these dependencies"),
        ("steps[4].depends_on", "makes steps wait for each other: x -> y -> x; remove one of these dependencies"),
    ]
