"""Of a workflow that cannot be read there is still what its executions say."""

from __future__ import annotations

from msgspec.structs import replace

from service.engine.definition import Call, Repeat
from service.engine.planning.outline import outline
from tests.unit.planner_definitions import each, seconds, sequence, step
from tests.unit.planner_programs import started


def test_the_steps_that_began_stand_in_the_order_of_their_starts_and_items_in_their_step() -> None:
    body = (step("get"), step("put"))
    driver = started(sequence(step("z"), each("all", "[1, 2]", *body), step("last"), timeout=70.0))
    driver.now += seconds(1)
    driver.succeed("z")
    driver.now += seconds(1)
    driver.succeed("all[0].get")
    driver.rows["z"] = replace(driver.rows["z"], handler="other")

    found = outline(driver.stored)

    assert (found.name, found.timeout) == ("test", 70.0)
    first, second = found.root.steps
    assert (first.id, second.id, first.timeout) == ("z", "all", 70.0)
    assert isinstance(first.action, Call) and first.action.handler == "other"
    assert isinstance(second.action, Repeat)
    assert [each.id for each in second.action.body.steps] == ["get", "put"]
    assert found.find("all[1].get") is second.action.body.steps[0]


def test_steps_that_never_started_stand_where_they_ended() -> None:
    driver = started(sequence(step("b"), step("skipped", condition="false"), step("a")))
    driver.now += seconds(1)
    driver.succeed("b")
    assert driver.rows["skipped"].start_time is None
    assert [each.id for each in outline(driver.stored).root.steps] == ["b", "a", "skipped"]
    driver.rows["a"] = replace(driver.rows["a"], start_time=driver.now + seconds(1))
    assert [each.id for each in outline(driver.stored).root.steps] == ["b", "skipped", "a"]
