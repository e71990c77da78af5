"""Executions that are made from others: with the same input or another one, by the same revision or another one."""

import asyncio
from typing import Any

import pytest

import flowkeep
from flowkeep.v1 import execution_service_pb2 as pb
from flowkeep.v1.execution_pb2 import EXECUTION_VIEW_BASIC
from service.engine import forks
from service.engine.planning import inheriting
from tests.integration.stage import ended, kinds, log, made, refusal, step

State = flowkeep.Execution
PAIRS, AT_ONCE = 400, 20
SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}


async def test_what_has_ended_runs_again_and_each_knows_the_other(client, stage):
    name = await made(client, step("a", by="${input.n}"), input_schema=SCHEMA, output="${steps.a.output}")
    labels = {"labels": {"k": "v"}, "tags": ["t"], "priority": 7, "correlation_id": "c", "timeout": "1h"}
    first = await client.execute(name, {"n": 10}, wait=True, **labels)
    before = await client.get_execution(first.execution_id)
    answer = await client.fork(first.execution_id)
    assert answer.created and answer.execution.execution_id != first.execution_id
    second = await ended(client, answer.execution.execution_id)
    assert (flowkeep.from_struct(second.input), flowkeep.from_value(second.result)) == ({"n": 10}, 20)
    assert (second.lineage.source_execution_id, second.lineage.source_step_path) == (first.execution_id, "")
    assert second.lineage.source_seq == before.last_seq
    for field in ("labels", "tags", "priority", "correlation_id", "timeout", "revision", "workflow_id"):
        assert getattr(second, field) == getattr(before, field)
    events = await log(client, second.execution_id)
    assert events[0].created.lineage == second.lineage
    assert kinds(events) == kinds(await log(client, first.execution_id))
    assert stage.attempts("a") == [1, 1]

    after = await client.get_execution(first.execution_id)
    assert [fork.execution_id for fork in after.forks] == [second.execution_id]
    assert (after.forks[0].revision, after.forks[0].create_time) == (1, second.create_time)
    listed = [each.execution_id async for each in client.list_executions(source_execution_id=first.execution_id)]
    assert listed == [second.execution_id]
    after.ClearField("forks")
    assert after == before


async def test_another_input_and_the_latest_revision(client, stage):
    name = await made(client, step("a", by=1), input_schema=SCHEMA, output="${input.n}")
    first = await client.execute(name, {"n": 1}, wait=True)
    wider = {**SCHEMA, "properties": {"n": {"type": "integer", "minimum": 5}}}
    changed = {
        "name": name,
        "steps": [step("a", by=1), step("b", by=1)],
        "input_schema": wider,
        "output": "${-input.n}",
    }
    await client.apply(changed)
    same = await client.fork(first.execution_id, input={"n": 2})
    assert flowkeep.from_value((await ended(client, same.execution.execution_id)).result) == 2

    checked = await client.fork(first.execution_id, revision=0, validate_only=True)
    assert not checked.HasField("execution") and not checked.created
    [check] = checked.checks
    assert (check.kind, check.path) == (pb.ForkExecutionResponse.Check.KIND_INPUT, "") and "input.n" in check.message
    with pytest.raises(flowkeep.FailedPreconditionError, match=r"input\.n") as refused:
        await client.fork(first.execution_id, revision=2)
    assert (refused.value.reason, refused.value.metadata["checks"]) == ("FORK_NOT_FITTING", "1")
    with pytest.raises(flowkeep.InvalidArgumentError, match=r"input\.n"):
        await client.fork(first.execution_id, input={"n": 3}, revision=0)
    latest = await client.fork(first.execution_id, input={"n": 6}, revision=0)
    found = await ended(client, latest.execution.execution_id)
    assert (found.revision, flowkeep.from_value(found.result)) == (2, -6)
    assert [each.execution_id for each in (await client.get_execution(first.execution_id)).forks] == [
        latest.execution.execution_id,
        same.execution.execution_id,
    ]


async def test_one_that_runs_and_one_that_was_cancelled(client, stage):
    name = await made(client, step("a", "gate"))
    running = (await client.execute(name)).execution_id
    await stage.called("a")
    made_of_it = (await client.fork(running)).execution.execution_id
    await stage.called("a", 2)
    await client.cancel(running)
    assert (await ended(client, running)).state == State.STATE_CANCELLED
    again = (await client.fork(running)).execution.execution_id
    stage.open("gate")
    for execution_id in (made_of_it, again):
        assert (await ended(client, execution_id)).state == State.STATE_COMPLETED


