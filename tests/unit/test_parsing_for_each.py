"""Steps that run a block for each item of a list, as they are written."""

from __future__ import annotations

from typing import Any

import pytest

from service.engine.definition import Block, OnItemError, Ordering, Repeat
from service.engine.parsing import parse
from tests.unit.documents import CATALOG, DEFAULTS, graph, places, step, the_violation, workflow, wrong


def each(step_id: str = "each", *steps: Any, items: str = "input.xs", **fields: Any) -> dict[str, Any]:
    return {"id": step_id, "for_each": {"items": items, "steps": list(steps) or [step()], **fields}}


def body(document: dict[str, Any]) -> Block:
    action = parse(document, CATALOG, DEFAULTS).root.by_id["each"].action
    assert isinstance(action, Repeat)
    return action.body


def test_the_smallest_one_has_the_defaults() -> None:
    definition = parse(workflow(each()), CATALOG, DEFAULTS)
    action = definition.root.by_id["each"].action
    assert isinstance(action, Repeat)
    assert (action.items.source, action.max_parallel, action.on_item_error) == ("input.xs", 10, OnItemError.STOP)
    assert (action.body.ordering, action.body.output) == (Ordering.SEQUENTIAL, None)
    assert list(definition.places) == ["each", "each.a"]
    assert definition.root.by_id["each"].handler == "for_each"


def test_every_field_is_read() -> None:
    fields: dict[str, Any] = {
        "max_parallel": 3,
        "on_item_error": "COLLECT",
        "ordering": "GRAPH",
        "output": "${ steps.b.output }",
    }
    document = workflow(each("each", step("a"), step("b", depends_on=["a"]), **fields))
    action = parse(document, CATALOG, DEFAULTS).root.by_id["each"].action
    assert isinstance(action, Repeat)
    assert (action.max_parallel, action.on_item_error) == (3, OnItemError.COLLECT)
    assert action.body.predecessors == {"a": (), "b": ("a",)}
    assert action.body.output is not None


def test_rounds_come_one_after_the_other() -> None:
    action = parse(workflow(each(until="index == 2")), CATALOG, DEFAULTS).root.by_id["each"].action
    assert isinstance(action, Repeat) and action.until is not None
    assert (action.until.source, action.until.is_condition, action.max_parallel) == ("index == 2", True, 1)
    assert wrong(workflow(each(until="true", max_parallel=1))) == []
    assert the_violation(workflow(each(until="true", max_parallel=2))) == (
        "steps[0].for_each.max_parallel",
        "must be 1 with until: rounds come one after the other; remove it",
    )


def test_what_a_round_reads_of_the_one_before_are_steps_of_the_body() -> None:
    """Also where a list is gone through within a round; and in what was accepted before it stands."""
    inner = each("inner", step("b", params={"value": "${ has(previous.a.output) ? previous.a.output : previous.b }"}))
    document = workflow(step("before"), each("each", step("a"), inner, until="has(previous.bofore) || index == 2"))
    assert wrong(document) == [
        (
            "steps[1].for_each.until",
            'reads "previous.bofore", but the rounds have no step "bofore"; known are: a, inner',
        ),
        (
            "steps[1].for_each.steps[1].for_each.steps[0].params",
            'reads "previous.b", but the rounds have no step "b"; known are: a, inner',
        ),
    ]
    computed = "has(previous.a) && index > 0 ? previous[vars.x].output == 1 : cel.bind(previous, vars, previous.x == 1)"
    assert wrong(workflow(each(until=computed))) == []


def test_what_ends_rounds_sees_all_steps_of_one() -> None:
    until = "steps.a.output == item && steps.before.output == index && vars.x == input.y"
    assert wrong(workflow(step("before"), each(until=until))) == []


@pytest.mark.parametrize(
    ("until", "told"),
    [
        ("'yes'", "a condition must be true or false"),
        ("steps.b.output", 'reads step "b", which does not exist'),
        ("steps.after.output", 'reads step "after", which runs later'),
        ("steps.each.output", 'reads its own step "each"'),
        ("result", "unknown variable 'result'"),
        ("attempt > 1", "unknown variable 'attempt'"),
        ("true &&", "unexpected end"),
        ("x" * 4097, "has 4,097 characters"),
    ],
)
def test_what_ends_rounds_is_a_condition(until: str, told: str) -> None:
    field, message = the_violation(workflow(each(until=until), step("after")))
    assert field == "steps[0].for_each.until" and told in message


@pytest.mark.parametrize(
    "inner",
    [
        {"condition": "item.n > index"},
        {"params": {"value": "${ item } ${ index }"}},
        {"assign": {"x": "result + item"}},
        {"params": {"expression": "steps.first.output + steps.before.output + input.x + vars.y"}},
    ],
)
def test_a_body_sees_its_item_and_what_has_ended_before(inner: dict[str, Any]) -> None:
    assert wrong(workflow(step("before"), each("each", step("first"), step("b", **inner)))) == []


def test_the_output_of_an_item_sees_all_of_its_steps() -> None:
    assert wrong(workflow(each("each", step("a"), step("b"), output="${ steps.b.output } ${ item }"))) == []


