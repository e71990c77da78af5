"""WorkflowService from end to end: what is created, changed and deleted, and what is refused."""

import asyncio

import grpc
import pytest

import flowkeep
from flowkeep.definition import definition, document
from flowkeep.v1 import workflow_service_pb2 as pb
from flowkeep.v1.handler_pb2 import Handler
from flowkeep.v1.workflow_pb2 import WORKFLOW_VIEW_BASIC, WORKFLOW_VIEW_FULL, WORKFLOW_VIEW_UNSPECIFIED
from flowkeep.v1.workflow_service_pb2 import ApplyWorkflowsResponse
from tests.integration.stage import eventually, made, refusal, step, wait_step

Outcome = ApplyWorkflowsResponse.Outcome
NOBODYS = "01930000-0000-7000-8000-000000000000"
RICH = {
    "name": "onboarding",
    "description": "Welcomes a customer — in every language ✓.",
    "ordering": "GRAPH",
    "timeout": "1h30m",
    "tags": ["crm", "é"],
    "labels": {"team": "growth"},
    "input_schema": {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]},
    "default_priority": -7,
    "output": {"sum": "${steps.b.output}", "nothing": None, "list": [1, 2.5, True]},
    "steps": [
        {
            "id": "a",
            "display_name": "First",
            "handler": "call_api",
            "params": {"url": "https://example.com", "json": {"x": "${input.n + 1}", "deep": [[[{}]]]}},
            "assign": {"v": "result.x * 2"},
            "timeout": "0.25s",
            "retry_policy": {
                "max_attempts": 5,
                "initial_interval": "0.01s",
                "backoff_coefficient": 1.5,
                "max_interval": "7d",
                "jitter": 0,
                "non_retryable_codes": ["HTTP_STATUS_4XX"],
            },
            "on_error": "CONTINUE",
            "total_timeout": "1d",
        },
        {
            "id": "b",
            "handler": "transform",
            "params": {"expression": "vars.v"},
            "depends_on": ["a"],
            "condition": "input.n > 0",
        },
        {
            "id": "c",
            "handler": "call_api",
            "params": {"url": "https://example.com"},
            "delivery": "AT_MOST_ONCE",
        },
    ],
}


async def test_what_was_created_is_returned_whole(client):
    created = await client.create_workflow(RICH)

    assert (created.name, created.revision, created.updated_by) == ("onboarding", 1, "developer")
    assert created.create_time == created.update_time
    assert document(created.definition) == RICH
    for reference in (created.workflow_id, "onboarding"):
        assert await client.get_workflow(reference) == created
        assert await client.get_workflow(reference, revision=1) == created


async def test_minus_zero_of_any_caller_is_kept_as_zero(served):
    wanted = definition(
        {
            "name": "w",
            "steps": [step("a", "call_api", retry_policy={"jitter": 0}, url="https://example.com", json=0)],
            "output": 0,
        }
    )
    sent = type(wanted)()
    sent.CopyFrom(wanted)
    sent.output.number_value = sent.steps[0].retry_policy.jitter = -0.0
    sent.steps[0].retry_policy.backoff_coefficient = -0.0
    sent.steps[0].params.fields["json"].number_value = -0.0
    await served.workflows.CreateWorkflow(pb.CreateWorkflowRequest(definition=sent))
    assert (await served.client.get_workflow("w")).definition == wanted


async def test_a_name_is_taken_once(client):
    await made(client, step("a"), name="taken")
    with pytest.raises(flowkeep.AlreadyExistsError) as error:
        await made(client, step("b"), name="taken")
    assert (error.value.reason, error.value.metadata) == ("WORKFLOW_NAME_TAKEN", {"name": "taken"})


async def test_of_many_creations_with_one_name_one_succeeds(client):
    results = await asyncio.gather(*(made(client, step("a"), name="race") for _ in range(16)), return_exceptions=True)
    assert results.count("race") == 1
    assert sum(isinstance(result, flowkeep.AlreadyExistsError) for result in results) == 15


async def test_what_does_not_exist_is_not_found(client):
    await made(client, step("a"), name="kept")
    for reference, revision, reason in (
        ("absent", 0, "WORKFLOW_NOT_FOUND"),
        ("absent", 3, "WORKFLOW_NOT_FOUND"),
        (NOBODYS, 0, "WORKFLOW_NOT_FOUND"),
        ("KEPT", 0, "WORKFLOW_NOT_FOUND"),
        ("kept", 2, "REVISION_NOT_FOUND"),
        ("kept", 2**31 - 1, "REVISION_NOT_FOUND"),
    ):
        with pytest.raises(flowkeep.NotFoundError) as error:
            await client.get_workflow(reference, revision=revision)
        metadata = {"workflow": reference} | ({"revision": str(revision)} if "REVISION" in reason else {})
        assert (error.value.reason, error.value.metadata) == (reason, metadata)


