"""FAULTS H1 to H3 for definitions: what is much work is refused, or done so that others have their turn."""

from collections.abc import Mapping
from typing import Any

from flowkeep.definition import definition
from flowkeep.payload import to_struct
from flowkeep.v1 import execution_service_pb2 as executions_pb2
from flowkeep.v1 import workflow_service_pb2 as workflows_pb2
from tests.hostile import floods
from tests.hostile.attacked import Attacked, token
from tests.hostile.definitions import AT_APPLY, AT_EXECUTE, DEFINITIONS
from tests.integration.calls import Answer
from tests.integration.stage import step

VALIDATE, CREATE = ("/flowkeep.v1.WorkflowService/" + name for name in ("ValidateWorkflow", "CreateWorkflow"))
EXECUTE = "/flowkeep.v1.ExecutionService/Execute"
ONE_STEP = {"steps": [step("a", "transform", value=1)]}


def found(answer: Answer, message: Any) -> str:
    """What a request of a definition gives, as a case names it."""
    if answer.code != "OK":
        return f"{answer.code} {answer.error.message}"
    return "; ".join(f"{each.field} {each.description}" for each in message.FromString(answer.body).violations)


def validation(given: Mapping[str, Any]) -> workflows_pb2.ValidateWorkflowRequest:
    return workflows_pb2.ValidateWorkflowRequest(definition=definition({"name": "costly", **ONE_STEP, **given}))


async def validated(attacked: Attacked, given: Mapping[str, Any]) -> str:
    return found(await attacked.send(VALIDATE, validation(given)), workflows_pb2.ValidateWorkflowResponse)


def is_right(text: str, right: str) -> bool:
    code, _, words = right.partition(" ") if right.startswith("INVALID_ARGUMENT") else ("", "", right)
    return text.startswith(code) and words in text if right else text == ""


async def test_definitions_that_are_much_work(attacked: Attacked):
    attacked.may_grow = 300 << 20  # what is kept of them is bounded by itself
    for case in DEFINITIONS:
        async with attacked.case(case.name):
            assert is_right(text := await validated(attacked, case.given), case.right), text[:300]


async def test_many_large_definitions_at_once(attacked: Attacked):
    attacked.may_grow = 300 << 20
    large = next(case for case in DEFINITIONS if case.name == "lists-480x40")
    async with attacked.beside("8 definitions of 19,200 values at once") as seen:
        for _ in seen.rounds():
            came = await attacked.attacker.run(
                floods.same_calls, attacked.target, VALIDATE, token(), validation(large.given).SerializeToString(), 8
            )
            assert came == {"OK"}


async def test_schemas_that_are_refused(attacked: Attacked):
    attacked.may_grow = 300 << 20
    for case in AT_APPLY:
        async with attacked.case(case.name):
            assert case.right in (text := await validated(attacked, {"input_schema": case.given.schema})), text[:300]


async def test_inputs_that_are_much_work_for_their_schema(attacked: Attacked):
    attacked.may_grow = 300 << 20
    async with attacked.client() as client:
        for case in AT_EXECUTE:
            async with attacked.case(case.name):
                await client.apply([{"name": case.name, **ONE_STEP, "input_schema": case.given.schema}])
                request = executions_pb2.ExecuteRequest(workflow=case.name, input=to_struct(case.given.input))
                answer = await attacked.send(EXECUTE, request)
                if case.right:
                    assert answer.reason == "INVALID_FIELDS", str(answer)[:300]
                    assert case.right in answer.error.message, str(answer)[:300]
                else:
                    assert answer.code == "OK", str(answer)[:300]
