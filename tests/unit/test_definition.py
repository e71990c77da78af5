"""A definition as a tree of blocks, and the paths of its steps."""

from __future__ import annotations

from service.engine import paths
from service.engine.definition import Block, Call, Definition, Repeat, StepSpec
from service.engine.expressions import Template, compile_value

NOTHING = Template.constant({}, "params")
ITEMS = compile_value("[1, 2]", frozenset())


def call(step_id: str) -> StepSpec:
    return StepSpec(step_id, Call("work", NOTHING), 1.0)


def each(step_id: str, *steps: StepSpec) -> StepSpec:
    return StepSpec(step_id, Repeat(ITEMS, Block(steps)), 1.0)


TREE = Definition("w", Block((call("a"), each("b", call("x"), each("y", call("a"))), call("c"))), 1.0)


def test_a_definition_knows_each_step_by_its_place_in_the_order_of_the_document() -> None:
    assert list(TREE.places) == ["a", "b", "b.x", "b.y", "b.y.a", "c"]
    assert [TREE.positions[place] for place in TREE.places] == [1, 2, 3, 4, 5, 6]
    assert [list(block.by_id) for block in TREE.blocks.values()] == [["a", "b", "c"], ["x", "y"], ["a"]]
    assert list(TREE.blocks) == ["", "b", "b.y"]


def test_the_step_of_an_item_is_found_by_its_path() -> None:
    assert TREE.find("b[7].y[0].a") is TREE.places["b.y.a"]
    assert TREE.find("b[7].nobody") is None


def test_a_path_leads_from_the_root_to_an_item_and_to_its_step() -> None:
    scope = paths.item(paths.join(paths.item("b", 7), "y"), 0)
    assert scope == "b[7].y[0]"
    path = paths.join(scope, "a")
    assert paths.split(path) == (scope, "a")
    assert paths.owner(scope) == ("b[7].y", 0)
    assert (paths.place(path), paths.indexes(path)) == ("b.y.a", (7, 0))
    assert (paths.place("a"), paths.indexes("a"), paths.split("a")) == ("a", (), ("", "a"))
