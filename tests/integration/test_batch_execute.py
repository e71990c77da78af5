"""BatchExecute from end to end: each request has an outcome of its own, as Execute would give it."""

import asyncio
from typing import Any

import grpc
from google.protobuf.duration_pb2 import Duration

import flowkeep
from flowkeep.errors import from_status
from flowkeep.requests import execute_request
from flowkeep.v1 import execution_service_pb2 as pb
from flowkeep.v1.execution_pb2 import EXECUTION_VIEW_FULL
from persistence.errors import UnavailableError
from service.api.paging import LARGEST_PAGE_BYTES
from service.engine.batches import READS
from service.engine.payload import MAX_NODES
from tests.integration.calls import field_bytes
from tests.integration.stage import Store, ended, made, refusal, step

State = flowkeep.Execution
METHOD = "/flowkeep.v1.ExecutionService/BatchExecute"
SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}}


async def batch(served, *requests):
    return (await served.executions.BatchExecute(pb.BatchExecuteRequest(requests=requests))).results


def error_of(result):
    assert result.HasField("error"), result
    return from_status(result.error)


async def test_each_request_is_started_and_runs_to_its_end(served):
    name = await made(served.client, step("a", "transform", expression="input.n * 2"), output="${steps.a.output}")
    results = await batch(served, *(execute_request(name, {"n": n}, tags=[f"t{n}"]) for n in range(40)))

    assert [result.response.created for result in results] == [True] * 40
    found = [result.response.execution for result in results]
    assert len({each.execution_id for each in found}) == 40
    assert [list(each.tags) for each in found] == [[f"t{n}"] for n in range(40)]
    assert not any(each.steps for each in found)  # BASIC
    assert [await served.client.result(each.execution_id) for each in found] == [2 * n for n in range(40)]


async def test_a_bad_request_keeps_no_other_from_being_started(served):
    """Each with the error that Execute gives it, and fields by the place of the request."""
    name = await made(served.client, step("a"), input_schema=SCHEMA)
    await served.client.execute(name, {"n": 1}, request_id="used")
    bad = [
        pb.ExecuteRequest(),
        execute_request("absent"),
        execute_request(name, revision=9),
        execute_request(name, {"n": "one"}),
        execute_request(name, {"n": 2}, request_id="used"),
        execute_request(name, tags=["t", "t"], priority=101),
        execute_request(name, {"deep": _nested(30)}),
        pb.ExecuteRequest(workflow=name, request_id="a\0"),
        execute_request(name, {"many": list(range(MAX_NODES))}),
    ]
    mixed = [request for each in bad for request in (execute_request(name, {"n": 1}), each)]
    results = await batch(served, *mixed)

    assert all(result.response.created for result in results[::2])
    for place, (request, result) in enumerate(zip(mixed, results, strict=True)):
        if place % 2:
            alone, error = await refusal(served.executions.Execute(request)), error_of(result)
            assert (error.code, error.reason, error.metadata) == (alone.code, alone.reason, alone.metadata)
            assert [each.field for each in error.violations] == [
                f"requests[{place}].{each.field}" for each in alone.violations
            ]
            assert [each.description for each in error.violations] == [each.description for each in alone.violations]
    assert len({error_of(result).reason for result in results[1::2]}) == 4


async def test_bytes_that_are_no_request_are_the_error_of_their_place(served):
    name = await made(served.client, step("a"))
    sound = execute_request(name).SerializeToString()
    large = field_bytes(9_999, bytes(600 << 10))
    raw = b"".join(field_bytes(1, each) for each in (sound, b"\xff", sound, sound + large))
    answer = pb.BatchExecuteResponse.FromString(await served.channel.unary_unary(METHOD)(raw))

    assert [result.WhichOneof("outcome") for result in answer.results] == ["response", "error", "response", "response"]
    assert error_of(answer.results[1]).reason == "MALFORMED_REQUEST"


