"""Hostile texts that errors repeat: callers hear what is wrong, in trailers that every client takes."""

import pytest

from flowkeep.payload import to_struct
from flowkeep.v1 import execution_service_pb2 as executions_pb2
from flowkeep.v1 import workflow_service_pb2 as workflows_pb2
from flowkeep.v1.workflow_pb2 import Step, WorkflowDefinition
from tests.hostile.attacked import Attacked
from tests.hostile.cases import outcome
from tests.integration.stage import step

INVALID = "INVALID_ARGUMENT INVALID_FIELDS"
SERVICES = "/flowkeep.v1.ExecutionService/", "/flowkeep.v1.WorkflowService/"
STRICT = {
    "type": "object",
    "properties": {"e": {"enum": ["🙂" * 1_000]}, "p": {"pattern": "^(" + "ü" * 1_000 + ")$"}},
    "additionalProperties": False,
}
TEXTS = {
    "ASCII": "a",
    "percent signs": "%",
    "line breaks": "\n",
    "bidi": "\u202e",
    "umlauts": "ü",
    "emoji": "🙂",
    "combining": "e\u0301",
    "private use": "\ue000",
    "replacement": "\ufffd",
}


def requests(text: str):
    """Requests with a text wherever errors repeat one: the path, the request, and what must come out."""
    calls, flows = SERVICES
    execute, get = executions_pb2.ExecuteRequest, executions_pb2.GetExecutionRequest
    yield calls + "Execute", execute(workflow=text * 128), "NOT_FOUND WORKFLOW_NOT_FOUND"
    yield calls + "Execute", execute(workflow=text * 5_000), INVALID
    yield calls + "Execute", execute(workflow="strict", input=to_struct({text * 5_000: 1})), INVALID
    many = {f"{text * 300}{number}": 1 for number in range(60)}
    yield calls + "Execute", execute(workflow="strict", input=to_struct(many)), INVALID
    yield calls + "Execute", execute(workflow="strict", input=to_struct({"e": text, "p": text * 100})), INVALID
    yield calls + "Execute", execute(workflow="strict", labels=dict.fromkeys(many, text * 600)), INVALID
    yield calls + "Execute", execute(workflow="strict", tags=[text * 300] * 40), INVALID
    yield calls + "Execute", execute(workflow="strict", request_id=text * 3_000), INVALID
    yield calls + "GetExecution", get(execution_id=text * 3_000), INVALID
    yield calls + "ListExecutions", executions_pb2.ListExecutionsRequest(page_token=text * 900), INVALID
    steps = [Step(id=text * 60 + str(number), handler=text * 60, condition=text * 50) for number in range(20)]
    made = WorkflowDefinition(name=text, steps=steps)
    yield flows + "CreateWorkflow", workflows_pb2.CreateWorkflowRequest(definition=made), INVALID
    definitions = [WorkflowDefinition(name=text * 300, steps=steps[:2])] * 20
    yield flows + "ApplyWorkflows", workflows_pb2.ApplyWorkflowsRequest(definitions=definitions), INVALID


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
async def test_errors_that_repeat_what_was_sent(attacked: Attacked, text: str):
    async with attacked.client() as client:
        await client.apply([{"name": "strict", "steps": [step("a", "transform", value=1)], "input_schema": STRICT}])
    for number, (path, request, right) in enumerate(requests(text)):
        async with attacked.case(f"{number} {path}"):
            answer = await attacked.send(path, request)
            # One character too many of several bytes, or one that names may have, are refused by another rule.
            assert outcome(answer) in (right, INVALID), answer
            assert answer.details
