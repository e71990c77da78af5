"""FAULTS H2 and H3: a payload is refused, or it comes back as it was, wherever it can be read."""

from typing import Any

from google.protobuf.struct_pb2 import Struct

from flowkeep.channel import call_metadata
from flowkeep.payload import from_struct
from flowkeep.requests import list_request
from flowkeep.v1 import execution_service_pb2 as executions_pb2
from flowkeep.v1 import workflow_service_pb2 as workflows_pb2
from flowkeep.v1.event_pb2 import ExecutionFinished
from flowkeep.v1.execution_pb2 import EXECUTION_VIEW_FULL, Execution
from flowkeep.v1.execution_service_pb2_grpc import ExecutionServiceStub
from tests.hostile.attacked import ECHO, Attacked, token
from tests.hostile.cases import Case
from tests.hostile.shapes import KEPT, NUMBERS, REFUSED, SHAPES, TEXTS, TWICE, items, member, text
from tests.integration.calls import Answer, field_bytes
from tests.integration.stage import step

SERVICE = "/flowkeep.v1.ExecutionService/"
EXECUTE = SERVICE + "Execute"
CREATE, UPDATE = ("/flowkeep.v1.WorkflowService/" + name for name in ("CreateWorkflow", "UpdateWorkflow"))
WAITED = executions_pb2.ExecuteRequest(workflow=ECHO, wait=True, view=EXECUTION_VIEW_FULL).SerializeToString()


def is_refused(answer: Answer) -> bool:
    """Whether a call was refused for what is in its request."""
    return f"{answer.code} {answer.reason}" in (
        "INVALID_ARGUMENT INVALID_FIELDS",
        "INVALID_ARGUMENT MALFORMED_REQUEST",
    )


async def read(attacked: Attacked, execution_id: str) -> list[Execution]:
    """The execution as Get, List and the snapshot of a watch show it."""
    get = executions_pb2.GetExecutionRequest(execution_id=execution_id)
    got = await attacked.send(SERVICE + "GetExecution", get)
    listing = list_request(execution_id_prefix=execution_id, view=EXECUTION_VIEW_FULL)
    listed = await attacked.send(SERVICE + "ListExecutions", listing)
    snapshot = executions_pb2.WatchExecutionRequest(execution_id=execution_id, snapshot=True)
    watched = await attacked.send(SERVICE + "WatchExecution", snapshot)
    return [
        executions_pb2.GetExecutionResponse.FromString(got.body).execution,
        *executions_pb2.ListExecutionsResponse.FromString(listed.body).executions,
        executions_pb2.WatchExecutionResponse.FromString(watched.body).snapshot.execution,
    ]


async def told_at_the_end(attacked: Attacked, execution_id: str) -> ExecutionFinished:
    """What the last event tells."""
    stub: Any = ExecutionServiceStub(attacked.channel)
    request = executions_pb2.WatchExecutionRequest(execution_id=execution_id)
    last = ExecutionFinished()
    async for response in stub.WatchExecution(request, metadata=call_metadata(token())):
        last = response.events.events[-1].finished if response.HasField("events") else last
    return last


def bits(value: Struct) -> bytes:
    """A payload so that -0 differs from 0."""
    return value.SerializeToString(deterministic=True)


async def sent(attacked: Attacked, payload: bytes, right: Any) -> None:
    """Execute with this input, and assert that it is refused or kept."""
    answer = await attacked.send(EXECUTE, WAITED + field_bytes(3, payload))
    if right == REFUSED:
        assert is_refused(answer), str(answer)
        return
    assert answer.code == "OK", str(answer)
    execution = executions_pb2.ExecuteResponse.FromString(answer.body).execution
    expected = Struct.FromString(payload)
    shown = [execution, *await read(attacked, execution.execution_id)]
    assert [each.state for each in shown] == [Execution.STATE_COMPLETED] * 4, str(execution.failure)
    results = [each.result for each in shown] + [(await told_at_the_end(attacked, execution.execution_id)).result]
    for value in [each.input for each in shown] + [each.struct_value for each in results]:
        if right == KEPT:
            assert bits(value) == bits(expected)
        else:
            assert from_struct(value) == right