async def test_a_request_makes_one_execution(client, stage):
    name = await made(client, step("a"))
    first = await client.execute(name, wait=True)
    answers = await asyncio.gather(*(client.fork(first.execution_id, request_id="once") for _ in range(5)))
    assert len({each.execution.execution_id for each in answers}) == 1
    assert sum(each.created for each in answers) == 1
    others: tuple[dict[str, Any], ...] = ({"input": {}}, {"revision": 0}, {"input": {"n": 1}})
    for other in others:
        with pytest.raises(flowkeep.AlreadyExistsError):
            await client.fork(first.execution_id, request_id="once", **other)
    with pytest.raises(flowkeep.AlreadyExistsError):
        await client.execute(name, request_id="once")
    assert len((await client.get_execution(first.execution_id)).forks) == 1


async def test_what_is_not_there_is_named(client, served, stage):
    name = await made(client, step("a"))
    first = await client.execute(name, wait=True)
    absent = "01930000-0000-7000-8000-000000000000"
    request = pb.ForkExecutionRequest(execution_id=absent)
    assert (await refusal(served.executions.ForkExecution(request))).reason == "EXECUTION_NOT_FOUND"
    request = pb.ForkExecutionRequest(execution_id=first.execution_id, revision=7)
    assert (await refusal(served.executions.ForkExecution(request))).reason == "REVISION_NOT_FOUND"
    basic = await client.get_execution(first.execution_id, EXECUTION_VIEW_BASIC)
    assert not basic.forks


def made_of(answer):
    return answer.execution.execution_id


async def finished_fork(client, source, step="", **options):
    """The end of an execution that is made from another one."""
    return await ended(client, made_of(await client.fork(source, step, **options)))


async def test_from_a_step_on_what_lies_before_is_inherited_and_never_called_again(client, stage):
    body = [step("one", "count"), step("two", "count")]
    fan = {"id": "fan", "for_each": {"items": "[0, 1]", "steps": body, "max_parallel": 1, "output": "${index}"}}
    steps = [step("a", assign={"x": "result"}), fan, step("b", "fail", retryable=False), step("c")]
    name = await made(client, *steps, output="${ {'x': vars.x, 'fan': steps.fan.output, 'c': steps.c.output} }")
    source = (await client.execute(name, wait=True)).execution_id
    before, calls = await client.get_execution(source), len(stage.calls)
    answer = await client.fork(source, "b", input={"n": 1}, vars={"y": 2})
    found = await ended(client, made_of(answer))
    assert found.state == State.STATE_FAILED
    assert (found.lineage.source_step_path, found.lineage.source_step_iteration) == ("b", 1)
    assert [path for path, _ in stage.calls[calls:]] == ["b"]
    assert [each.path for each in found.steps if each.inherited] == [
        *("a", "fan", "fan[0].one", "fan[0].two", "fan[1].one", "fan[1].two")
    ]
    assert flowkeep.from_struct(found.vars) == {"x": 1, "y": 2}
    for ours, theirs in zip(found.steps[:6], before.steps[:6], strict=True):
        for field in ("input", "output", "attempt", "state", "assigned"):
            assert getattr(ours, field) == getattr(theirs, field)
    events = await log(client, found.execution_id)
    own = [event for event in events if not event.inherited]
    assert kinds(own) == ["created", "started", "step_started b", "step_failed b", "finished"]
    one = (await client.get_step(found.execution_id, "fan[1].two")).step
    assert one.inherited and one.output == before.steps[5].output
    at_begin = await client.get_execution(found.execution_id, at_seq=own[1].seq - 1)
    assert (at_begin.state, at_begin.vars) == (State.STATE_PENDING, found.vars)

    whole = await finished_fork(client, source, "c", outputs={"b": 5, "a": 40})
    assert whole.state == State.STATE_COMPLETED
    assert flowkeep.from_value(whole.result)["x"] == 40 and flowkeep.from_value(whole.result)["fan"] == [0, 1]
    assert [path for path, _ in stage.calls[calls + 1 :]] == ["c"]
    after = await client.get_execution(source)
    assert [fork.source_step_path for fork in after.forks] == ["c", "b"]
    after.ClearField("forks")
    assert after == before


