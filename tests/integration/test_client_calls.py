"""Unary calls against a real gRPC server: what is sent again, what is not, and what comes back as plain Python."""

import asyncio

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

import flowkeep
from flowkeep.v1 import execution_service_pb2 as pb
from flowkeep.v1.event_pb2 import ExecutionFinished
from flowkeep.v1.execution_pb2 import Execution, Failure
from tests.integration.scripted_service import ID, Script, breaking, history, serving, start
from tests.patience import PATIENCE

Code = grpc.StatusCode


async def test_run_gives_the_result_as_plain_python():
    script = Script(breaking(Code.UNAVAILABLE, after=2))
    async with serving(script) as client:
        result = await client.run("onboarding", {"name": "Ada"}, tags=["t"], start_delay="1m")

    assert result == {"total": 3, "tags": []}
    assert type(result["total"]) is int
    (request,) = script.requests
    assert (request.workflow, request.input["name"], request.start_delay.seconds) == ("onboarding", "Ada", 60)


async def test_the_result_of_an_ended_execution_needs_its_last_event_only():
    script = Script()
    async with serving(script) as client:
        assert await client.result(ID) == {"total": 3, "tags": []}

    assert script.watches == [(8, False)]


async def test_the_result_of_a_failed_execution_is_an_error():
    failure = Failure(code="STEP_FAILED", message="HTTP 500", step_path="fetch")
    finished = ExecutionFinished(state=Execution.STATE_TIMED_OUT, failure=failure)
    async with serving(Script(events=history(4, finished))) as client:
        with pytest.raises(flowkeep.ExecutionFailedError, match="TIMED_OUT") as caught:
            await client.result(ID)

    assert (caught.value.execution_id, caught.value.state) == (ID, Execution.STATE_TIMED_OUT)
    assert caught.value.failure == failure


async def test_retries_of_execute_keep_the_request_id():
    script = Script()
    script.refusals = [(Code.UNAVAILABLE, "away"), (Code.CANCELLED, ""), (Code.UNKNOWN, "Stream removed")]
    async with serving(script) as client:
        execution = await client.execute("onboarding")

    ids = {request.request_id for request in script.requests}
    assert len(script.requests) == 4
    assert ids == {execution.request_id} != {""}


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (Code.NOT_FOUND, "no"),
        (Code.RESOURCE_EXHAUSTED, "Received message larger than max"),
        (Code.INTERNAL, "no"),
        (Code.ABORTED, "no"),
    ],
)
async def test_definite_refusals_are_not_retried(code, message):
    script = Script()
    script.refusals = [(code, message)]
    async with serving(script) as client:
        with pytest.raises(flowkeep.FlowkeepError, match=message):
            await client.execute("onboarding", request_id="mine")

    assert [request.request_id for request in script.requests] == ["mine"]