async def test_a_list_holds_all_in_pages_newest_first(served):
    names = [await made(served.client, step("a"), name=f"w{number}") for number in range(7)]

    pages, token = [], ""
    while True:
        page = await served.workflows.ListWorkflows(pb.ListWorkflowsRequest(page_size=3, page_token=token))
        pages.append([workflow.name for workflow in page.workflows])
        token = page.next_page_token
        if not token:
            break

    assert pages == [names[:3:-1], names[3:0:-1], names[:1]]


async def test_the_size_of_a_page_is_clamped(served):
    await asyncio.gather(*(made(served.client, step("a")) for _ in range(203)))
    for asked, given in ((0, 50), (1, 1), (200, 200), (201, 200), (2**31 - 1, 200)):
        page = await served.workflows.ListWorkflows(pb.ListWorkflowsRequest(page_size=asked))
        assert (len(page.workflows), bool(page.next_page_token)) == (given, True)


async def test_a_list_is_filtered(client):
    await made(client, step("a"), name="billing", tags=["nightly", "us"])
    await made(client, step("a"), name="crmXexport")
    await made(client, step("a"), name="crm-export", tags=["eu"])
    await made(client, step("a"), name="crm_import", tags=["eu", "nightly"])
    for where, found in (
        ({}, ["crm_import", "crm-export", "crmXexport", "billing"]),
        ({"name_prefix": "crm"}, ["crm_import", "crm-export", "crmXexport"]),
        ({"name_prefix": "crm_"}, ["crm_import"]),
        ({"name_prefix": "%"}, []),
        ({"name_prefix": "crm-export"}, ["crm-export"]),
        ({"name_prefix": "CRM"}, []),
        ({"tags": ["nightly"]}, ["crm_import", "billing"]),
        ({"tags": ["nightly", "eu"]}, ["crm_import"]),
        ({"tags": ["night"]}, []),
        ({"tags": ['"]'], "name_prefix": "b"}, []),
        ({"tags": ["nightly"], "name_prefix": "b"}, ["billing"]),
    ):
        assert [workflow.name async for workflow in client.list_workflows(**where)] == found, where


async def test_a_list_shows_definitions_on_demand(served):
    await served.client.create_workflow(RICH)
    for view, shown in ((WORKFLOW_VIEW_UNSPECIFIED, False), (WORKFLOW_VIEW_BASIC, False), (WORKFLOW_VIEW_FULL, True)):
        (workflow,) = (await served.workflows.ListWorkflows(pb.ListWorkflowsRequest(view=view))).workflows
        assert workflow.HasField("definition") is shown
        assert (workflow.name, workflow.revision, bool(workflow.etag)) == ("onboarding", 1, True)


async def test_a_page_token_belongs_to_its_filter(served):
    for _ in range(3):
        await made(served.client, step("a"), tags=["x"])
    page = await served.workflows.ListWorkflows(pb.ListWorkflowsRequest(page_size=1, tags=["x"]))
    same = pb.ListWorkflowsRequest(page_size=2, tags=["x"], view=WORKFLOW_VIEW_FULL, page_token=page.next_page_token)
    other = pb.ListWorkflowsRequest(page_size=1, page_token=page.next_page_token)

    assert len((await served.workflows.ListWorkflows(same)).workflows) == 2
    error = await refusal(served.workflows.ListWorkflows(other))
    assert error.code is grpc.StatusCode.INVALID_ARGUMENT
    assert [violation.field for violation in error.violations] == ["page_token"]


async def test_an_update_makes_a_revision_and_keeps_the_old_one(client):
    first = await client.create_workflow({"name": "w", "steps": [step("a")]})
    second = await client.update_workflow("w", {"name": "w", "steps": [step("b")]}, etag=first.etag)
    third = await client.update_workflow(first.workflow_id, {"steps": [step("c")]})

    assert [w.revision for w in (first, second, third)] == [1, 2, 3]
    assert len({w.etag for w in (first, second, third)}) == 3
    assert {w.workflow_id for w in (first, second, third)} == {first.workflow_id}
    assert third.definition.name == "w"
    assert first.create_time == second.create_time
    assert second.create_time.ToNanoseconds() < second.update_time.ToNanoseconds()
    assert await client.get_workflow("w") == third
    shown = [(await client.get_workflow("w", revision=n)).definition.steps[0].id for n in (1, 2, 3)]
    assert shown == ["a", "b", "c"]