async def test_a_request_that_is_larger_than_an_input_may_be_is_refused_alone(served):
    name = await made(served.client, step("a"))
    large = execute_request(name, {"text": "x" * (600 << 10)})
    results = await batch(served, execute_request(name), large, execute_request(name))
    assert [result.WhichOneof("outcome") for result in results] == ["response", "error", "response"]
    assert [each.field for each in error_of(results[1]).violations] == ["requests[1].input"]


async def test_waiting_and_the_whole_are_refused_with_what_to_do_instead(served):
    name = await made(served.client, step("a"))
    full = pb.ExecuteRequest(workflow=name, view=EXECUTION_VIEW_FULL)
    results = await batch(served, execute_request(name), execute_request(name, wait=True), full)
    assert results[0].response.created
    ((field, description),) = error_of(results[1]).violations
    assert (field, "must not be set in a batch" in description) == ("requests[1].wait", True)
    ((field, description),) = error_of(results[2]).violations
    assert (field, "GetExecution" in description) == ("requests[2].view", True)


async def test_a_request_id_in_a_batch_means_what_it_means_in_calls_one_after_the_other(served):
    name, other = await made(served.client, step("a")), await made(served.client, step("a"))
    results = await batch(
        served,
        execute_request(name, {"n": 1}, request_id="r"),
        execute_request(name, {"n": 1}, request_id="r"),
        execute_request(name, {"n": 2}, request_id="r"),
        execute_request(other, {"n": 1}, request_id="r"),
        execute_request("absent", {"n": 1}, request_id="r"),
        execute_request("absent", {"n": 1}, request_id="q"),
        execute_request(name, {"n": 1}, request_id="q"),
        execute_request(name, {"n": 1}, request_id="r", priority=0),
    )
    first, again, *others, fresh, written_out = results
    assert [first.response.created, again.response.created, fresh.response.created] == [True, False, True]
    ids = [each.response.execution.execution_id for each in (first, again, written_out)]
    assert len(set(ids)) == 1
    reasons = [error_of(each).reason for each in others]
    assert reasons == ["REQUEST_ID_REUSED"] * 3 + ["WORKFLOW_NOT_FOUND"]


async def test_a_batch_that_is_sent_again_starts_nothing_twice(served):
    name = await made(served.client, step("a"))
    requests = [execute_request(name, {"n": n}) for n in range(20)]
    first, again = await batch(served, *requests), await batch(served, *requests)

    assert [each.response.created for each in again] == [False] * 20
    assert _ids(first) == _ids(again)
    assert len([each async for each in served.client.list_executions(workflow=name)]) == 20


async def test_the_number_of_requests_has_a_bound_and_beyond_it_nothing_is_started(served):
    name = await made(served.client, step("a"))
    for count in (0, 1_001, 100_000):
        error = await refusal(
            served.executions.BatchExecute(pb.BatchExecuteRequest(requests=[pb.ExecuteRequest(workflow=name)] * count))
        )
        assert (error.code, [each.field for each in error.violations]) == (
            grpc.StatusCode.INVALID_ARGUMENT,
            ["requests"],
        )
    assert [each async for each in served.client.list_executions(workflow=name)] == []
    results = await batch(served, *[pb.ExecuteRequest(workflow=name, start_delay=Duration(seconds=60))] * 1_000)
    assert len(set(_ids(results))) == 1_000


async def test_the_values_of_all_inputs_have_a_bound(served):
    name = await made(served.client, step("a"))
    results = await batch(
        served, *(execute_request(name, {"list": [0] * 9_990}) for _ in range(11)), pb.ExecuteRequest(workflow=name)
    )
    assert [result.WhichOneof("outcome") for result in results] == ["response"] * 10 + ["error", "response"]
    ((field, description),) = error_of(results[10]).violations
    assert (field, "100,000 values" in description) == ("requests[10]", True)