CHANGES = {
    "create": lambda client, **more: client.create_workflow({"name": "w"}, **more),
    "update": lambda client, **more: client.update_workflow("w", {"name": "w"}, **more),
    "apply": lambda client, **more: client.apply({"name": "w"}, **more),
    "delete": lambda client, **more: client.delete_workflow("w", **more),
    "cancel": lambda client, **more: client.cancel(ID, **more),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
async def test_a_change_whose_answer_was_lost_is_sent_again_with_its_request_id(change):
    script = Script()
    script.refusals = [(Code.UNAVAILABLE, "Socket closed"), (Code.ALREADY_EXISTS, "no")] * 2
    async with serving(script) as client:
        for named in ({}, {"request_id": "mine"}):
            with pytest.raises(flowkeep.AlreadyExistsError):
                await change(client, **named)

    made, again, *given = [request.request_id for request in script.requests]
    assert made == again != ""
    assert given == ["mine", "mine"]


async def test_calls_wait_for_a_server_that_is_not_yet_there(tmp_path):
    target = f"unix:{tmp_path}/s"
    script = Script()
    script.refusals = [(Code.ALREADY_EXISTS, "taken")]
    async with flowkeep.Client(target) as client:
        creating = asyncio.create_task(client.create_workflow({"name": "onboarding"}))
        async with asyncio.timeout(PATIENCE):
            while (state := client._channel.get_state()) is not grpc.ChannelConnectivity.TRANSIENT_FAILURE:
                await client._channel.wait_for_state_change(state)
        server, _ = await start(script, target)
        with pytest.raises(flowkeep.AlreadyExistsError):
            await creating
        await server.stop(None)


async def test_the_timeout_bounds_all_tries_together(tmp_path):
    async with asyncio.timeout(PATIENCE), flowkeep.Client(f"unix:{tmp_path}/nobody", timeout=2.0) as client:
        with pytest.raises(flowkeep.UnavailableError):
            await client.get_execution(ID)


async def test_pages_are_fetched_as_needed():
    script = Script()
    async with serving(script) as client:
        async for execution in client.list_executions(workflow="onboarding", states=["FAILED"], order="LONGEST"):
            if execution.execution_id == "1-0":
                break
        assert len(script.requests) == 2

        everything = [execution.execution_id async for execution in client.list_executions()]
        assert everything == ["0-0", "0-1", "1-0", "1-1", "2-0", "2-1"]

    assert script.requests[1].filter.states == [Execution.STATE_FAILED]
    assert script.requests[1].order == pb.ListExecutionsRequest.ORDER_LONGEST
    with pytest.raises(ValueError, match="'FAILD' is none of PENDING, RUNNING"):
        await anext(flowkeep.Client().list_executions(states=["FAILD"]))


async def test_the_token_is_asked_for_each_call():
    seen = []
    tokens = iter(["one", "two", "three"])

    async def scene(script, request, context):
        seen.append(dict(context.invocation_metadata()).get("authorization"))
        await context.abort(Code.UNAVAILABLE if len(seen) < 2 else Code.NOT_FOUND, "no")
        yield  # makes it a generator

    async with serving(Script(scene, scene), token=lambda: next(tokens)) as client:
        with pytest.raises(flowkeep.NotFoundError):
            await anext(client.watch(ID))

    assert seen == ["Bearer one", "Bearer two"]


def status(code, reason, field=""):
    made = status_pb2.Status(code=code.value[0], message=f"{field or reason}: no")
    made.details.add().Pack(error_details_pb2.ErrorInfo(reason=reason, domain="flowkeep.v1"))
    if field:
        violation = error_details_pb2.BadRequest.FieldViolation(field=field, description="no")
        made.details.add().Pack(error_details_pb2.BadRequest(field_violations=[violation]))
    return made


async def test_of_a_batch_only_what_may_succeed_later_is_sent_again():
    """Errors that come then stand at the places of the first batch."""
    away, absent = status(Code.UNAVAILABLE, "DATABASE_UNAVAILABLE"), status(Code.NOT_FOUND, "WORKFLOW_NOT_FOUND")
    refused = status(Code.INVALID_ARGUMENT, "INVALID_FIELDS", "requests[1].input")
    script = Script()
    script.batches = [[None, absent, away, away, away], [away, refused, None], [None]]
    requests = [flowkeep.execute_request("w", request_id=str(n)) for n in range(5)]
    async with serving(script) as client:
        outcomes = await client.batch_execute(requests)

    sent = [[request.request_id for request in each.requests] for each in script.requests]
    assert sent == [["0", "1", "2", "3", "4"], ["2", "3", "4"], ["2"]]
    assert [isinstance(each, pb.ExecuteResponse) for each in outcomes] == [True, False, True, False, True]
    assert (outcomes[1].code, outcomes[1].reason) == (Code.NOT_FOUND, "WORKFLOW_NOT_FOUND")
    assert outcomes[3].violations == [("requests[3].input", "no")]
    assert outcomes[3].message == "requests[3].input: no"


@pytest.mark.parametrize(("requests", "calls"), [([("w", "r")], 2), ([("w", "r"), ("w", "")], 1)])
async def test_a_batch_is_sent_again_if_each_of_it_has_a_request_id(requests, calls):
    script = Script()
    script.refusals = [(Code.CANCELLED, "")]
    sent = [pb.ExecuteRequest(workflow=workflow, request_id=request_id) for workflow, request_id in requests]
    async with serving(script) as client:
        outcome = await asyncio.gather(client.batch_execute(sent), return_exceptions=True)

    assert len(script.requests) == calls
    assert isinstance(outcome[0], list if calls == 2 else flowkeep.FlowkeepError)


async def test_a_batch_gives_what_it_knows_when_its_time_is_over():
    away = status(Code.UNAVAILABLE, "DATABASE_UNAVAILABLE")
    script = Script()
    script.batches = [[None, away]] * 50
    async with serving(script, timeout=4.0) as client:
        started, lost = await client.batch_execute([flowkeep.execute_request("w")] * 2)

    assert started.created
    assert isinstance(lost, flowkeep.UnavailableError)