def test_an_item_is_seen_in_the_body_alone() -> None:
    field, message = the_violation(workflow(each(), step("b", params={"value": "${ item }"})))
    assert field == "steps[1].params.value"
    assert "unknown variable 'item'" in message


def test_the_list_is_made_where_the_step_stands() -> None:
    field, message = the_violation(workflow(each(items="item.xs")))
    assert field == "steps[0].for_each.items"
    assert "unknown variable 'item'" in message


@pytest.mark.parametrize(
    ("read", "told"),
    [
        ("after", 'reads step "after", which runs later'),
        ("later", 'reads step "later", which runs later'),
        ("each", 'reads its own step "each"'),
        ("own", 'reads its own step "own"'),
        ("befor", 'reads step "befor", which does not exist; did you mean "before"?'),
        ("late", 'reads step "late", which does not exist; did you mean "later"?'),
    ],
)
def test_a_body_reads_no_step_that_may_still_run(read: str, told: str) -> None:
    own = step("own", params={"value": f"${{ steps.{read} }}"})
    field, message = the_violation(workflow(step("before"), each("each", own, step("later")), step("after")))
    assert field == "steps[1].for_each.steps[0].params"
    assert message.startswith(told)


def test_steps_after_it_read_its_outputs_and_not_its_steps() -> None:
    assert wrong(workflow(each(), step("b", params={"value": "${ steps.each.output }"}))) == []
    _, message = the_violation(workflow(each("each", step("x")), step("b", params={"value": "${ steps.x }"})))
    assert message.startswith('reads step "x", which does not exist')


def test_ids_are_unique_in_their_block() -> None:
    document = workflow(step("a"), each("each", step("a"), each("b", step("a"), step("each"))))
    assert list(parse(document, CATALOG, DEFAULTS).places) == [
        "a",
        "each",
        "each.a",
        "each.b",
        "each.b.a",
        "each.b.each",
    ]
    assert the_violation(workflow(each("each", step("a"), step("a"))))[0] == "steps[0].for_each.steps[1].id"


def test_a_body_of_a_body_sees_both() -> None:
    inner = each(
        "inner", step("x", params={"value": "${ steps.y.output } ${ steps.z.output } ${ item }"}), items="item"
    )
    assert wrong(workflow(step("z"), each("each", step("y"), inner))) == []


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"items": ""}, ["steps[0].for_each.items"]),
        ({"items": "input."}, ["steps[0].for_each.items"]),
        ({"max_parallel": 101}, ["steps[0].for_each.max_parallel"]),
        ({"on_item_error": "SKIP"}, ["steps[0].for_each.on_item_error"]),
        ({"steps": []}, ["steps[0].for_each.steps"]),
        ({"steps": [{"id": "a", "handler": "nope"}]}, ["steps[0].for_each.steps[0].handler"]),
        ({"steps": [step(depends_on=["x"])]}, ["steps[0].for_each.steps[0].depends_on"]),
        ({"ordering": "GRAPH", "steps": [step(depends_on=["x"])]}, ["steps[0].for_each.steps[0].depends_on"]),
        ({"output": "${ nope }"}, ["steps[0].for_each.output"]),
        ({"name": "x"}, ["steps[0].for_each.name"]),
    ],
)
def test_what_is_wrong_in_it_is_told_with_its_place(fields: dict[str, Any], expected: list[str]) -> None:
    one = each()
    one["for_each"] |= fields
    assert places(workflow(one)) == expected


@pytest.mark.parametrize(
    "fields",
    [
        {"params": {"x": 1}},
        {"timeout": 5},
        {"retry_policy": {"max_attempts": 2}},
        {"delivery": "AT_MOST_ONCE"},
        {"total_timeout": 5},
        {"on_error": "RETRY"},
        {"handler": "transform"},
    ],
)
def test_what_is_said_of_attempts_belongs_to_the_body(fields: dict[str, Any]) -> None:
    (name,) = fields
    assert places(workflow({**each(), **fields})) == [f"steps[0].{name}"]


def test_all_blocks_together_have_so_many_steps() -> None:
    half = [step(f"s{n}") for n in range(249)]
    assert wrong(workflow(each("each", *half), each("other", *half))) == []
    field, message = the_violation(workflow(each("each", *half), each("other", *half, step("one_more"))))
    assert (field, message[:26]) == ("steps[1].for_each.steps", "goes beyond the 500 steps ")


def test_blocks_lie_within_each_other_so_deep() -> None:
    def nested(depth: int) -> dict[str, Any]:
        return each("e", nested(depth - 1) if depth > 1 else step())

    assert wrong(workflow(nested(7))) == []
    assert the_violation(workflow(nested(8)))[1] == "lies too deep: at most 8 blocks lie within each other"


def test_a_graph_around_it_says_what_it_waits_for() -> None:
    inner = each("each", step("x", params={"value": "${ steps.side.output }"}))
    assert wrong(graph(step("side"), {**inner, "depends_on": ["side"]})) == []
    field, message = the_violation(graph(step("side"), inner))
    assert field == "steps[1].for_each.steps[0].params"
    assert message.endswith('add "side" to depends_on')