async def test_an_update_with_an_old_etag_is_refused(client):
    first = await client.create_workflow({"name": "w", "steps": [step("a")]})
    await client.update_workflow("w", {"steps": [step("b")]})
    with pytest.raises(flowkeep.FailedPreconditionError) as error:
        await client.update_workflow("w", {"steps": [step("c")]}, etag=first.etag)
    assert (error.value.reason, list(error.value.metadata)) == ("ETAG_MISMATCH", ["workflow"])
    assert (await client.get_workflow("w")).revision == 2


async def test_of_many_updates_with_one_etag_one_succeeds(client):
    etag = (await client.create_workflow({"name": "w", "steps": [step("a")]})).etag
    updates = (client.update_workflow("w", {"steps": [step(f"s{n}")]}, etag=etag) for n in range(16))
    results = await asyncio.gather(*updates, return_exceptions=True)
    assert sum(isinstance(result, flowkeep.FailedPreconditionError) for result in results) == 15
    assert (await client.get_workflow("w")).revision == 2


async def test_an_update_changes_no_name_and_nothing_unsound(client):
    await made(client, step("a"), name="w")
    with pytest.raises(flowkeep.InvalidArgumentError) as renamed:
        await client.update_workflow("w", {"name": "v", "steps": [step("a")]})
    with pytest.raises(flowkeep.InvalidArgumentError) as unsound:
        await client.update_workflow("w", {"steps": [step("a", "no_such"), step("a")]})
    with pytest.raises(flowkeep.NotFoundError):
        await client.update_workflow("absent", {"name": "absent", "steps": [step("a")]})

    assert [violation.field for violation in renamed.value.violations] == ["definition.name"]
    fields = {violation.field for violation in unsound.value.violations}
    assert fields == {"definition.steps[0].handler", "definition.steps[1].id"}
    assert (await client.get_workflow("w")).revision == 1


async def test_several_are_applied_at_once(client):
    first = await client.create_workflow({"name": "w", "steps": [step("a")]})
    documents = [
        {"name": "new", "steps": [step("a")]},
        {"name": "w", "steps": [step("b")]},
        {"name": "w2", "steps": [step("a")], "timeout": "90s"},
    ]
    told = await client.apply(documents, validate_only=True)
    assert [Outcome.Name(each.outcome) for each in told] == ["OUTCOME_CREATED", "OUTCOME_UPDATED", "OUTCOME_CREATED"]
    assert [each.workflow.workflow_id for each in told] == ["", first.workflow_id, ""]
    assert [workflow async for workflow in client.list_workflows()] == [without_definition(first)]

    done = await client.apply(documents)
    assert [each.outcome for each in done] == [each.outcome for each in told]
    assert [each.workflow.revision for each in done] == [1, 2, 1]
    for each in done:
        assert without_definition(await client.get_workflow(each.workflow.name)) == each.workflow

    again = await client.apply(documents)
    assert {each.outcome for each in again} == {Outcome.OUTCOME_UNCHANGED}
    assert [each.workflow for each in again] == [each.workflow for each in done]


async def test_what_is_wrong_in_one_stops_all_that_is_applied(client):
    sound = {"name": "sound", "steps": [step("a")]}
    wrong = [sound, {"name": "w", "steps": [step("a", "no_such"), step("a")]}, {"steps": [step("b")]}, sound]
    with pytest.raises(flowkeep.InvalidArgumentError) as refused:
        await client.apply(wrong)
    with pytest.raises(flowkeep.DefinitionError) as found:
        await client.apply(wrong, validate_only=True)
    with pytest.raises(flowkeep.DefinitionError) as unread:
        await client.apply([sound, {"nam": "x"}, "y"])

    assert found.value.violations == refused.value.violations
    assert [violation.field for violation in found.value.violations] == [
        "definitions[1].steps[0].handler",
        "definitions[1].steps[1].id",
        "definitions[2].name",
        "definitions[3].name",
    ]
    assert [violation.field for violation in unread.value.violations] == ["definitions[1].nam", "definitions[2]"]
    assert [workflow async for workflow in client.list_workflows()] == []


def without_definition(workflow):
    shown = flowkeep.Workflow()
    shown.CopyFrom(workflow)
    shown.ClearField("definition")
    return shown


async def test_a_deleted_workflow_is_gone_and_its_name_free(client):
    first = await client.create_workflow({"name": "w", "steps": [step("a")]})
    await client.delete_workflow("w", etag=first.etag)

    for reference in ("w", first.workflow_id):
        with pytest.raises(flowkeep.NotFoundError):
            await client.get_workflow(reference)
        with pytest.raises(flowkeep.NotFoundError):
            await client.delete_workflow(reference)
        with pytest.raises(flowkeep.NotFoundError):
            await client.update_workflow(reference, {"steps": [step("a")]})
        with pytest.raises(flowkeep.NotFoundError):
            await client.execute(reference)
    assert [workflow async for workflow in client.list_workflows()] == []
    assert (await client.create_workflow({"name": "w", "steps": [step("a")]})).workflow_id != first.workflow_id


