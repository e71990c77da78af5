"""Who calls, and what each caller sees: what belongs to others and what does not exist answer alike."""

from typing import Any

import grpc
import pytest
import pytest_asyncio

import flowkeep
from flowkeep.payload import from_value, to_struct
from flowkeep.v1 import execution_service_pb2 as executions_pb2
from flowkeep.v1 import workflow_service_pb2 as workflows_pb2
from flowkeep.v1.execution_pb2 import EXECUTION_VIEW_FULL
from service.api.permissions import PERMISSIONS
from tests.integration.calls import (
    BY_BULK,
    BY_EXECUTION,
    BY_NEITHER,
    BY_TASK,
    BY_WORKFLOW,
    METHODS,
    NOBODYS,
    call,
    contents,
    name_of,
    valid,
)
from tests.integration.credentials import ALL, AUDIENCE, ISSUER, OWN, PUBLIC_PEM, bad_credentials, bearer, token
from tests.integration.stage import made, step, wait_step

NOBODY = (NOBODYS, "", NOBODYS)


@pytest_asyncio.fixture
async def guarded(serve, tmp_path):
    """A server that knows callers by tokens."""
    key_file = tmp_path / "key.pem"
    key_file.write_bytes(PUBLIC_PEM)
    return await serve(jwt_key_file=key_file, jwt_issuer=ISSUER, jwt_audience=AUDIENCE)


async def started(served, **claims):
    """A workflow with an execution of the caller that has come to wait: its id, its name, id of the execution."""
    async with served.client_with(token(**claims)) as client:
        name = await made(client, wait_step())
        execution_id = (await client.execute(name)).execution_id
        await anext(event async for event in client.watch(execution_id) if event.HasField("step_waiting"))
        return (await client.get_workflow(name)).workflow_id, name, execution_id


async def answers(served, path, workflow, execution_id, metadata):
    return await call(served.channel, path, valid(path, workflow, execution_id), metadata)


async def one_answer(served, path, things, metadata):
    """The one answer that a caller gets for each of these things."""
    found = [await answers(served, path, workflow_id, id, metadata) for workflow_id, _, id in things]
    shown = {each.without(workflow_id, id) for each, (workflow_id, _, id) in zip(found, things, strict=True)}
    assert len(shown) == 1, (path, shown)
    return found[0]


def test_every_rpc_has_a_permission_and_a_row():
    assert METHODS.keys() == PERMISSIONS.keys()
    assert {name_of(path) for path in METHODS} == {*BY_WORKFLOW, *BY_EXECUTION, *BY_TASK, *BY_BULK, *BY_NEITHER}


async def test_who_is_not_known_learns_nothing(guarded, database_dsn):
    own = await started(guarded)
    foreign = await started(guarded, org="evil", sub="mallory")
    before = await contents(database_dsn)
    texts = set()
    for what, metadata in bad_credentials().items():
        for path in METHODS:
            answer = await one_answer(guarded, path, (own, foreign, NOBODY), metadata)
            assert (answer.code, answer.reason) == ("UNAUTHENTICATED", "INVALID_TOKEN"), (what, path, answer)
            texts.add(answer.error.message)
    assert texts - {"the token is not valid"} == {
        "the token has expired",
        "the call needs metadata `authorization: Bearer <token>`",
    }
    assert await contents(database_dsn) == before


async def test_who_lacks_the_permission_learns_nothing(guarded, database_dsn):
    own = await started(guarded)
    foreign = await started(guarded, org="evil", sub="mallory")
    before = await contents(database_dsn)
    for path, permission in PERMISSIONS.items():
        for permissions in ([p for p in ALL if p != permission], [], [permission + ".x", permission.upper(), "*", 1]):
            metadata = bearer(token(permissions=permissions))
            answer = await one_answer(guarded, path, (own, foreign, NOBODY), metadata)
            assert (answer.code, answer.reason) == ("PERMISSION_DENIED", "PERMISSION_MISSING"), (path, answer)
            assert answer.error.metadata == {"permission": permission}
    assert await contents(database_dsn) == before


