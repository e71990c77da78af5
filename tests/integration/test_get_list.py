"""Reading executions: views, filters, orders and pages.

Holds LI1 of the contract.
"""

import asyncio
import base64
import itertools
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import pytest

import flowkeep
from flowkeep.requests import list_request
from flowkeep.v1 import execution_service_pb2 as pb
from flowkeep.v1 import workflow_service_pb2 as workflows_pb
from flowkeep.v1.execution_pb2 import EXECUTION_VIEW_BASIC, EXECUTION_VIEW_FULL, EXECUTION_VIEW_UNSPECIFIED
from tests.integration.stage import made, refusal, step, wait_step

ABSENT = "01930000-0000-7000-8000-000000000000"
State = flowkeep.Execution
PAYLOADS = ("input", "vars", "result", "definition")


async def ids(client, **filters):
    return [execution.execution_id async for execution in client.list_executions(**filters)]


async def walked(clients, page_size, **filters):
    """The ids of all pages, page by page; the clients ask in turn."""
    pages, token = [], ""
    for client in itertools.cycle(clients):
        page = await client.list_page(page_size=page_size, page_token=token, **filters)
        pages.append([execution.execution_id for execution in page.executions])
        token = page.next_page_token
        if not token:
            return pages


async def test_the_views_of_an_execution(served):
    name = await made(served.client, step("a", assign={"v": "result"}), step("b", "transform", value=None))
    execution_id = (await served.client.execute(name, {"n": 1}, wait=True)).execution_id

    async def get(view):
        request = pb.GetExecutionRequest(execution_id=execution_id.upper(), view=view)
        return (await served.executions.GetExecution(request)).execution

    basic, full = await get(EXECUTION_VIEW_BASIC), await get(EXECUTION_VIEW_FULL)
    assert await get(EXECUTION_VIEW_UNSPECIFIED) == full
    assert not any(basic.HasField(field) for field in PAYLOADS)
    assert all(full.HasField(field) for field in PAYLOADS)
    assert (len(basic.steps), [each.path for each in full.steps]) == (0, ["a", "b"])
    assert full.result.WhichOneof("kind") == "null_value"
    for field in (*PAYLOADS, "steps"):
        full.ClearField(field)
    assert basic == full


async def test_the_definition_is_that_of_the_revision_it_runs(client):
    name = await made(client, step("a"), description="first")
    execution = await client.execute(name, wait=True)
    await client.update_workflow(name, {"steps": [step("b"), step("c")], "description": "second"})

    found = await client.get_execution(execution.execution_id)
    assert (found.definition.description, [each.path for each in found.steps]) == ("first", ["a"])
    assert found.revision == 1
    await client.delete_workflow(name)


async def test_what_does_not_exist_is_not_found(served):
    for view in (EXECUTION_VIEW_BASIC, EXECUTION_VIEW_FULL):
        request = pb.GetExecutionRequest(execution_id=ABSENT, view=view)
        error = await refusal(served.executions.GetExecution(request))
        assert (error.code, error.reason) == (grpc.StatusCode.NOT_FOUND, "EXECUTION_NOT_FOUND")
        assert error.metadata == {"execution_id": ABSENT}


async def test_every_filter_holds(client, stage):
    one, two = await made(client, step("a"), tags=["w"]), await made(client, step("a"), wait_step(), step("c"))
    failing = await made(client, step("a", "fail", retryable=False))
    a = await client.execute(one, tags=["x", "y"], labels={"team": "a", "n": "1"}, correlation_id="ci-1", wait=True)
    b = await client.execute(one, tags=["x"], labels={"team": "b"}, correlation_id="ci-2", wait=True)
    c = await client.execute(two, tags=["y"], labels={"team": "a"})
    d = await client.execute(failing, correlation_id="ci-1", wait=True)
    e = await client.execute(two, start_delay=1000)
    a, b, c, d, e = (each.execution_id for each in (a, b, c, d, e))
    await client.cancel(e)
    workflow_id = (await client.get_workflow(two)).workflow_id

    for where, found in (
        ({}, [e, d, c, b, a]),
        ({"workflow": one}, [b, a]),
        ({"workflow": workflow_id}, [e, c]),
        ({"workflow": workflow_id.upper()}, []),
        ({"workflow": "absent"}, []),
        ({"states": ["COMPLETED"]}, [b, a]),
        ({"states": ["FAILED", "CANCELLED"]}, [e, d]),
        ({"states": ["RUNNING"]}, [c]),
        ({"states": ["PAUSED"]}, []),
        ({"states": ["COMPENSATING"]}, []),
        ({"states": State.State.values()[1:]}, [e, d, c, b, a]),
        ({"owner": "developer"}, [e, d, c, b, a]),
        ({"owner": "somebody"}, []),
        ({"tags": ["x"]}, [b, a]),
        ({"tags": ["x", "y"]}, [a]),
        ({"tags": ["w"]}, [b, a]),
        ({"tags": [""]}, []),
        ({"labels": {"team": "a"}}, [c, a]),
        ({"labels": {"team": "a", "n": "1"}}, [a]),
        ({"labels": {"team": ""}}, []),
        ({"labels": {"": ""}}, []),
        ({"correlation_id": "ci-1"}, [d, a]),
        ({"correlation_id": "ci-1", "states": ["FAILED"], "workflow": failing}, [d]),
        ({"correlation_id": "ci-1", "states": ["FAILED"], "workflow": one}, []),
        ({"execution_id_prefix": a}, [a]),
        ({"execution_id_prefix": b.replace("-", "").upper()[:31]}, [b]),
        ({"execution_id_prefix": c, "workflow": one}, []),
        ({"execution_id_prefix": "0193000000"}, []),
    ):
        assert await ids(client, **where) == found, where
        page = await client.list_page(page_size=1, count_total=True, **where)
        assert page.total_size == len(found), where