async def test_a_delete_with_an_old_etag_is_refused(client):
    first = await client.create_workflow({"name": "w", "steps": [step("a")]})
    await client.update_workflow("w", {"steps": [step("b")]})
    with pytest.raises(flowkeep.FailedPreconditionError, match="ETAG_MISMATCH"):
        await client.delete_workflow("w", etag=first.etag)
    assert await client.get_workflow("w")


async def test_a_workflow_in_use_is_deleted_by_force_only(client, stage):
    name = await made(client, step("a", "gate"), step("b"))
    running = [await client.execute(name) for _ in range(3)]
    await stage.called("a", 3)

    with pytest.raises(flowkeep.FailedPreconditionError) as error:
        await client.delete_workflow(name)
    assert (error.value.reason, error.value.metadata) == ("WORKFLOW_IN_USE", {"workflow": name, "running": "3"})

    # Watched from before on, since what has ended is removed at any time.
    streams = [client.watch(execution.execution_id) for execution in running]
    for stream in streams:
        await anext(stream)
    await client.delete_workflow(name, force=True)
    for stream in streams:
        events = [event async for event in stream]
        assert events[-1].finished.state == flowkeep.Execution.STATE_CANCELLED
    assert stage.attempts("b") == []


async def test_executions_of_a_deleted_workflow_are_removed_in_the_background(client):
    name = await made(client, step("a"))
    done = await client.execute(name, wait=True)
    other = await client.execute(await made(client, step("a")), wait=True)

    await client.delete_workflow(name)

    async def is_removed():
        return len([each async for each in client.list_executions()]) == 1

    await eventually(is_removed)
    with pytest.raises(flowkeep.NotFoundError):
        await client.get_execution(done.execution_id)
    assert (await client.get_execution(other.execution_id)).state == flowkeep.Execution.STATE_COMPLETED


async def test_validation_returns_all_that_is_wrong_and_keeps_nothing(served):
    definition = {
        "name": "1st",
        "timeout": "0s",
        "steps": [
            {"id": "a", "handler": "call_apj", "condition": "input.x +"},
            {"id": "a", "handler": "wait", "params": {"duration": "long"}},
            {"id": "c", "handler": "transform", "params": {"value": "${steps.d.output}"}},
        ],
    }
    found = await served.client.validate_workflow(definition)

    assert {violation.field for violation in found} == {
        "name",
        "timeout",
        "steps[0].handler",
        "steps[0].condition",
        "steps[1].id",
        "steps[1].params.duration",
        "steps[2].params",
    }
    assert all(violation.description for violation in found)
    assert await served.client.validate_workflow(RICH) == []
    assert [workflow async for workflow in served.client.list_workflows()] == []


async def test_creation_refuses_with_what_validation_says(served):
    definition = {"name": "w", "steps": [wait_step(seconds=-1), step("b", "nothing")]}
    found = await served.client.validate_workflow(definition)
    with pytest.raises(flowkeep.InvalidArgumentError) as error:
        await served.client.create_workflow(definition)
    assert [(f"definition.{v.field}", v.description) for v in found] == list(error.value.violations)
    assert error.value.reason == "INVALID_FIELDS"


async def test_an_empty_definition_lacks_a_name_and_steps(served):
    for request in (pb.ValidateWorkflowRequest(), pb.ValidateWorkflowRequest(definition=flowkeep.WorkflowDefinition())):
        found = (await served.workflows.ValidateWorkflow(request)).violations
        assert {violation.field for violation in found} == {"name", "steps"}


async def test_handlers_are_listed_by_name_with_their_schemas(client):
    handlers = {handler.name: handler for handler in await client.list_handlers()}

    assert list(handlers) == sorted(handlers)
    assert {"call_api", "condition", "send_notification", "transform", "wait", "gate", "fail"} <= handlers.keys()
    assert all(handler.description for handler in handlers.values())
    assert flowkeep.from_struct(handlers["wait"].params_schema)["properties"].keys() == {"duration", "until"}
    assert flowkeep.from_struct(handlers["gate"].params_schema)["properties"]["name"]["default"] == "gate"
    assert {name: handlers[name].effect for name in ("transform", "condition", "wait", "call_api", "gate", "fail")} == {
        "transform": Handler.EFFECT_NONE,
        "condition": Handler.EFFECT_NONE,
        "wait": Handler.EFFECT_NONE,
        "call_api": Handler.EFFECT_EXTERNAL,
        "gate": Handler.EFFECT_IDEMPOTENT,
        "fail": Handler.EFFECT_EXTERNAL,
    }
