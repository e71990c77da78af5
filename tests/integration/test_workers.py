"""Attempts are given to workers, one stream each, and what these say of them is recorded once."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import flowkeep
from flowkeep.errors import from_rpc_error
from flowkeep.v1 import worker_service_pb2 as pb
from flowkeep.v1.execution_pb2 import StepExecution, Usage
from flowkeep.v1.handler_pb2 import Handler
from flowkeep.v1.worker_service_pb2_grpc import WorkerServiceStub
from flowkeep.v1.workflow_service_pb2 import ListHandlersRequest
from tests.integration.conftest import Serve
from tests.integration.raw_worker import bare, refused, register, working
from tests.integration.stage import Served, ended, eventually, kinds, log, made, step

OBJECT = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}


async def started(served: Served, name: str, given: Any = None) -> str:
    """The id of an execution that was started."""
    return (await served.client.execute(name, given)).execution_id


async def waits_for(served: Served, execution_id: str, kind: str) -> StepExecution:
    """The first step of an execution, once it waits for something of a kind."""
    found: list[StepExecution] = []

    async def does() -> bool:
        (first, *_) = (await served.client.get_execution(execution_id)).steps
        found[:] = [first]
        return first.wait.WhichOneof("kind") == kind

    await eventually(does)
    return found[0]


async def test_an_attempt_goes_to_a_worker_and_its_output_into_the_history(served: Served):
    async with working(served.channel, "double") as worker:
        assert worker.registered.org == "development"
        name = await made(served.client, step("a", "double", n=21), step("b", "double", n="${ steps.a.output.n }"))
        execution_id = await started(served, name)
        given = await worker.hear("assignment")
        assert (given.handler, json.loads(given.params), given.workflow) == ("double", {"n": 21}, name)
        assert (given.attempt.step_path, given.attempt.iteration, given.attempt.attempt) == ("a", 1, 1)
        assert given.owner == "developer" and given.idempotency_token
        assert given.timeout.seconds == 300 and given.HasField("deadline_time")
        await worker.complete(given.attempt, {"n": 42})
        settled = await worker.hear("settled")
        assert settled.is_recorded and settled.attempt == bare(given.attempt)
        second = await worker.hear("assignment")
        assert json.loads(second.params) == {"n": 42}
        await worker.complete(second.attempt, "done")
        execution = await ended(served.client, execution_id)
    assert execution.state == flowkeep.Execution.STATE_COMPLETED
    assert flowkeep.from_value(execution.steps[1].output) == "done"


async def test_what_is_settled_is_in_the_store(served: Served):
    """The worker may forget what it has done, then: another process would see it."""
    async with working(served.channel, "work") as worker:
        execution_id = await started(served, await made(served.client, step("a", "work")))
        given = await worker.hear("assignment")
        await worker.complete(given.attempt, 7)
        await worker.hear("settled")
        execution = await served.client.get_execution(execution_id)
    assert flowkeep.from_value(execution.steps[0].output) == 7


async def test_progress_output_and_usage_of_an_attempt(served: Served):
    async with working(served.channel, "work") as worker:
        execution_id = await started(served, await made(served.client, step("a", "work")))
        given = await worker.hear("assignment")
        progress = pb.AttemptProgress(
            attempt=given.attempt, progress_percent=40, message="reading", usage=Usage(input_tokens=5)
        )
        await worker.say(progress=progress)
        usage = Usage(input_tokens=2, output_tokens=3, cost_micros=4)
        await worker.say(completed=pb.AttemptCompleted(attempt=given.attempt, usage=usage))
        events = await log(served.client, execution_id)
        execution = await served.client.get_execution(execution_id)
    (told,) = [event.step_progressed for event in events if event.WhichOneof("kind") == "step_progressed"]
    assert (told.progress_percent, told.message) == (40, "reading")
    assert execution.usage == Usage(input_tokens=7, output_tokens=3, cost_micros=4)
    assert flowkeep.from_value(execution.steps[0].output) is None


async def test_a_failure_is_the_workers_own_and_the_retry_policy_counts_it(served: Served):
    retry = {"max_attempts": 2, "initial_interval": 0.01}
    async with working(served.channel, "work") as worker:
        name = await made(served.client, step("a", "work", on_error="RETRY", retry_policy=retry))
        execution_id = await started(served, name)
        for number in (1, 2):
            given = await worker.hear("assignment")
            assert given.attempt.attempt == number
            details = json.dumps({"n": number}).encode()
            await worker.fail(given.attempt, "NO_STOCK", message="sold out", details=details, retryable=True)
            assert (await worker.hear("settled")).is_recorded
        execution = await ended(served.client, execution_id)
    failure = execution.steps[0].failure
    assert (failure.code, failure.message, flowkeep.from_struct(failure.details)) == ("NO_STOCK", "sold out", {"n": 2})


async def test_an_answer_that_is_not_right_fails_its_attempt(served: Served):
    """The worker would send it again and again, and nothing would come of it."""
    answers: dict[str, pb.AttemptCompleted | pb.AttemptFailed] = {
        "text": pb.AttemptCompleted(output=b"not JSON"),
        "nan": pb.AttemptCompleted(output=b"NaN"),
        "nul": pb.AttemptCompleted(output=b'"a\\u0000b"'),
        "half": pb.AttemptCompleted(output=b'"\\ud800"'),
        "deep": pb.AttemptCompleted(output=b"[" * 100_000 + b"]" * 100_000),
        "large": pb.AttemptCompleted(output=b'"%b"' % (b"x" * 300_000)),
        "huge": pb.AttemptCompleted(output=b'"%b"' % (b"x" * 2_100_000)),
        "usage": pb.AttemptCompleted(usage=Usage(input_tokens=-1)),
        "details": pb.AttemptFailed(code="X", details=b"[1]"),
        "code": pb.AttemptFailed(code=""),
    }
    async with working(served.channel, "work") as worker:
        name = await made(served.client, *(step(key, "work", on_error="CONTINUE") for key in answers))
        execution_id = await started(served, name)
        for answer in answers.values():
            given = await worker.hear("assignment")
            answer.attempt.CopyFrom(given.attempt)
            kind = "completed" if isinstance(answer, pb.AttemptCompleted) else "failed"
            await worker.say(**{kind: answer})
            assert (await worker.hear("settled")).is_recorded
        execution = await ended(served.client, execution_id)
    assert {each.path: each.failure.code for each in execution.steps} == dict.fromkeys(answers, "INVALID_OUTPUT")
    assert execution.steps[0].failure.message.startswith("what the worker gave as output is not JSON: ")


async def test_params_that_break_the_schema_reach_no_worker(served: Served):
    declared = Handler(name="work", params_schema=flowkeep.to_struct(OBJECT))
    async with working(served.channel, handlers=[declared]) as worker:
        name = await made(served.client, step("a", "work", n="${ input.n }"))
        execution = await ended(served.client, await started(served, name, {"n": "x"}))
        await worker.nothing_but_heartbeats()
    assert execution.steps[0].failure.code == "INVALID_PARAMS"


async def test_the_capacity_is_never_exceeded_and_the_others_wait_in_line(served: Served):
    async with working(served.channel, "work", capacity=2) as worker:
        name = await made(served.client, step("a", "work"))
        ids = [await started(served, name) for _ in range(5)]
        running = [await worker.hear("assignment") for _ in range(2)]
        waiting = await waits_for(served, ids[-1], "slot")
        assert waiting.wait.slot.resource == "workers"
        await worker.nothing_but_heartbeats()
        done = []
        while running:
            attempt = running.pop(0).attempt
            await worker.complete(attempt)
            done.append(attempt.execution_id)
            heard = {"settled": 0, "assignment": 0}
            wanted = {"settled": 1, "assignment": int(len(done) <= 3)}
            while heard != wanted:
                said = await worker.call.read()
                kind = said.WhichOneof("message")
                heard[kind] += 1
                if kind == "assignment":
                    running.append(said.assignment)
            assert len(running) <= 2
        for execution_id in ids:
            await ended(served.client, execution_id)
    assert sorted(done) == sorted(ids)


async def test_the_worker_with_most_room_is_given_the_next_attempt(served: Served):
    name = await _registered(served, "work")
    async with (
        working(served.channel, "work", capacity=1) as small,
        working(served.channel, "work", capacity=3) as large,
    ):
        for _ in range(2):
            await served.client.execute(name)
            await large.hear("assignment")
        await small.nothing_but_heartbeats()


async def test_a_step_without_a_worker_waits_says_so_and_begins_when_one_comes(served: Served):
    name = await _registered(served, "work")
    execution_id = await started(served, name)
    waiting = await waits_for(served, execution_id, "worker")
    assert waiting.wait.worker.handler == "work"
    assert "waits for a server or a worker that has the handler 'work'" in waiting.wait.reason
    async with working(served.channel, "work") as worker:
        given = await worker.hear("assignment")
        assert given.attempt.attempt == 1
        await worker.complete(given.attempt)
        execution = await ended(served.client, execution_id)
    assert execution.state == flowkeep.Execution.STATE_COMPLETED


async def test_a_worker_that_comes_is_given_what_waits_beside_what_runs(served: Served, stage: Any):
    """The execution is in memory because of its other step, and nobody claims it."""
    await _registered(served, "work")
    name = await made(served.client, step("long", "gate"), step("a", "work"), ordering="GRAPH")
    execution_id = await started(served, name)
    await stage.called("long")

    async def does() -> bool:
        steps = {each.path: each for each in (await served.client.get_execution(execution_id)).steps}
        return steps["a"].wait.WhichOneof("kind") == "worker" if "a" in steps else False

    await eventually(does)
    async with working(served.channel, "work") as worker:
        given = await worker.hear("assignment")
        await worker.complete(given.attempt)
        stage.open("gate")
        execution = await ended(served.client, execution_id)
    assert execution.state == flowkeep.Execution.STATE_COMPLETED


async def test_a_cancel_reaches_the_worker(served: Served):
    async with working(served.channel, "work") as worker:
        execution_id = await started(served, await made(served.client, step("a", "work")))
        given = await worker.hear("assignment")
        cancelling = asyncio.create_task(served.client.cancel(execution_id))
        told = await worker.hear("cancelled")
        assert (told.attempt, told.reason) == (bare(given.attempt), pb.AttemptCancelled.REASON_CANCELLED)
        await worker.fail(given.attempt, "CANCELLED")
        settled = await worker.hear("settled")
        await cancelling
        execution = await ended(served.client, execution_id)
    assert not settled.is_recorded
    assert execution.state == flowkeep.Execution.STATE_CANCELLED
    assert execution.steps[0].failure.code == ""


async def test_a_worker_that_does_not_stop_is_not_waited_for_and_its_result_is_refused(served: Served):
    async with working(served.channel, "work") as worker:
        execution_id = await started(served, await made(served.client, step("a", "work")))
        given = await worker.hear("assignment")
        await served.client.cancel(execution_id)
        await worker.hear("cancelled")
        execution = await ended(served.client, execution_id)
        await worker.complete(given.attempt, "late")
        settled = await worker.hear("settled")
    assert execution.steps[0].failure.code == "OUTCOME_UNKNOWN"
    assert not settled.is_recorded


async def test_a_timeout_reaches_the_worker(served: Served):
    async with working(served.channel, "work") as worker:
        execution_id = await started(served, await made(served.client, step("a", "work", timeout=0.2)))
        given = await worker.hear("assignment")
        told = await worker.hear("cancelled")
        assert told.reason == pb.AttemptCancelled.REASON_TIMEOUT
        await worker.fail(given.attempt, "CANCELLED")
        execution = await ended(served.client, execution_id)
    assert execution.steps[0].failure.code == "STEP_TIMEOUT"


async def test_a_worker_that_drains_is_given_nothing_more(served: Served):
    async with working(served.channel, "work") as worker:
        name = await made(served.client, step("a", "work"))
        first = await started(served, name)
        given = await worker.hear("assignment")
        await worker.say(draining=pb.WorkerDraining())
        await worker.nothing_but_heartbeats()
        second = await started(served, name)
        await waits_for(served, second, "worker")
        await worker.complete(given.attempt)
        assert (await worker.hear("settled")).is_recorded
        await ended(served.client, first)
        await worker.nothing_but_heartbeats()


async def test_handlers_of_workers_are_listed_and_stay_known(served: Served):
    declared = Handler(
        name="work",
        description="Works.",
        params_schema=flowkeep.to_struct(OBJECT),
        effect=Handler.EFFECT_EXTERNAL,
    )
    before = await _problem(served, step("a", "work", n=1))
    assert before.startswith('"work" is unknown') and before.endswith("once a worker has registered it")
    async with working(served.channel, handlers=[declared]):
        assert await _listed(served, "work") == (True, 1, Handler.EFFECT_EXTERNAL, OBJECT)
    await eventually(lambda: _is_listed(served, "work", (True, 0, Handler.EFFECT_EXTERNAL, OBJECT)))
    assert not await _problem(served, step("a", "work", n=1))
    assert "integer" in await _problem(served, step("a", "work", n="x"))


async def test_workers_are_listed_with_what_they_run(served: Served):
    stub = WorkerServiceStub(served.channel)
    async with working(served.channel, "work", "play", name="one", version="1.2", capacity=3) as worker:
        await served.client.execute(await made(served.client, step("a", "work")))
        given = await worker.hear("assignment")
        (shown,) = (await stub.ListWorkers(pb.ListWorkersRequest(handler="work"))).workers
        assert (shown.worker_id, shown.name, shown.version) == (worker.worker_id, "one", "1.2")
        assert (list(shown.handlers), shown.capacity, shown.running) == (["play", "work"], 3, 1)
        assert list(shown.attempts) == [bare(given.attempt)]
        assert shown.subject == "developer" and shown.server == worker.registered.server
        assert not (await stub.ListWorkers(pb.ListWorkersRequest(handler="other"))).workers


async def test_what_cannot_be_registered_is_refused_and_said_why(served: Served):
    async def why(**fields: Any) -> flowkeep.FlowkeepError:
        names = fields.pop("names", ["work"])
        return from_rpc_error(await refused(served.channel, pb.WorkRequest(register=register(*names, **fields))))

    taken = await why(names=["call_api"])
    assert (taken.reason, taken.metadata) == ("HANDLER_EXISTS", {"handler": "call_api"})
    bad = Handler(name="work", params_schema=flowkeep.to_struct({"type": "objekt"}))
    fields = {
        "register.handlers[0].params_schema.type": await why(handlers=[bad]),
        "register.handlers[0].name": await why(names=["a\tb"]),
        "register.handlers[1].name": await why(names=["a", "a"]),
        "register.capacity": await why(capacity=0),
        "register.worker_id": await why(worker_id=""),
        "register.attempts[0].execution_id": await why(
            attempts=[pb.Attempt(execution_id="x", step_path="a", iteration=1, attempt=1)]
        ),
    }
    assert {field: error.violations[0].field for field, error in fields.items()} == {field: field for field in fields}
    first = from_rpc_error(await refused(served.channel, pb.WorkRequest(heartbeat=pb.Heartbeat())))
    assert first.violations[0].field == "register"
    twice = pb.WorkRequest(register=register("work"))
    again = from_rpc_error(await refused(served.channel, twice, twice))
    assert again.violations[0].field == "register"


async def test_an_execution_of_many_items_goes_through_one_worker(serve: Serve):
    served = await serve()
    async with working(served.channel, "work", capacity=4) as worker:
        each = {"id": "all", "for_each": {"items": "input.list", "max_parallel": 10, "steps": [step("a", "work")]}}
        execution_id = await started(served, await made(served.client, each), {"list": list(range(20))})
        done = 0
        while done < 20:
            said = await worker.call.read()
            if said.WhichOneof("message") == "assignment":
                await worker.complete(said.assignment.attempt, said.assignment.attempt.step_path)
            done += said.WhichOneof("message") == "settled"
        events = await log(served.client, execution_id)
    assert sum(kind.startswith("step_completed all[") for kind in kinds(events)) == 20


async def _registered(served: Served, *names: str) -> str:
    """A workflow of a step of a handler that a worker has registered, which has gone since."""
    async with working(served.channel, *names):
        name = await made(served.client, step("a", names[0]))
    await eventually(lambda: _is_gone(served))
    return name


async def _is_gone(served: Served) -> bool:
    return not (await WorkerServiceStub(served.channel).ListWorkers(pb.ListWorkersRequest())).workers


async def _listed(served: Served, name: str) -> Any:
    found = (await served.workflows.ListHandlers(ListHandlersRequest())).handlers
    (handler,) = [each for each in found if each.name == name]
    schema = flowkeep.from_struct(handler.params_schema)
    return handler.is_remote, handler.worker_count, handler.effect, schema


async def _is_listed(served: Served, name: str, expected: Any) -> bool:
    return bool(await _listed(served, name) == expected)


async def _problem(served: Served, *steps: Any) -> str:
    found = await served.client.validate_workflow({"name": "w", "steps": list(steps)})
    return found[0].description if found else ""
