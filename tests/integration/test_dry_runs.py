"""Dry runs from end to end: what may send something is answered by mocks, whoever drives the execution on.

Holds DR1 of the contract.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from google.protobuf.struct_pb2 import Value

import flowkeep
from flowkeep import dry_run, failing, from_value, giving
from flowkeep.handlers import StepContext, handler
from flowkeep.v1 import dry_run_pb2, handler_pb2
from flowkeep.v1.execution_service_pb2 import ExecuteRequest
from service.api.claims import KNOWN_PERMISSIONS
from service.api.permissions import WRITE_WORKFLOWS
from tests.integration.conftest import Serve
from tests.integration.raw_worker import handlers, working
from tests.integration.stage import Served, Stage, ended, kinds, log, made, refusal, step, wait_step
from tests.tokens import claims, jwks, signed

State = flowkeep.Execution


def quiet(stage: Stage) -> Callable[..., Any]:
    """A handler that has no effect outside, and waits at the gate of its step's path."""

    @handler("quiet", effect="none")
    async def run(context: StepContext, value: Any = None) -> Any:
        """Give a value when the test opens the gate."""
        await stage._enter(context)
        await stage.opened[context.step_path].wait()
        return value

    return run


async def test_a_whole_workflow_runs_and_nothing_is_sent(serve: Serve, stage: Stage) -> None:
    served = await serve([*stage.handlers(), quiet(stage)])
    client = served.client
    stage.open("look")
    charge = {"retry_policy": {"max_attempts": 3, "initial_interval": 3600, "max_interval": 3600}}
    each = {"id": "e", "for_each": {"items": "[1, 2]", "steps": [step("x", "take", value="${ item }")]}}
    name = await made(
        client,
        step("look", "quiet", value={"n": 2}),
        wait_step(seconds=3600),
        step("charge", "take", value="${ steps.look.output.n }", **charge),
        step("approve", "create_task", title="Is it right?", assignees=["ann"]),
        step("paid", "wait_signal", name="paid"),
        each,
        step("tell", "call_api", url="https://example.com", condition="steps.charge.output.id == 9"),
        output={"id": "${ steps.charge.output.id }", "each": "${ steps.e.output }"},
    )
    mocks = {
        "charge": failing("BUSY", "as given", retryable=True, times=2, output={"id": 9}),
        "approve": {"outcome": "approved"},
        "paid": {"amount": 2},
        "e[1].x": "second",
        "e.x": "each",
    }
    given = dry_run(mocks, default=giving(None), skip_waits=True)
    execution = await client.execute(name, dry_run=given, start_delay="1h", wait=True)
    assert (execution.state, execution.dry_run) == (State.STATE_COMPLETED, True)
    assert from_value(execution.result) == {"id": 9, "each": ["each", "second"]}
    assert {path for path, _ in stage.calls} == {"look"}
    assert [task async for task in client.list_tasks()] == []

    whole = await client.get_execution(execution.execution_id)
    mocked = {each.path for each in whole.steps if each.mocked}
    assert mocked == {"charge", "approve", "paid", "e[0].x", "e[1].x", "tell"}
    failed = (await client.get_step(execution.execution_id, "charge")).step.failed_attempts
    assert [(each.failure.code, each.failure.message) for each in failed] == [("BUSY", "as given")] * 2
    events = await log(client, execution.execution_id)
    assert events[0].created.dry_run
    told = {
        (kind, getattr(event, kind).path)
        for event in events
        for kind in [event.WhichOneof("kind") or ""]
        if kind in ("step_started", "step_completed") and getattr(event, kind).mocked
    }
    assert told == {("step_completed", path) for path in mocked} | {
        ("step_started", path) for path in mocked - {"approve", "paid"}
    }
    as_it_was = await client.get_execution(execution.execution_id, at_seq=execution.last_seq)
    assert (as_it_was.dry_run, {each.path for each in as_it_was.steps if each.mocked}) == (True, mocked)


async def test_what_needs_a_mock_and_has_none_is_named_at_once(client: flowkeep.Client, stage: Stage) -> None:
    inner = {"id": "e", "for_each": {"items": "[1]", "steps": [step("x", "take")]}}
    transform = step("t", "transform", value=1)
    task = step("ask", "create_task", title="?", assignees=["ann"])
    name = await made(
        client,
        step("a", "take", condition="false"),
        transform,
        inner,
        task,
        step("far", "call_api", url="https://example.com"),
    )

    async def wrong(given: dry_run_pb2.DryRun) -> dict[str, str]:
        with pytest.raises(flowkeep.InvalidArgumentError) as refused:
            await client.execute(name, dry_run=given)
        return {violation.field: violation.description for violation in refused.value.violations}

    needed = {f'dry_run.mocks["{path}"]' for path in ("a", "e.x", "ask", "far")}
    assert (await wrong(dry_run())).keys() == needed
    found = await wrong(dry_run({"e[0].x": 1, "a": 1, "ask": 1, "far": 1}))
    assert found == {'dry_run.mocks["e.x"]': found['dry_run.mocks["e.x"]']} and "take" in found['dry_run.mocks["e.x"]']
    unknown = {"absent": 1, "e": 1, "e[00].x": 1, "t": failing("X", times=1, output=2)}
    handlers = {"none": 1, "for_each": 1, "transform": failing("X", times=1)}
    assert (await wrong(dry_run(unknown, handlers=handlers, default=giving(0)))).keys() == {
        *('dry_run.mocks["absent"]', 'dry_run.mocks["e"]', 'dry_run.mocks["e[00].x"]'),
        'dry_run.mocks["t"].failure.times',
        *('dry_run.handlers["none"]', 'dry_run.handlers["for_each"]', 'dry_run.handlers["transform"].failure.times'),
    }
    assert [each async for each in client.list_executions(workflow=name)] == [] and stage.calls == []
    by_handler = dry_run(handlers={"take": 1, "create_task": {"outcome": "x"}, "call_api": 1})
    assert (await client.execute(name, dry_run=by_handler, wait=True)).state == State.STATE_COMPLETED


