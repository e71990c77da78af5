"""What the FULL view of an execution shows of its steps."""

from flowkeep.v1.execution_pb2 import Execution as ExecutionMessage
from persistence.model import Step, StepState
from service.api.executions import cancel_response, encoded_detail
from service.api.steps import Sight
from tests.unit.planner_programs import sequence, started, step


async def test_a_step_is_shown_in_its_newest_iteration():
    driver = started(sequence(step("a"), step("b")))
    driver.rows["again"] = Step("a", "work", StepState.FAILED, 2, failed_attempts=[{"attempt": 1}])
    shown = await encoded_detail(driver.stored, driver.definition, Sight(traces=False, definition=False))
    message = ExecutionMessage.FromString(shown.message.serialized())
    assert message.run == 1
    assert [(each.path, each.iteration) for each in message.steps] == [("a", 2), ("b", 1)]
    assert message.steps[0].failed_attempts[0].iteration == 2
    receipts = cancel_response(driver.stored, driver.definition).steps
    assert [(each.path, each.iteration) for each in receipts] == [("a", 2), ("b", 1)]