async def test_what_belongs_to_others_is_as_what_does_not_exist(guarded, database_dsn):
    workflow_id, name, execution_id = await started(guarded)
    before = await contents(database_dsn)
    strangers: dict[str, dict[str, Any]] = {
        "other org": {"org": "evil", "permissions": ALL},
        "other org, other subject": {"org": "evil", "sub": "m"},
    }
    same_org: dict[str, dict[str, Any]] = {"other owner": {"sub": "bob"}, "no subject in common": {"sub": "alice "}}
    for what, claims in (strangers | same_org).items():
        metadata = bearer(token(**claims))
        for path in METHODS:
            pairs = []
            if name_of(path) in BY_EXECUTION:
                pairs = [(execution_id, NOBODYS)]
            elif name_of(path) in BY_WORKFLOW and what in strangers:
                pairs = [(workflow_id, NOBODYS), (name, "absent")]
            for foreign, absent in pairs:
                theirs = await answers(guarded, path, foreign, foreign, metadata)
                nobodys = await answers(guarded, path, absent, absent, metadata)
                assert theirs.code == "NOT_FOUND", (what, path, theirs)
                assert theirs.without(foreign) == nobodys.without(absent), (what, path)
    assert await contents(database_dsn) == before

    # The same requests of the owner all do their work, whatever destroys last.
    unmade = (*BY_TASK, *BY_BULK, "EditStepInput", "EditVariables")  # it is not held
    mine = [path for path in METHODS if name_of(path) not in unmade]
    destroying = ["Terminate", "Cancel", "Retry", "DeleteWorkflow"]
    for path in sorted(mine, key=lambda path: [name_of(path) == each for each in reversed(destroying)]):
        request = valid(path, name, execution_id)
        if name_of(path) == "DeleteWorkflow":
            request.force = True
        assert (await call(guarded.channel, path, request, bearer(token()))).code == "OK", path


async def test_who_may_not_write_workflows_moves_no_secret_by_an_edit(guarded):
    call = {"id": "a", "handler": "call_api", "params": {"url": "http://x/", "auth": {"bearer": "${ secret('crm') }"}}}
    async with guarded.client_with(token()) as client:
        name = await made(client, call)
        execution_id = (await client.execute(name, breakpoints=["a"])).execution_id
    elsewhere = {"url": "http://elsewhere/", "auth": {"bearer": "${ secret('crm') }"}}
    permissions = [each for each in ALL if each != "workflows.write"]
    async with guarded.client_with(token(permissions=permissions)) as client:
        with pytest.raises(flowkeep.InvalidArgumentError, match=r"workflows\.write"):
            await client.edit_step_input(execution_id, "a", elsewhere)
        await client.cancel(execution_id)
        with pytest.raises(flowkeep.InvalidArgumentError, match=r"workflows\.write"):
            await client.retry(execution_id, edit=("a", elsewhere))


async def test_lists_hold_what_is_ones_own(guarded):
    _, name, execution_id = await started(guarded)
    foreign = await started(guarded, org="evil", sub="mallory")
    bobs = await started(guarded, sub="bob")
    for claims, workflows, executions in (
        ({}, {name, bobs[1]}, {execution_id}),
        ({"sub": "bob"}, {name, bobs[1]}, {bobs[2]}),
        ({"sub": "carol"}, {name, bobs[1]}, set()),
        ({"sub": "carol", "permissions": ALL}, {name, bobs[1]}, {execution_id, bobs[2]}),
        ({"org": "evil"}, {foreign[1]}, set()),
        ({"org": "evil", "permissions": ALL}, {foreign[1]}, {foreign[2]}),
        ({"org": "ACME", "permissions": ALL}, set(), set()),
    ):
        async with guarded.client_with(token(**claims)) as client:
            assert {each.name async for each in client.list_workflows(full=True)} == workflows, claims
            assert {each.execution_id async for each in client.list_executions()} == executions, claims
        request = executions_pb2.ListExecutionsRequest(count_total=True)
        page = await guarded.executions.ListExecutions(request, metadata=bearer(token(**claims)))
        assert page.total_size == len(executions), claims
    for where in (
        {"workflow": foreign[0]},
        {"workflow": foreign[1]},
        {"owner": "mallory"},
        {"execution_id_prefix": foreign[2]},
    ):
        for permissions in (OWN, ALL):
            async with guarded.client_with(token(permissions=permissions)) as client:
                assert [each async for each in client.list_executions(**where)] == []