async def test_mocks_that_cannot_be_are_refused_with_their_fields(served: Served, client: flowkeep.Client) -> None:
    name = await made(client, step("a", "take"))

    def mocks(mock: dry_run_pb2.Mock) -> dry_run_pb2.DryRun:
        return dry_run_pb2.DryRun(mocks={"a": mock})

    failure = dry_run_pb2.MockFailure
    for given, field in (
        (mocks(dry_run_pb2.Mock()), 'dry_run.mocks["a"].output'),
        (mocks(dry_run_pb2.Mock(failure=failure(code="X", times=1))), 'dry_run.mocks["a"].output'),
        (
            mocks(dry_run_pb2.Mock(failure=failure(code="X"), output=giving(1).output)),
            'dry_run.mocks["a"].failure.times',
        ),
        (mocks(dry_run_pb2.Mock(failure=failure(code=""))), "dry_run.mocks"),
        (mocks(dry_run_pb2.Mock(failure=failure(code="X", times=101))), "dry_run.mocks"),
        (mocks(giving("x" * (256 << 10))), 'dry_run.mocks["a"].output'),
        (mocks(dry_run_pb2.Mock(output=Value(string_value="\0"))), 'dry_run.mocks["a"].output'),
        (dry_run({f"s{n}": "x" * (250 << 10) for n in range(5)}), "dry_run"),
        (dry_run({f"s{n}": 1 for n in range(501)}), "dry_run.mocks"),
        (dry_run({"": 1}), "dry_run.mocks"),
        (dry_run(default=failing("X", details={"x": "y" * (256 << 10)})), "dry_run.default_mock.failure.details"),
    ):
        error = await refusal(served.executions.Execute(ExecuteRequest(workflow=name, dry_run=given)))
        assert isinstance(error, flowkeep.InvalidArgumentError)
        assert error.violations[0].field.startswith(field), error
    with pytest.raises(flowkeep.InvalidArgumentError, match="batch"):
        (outcome,) = await client.batch_execute([flowkeep.execute_request(name, dry_run=dry_run())])
        raise outcome  # type: ignore[misc]


async def test_workers_see_nothing_of_a_mocked_step(served: Served, client: flowkeep.Client) -> None:
    async with working(served.channel, "remote") as worker:
        name = await made(client, step("a", "remote", n=1), step("b", "remote", n=2, condition="false"))
        mocks = dry_run({"a": 7, "b": 8})
        assert (await client.execute(name, dry_run=mocks, wait=True)).state == State.STATE_COMPLETED
        await worker.nothing_but_heartbeats()
    # Nor need one be there.
    assert (await client.execute(name, dry_run=mocks, wait=True)).state == State.STATE_COMPLETED


async def test_a_step_of_workers_needs_a_mock_whatever_one_of_them_declares(
    served: Served, client: flowkeep.Client
) -> None:
    declared = handlers("remote", effect=handler_pb2.Handler.EFFECT_NONE)
    async with working(served.channel, handlers=declared) as worker:
        name = await made(client, step("a", "remote"))
        with pytest.raises(flowkeep.InvalidArgumentError, match="is required: the step calls"):
            await client.execute(name, dry_run=dry_run())
        await worker.nothing_but_heartbeats()


async def test_whoever_takes_it_over_has_its_mocks(serve: Serve, stage: Stage) -> None:
    handlers = [*stage.handlers(), quiet(stage)]
    served = await serve(handlers)
    name = await made(served.client, step("a", "take"), step("q", "quiet"), step("b", "take"), wait_step())
    mocks = dry_run({"a": 1, "b": failing("BROKEN", "as given")})
    execution_id = (await served.client.execute(name, dry_run=mocks)).execution_id
    await stage.called("q")
    await served.stop()
    stage.open("q")
    client = (await serve(handlers)).client
    execution = await ended(client, execution_id)
    assert (execution.state, execution.failure.step_path) == (State.STATE_FAILED, "b")
    assert {path for path, _ in stage.calls} == {"q"}
    assert [(each.path, each.mocked) for each in execution.steps] == [
        *(("a", True), ("q", False), ("b", True), ("pause", False))
    ]
    # So have its next run, and what is made from it.
    await client.retry(execution_id)
    await log(client, execution_id, execution.last_seq)
    again = await client.get_execution(execution_id)
    assert (again.run, again.state, again.dry_run) == (2, State.STATE_FAILED, True)
    fork = (await client.fork(execution_id, "b")).execution
    assert (await ended(client, fork.execution_id)).failure.step_path == "b"
    assert fork.dry_run and {path for path, _ in stage.calls} == {"q"}
    found = [each.execution_id async for each in client.list_executions(workflow=name, dry_run=True)]
    assert found == [fork.execution_id, execution_id]
    assert [each async for each in client.list_executions(workflow=name, dry_run=False)] == []


