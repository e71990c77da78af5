"""What the FULL view of an execution shows of its steps."""

from dataclasses import replace as replaced

import pytest
from msgspec.structs import replace

from flowkeep.v1.execution_pb2 import Execution as ExecutionMessage
from flowkeep.v1.workflow_pb2 import WorkflowDefinition
from persistence.model import ExecutionDetail, Step, StepState
from service.api.definitions import EncodedDefinitions
from service.api.executions import STEPS_SHOWN, cancel_response, encoded_detail
from service.api.steps import Sight
from service.engine.ids import uuid7
from service.engine.slices import SLICE
from service.engine.steps import first_steps
from tests.unit.planner_definitions import each, sequence, step
from tests.unit.planner_programs import Driver, started

HIDDEN = Sight(traces=False, definition=False)


async def test_a_definition_is_encoded_once_for_the_executions_that_run_it() -> None:
    driver = started(sequence(step("a")))
    definition, definitions = replaced(driver.definition, document={"name": "one"}), EncodedDefinitions()
    execution = driver.stored.execution
    first = await definitions.of(execution, definition)
    assert WorkflowDefinition.FromString(first).name == "one"
    assert await definitions.of(replace(execution, id=uuid7()), definition) is first
    definition = replaced(definition, document={"name": "two"})
    for other in (replace(execution, revision=execution.revision + 1), replace(execution, workflow_id=uuid7())):
        assert WorkflowDefinition.FromString(await definitions.of(other, definition)).name == "two"


async def test_a_step_is_shown_in_its_newest_iteration():
    driver = started(sequence(step("a"), step("b")))
    driver.rows["again"] = Step("a", "work", StepState.FAILED, 2, failed_attempts=[{"attempt": 1}])
    shown = await encoded_detail(driver.stored, driver.definition, HIDDEN, EncodedDefinitions())
    message = ExecutionMessage.FromString(shown.message.serialized())
    assert message.run == 1
    assert [(each.path, each.iteration) for each in message.steps] == [("a", 2), ("b", 1)]
    assert message.steps[0].failed_attempts[0].iteration == 2
    receipts = (await cancel_response(driver.stored, driver.definition)).steps
    assert [(each.path, each.iteration) for each in receipts] == [("a", 2), ("b", 1)]


def of_items(count: int) -> Driver:
    """An execution with two steps for each item, which has ended, and one more."""
    items = each("all", "input.rows", step("a", condition="false"), step("b", condition="false"))
    return started(sequence(items, step("last", condition="false")), {"rows": list(range(count))})


def shuffled(driver: Driver) -> ExecutionDetail:
    """What a store may give of it: the order of its steps is that of their paths."""
    return replace(driver.stored, steps=sorted(driver.stored.steps, key=lambda row: row.key))


@pytest.mark.parametrize(("items", "is_more"), [(499, False), (500, True), (1_100, True)])
async def test_the_first_steps_are_shown_and_whether_there_are_more(items: int, is_more: bool) -> None:
    driver = of_items(items)
    first = ["all", *(f"all[{n}].{step_id}" for n in range(items) for step_id in "ab"), "last"][:STEPS_SHOWN]
    shown = await encoded_detail(shuffled(driver), driver.definition, HIDDEN, EncodedDefinitions())
    message = ExecutionMessage.FromString(shown.message.serialized())
    assert ([each.path for each in message.steps], message.steps_omitted) == (first, is_more)
    receipt = await cancel_response(shuffled(driver), driver.definition)
    assert ([each.path for each in receipt.steps], receipt.steps_omitted) == (first, is_more)


def test_the_first_of_many_steps_are_found_in_pieces() -> None:
    driver = of_items(1_100)
    pieces = list(first_steps(driver.definition, shuffled(driver), 10))
    assert sum(pieces) > 4 * SLICE
    assert max(pieces) < SLICE
