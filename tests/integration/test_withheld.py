"""What a definition holds is shown to callers that may read workflows, and to nobody else, by no call and no stream."""

from __future__ import annotations

from typing import Any

import asyncpg
import pytest_asyncio

import flowkeep
from flowkeep.definition import definition
from flowkeep.payload import to_struct
from flowkeep.v1 import execution_service_pb2 as executions_pb2
from flowkeep.v1 import step_test_pb2
from flowkeep.v1 import workflow_service_pb2 as workflows_pb2
from flowkeep.v1.comparison_pb2 import CompareExecutionsRequest
from flowkeep.v1.execution_pb2 import EXECUTION_VIEW_FULL, STEP_VIEW_FULL, Breakpoint
from flowkeep.v1.explanation_pb2 import ExplainExecutionRequest, ExplainQueueRequest
from service.api.claims import KNOWN_PERMISSIONS, READ_WORKFLOWS
from service.api.permissions import READ_EXECUTIONS, WRITE_WORKFLOWS
from tests.integration.conftest import Serve
from tests.integration.stage import Served, refusal, step, wait_step
from tests.tokens import claims, jwks, signed

CANARY = "canary-7f3a"
SECRETIVE: dict[str, Any] = {
    "name": "secretive",
    "steps": [
        step("taken", "take", value=CANARY),
        step("choose", "condition", outcomes=[{"name": "other", "when": f"'{CANARY}' == ''"}]),
        step("skipped", "transform", value=CANARY, condition=f"'{CANARY}' == ''"),
        step("later", "transform", value=CANARY, condition="false"),
    ],
    "output": {"size": f"${{ size('{CANARY}') }}"},
}


def metadata(*without: str) -> tuple[tuple[str, str], ...]:
    text = signed(claims(permissions=sorted(KNOWN_PERMISSIONS - {*without})))
    return (("authorization", f"Bearer {text}"),)


MAY_READ, MAY_NOT = metadata(), metadata(READ_WORKFLOWS)


@pytest_asyncio.fixture
async def guarded(serve: Serve, tmp_path: Any) -> Served:
    path = tmp_path / "jwks.json"
    path.write_text(jwks())
    served = await serve(jwt_jwks=str(path))
    waiting = {**SECRETIVE, "name": "waiting", "steps": [*SECRETIVE["steps"], wait_step()]}
    for each in (SECRETIVE, waiting):
        request = workflows_pb2.CreateWorkflowRequest(definition=definition(each))
        answer = await served.workflows.CreateWorkflow(request, metadata=MAY_READ)
        assert CANARY in str(answer)
    return served


async def everything(served: Served, metadata: Any) -> dict[str, Any]:
    """The answers of all calls that tell of executions."""
    pb, call = executions_pb2, served.executions
    request = pb.ExecuteRequest(workflow="secretive", wait=True, view=EXECUTION_VIEW_FULL)
    done = await call.Execute(request, metadata=metadata)
    running = (await call.Execute(pb.ExecuteRequest(workflow="waiting"), metadata=metadata)).execution.execution_id
    execution_id = done.execution.execution_id

    async def watched(**fields: Any) -> list[Any]:
        return [each async for each in call.WatchExecution(pb.WatchExecutionRequest(**fields), metadata=metadata)]

    return {
        "Execute": done,
        "BatchExecute": await call.BatchExecute(
            pb.BatchExecuteRequest(requests=[pb.ExecuteRequest(workflow=each) for each in ("secretive", "absent")]),
            metadata=metadata,
        ),
        "GetExecution": await call.GetExecution(pb.GetExecutionRequest(execution_id=execution_id), metadata=metadata),
        "ListExecutions": await call.ListExecutions(
            pb.ListExecutionsRequest(view=EXECUTION_VIEW_FULL), metadata=metadata
        ),
        "ListSteps": await call.ListSteps(
            pb.ListStepsRequest(execution_id=execution_id, view=STEP_VIEW_FULL), metadata=metadata
        ),
        "GetStep": await call.GetStep(pb.GetStepRequest(execution_id=execution_id, path="taken"), metadata=metadata),
        "CompareExecutions": await call.CompareExecutions(
            CompareExecutionsRequest(execution_id=running, other_execution_id=execution_id), metadata=metadata
        ),
        "reverse": await call.CompareExecutions(
            CompareExecutionsRequest(execution_id=execution_id, other_execution_id=running), metadata=metadata
        ),
        "ExplainExecution": await call.ExplainExecution(
            ExplainExecutionRequest(execution_id=running), metadata=metadata
        ),
        "ExplainQueue": await call.ExplainQueue(ExplainQueueRequest(workflow="waiting"), metadata=metadata),
        "WatchExecution": await watched(execution_id=execution_id),
        "snapshot": await watched(execution_id=execution_id, snapshot=True),
        "Cancel": await call.Cancel(pb.CancelRequest(execution_id=running), metadata=metadata),
    }