async def test_what_cannot_be_is_named(client, served, stage):
    fan = {"id": "fan", "for_each": {"items": "[0]", "steps": [step("one")]}}
    name = await made(client, step("a"), fan, step("g", "gate"), step("z"))
    source = (await client.execute(name)).execution_id
    await stage.called("g")
    before = await client.get_execution(source, EXECUTION_VIEW_BASIC)

    async def refused(**fields):
        return await refusal(served.executions.ForkExecution(pb.ForkExecutionRequest(execution_id=source, **fields)))

    assert (await refused(step_path="absent")).reason == "STEP_NOT_FOUND"
    assert (await refused(step_path="g", step_iteration=2)).reason == "STEP_NOT_FOUND"
    inside = await refused(step_path="fan[0].one")
    assert [each.field for each in inside.violations] == ["step_path"] and "begin from fan" in str(inside)
    waiting = await refused(step_path="z")
    assert waiting.reason == "FORK_NOT_FITTING" and "g: lies before z and is not done" in str(waiting)
    for path in ("z", "g", "absent"):
        wrong = await refused(step_path="g", outputs=[{"path": path}])
        assert [each.field for each in wrong.violations] == ["outputs[0].path"]
    assert [each.field for each in (await refused(outputs=[{"path": "a"}])).violations] == ["outputs"]
    assert await client.get_execution(source, EXECUTION_VIEW_BASIC) == before
    [check] = (await client.fork(source, "z", validate_only=True)).checks
    assert (check.kind, check.path) == (pb.ForkExecutionResponse.Check.KIND_NOT_DONE, "g")
    assert not (await client.fork(source, "z", outputs={"g": None}, validate_only=True)).checks
    stage.open("gate")


async def test_what_is_recorded_and_does_not_fit_another_revision_is_told(client, stage):
    name = await made(client, step("a"), step("b"), step("c"))
    source = (await client.execute(name, wait=True)).execution_id
    await client.apply({"name": name, "steps": [step("a"), step("b", "take", give=3), step("c", "take", give=4)]})
    [check] = (await client.fork(source, "c", revision=0, validate_only=True)).checks
    assert (check.kind, check.path) == (pb.ForkExecutionResponse.Check.KIND_HANDLER, "b")
    found = await finished_fork(client, source, "c", revision=0, outputs={"b": 7})
    assert (found.revision, found.state, found.steps[1].output.number_value) == (2, State.STATE_COMPLETED, 7)
    assert (await finished_fork(client, source, "b", revision=0)).steps[0].inherited


async def test_of_more_than_may_be_inherited_nothing_is_made(client, stage, monkeypatch):
    for module in (forks, inheriting):
        monkeypatch.setattr(module, "MOST_INHERITED", 2)
    name = await made(client, step("a"), step("b"), step("c"), step("d"))
    source = (await client.execute(name, wait=True)).execution_id
    with pytest.raises(flowkeep.FailedPreconditionError, match="begin from an earlier step") as refused:
        await client.fork(source, "d")
    assert (refused.value.reason, refused.value.metadata["steps"]) == ("FORK_TOO_LARGE", "3")
    assert (await finished_fork(client, source, "c")).state == State.STATE_COMPLETED
    assert len((await client.get_execution(source)).forks) == 1


async def test_a_fork_of_what_is_about_to_end_has_what_was_recorded_by_then_and_leaves_the_end_alone(client, stage):
    """400 pairs, some of which are ordered: whatever comes first, nothing that was done is called again."""
    name = await made(client, step("a"), step("b"), step("c"), output="${steps.a.output}")

    async def pairs(number: int) -> None:
        for turn in range(PAIRS // AT_ONCE):
            source = (await client.execute(name)).execution_id
            if turn % 4 == 0:  # on a fast machine all have ended by then, on a slow one none
                await ended(client, source)
            forking = client.fork(source, ("", "b", "c")[turn % 3], request_id=f"pair-{number}-{turn}")
            both: tuple[Any, Any] = await asyncio.gather(forking, ended(client, source), return_exceptions=True)
            forked, end = both
            assert end.state == State.STATE_COMPLETED
            told = await log(client, source)
            assert kinds(told).count("finished") == 1 and len(told) == end.last_seq
            if isinstance(forked, flowkeep.FailedPreconditionError):
                assert forked.reason == "FORK_NOT_FITTING" and turn % 4
                continue
            fork = await ended(client, forked.execution.execution_id)
            assert fork.state == State.STATE_COMPLETED
            by_path = {each.path: each for each in fork.steps}
            for each in end.steps:
                is_inherited = by_path[each.path].inherited
                assert not is_inherited or by_path[each.path].output == each.output
            events = [event for event in await log(client, fork.execution_id) if not event.inherited]
            begun = [kind for kind in kinds(events) if kind.startswith("step_started")]
            assert begun == [f"step_started {each.path}" for each in fork.steps if not each.inherited]
            assert fork.lineage.source_seq <= end.last_seq

    await asyncio.gather(*map(pairs, range(AT_ONCE)))