async def test_an_answer_that_grows_too_large_tells_less_of_each(served):
    """Clients take 4 MiB; what was started is named all the same, and so is why the rest was not."""
    name = await made(served.client, step("a"), tags=[f"{n:02}" + "t" * 126 for n in range(32)])
    results = await batch(
        served,
        *[pb.ExecuteRequest(workflow=name, start_delay=Duration(seconds=60))] * 900,
        *[pb.ExecuteRequest(workflow=name, revision=9)] * 100,
    )
    found = [result.response.execution for result in results[:900]]
    assert sum(result.ByteSize() for result in results) < LARGEST_PAGE_BYTES + (500 << 10)
    assert (len(found[0].tags), len(found[-1].tags)) == (32, 0)
    assert len({each.execution_id for each in found}) == 900
    assert all((each.workflow_name, each.state) == (name, State.STATE_PENDING) for each in found)
    assert {(error_of(each).code, error_of(each).reason) for each in results[900:]} == {
        (grpc.StatusCode.NOT_FOUND, "REVISION_NOT_FOUND")
    }


async def test_executions_for_which_there_is_no_room_wait_for_it(serve):
    served = await serve(max_running=5)
    name = await made(served.client, step("a"))
    results = await batch(served, *(execute_request(name) for _ in range(30)))
    states = [each.response.execution.state for each in results]
    assert states.count(State.STATE_RUNNING) <= 5
    for execution_id in _ids(results):
        assert (await ended(served.client, execution_id)).state == State.STATE_COMPLETED


async def test_what_the_store_loses_is_told_at_its_place_and_the_client_asks_again(serve):
    lost = set()

    def unsure(repository):
        def create(new):
            return asyncio.ensure_future(later(new))

        async def later(new):
            created = await repository.create(new)
            if (request_id := new.execution.request_id) in ("r1", "r3") and request_id not in lost:
                lost.add(request_id)
                raise UnavailableError("the answer was lost")
            return created

        return Store(repository, create=create)

    served = await serve(wrap=unsure)
    name = await made(served.client, step("a"))
    requests = [execute_request(name, request_id=f"r{n}") for n in range(5)]
    results = await batch(served, *requests)
    assert [result.WhichOneof("outcome") for result in results] == ["response", "error"] * 2 + ["response"]
    assert error_of(results[1]).reason == "DATABASE_UNAVAILABLE"
    assert error_of(results[1]).retry_after

    lost.clear()
    again = await served.client.batch_execute(requests)
    assert lost == {"r1", "r3"}
    assert [each.created for each in again] == [False] * 5
    assert len({each.execution.execution_id for each in again}) == 5


async def test_a_store_that_does_not_answer_is_not_asked_for_each(serve):
    asked = 0

    def away(repository):
        async def get_workflow(*args):
            nonlocal asked
            asked += 1
            raise UnavailableError("away")

        return Store(repository, get_workflow=get_workflow)

    served = await serve(wrap=away)
    results = await batch(served, *(execute_request(f"w{n}") for n in range(100)))
    assert [error_of(each).reason for each in results] == ["DATABASE_UNAVAILABLE"] * 100
    assert asked <= READS


async def test_workflows_are_looked_up_once_for_all_requests(serve):
    asked = []

    def counted(repository):
        async def get_workflow(scope, reference, revision=0):
            asked.append(reference)
            return await repository.get_workflow(scope, reference, revision)

        return Store(repository, get_workflow=get_workflow)

    served = await serve(wrap=counted)
    name = await made(served.client, step("a"))
    asked.clear()
    await batch(served, *(execute_request(each) for each in [name, "absent"] * 50))
    assert sorted(asked) == sorted([name, "absent"])


async def test_the_client_returns_responses_and_errors(served):
    name = await made(served.client, step("a"), input_schema=SCHEMA)
    requests = [execute_request(name, {"n": 1}), execute_request(name, {"n": ""}), execute_request("absent")]

    def blocking():
        with flowkeep.sync.Client(served.target) as client:
            return client.batch_execute(iter(requests))

    for outcomes in (await served.client.batch_execute(requests), await asyncio.to_thread(blocking)):
        started, refused, absent = outcomes
        assert isinstance(started, pb.ExecuteResponse)
        assert isinstance(refused, flowkeep.InvalidArgumentError)
        assert [each.field for each in refused.violations] == ["requests[1].input.n"]
        assert isinstance(absent, flowkeep.NotFoundError)


def _nested(depth):
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


def _ids(results):
    return [each.response.execution.execution_id for each in results]