async def test_ranges_include_their_beginning_and_exclude_their_end(client):
    name = await made(client, step("a"))
    found = [await client.execute(name, wait=True) for _ in range(3)]
    running = await client.execute(await made(client, wait_step()))
    first, middle, last = (each.execution_id for each in found)

    def moment(stamp):
        return stamp.ToDatetime(tzinfo=UTC)

    created, ended = moment(found[1].create_time), moment(found[1].end_time)
    instant = timedelta(microseconds=1)
    for where, expected in (
        ({"created_from": created}, [running.execution_id, last, middle]),
        ({"created_from": created + instant}, [running.execution_id, last]),
        ({"created_before": created}, [first]),
        ({"created_before": created + instant}, [middle, first]),
        ({"created_from": created, "created_before": created + instant}, [middle]),
        ({"created_from": created, "created_before": created}, []),
        ({"ended_from": ended}, [last, middle]),
        ({"ended_before": ended}, [first]),
        ({"ended_before": datetime(9999, 12, 31, tzinfo=UTC)}, [last, middle, first]),
        ({"created_from": datetime(1, 1, 1, tzinfo=UTC)}, [running.execution_id, last, middle, first]),
        ({"created_before": datetime.max.replace(tzinfo=UTC)}, [running.execution_id, last, middle, first]),
        ({"created_from": datetime.max.replace(tzinfo=UTC)}, []),
    ):
        assert await ids(client, **where) == expected, where


@pytest.mark.usefixtures("prompt")
async def test_every_order_in_pages_of_every_size(client, stage):
    """The slow one runs while the quick ones begin and end, so it is longer than each, however slow the machine is."""
    quick, slow = await made(client, step("a")), await made(client, step("b", "gate"))
    slowly = await client.execute(slow)
    await stage.called("b")
    executions = [await client.execute(quick, wait=True) for _ in range(4)]
    stage.open("gate")
    await client.result(slowly.execution_id)
    running = await client.execute(await made(client, wait_step()))
    never_started = await client.execute(quick, start_delay=1000)
    await client.cancel(never_started.execution_id)
    found = [await client.get_execution(each.execution_id) for each in (slowly, *executions, running, never_started)]

    def length(each):
        begin = each.start_time if each.HasField("start_time") else each.create_time
        return each.end_time.ToNanoseconds() - begin.ToNanoseconds()

    over = [each for each in found if each.HasField("end_time")]
    expected = {
        "NEWEST": sorted((each.execution_id for each in found), reverse=True),
        "LAST_ENDED": [
            each.execution_id
            for each in sorted(over, key=lambda each: (each.end_time.ToNanoseconds(), each.execution_id), reverse=True)
        ],
        "LONGEST": [
            each.execution_id for each in sorted(over, key=lambda each: (length(each), each.execution_id), reverse=True)
        ],
    }
    longest = [each for each in expected["LONGEST"] if each != never_started.execution_id]
    assert longest[0] == slowly.execution_id
    for order, ordered in expected.items():
        for page_size in (1, 2, 3, 50):
            pages = await walked([client], page_size, order=order)
            assert [each for page in pages for each in page] == ordered
            assert all(len(page) == page_size for page in pages[:-1])
        assert (await client.list_page(order=order, count_total=True)).total_size == len(ordered)


async def test_a_walk_under_writes_neither_repeats_nor_leaves_out(serve):
    """LI1: what existed for the whole walk comes exactly once, also when each page is another replica's."""
    clients = [(await serve(page_token_secret="shared")).client for _ in range(2)]
    client = clients[0]
    name = await made(client, step("a"))
    known = [(await client.execute(name)).execution_id for _ in range(60)]
    writing = True

    async def write():
        while writing:
            await client.execute(name)

    writers = [asyncio.create_task(write()) for _ in range(3)]
    for page_size in (1, 7, 20):
        seen = [each for page in await walked(clients, page_size) for each in page]
        assert len(seen) == len(set(seen))
        assert [each for each in seen if each in known] == known[::-1]
    writing = False
    await asyncio.gather(*writers)