async def test_no_call_shows_what_stands_in_a_definition(guarded: Served) -> None:
    for name, answer in (await everything(guarded, MAY_NOT)).items():
        assert CANARY not in str(answer), name
        assert str(answer)
    request = executions_pb2.ListExecutionsRequest(view=EXECUTION_VIEW_FULL)
    for execution in (await guarded.executions.ListExecutions(request, metadata=MAY_NOT)).executions:
        assert execution.definition_withheld
        assert not execution.HasField("definition")
        assert [each.path for each in execution.steps][:4] == ["taken", "choose", "skipped", "later"]
        assert [each.skip_reason for each in execution.steps][:4] == ["", "", *["its condition is false"] * 2]
        assert "definition" not in execution.unreadable
    found = await everything(guarded, MAY_NOT)
    assert found["ListSteps"].definition_withheld
    assert found["GetStep"].definition_withheld
    assert found["CompareExecutions"].definition_withheld
    assert not found["CompareExecutions"].HasField("definition_patch")
    assert [each.skip_reason for each in found["ListSteps"].steps] == ["", "", *["its condition is false"] * 2]


async def test_who_may_read_workflows_sees_it(guarded: Served) -> None:
    found = await everything(guarded, MAY_READ)
    for name in ("Execute", "GetExecution", "ListExecutions", "ListSteps", "GetStep", "snapshot", "WatchExecution"):
        assert CANARY in str(found[name]), name
    assert not found["ListSteps"].definition_withheld
    assert not found["GetStep"].definition_withheld
    assert found["CompareExecutions"].HasField("definition_patch")
    execution = found["GetExecution"].execution
    assert not execution.definition_withheld
    told = [event for each in found["WatchExecution"] for event in each.events.events]
    begun = next(event.step_started for event in told if event.HasField("step_started"))
    assert begun.input == execution.steps[0].input
    assert flowkeep.from_struct(begun.input) == {"value": CANARY}
    assert execution.steps[2].skip_reason == f"its condition is false: '{CANARY}' == ''"


async def test_who_may_only_write_workflows_gets_no_definition_back(guarded: Served) -> None:
    pb, call, text = workflows_pb2, guarded.workflows, definition({**SECRETIVE, "name": "new"})
    made = await call.CreateWorkflow(pb.CreateWorkflowRequest(definition=text), metadata=MAY_NOT)
    request = pb.UpdateWorkflowRequest(workflow="new", definition=text, etag=made.workflow.etag)
    for answer in (made, await call.UpdateWorkflow(request, metadata=MAY_NOT)):
        assert (answer.workflow.name, answer.workflow.HasField("definition")) == ("new", False)
    applied = await call.ApplyWorkflows(pb.ApplyWorkflowsRequest(definitions=[text]), metadata=MAY_NOT)
    assert CANARY not in str(applied)


async def test_why_a_definition_cannot_be_read_is_told_to_who_may(
    guarded: Served, serve: Serve, tmp_path: Any, admin: asyncpg.Connection
) -> None:
    spoilt = "UPDATE workflow_revisions SET document = jsonb_set(document, '{steps,0,id}', to_jsonb($1::text))"
    await admin.execute(spoilt, f"{CANARY} !")
    other = await serve(jwt_jwks=str(tmp_path / "jwks.json"))
    request = executions_pb2.ExecuteRequest(workflow="secretive")
    for caller, is_told in ((MAY_READ, True), (MAY_NOT, False)):
        error = await refusal(other.executions.Execute(request, metadata=caller))
        assert error.reason == "UNREADABLE_RECORD"
        assert ("must" in error.message) is is_told, error.message
        assert error.message.startswith("revision 1 of workflow 'secretive' cannot be read")


async def test_execute_shows_all_to_those_alone_who_may_read_executions(guarded: Served) -> None:
    request = executions_pb2.ExecuteRequest(workflow="secretive", view=EXECUTION_VIEW_FULL)
    caller = metadata(READ_EXECUTIONS)
    error = await refusal(guarded.executions.Execute(request, metadata=caller))
    assert (error.code.name, error.metadata) == ("PERMISSION_DENIED", {"permission": READ_EXECUTIONS})
    request.ClearField("view")
    assert (await guarded.executions.Execute(request, metadata=caller)).created