async def test_payloads_of_every_depth_and_width(attacked: Attacked):
    for case in SHAPES + TWICE:
        async with attacked.case(case.name):
            await sent(attacked, case.given, case.right)


async def test_numbers_and_texts_come_back_as_they_were(attacked: Attacked):
    for case in [*NUMBERS, *(Case(each.name, text(each.given), each.right) for each in TEXTS)]:
        async with attacked.case(case.name):
            payload = member("k", case.given) + member("l", items([case.given, items([case.given])]))
            await sent(attacked, payload, case.right)


async def test_keys_come_back_as_they_were(attacked: Attacked):
    for case in TEXTS:
        async with attacked.case(case.name):
            entry = field_bytes(1, field_bytes(1, case.given) + field_bytes(2, text(b"v")))
            await sent(attacked, entry + member("inner", field_bytes(5, entry)), case.right)
    twins = member("\u00e9", text(b"NFC")) + member("e\u0301", text(b"NFD"))
    await sent(attacked, twins, KEPT)


async def test_labels_come_back_as_they_were(attacked: Attacked):
    for case in TEXTS:
        async with attacked.case(case.name):
            label = field_bytes(6, field_bytes(1, b"k" + case.given) + field_bytes(2, case.given))
            texts = field_bytes(5, case.given) + label + field_bytes(8, case.given)
            answer = await attacked.send(EXECUTE, WAITED + texts)
            if case.right == REFUSED:
                assert is_refused(answer), str(answer)
                continue
            assert answer.code == "OK", str(answer)
            execution_id = executions_pb2.ExecuteResponse.FromString(answer.body).execution.execution_id
            value = case.given.decode()
            for shown in await read(attacked, execution_id):
                assert (list(shown.tags), dict(shown.labels)) == ([value], {"k" + value: value})
                assert shown.correlation_id == value


async def test_a_definition_that_is_kept_can_be_read(attacked: Attacked):
    """Its own levels and values count beside those of what it holds; so only that none breaks what reads it."""
    async with attacked.client() as client:
        await client.apply([{"name": "shaped", "steps": [step("a", "transform", value=1)]}])
        for case in SHAPES + TWICE:
            async with attacked.case(case.name):
                params = field_bytes(4, member("value", field_bytes(5, case.given)))
                definition = field_bytes(4, field_bytes(1, b"a") + field_bytes(3, b"transform") + params)
                answer = await attacked.send(UPDATE, field_bytes(1, b"shaped") + field_bytes(2, definition))
                assert answer.code == "OK" or is_refused(answer), str(answer)
                if answer.code == "OK":
                    kept = workflows_pb2.UpdateWorkflowResponse.FromString(answer.body).workflow
                    read_again = await client.get_workflow("shaped")
                    assert bits(read_again.definition.steps[0].params) == bits(kept.definition.steps[0].params)
                    listed = client.list_workflows(name_prefix="shaped", full=True)
                    assert [each.name async for each in listed] == ["shaped"]


async def test_what_a_step_makes_deeper_fails_the_step_and_can_be_read(attacked: Attacked):
    async with attacked.client() as client:
        deeper = step("deeper", "transform", expression="{'outer': input}")
        await client.apply([{"name": "deeper", "steps": [deeper], "output": "${ steps.deeper.output }"}])
    for case, state in ((SHAPES[2], Execution.STATE_COMPLETED), (SHAPES[3], Execution.STATE_FAILED)):
        request = executions_pb2.ExecuteRequest(workflow="deeper", wait=True)
        answer = await attacked.send(EXECUTE, request.SerializeToString() + field_bytes(3, case.given))
        execution = executions_pb2.ExecuteResponse.FromString(answer.body).execution
        assert {shown.state for shown in await read(attacked, execution.execution_id)} == {state}, case.name