async def test_the_size_of_a_page_is_clamped(served):
    name = await made(served.client, step("a"))
    await asyncio.gather(*(served.client.execute(name) for _ in range(204)))
    await served.client.execute(name, wait=True)
    for view, asked, given in (
        (EXECUTION_VIEW_BASIC, 0, 50),
        (EXECUTION_VIEW_BASIC, 200, 200),
        (EXECUTION_VIEW_BASIC, 2**31 - 1, 200),
        (EXECUTION_VIEW_FULL, 0, 20),
        (EXECUTION_VIEW_FULL, 7, 7),
        (EXECUTION_VIEW_FULL, 200, 20),
    ):
        page = await served.executions.ListExecutions(pb.ListExecutionsRequest(page_size=asked, view=view))
        assert (len(page.executions), bool(page.next_page_token), page.total_size) == (given, True, 0)
        assert all(each.HasField("definition") is (view == EXECUTION_VIEW_FULL) for each in page.executions)
    full = await served.client.list_page(view=EXECUTION_VIEW_FULL)
    assert full.executions[0] == await served.client.get_execution(full.executions[0].execution_id)


@pytest.mark.parametrize("filters", [{}, {"order": "LONGEST"}, {"order": "LAST_ENDED"}])
async def test_a_page_token_belongs_to_its_filter_and_order(served, filters):
    name = await made(served.client, step("a"))
    for _ in range(3):
        await served.client.execute(name, wait=True)
    token = (await served.client.list_page(page_size=1, **filters)).next_page_token

    change: dict[str, Any]
    for change in (
        {"page_size": 2},
        {"page_size": 1, "count_total": True},
        {"page_size": 1, "view": EXECUTION_VIEW_FULL},
    ):
        page = await served.client.list_page(page_token=token, **{**filters, **change})
        assert len(page.executions) == change["page_size"]
    other_order = "NEWEST" if filters else "LONGEST"
    for change in (
        {"workflow": name},
        {"states": ["COMPLETED"]},
        {"tags": ["x"]},
        {"labels": {"k": "v"}},
        {"created_from": datetime(2000, 1, 1, tzinfo=UTC)},
        {"order": other_order},
    ):
        request = list_request(page_size=1, page_token=token, **{**filters, **change})
        assert await violated(served, request) == ["page_token"], change


async def test_a_page_token_cannot_be_made_up(served):
    name = await made(served.client, step("a"))
    for _ in range(3):
        await served.client.execute(name, wait=True)
    token = (await served.client.list_page(page_size=1)).next_page_token
    raw = bytearray(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
    forged = []
    for position in range(len(raw)):
        raw[position] ^= 1
        forged.append(base64.urlsafe_b64encode(raw).decode().rstrip("="))
        raw[position] ^= 1
    for wrong in (*forged, token[:-2], token + "AAAA", "x", "=", "é", "🙂" * 9, "A" * 1024, "../../etc/passwd"):
        request = pb.ListExecutionsRequest(page_size=1, page_token=wrong)
        assert await violated(served, request) == ["page_token"], wrong
    # Nor does a token of one list say anything to the other.
    error = await refusal(served.workflows.ListWorkflows(workflows_pb.ListWorkflowsRequest(page_token=token)))
    assert [violation.field for violation in error.violations] == ["page_token"]


async def violated(served, request):
    error = await refusal(served.executions.ListExecutions(request))
    assert (error.code, error.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS")
    return [violation.field for violation in error.violations]


async def test_a_page_token_expires(served, monkeypatch):
    name = await made(served.client, step("a"))
    for _ in range(2):
        await served.client.execute(name, wait=True)
    token = (await served.client.list_page(page_size=1)).next_page_token
    now = time.time()
    monkeypatch.setattr("service.api.page_tokens.time.time", lambda: now + 86_390)
    assert (await served.client.list_page(page_size=1, page_token=token)).executions
    monkeypatch.setattr("service.api.page_tokens.time.time", lambda: now + 86_401)
    with pytest.raises(flowkeep.OutOfRangeError) as error:
        await served.client.list_page(page_size=1, page_token=token)
    assert error.value.reason == "PAGE_TOKEN_EXPIRED"


async def test_a_page_token_holds_on_another_server_of_the_same_database(serve):
    one, two = await serve(), await serve()
    other, forger = await serve(page_token_secret="t"), await serve(page_token_secret="embedded")
    name = await made(one.client, step("a"))
    for _ in range(2):
        await one.client.execute(name, wait=True)
    token = (await one.client.list_page(page_size=1)).next_page_token
    assert len((await two.client.list_page(page_token=token)).executions) == 1
    forged = (await forger.client.list_page(page_size=1)).next_page_token  # as if the secret were still a constant
    for server, sent in ((other, token), (one, forged)):
        with pytest.raises(flowkeep.InvalidArgumentError) as error:
            await server.client.list_page(page_token=sent)
        assert [violation.field for violation in error.value.violations] == ["page_token"]


async def test_totals_are_counted_on_demand_only(client):
    name = await made(client, step("a"))
    for _ in range(3):
        await client.execute(name)
    assert (await client.list_page()).total_size == 0
    page = await client.list_page(page_size=1, count_total=True)
    assert (len(page.executions), page.total_size) == (1, 3)
    last = await client.list_page(page_size=2, page_token=page.next_page_token, count_total=True)
    assert (last.total_size, last.next_page_token) == (3, "")
