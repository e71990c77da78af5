"""Steps are given to workers that have the labels and versions that they wish for, to no others, and wait for those."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest
import yaml

import flowkeep
from flowkeep.errors import from_rpc_error
from flowkeep.handlers import HandlerError, StepContext, handler
from flowkeep.v1 import worker_service_pb2 as pb
from flowkeep.v1.handler_pb2 import Handler
from flowkeep.v1.workflow_pb2 import WorkerSelector
from service.engine.wishes import share
from tests.folders import ROOT
from tests.integration.conftest import Serve
from tests.integration.raw_worker import refused, register, working
from tests.integration.stage import Served, Stage, ended, eventually, log, made, step
from tests.integration.test_python_worker import running
from tests.integration.test_workers import started, waits_for

COMPLETED = flowkeep.Execution.STATE_COMPLETED
EU = {"labels": {"region": "eu"}, "versions": ["2.*"]}


async def known(served: Served, *names: str) -> None:
    """Have handlers known of which no worker is left."""
    async with working(served.channel, *names):
        pass


async def test_an_attempt_goes_to_a_worker_that_is_as_wished(served: Served):
    async with (
        working(served.channel, "work", version="2.7", labels={"region": "us"}, capacity=9) as elsewhere,
        working(served.channel, "work", version="1.9", labels={"region": "eu"}, capacity=9) as old,
        working(served.channel, "work", version="2.7", labels={"region": "eu", "gpu": "no"}, capacity=1) as right,
    ):
        name = await made(served.client, step("a", "work"), step("b", "work"), worker=EU)
        execution_id = await started(served, name)
        for path in ("a", "b"):
            given = await right.hear("assignment")
            assert given.attempt.step_path == path
            await right.complete(given.attempt)
            assert (await right.hear("settled")).is_recorded
        execution = await ended(served.client, execution_id)
        for worker in (elsewhere, old):
            await worker.nothing_but_heartbeats()
    assert execution.state == COMPLETED


async def test_a_step_says_what_it_waits_for_and_begins_when_that_comes(served: Served):
    async with working(served.channel, "work", version="1.0") as other:
        execution_id = await started(served, await made(served.client, step("a", "work", worker=EU)))
        waiting = (await waits_for(served, execution_id, "worker")).wait
        assert waiting.worker.handler == "work"
        assert (dict(waiting.worker.labels), list(waiting.worker.versions)) == ({"region": "eu"}, ["2.*"])
        said = "waits for a worker that has the handler 'work', with the label region=eu and the version 2.*"
        assert waiting.reason == said
        async with working(served.channel, "work", version="2.0") as nearly:
            async with working(served.channel, "work", version="2.0", labels={"region": "eu"}) as right:
                given = await right.hear("assignment")
                assert given.attempt.attempt == 1
                await right.complete(given.attempt, "done")
                execution = await ended(served.client, execution_id)
            await nearly.nothing_but_heartbeats()
        await other.nothing_but_heartbeats()
        events = await log(served.client, execution_id)
    assert execution.state == COMPLETED
    (told,) = [event.step_waiting for event in events if event.WhichOneof("kind") == "step_waiting"]
    assert told.wait == waiting


async def test_what_waits_beside_what_runs_begins_when_the_right_worker_comes(served: Served, stage: Stage):
    """The execution is in memory because of its other step, and nobody claims it."""
    async with working(served.channel, "work", version="1.0") as other:
        name = await made(served.client, step("long", "gate"), step("a", "work", worker=EU), ordering="GRAPH")
        execution_id = await started(served, name)
        await stage.called("long")

        async def waits() -> bool:
            return any(each.wait.HasField("worker") for each in (await served.client.get_execution(execution_id)).steps)

        await eventually(waits)
        async with working(served.channel, "work", version="2.0", labels={"region": "eu"}) as right:
            await right.complete((await right.hear("assignment")).attempt)
            stage.open("gate")
            assert (await ended(served.client, execution_id)).state == COMPLETED
        await other.nothing_but_heartbeats()


@pytest.mark.parametrize("is_first", [True, False], ids=["a worker that is there", "a worker that comes"])
async def test_an_execution_moves_to_the_server_whose_worker_is_as_wished(serve: Serve, is_first: bool):
    here, there = await serve(), await serve()
    async with working(here.channel, "work", version="1.0") as other:
        name = await made(here.client, step("a", "work", worker=EU))
        execution_id = "" if is_first else await started(here, name)
        if execution_id:
            await waits_for(here, execution_id, "worker")
        async with working(there.channel, "work", version="2.0", labels={"region": "eu"}) as right:
            execution_id = execution_id or await started(here, name)
            await right.complete((await right.hear("assignment")).attempt)
            assert (await ended(here.client, execution_id)).state == COMPLETED
        await other.nothing_but_heartbeats()


async def test_wishes_outlive_the_server(serve: Serve):
    """Also those of a workflow that has had another revision since."""
    first = await serve([])
    await known(first, "work")
    name = await made(first.client, step("a", "work"), worker=EU)
    execution_id = await started(first, name)
    await waits_for(first, execution_id, "worker")
    definition = (await first.client.get_workflow(name)).definition
    definition.worker.CopyFrom(WorkerSelector(versions=["1.*"]))
    await first.client.update_workflow(name, definition)
    await first.stop()
    second = await serve([])
    async with working(second.channel, "work", version="1.0") as other:
        later = await started(second, name)
        await other.complete((await other.hear("assignment")).attempt)
        assert (await other.hear("settled")).is_recorded
        assert (await ended(second.client, later)).state == COMPLETED
        async with working(second.channel, "work", version="2.0", labels={"region": "eu"}) as right:
            given = await right.hear("assignment")
            assert given.attempt.execution_id == execution_id
            await right.complete(given.attempt)
            assert (await ended(second.client, execution_id)).state == COMPLETED
        await other.nothing_but_heartbeats()


async def test_those_with_wishes_wait_in_line_for_workers_that_meet_them(served: Served):
    """One that has room and does not meet them is passed by; of those that may have a room the first gets it."""
    async with (
        working(served.channel, "work", version="2.0", labels={"region": "eu"}, capacity=1) as right,
        working(served.channel, "work", version="1.0", capacity=1) as other,
    ):
        chosen = await made(served.client, step("a", "work", worker=EU))
        anybody = await made(served.client, step("a", "work"))
        await started(served, chosen)
        first = await right.hear("assignment")
        second_id = await started(served, chosen)
        waiting = (await waits_for(served, second_id, "slot")).wait
        said = "with the label region=eu and the version 2.*: the worker that has it is busy"
        assert waiting.slot.resource == "workers" and waiting.reason.endswith(said)
        await other.nothing_but_heartbeats()
        await started(served, anybody)
        own = await other.hear("assignment")  # although another step came before
        third_id = await started(served, anybody)
        await waits_for(served, third_id, "slot")
        await right.complete(first.attempt)
        assert (await right.hear("settled")).is_recorded
        second = await right.hear("assignment")
        assert second.attempt.execution_id == second_id
        await other.complete(own.attempt)
        assert (await other.hear("settled")).is_recorded
        third = await other.hear("assignment")
        assert third.attempt.execution_id == third_id
        fourth_id = await started(served, anybody)
        await waits_for(served, fourth_id, "slot")
        fifth_id = await started(served, chosen)
        await waits_for(served, fifth_id, "slot")
        await right.complete(second.attempt)
        assert (await right.hear("settled")).is_recorded
        assert (await right.hear("assignment")).attempt.execution_id == fourth_id


async def test_those_in_line_wait_for_another_when_the_last_that_meets_their_wishes_goes(served: Served):
    async with working(served.channel, "work", version="1.0") as other:
        async with working(served.channel, "work", version="2.0", labels={"region": "eu"}, capacity=1) as right:
            name = await made(served.client, step("a", "work", worker=EU))
            await started(served, name)
            first = await right.hear("assignment")
            second_id = await started(served, name)
            await waits_for(served, second_id, "slot")
            await right.say(draining=pb.WorkerDraining())
            await waits_for(served, second_id, "worker")
            await right.complete(first.attempt)
            assert (await right.hear("settled")).is_recorded
        async with working(served.channel, "work", version="2.1", labels={"region": "eu"}) as newer:
            given = await newer.hear("assignment")
            assert given.attempt.execution_id == second_id
        await other.nothing_but_heartbeats()


async def test_params_are_checked_by_the_schema_of_the_version_that_is_given_them(served: Served):
    def declared(kind: str) -> Handler:
        return Handler(name="work", params_schema=flowkeep.to_struct({"properties": {"n": {"type": kind}}}))

    async with (
        working(served.channel, handlers=[declared("integer")], version="1") as old,
        working(served.channel, handlers=[declared("string")], version="2") as new,
    ):
        name = await made(served.client, step("a", "work", n="${ input.n }"), worker={"versions": ["1"]})
        execution_id = await started(served, name, {"n": 7})
        await old.complete((await old.hear("assignment")).attempt)
        assert (await ended(served.client, execution_id)).state == COMPLETED
        wrong = await ended(served.client, await started(served, name, {"n": "x"}))
        assert wrong.steps[0].failure.code == "INVALID_PARAMS"
        await new.nothing_but_heartbeats()


async def test_a_share_of_the_executions_tries_a_version_and_stays_with_it(served: Served):
    """Each attempt of each step of one execution goes to the same version."""
    calls: list[tuple[UUID, str, int, str]] = []

    def of(version: str) -> Any:
        @handler("draw")
        async def draw(context: StepContext) -> str:
            calls.append((context.execution_id, context.step_path, context.attempt, version))
            if context.attempt == 1:
                raise HandlerError("BUSY", "once more", retryable=True)
            return version

        return draw

    again = {"max_attempts": 2, "initial_interval": 0.01}
    ramp = {"versions": ["1.*"], "ramp": {"versions": ["2.*"], "percent": 50}}
    async with running(served.target, of("1.4"), version="1.4"), running(served.target, of("2.0"), version="2.0"):
        steps = [step(name, "draw", retry_policy=again, on_error="RETRY") for name in ("a", "b")]
        name = await made(served.client, *steps, worker=ramp)
        ids = [await started(served, name) for _ in range(12)]
        for execution_id in ids:
            assert (await ended(served.client, execution_id)).state == COMPLETED
    expected = {UUID(each): "2.0" if share(UUID(each)) < 50 else "1.4" for each in ids}
    attempts = {(each, path, number) for each in expected for path in ("a", "b") for number in (1, 2)}
    assert set(calls) == {(*attempt, expected[attempt[0]]) for attempt in attempts}


async def test_workers_are_shown_with_their_labels_by_every_server(serve: Serve):
    here, there = await serve(), await serve()
    async with working(here.channel, "work", version="2.0", labels={"region": "eu", "gpu": ""}):
        for server in (here, there):
            found: list[pb.Worker] = []

            async def is_shown(server: Served = server, found: list[pb.Worker] = found) -> bool:
                found[:] = await server.client.list_workers("work")
                return bool(found)

            await eventually(is_shown)
            assert (dict(found[0].labels), found[0].version) == ({"region": "eu", "gpu": ""}, "2.0")


async def test_labels_that_cannot_be_kept_are_refused(served: Served):
    async def why(**fields: Any) -> str:
        error = from_rpc_error(await refused(served.channel, pb.WorkRequest(register=register("work", **fields))))
        return error.violations[0].field

    assert await why(labels={"": "x"}) == 'register.labels[""]'
    assert await why(labels={"a": "x" * 129}) == 'register.labels["a"]'
    assert await why(labels={f"k{n}": "" for n in range(33)}) == "register.labels"
    assert await why(labels={"a": "\0"}) == "register.labels"
    assert await why(version="\0") == "register.version"


async def test_a_definition_comes_back_as_it_was_said(served: Served):
    await known(served, "work")
    ramp = {"versions": ["2.*"], "percent": 0}
    name = await made(served.client, step("a", "work", worker={}), worker={"versions": ["1.*"], "ramp": ramp})
    definition = (await served.client.get_workflow(name)).definition
    assert list(definition.worker.versions) == ["1.*"]
    assert definition.worker.ramp.HasField("percent") and definition.worker.ramp.percent == 0
    assert definition.steps[0].HasField("worker") and not definition.steps[0].worker.labels


async def test_the_example_sends_few_executions_to_the_new_code(served: Served):
    text = (ROOT / "clients" / "examples" / "ramp.yaml").read_text(encoding="utf-8")

    def quoting(version: str) -> Any:
        @handler("quote")
        async def quote(item: str) -> str:
            """Quote a price."""
            return f"{item} by {version}"

        return quote

    labels = {"region": "eu"}
    async with (
        running(served.target, quoting("1.8.0"), version="1.8.0", labels=labels),
        running(served.target, quoting("2.0.0"), version="2.0.0", labels=labels),
        running(served.target, quoting("nobody")),
    ):
        await served.client.create_workflow(yaml.safe_load(text))
        for _ in range(5):
            execution_id = await started(served, "quote", {"item": "lamp"})
            done = await ended(served.client, execution_id)
            version = "2.0.0" if share(UUID(execution_id)) < 10 else "1.8.0"
            assert flowkeep.from_value(done.result) == f"lamp by {version}"