async def test_a_step_is_tried_by_those_who_may_write_it_and_read_what_it_is_given(guarded: Served) -> None:
    call, pb = guarded.executions.TestStep, step_test_pb2.TestStepRequest
    alone: Any = {"id": "a", "handler": "transform", "params": {"value": CANARY}}
    params: Any = {"value": "mine"}
    own = pb(step=alone)
    for without in (WRITE_WORKFLOWS, "executions.execute"):
        error = await refusal(call(own, metadata=metadata(without)))
        assert (error.code.name, error.metadata) == ("PERMISSION_DENIED", {"permission": without})
    other = pb(workflow="secretive", path="taken", params=params)
    assert (await refusal(call(other, metadata=metadata(WRITE_WORKFLOWS)))).metadata == {"permission": WRITE_WORKFLOWS}
    assert (await call(own, metadata=MAY_NOT)).step.output.string_value == CANARY  # it is the caller's own
    request = executions_pb2.ExecuteRequest(workflow="secretive", wait=True)
    done = await guarded.executions.Execute(request, metadata=MAY_READ)
    lent = pb(path="taken", execution_id=done.execution.execution_id)
    error = await refusal(call(lent, metadata=metadata(READ_EXECUTIONS)))
    assert (error.code.name, error.metadata) == ("PERMISSION_DENIED", {"permission": READ_EXECUTIONS})
    hidden, shown = await call(lent, metadata=MAY_NOT), await call(lent, metadata=MAY_READ)
    assert hidden.definition_withheld
    assert CANARY not in str(hidden)
    assert not shown.definition_withheld
    assert shown.step.input["value"] == CANARY


async def test_who_may_not_write_workflows_gives_no_values_by_hand(guarded: Served) -> None:
    """They could send secrets of steps that come after anywhere, or pass what asks a person."""
    absent, values = "01930000-0000-7000-8000-000000000000", to_struct({"a": 1})
    trial, fork = step_test_pb2.TestStepRequest, executions_pb2.ForkExecutionRequest
    output, skip = fork.GivenOutput(path="a"), executions_pb2.RetryRequest.SkippedStep(path="a")
    calls: list[tuple[Any, Any]] = [
        (guarded.executions.TestStep, trial(workflow="secretive", path="taken", outputs=values)),
        (guarded.executions.TestStep, trial(workflow="secretive", path="taken", variables=values)),
        (guarded.executions.TestStep, trial(workflow="secretive", path="taken", items=values)),
        (guarded.executions.ForkExecution, fork(execution_id=absent, step_path="a", vars=values)),
        (guarded.executions.ForkExecution, fork(execution_id=absent, step_path="a", outputs=[output])),
        (guarded.executions.Retry, executions_pb2.RetryRequest(execution_id=absent, skip=skip)),
    ]
    for call, request in calls:
        error = await refusal(call(request, metadata=metadata(WRITE_WORKFLOWS)))
        assert (error.code.name, error.metadata) == ("PERMISSION_DENIED", {"permission": WRITE_WORKFLOWS}), request


async def test_breakpoints_tell_nothing_of_the_definition_to_those_who_may_not_read_it(guarded: Served) -> None:
    pb, call = executions_pb2, guarded.executions
    running = (await call.Execute(pb.ExecuteRequest(workflow="waiting"), metadata=MAY_NOT)).execution.execution_id
    absent, told = Breakpoint(path="absent"), list[str]()
    for sent in (MAY_NOT, MAY_READ):
        for refused in (
            call.SetBreakpoints(pb.SetBreakpointsRequest(execution_id=running, breakpoints=[absent]), metadata=sent),
            call.Execute(pb.ExecuteRequest(workflow="waiting", breakpoints=[absent]), metadata=sent),
            call.Resume(pb.ResumeRequest(execution_id=running, run_to="absent"), metadata=sent),
        ):
            told.append(str(await refusal(refused)))
    assert ["choose" in each for each in told] == [False] * 3 + [True] * 3
    start = pb.ExecuteRequest(
        workflow="waiting", correlation_id="A", breakpoints=[Breakpoint(path="*", condition="true")]
    )
    for refused in (
        call.SetBreakpoints(
            pb.SetBreakpointsRequest(execution_id=running, breakpoints=start.breakpoints), metadata=MAY_NOT
        ),
        call.Execute(start, metadata=MAY_NOT),
        call.SignalWithStart(pb.SignalWithStartRequest(start=start, name="go"), metadata=MAY_NOT),
    ):
        assert (await refusal(refused)).metadata["permission"] == READ_WORKFLOWS
    assert (await call.Execute(start, metadata=MAY_READ)).created
