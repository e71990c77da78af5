"""What Execute answers: at once or at the end, as much as is asked for, and what is kept."""

from datetime import timedelta

import grpc
from google.protobuf.json_format import MessageToJson

import flowkeep
from flowkeep.requests import execute_request
from flowkeep.v1.execution_pb2 import EXECUTION_VIEW_BASIC, EXECUTION_VIEW_FULL, EXECUTION_VIEW_UNSPECIFIED
from persistence.errors import UnavailableError
from service.api import execution_service
from service.engine.clock import StoreClock
from tests.integration.stage import Store, ended, kinds, log, made, refusal, step, wait_step
from tests.patience import PATIENCE

State = flowkeep.Execution


async def test_wait_answers_with_the_end(served):
    name = await made(served.client, step("a"), wait_step(seconds=0.2), step("b", "transform", value="b"))
    answer = await served.executions.Execute(execute_request(name, wait=True, view=EXECUTION_VIEW_FULL))
    assert (answer.created, answer.execution.state) == (True, State.STATE_COMPLETED)
    assert answer.execution == await served.client.get_execution(answer.execution.execution_id)
    assert [each.path for each in answer.execution.steps] == ["a", "pause", "b"]


async def test_wait_answers_the_outcome_and_reads_nothing_for_it(serve):
    """By default: the BASIC view, and the result or the failure; an end that came here is known here."""

    async def read(*arguments, **options):
        raise UnavailableError("something is read")

    served = await serve(wrap=lambda repository: Store(repository, get_detail=read, get_outcome=read, read_events=read))
    good = await made(served.client, step("a", "transform", value=None), step("b", "transform", value=[1, "two"]))
    bad = await made(served.client, step("a", "fail", retryable=False))
    for view in (EXECUTION_VIEW_UNSPECIFIED, EXECUTION_VIEW_BASIC):
        for name, outcome in ((good, "result"), (bad, "failure")):
            answer = await served.executions.Execute(execute_request(name, {"n": 1}, wait=True, view=view))
            assert answer.execution.WhichOneof("outcome") == outcome
            if outcome == "result":
                assert flowkeep.from_value(answer.execution.result) == [1, "two"]
                answer.execution.ClearField("result")
            basic = await served.client.get_execution(answer.execution.execution_id, EXECUTION_VIEW_BASIC)
            assert answer.execution == basic
    error = await refusal(served.executions.Execute(execute_request(good, wait=True, view=EXECUTION_VIEW_FULL)))
    assert error.code is grpc.StatusCode.UNAVAILABLE  # it would have been seen


async def test_steps_without_attempts_are_done_with_the_start_of_their_execution(served):
    steps = (step(f"s{n}", "transform", expression=f"input.n + {n}.0") for n in range(3))
    name = await made(served.client, *steps)
    answer = await served.executions.Execute(execute_request(name, {"n": 1}))
    assert answer.execution.state == State.STATE_COMPLETED
    events = await log(served.client, answer.execution.execution_id)
    assert kinds(events) == ["created", "started", *(f"step_completed s{n}" for n in range(3)), "finished"]
    assert {event.transition_seq for event in events[1:]} == {6}


async def test_a_wait_is_not_too_short_where_the_clock_may_be_behind_that_of_the_store(served, monkeypatch):
    """Neither that which begins with the execution nor one that begins later."""
    monkeypatch.setattr(StoreClock, "latest", lambda clock: clock.now() + timedelta(seconds=0.5))
    name = await made(served.client, wait_step("first", 0.1), wait_step("second", 0.1))
    answer = await served.executions.Execute(execute_request(name, wait=True))
    events = await log(served.client, answer.execution.execution_id)
    times = {kind: event.time.ToDatetime() for kind, event in zip(kinds(events), events, strict=True)}
    for path in ("first", "second"):
        assert times[f"step_completed {path}"] - times[f"step_waiting {path}"] >= timedelta(seconds=0.6)


async def test_the_answer_of_wait_is_the_one_that_is_kept(served):
    """Also of a result that JSON does not keep as it was."""
    name = await made(served.client, step("a", "transform", expression="[-0.0, 1.0, 2, 1e300, 0.1]"))
    answer = await served.executions.Execute(execute_request(name, wait=True))
    kept = await served.client.get_execution(answer.execution.execution_id)
    assert MessageToJson(answer.execution.result) == MessageToJson(kept.result)


async def test_without_wait_the_answer_is_basic_unless_all_is_asked_for(served):
    name = await made(served.client, wait_step())
    answer = await served.executions.Execute(execute_request(name, {"n": 1}))
    assert not answer.execution.HasField("input")
    answer = await served.executions.Execute(execute_request(name, {"n": 1}, view=EXECUTION_VIEW_FULL))
    assert (answer.created, [each.path for each in answer.execution.steps]) == (True, ["pause"])
    assert (flowkeep.from_struct(answer.execution.input), answer.execution.HasField("result")) == ({"n": 1}, False)


async def test_wait_answers_before_the_deadline_of_the_caller(served, stage, monkeypatch):
    monkeypatch.setattr(execution_service, "ANSWER_MARGIN", PATIENCE - 1)
    name = await made(served.client, step("a", "gate"))
    answer = await served.executions.Execute(execute_request(name, wait=True), timeout=PATIENCE)
    assert answer.execution.state == State.STATE_RUNNING
    stage.open("gate")
    assert (await ended(served.client, answer.execution.execution_id)).state == State.STATE_COMPLETED


async def test_wait_without_a_deadline_answers_after_the_limit(serve):
    served = await serve(wait_limit=0.2)
    answer = await served.executions.Execute(execute_request(await made(served.client, step("a", "gate")), wait=True))
    assert answer.execution.state == State.STATE_RUNNING


async def test_wait_on_an_execution_that_has_ended_answers_at_once(served):
    name = await made(served.client, step("a"))
    request = execute_request(name, request_id="r", wait=True)
    first = await served.executions.Execute(request)
    again = await served.executions.Execute(request)
    assert (first.created, again.created) == (True, False)
    assert again.execution == first.execution