@pytest.mark.usefixtures("prompt")
async def test_all_owners_lifts_the_isolation_within_the_org(guarded):
    _, _, execution_id = await started(guarded)
    async with guarded.client_with(token(sub="admin", permissions=ALL)) as admin:
        assert (await admin.get_execution(execution_id)).owner == "alice"
        assert (await anext(admin.watch(execution_id))).seq == 1
        await admin.cancel(execution_id)
        assert (await admin.get_execution(execution_id)).failure.message
    _, _, foreign = await started(guarded, org="evil")
    async with guarded.client_with(token(sub="admin", permissions=ALL)) as admin:
        with pytest.raises(flowkeep.NotFoundError):
            await admin.get_execution(foreign)


async def test_a_stack_trace_is_for_those_who_may_see_it_and_others_learn_that_there_is_one(guarded):
    async with guarded.client_with(token()) as client:
        name = await made(client, step("a", "crash"))
        execution_id = (await client.execute(name, wait=True)).execution_id
        events = [event async for event in client.watch(execution_id)]
    for permissions, withheld in ((OWN, True), ([*OWN, "executions.debug"], False)):
        async with guarded.client_with(token(permissions=permissions)) as client:
            shown = (await client.get_execution(execution_id)).steps[0]
        for failure in (shown.failure, shown.failed_attempts[0].failure):
            assert (failure.stack_trace_withheld, "LookupError: here" in failure.stack_trace) == (
                withheld,
                not withheld,
            )
    for failure in (events[-1].finished.failure, events[-2].step_failed.failure):
        assert (failure.stack_trace_withheld, failure.stack_trace) == (False, "")


async def test_no_expression_sees_a_stack_trace(guarded):
    steps = [
        step("a", "crash", on_error="CONTINUE", retry_policy={"max_attempts": 2, "initial_interval": 0.01}),
        step("b", "transform", condition="has(steps.a.error.stack_trace)", value="seen"),
        step("c", "transform", expression="[steps, steps.a.error]", assign={"error": "steps.a.error"}),
        step("d", "transform", value={"text": "${ steps.a.error } ${ vars }", "all": "${ steps }"}),
    ]
    async with guarded.client_with(token()) as client:
        name = await made(client, *steps, output="${ steps }")
        execution = await client.execute(name, wait=True, view=EXECUTION_VIEW_FULL)
        events = [event async for event in client.watch(execution.execution_id)]
        listed = await client.list_page()
    result = from_value(execution.result)
    assert result["a"]["error"]["code"] == "HANDLER_ERROR"
    assert result["b"]["state"] == "SKIPPED"
    assert "LookupError: here" not in f"{execution} {events} {listed}"


async def test_page_tokens_belong_to_their_caller(guarded):
    for claims in ({}, {"sub": "bob"}, {"org": "evil"}):
        for _ in range(2):
            await started(guarded, **claims)
    lists = (
        (guarded.executions.ListExecutions, executions_pb2.ListExecutionsRequest, ("bob", "evil", "admin")),
        (guarded.workflows.ListWorkflows, workflows_pb2.ListWorkflowsRequest, ("evil",)),
    )
    callers: dict[str, dict[str, Any]] = {"bob": {"sub": "bob"}, "evil": {"org": "evil"}, "admin": {"permissions": ALL}}
    for method, request, others in lists:
        page_token = (await method(request(page_size=1), metadata=bearer(token()))).next_page_token
        assert await method(request(page_token=page_token), metadata=bearer(token()))
        for other in others:
            with pytest.raises(grpc.aio.AioRpcError) as error:
                await method(request(page_token=page_token), metadata=bearer(token(**callers[other])))
            assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert "page_token" in str(error.value.details())


async def test_names_and_request_ids_of_two_orgs_are_independent(guarded):
    found = []
    for org in ("acme", "evil"):
        async with guarded.client_with(token(org=org)) as client:
            workflow = await client.create_workflow({"name": "same", "steps": [step("a")]})
        request = executions_pb2.ExecuteRequest(workflow="same", request_id="r", input=to_struct({"org": org}))
        first = await guarded.executions.Execute(request, metadata=bearer(token(org=org)))
        response = await guarded.executions.Execute(request, metadata=bearer(token(org=org)))
        assert (first.created, response.created) == (True, False)
        found.append((workflow.workflow_id, response.execution.execution_id))
    assert len({each for pair in found for each in pair}) == 4
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await guarded.executions.Execute(
            executions_pb2.ExecuteRequest(workflow="same", request_id="r", input=to_struct({"org": "acme"})),
            metadata=bearer(token(sub="bob")),
        )
    assert error.value.code() is grpc.StatusCode.ALREADY_EXISTS
    assert found[0][1] not in str(error.value)