async def test_a_fork_that_runs_another_revision_sends_nothing_either(client: flowkeep.Client, stage: Stage) -> None:
    name = await made(client, step("a", "take"))
    source = (await client.execute(name, dry_run=dry_run({"a": 1}), wait=True)).execution_id
    await client.update_workflow(name, {"name": name, "steps": [step("a", "take"), step("new", "take")]})
    fork = (await client.fork(source, revision=0)).execution
    execution = await ended(client, fork.execution_id)
    assert (execution.failure.step_path, execution.failure.details["code"]) == ("new", "NOT_MOCKED")
    assert stage.calls == []


async def test_a_request_that_is_repeated_starts_one_and_a_real_one_is_another(client: flowkeep.Client) -> None:
    name = await made(client, step("a", "transform", value=1))
    first = await client.execute(name, dry_run=dry_run({"a": 1}), request_id="once")
    again = await client.execute(name, dry_run=dry_run({"a": 1}), request_id="once")
    assert first.execution_id == again.execution_id
    for other in (None, dry_run({"a": 2}), dry_run({"a": 1}, skip_waits=True)):
        with pytest.raises(flowkeep.AlreadyExistsError):
            await client.execute(name, dry_run=other, request_id="once")


async def test_params_are_judged_and_secrets_are_not_read(client: flowkeep.Client, stage: Stage) -> None:
    right = step("a", "call_api", url="https://example.com", auth={"bearer": "${ secret('absent') }"})
    wrong = step("b", "count", by="${ input.by }")
    name = await made(client, right, wrong)
    given = dry_run({"a": {"status": 200}, "b": 1})
    execution = await client.execute(name, {"by": "many"}, dry_run=given, wait=True)
    assert (execution.failure.step_path, stage.calls) == ("b", [])
    assert execution.failure.details["code"] == "INVALID_PARAMS"
    assert (await client.execute(name, {"by": 1}, dry_run=given, wait=True)).state == State.STATE_COMPLETED


async def test_to_give_mocks_takes_the_permission_to_write_workflows(serve: Serve, tmp_path: Any) -> None:
    path = tmp_path / "jwks.json"
    path.write_text(jwks())
    served = await serve(jwt_jwks=str(path))
    async with served.client_with(signed(claims(permissions=sorted(KNOWN_PERMISSIONS)))) as writer:
        name = await made(writer, step("a", "transform", value=1))
    async with served.client_with(signed(claims(permissions=sorted(KNOWN_PERMISSIONS - {WRITE_WORKFLOWS})))) as other:
        for given in (dry_run({"a": 1}), dry_run(handlers={"transform": 1}), dry_run(default=giving(1))):
            with pytest.raises(flowkeep.PermissionDeniedError, match=WRITE_WORKFLOWS):
                await other.execute(name, dry_run=given)
        execution = await other.execute(name, dry_run=dry_run(skip_waits=True), wait=True)
        assert execution.state == State.STATE_COMPLETED and execution.dry_run


async def test_a_signal_for_a_correlation_id_is_for_what_is_real(client: flowkeep.Client) -> None:
    name = await made(client, step("s", "wait_signal", name="go"))
    dry = (await client.execute(name, dry_run=dry_run(), correlation_id="A-1")).execution_id
    with pytest.raises(flowkeep.NotFoundError):
        await client.signal("", "go", {"n": 0}, workflow=name, correlation_id="A-1")
    real = (await client.execute(name, correlation_id="A-1")).execution_id
    await client.signal("", "go", {"n": 1}, workflow=name, correlation_id="A-1")
    assert (await ended(client, real)).state == State.STATE_COMPLETED
    started = await client.signal_with_start(name, "A-1", "go", {"n": 2})
    assert started.started and started.execution.execution_id != dry
    assert (await client.get_execution(dry)).state == State.STATE_RUNNING


async def test_a_real_signal_is_waited_for_and_a_dry_run_is_cancelled_as_any(client: flowkeep.Client) -> None:
    name = await made(client, step("s", "wait_signal", name="go"), wait_step())
    execution_id = (await client.execute(name, dry_run=dry_run())).execution_id
    await client.signal(execution_id, "go", {"n": 1})
    async for event in client.watch(execution_id):
        if event.step_waiting.wait.HasField("timer"):
            break
    await client.cancel(execution_id)
    assert (await ended(client, execution_id)).state == State.STATE_CANCELLED
    assert "step_completed s" in kinds(await log(client, execution_id))
