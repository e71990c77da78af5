"""One process drives executions over a store in memory: what runs, waits, is cancelled, and goes on elsewhere."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import pytest
import pytest_asyncio

from persistence.breakpoints import Breakpoint
from persistence.errors import UnavailableError
from persistence.model import ExecutionState, MessageKind
from persistence.posting import Posting
from persistence.transition import CommitResult, Transition
from service.engine.requests import StartRequest
from service.engine.running.active_runs import ActiveRuns
from service.engine.running.ownership import Look
from service.engine.watch import Output
from tests.patience import judged
from tests.unit.house import PATIENCE, SCOPE, SELDOM, House, begun, by_path, opened_house, step


@pytest_asyncio.fixture
async def house() -> AsyncIterator[House]:
    """A house in which nothing runs yet."""
    async with opened_house() as found:
        yield found


async def test_steps_are_given_what_they_need_and_their_outputs_are_kept(house: House) -> None:
    engine = await house.open()
    created = await begun(
        engine, step("a", params={"value": 1}), step("b", params={"value": "${ steps.a.output + 1 }"})
    )
    detail = await house.ended(engine, created)
    assert detail.execution.state is ExecutionState.COMPLETED
    assert {path: each.output for path, each in by_path(detail).items()} == {"a": 1, "b": 2}
    first, second = house.contexts
    assert (first.execution_id, first.org, first.owner) == (created.execution.id, "acme", "ann")
    assert (first.step_path, first.attempt, first.iteration, second.step_path) == ("a", 1, 1, "b")
    assert first.workflow == created.execution.workflow_name and first.idempotency_token != second.idempotency_token
    outcome = await engine.executions.wait(SCOPE, created, PATIENCE)
    assert outcome is None or outcome.execution.state is ExecutionState.COMPLETED
    assert not len(engine.runner.runs) and not engine.runner.runs.shares.held


async def test_what_a_handler_changes_of_the_variables_is_its_own(house: House) -> None:
    engine = await house.open()
    given = {"list": [{"a": 1}]}
    created = await begun(engine, step("a", "change"), step("b", params={"value": "${ input }"}), input=given)
    detail = await house.ended(engine, created)
    names = ["attempt", "execution", "input", "steps", "vars"]
    assert by_path(detail)["a"].output == [{"list": [{"a": 2}], "more": 3}, names]
    assert by_path(detail)["b"].output == detail.input == given


async def test_a_cancel_stops_what_runs(house: House) -> None:
    engine = await house.open()
    created = await begun(engine, step("a", "gate"), step("b"))
    await house.wait_for("a")
    shown = await engine.executions.cancel(SCOPE, created.execution.id, "bob", "enough")
    assert shown.execution.state is ExecutionState.CANCELLED
    assert house.stopped == ["a"]
    detail = await house.ended(engine, created)
    assert (detail.execution.counts.cancelled, list(by_path(detail))) == (2, ["a"])


async def test_nothing_begins_between_a_resume_and_a_cancel_that_have_both_come(house: House) -> None:
    """CA3: the cancel was answered before the process took the execution."""
    async with house.process() as one:
        created = await begun(one, step("a", "peek"), breakpoints=[Breakpoint("a")])
    row = await house.repository.get_execution(SCOPE, created.execution.id)
    assert row.state is ExecutionState.PAUSED
    await house.repository.post(SCOPE, created.execution.id, Posting(uuid4(), MessageKind.RESUME, "ann", {}), None)
    await house.repository.request_cancel(SCOPE, created.execution.id, "ann", "enough")
    other = await house.open()
    assert (await house.ended(other, created)).execution.state is ExecutionState.CANCELLED
    assert not house.called["a"].is_set()


async def test_a_handler_that_does_not_stop_is_waited_for_no_longer_than_the_grace(house: House) -> None:
    engine = await house.open()
    created = await begun(engine, step("a", "deaf"))
    await house.wait_for("a")
    await engine.executions.cancel(SCOPE, created.execution.id, "bob", "enough")
    detail = await house.ended(engine, created)
    assert (detail.execution.state, house.stopped) == (ExecutionState.CANCELLED, ["a"])
    assert "may still take effect" in str(by_path(detail)["a"].failure)
    house.gates["a"].set()


@pytest.mark.parametrize(("handler_name", "told"), [("gate", False), ("deaf", True)])
async def test_an_attempt_whose_time_is_over_fails(house: House, handler_name: str, told: bool) -> None:
    engine = await house.open()
    created = await begun(engine, step("a", handler_name, timeout=0.05))
    detail = await house.ended(engine, created)
    failure = by_path(detail)["a"].failure or {}
    assert (failure["code"], "its handler was told to stop" in failure["message"]) == ("STEP_TIMEOUT", told)
    assert house.stopped == ["a"]
    house.gates["a"].set()


async def test_a_step_is_tried_again_after_its_pause(house: House) -> None:
    engine = await house.open()
    retry = {"max_attempts": 3, "initial_interval": 0.01}
    detail = await house.ended(engine, await begun(engine, step("a", "break", params={"times": 2}, retry_policy=retry)))
    assert (detail.execution.state, by_path(detail)["a"].output) == (ExecutionState.COMPLETED, 3)
    assert len(by_path(detail)["a"].failed_attempts) == 2


@pytest.mark.parametrize("park_after", [0.0, SELDOM], ids=["parked", "in memory"])
async def test_what_waits_goes_on_at_its_time_without_a_look(house: House, park_after: float) -> None:
    engine = await house.open(park_after=park_after)
    pause = step("pause", "wait", params={"duration": 0.2})
    created = await begun(engine, *[pause, step("a"), {**pause, "id": "again"}, step("b")])
    detail = await house.ended(engine, created)
    assert detail.execution.state is ExecutionState.COMPLETED
    assert +engine.runner.context.finds.counts == {}


@pytest.mark.parametrize("park_after", [0.0, SELDOM], ids=["parked", "in memory"])
async def test_what_is_to_start_later_starts_then_without_a_look(house: House, park_after: float) -> None:
    engine = await house.open(park_after=park_after)
    detail = await house.ended(engine, await begun(engine, step("a"), start_delay=0.2))
    assert detail.execution.state is ExecutionState.COMPLETED


async def test_another_process_goes_on_with_what_one_has_given_back(house: House) -> None:
    async with house.process() as one:
        created = await begun(one, step("a"), step("b", "gate"), step("c"))
        await house.wait_for("b")
    assert house.stopped == ["b"]
    row = await house.repository.get_execution(SCOPE, created.execution.id)
    assert (row.incarnation, row.state) == (None, ExecutionState.RUNNING)
    house.gates["b"].set()
    other = await house.open()
    detail = await house.ended(other, created)
    outputs = {path: each.output for path, each in by_path(detail).items()}
    assert (detail.execution.state, outputs["b"], list(outputs)) == (ExecutionState.COMPLETED, 2, ["a", "b", "c"])


async def test_no_more_run_at_a_time_than_there_is_room_for(house: House) -> None:
    engine = await house.open(max_running=2)
    workflow = await engine.workflows.create("acme", {"name": "w", "steps": [step("a", "gate")]}, "ann")
    created = [await engine.executions.execute(SCOPE, "ann", StartRequest(workflow.name)) for _ in range(6)]
    await house.wait_for("a")
    assert len(engine.runner.runs) <= 2
    house.gates["a"].set()
    for each in created:
        assert (await house.ended(engine, each)).execution.state is ExecutionState.COMPLETED


async def test_what_an_attempt_reports_is_kept_and_what_it_says_is_shown(house: House) -> None:
    engine = await house.open()
    created = await begun(engine, step("a", "gate"))
    seen: list[str] = []
    reported = asyncio.Event()

    async def watch() -> None:
        async for page in engine.executions.watch(SCOPE, created.execution.id, 0):
            if isinstance(page, Output):
                seen.append(page.text)
            elif isinstance(page, list | tuple) and any(event.kind == "step_progressed" for event in page):
                reported.set()

    watching = asyncio.create_task(watch())
    await house.wait_for("a")
    await asyncio.sleep(0)
    (context,) = house.contexts
    context.emit("hello")
    context.report(40, "on it")
    async with asyncio.timeout(PATIENCE):
        await reported.wait()
        row = by_path(await house.repository.get_detail(SCOPE, created.execution.id))["a"]
        house.gates["a"].set()
        await watching
    assert (row.progress, seen) == (40, ["hello"])


async def test_what_was_deleted_with_its_workflow_is_cancelled_and_goes(house: House) -> None:
    engine = await house.open()
    created = await begun(engine, step("a", "gate"))
    await house.wait_for("a")
    workflow = created.execution.workflow_name
    await engine.executions.delete_workflow(SCOPE, workflow, "", True, "bob")
    async with asyncio.timeout(PATIENCE):
        run = engine.runner.run_of(created.execution.id)
        if run is not None:
            await run.closed.wait()
    assert house.stopped == ["a"]


async def test_nothing_begins_while_the_lease_does_not_let_it(house: House) -> None:
    engine = await house.open()
    engine.runner.tenure.hold_until(0.0)
    created = await begun(engine, step("a"))
    for _ in range(20):
        await asyncio.sleep(0)
    assert not house.contexts
    engine.runner.tenure.hold_until(float("inf"))
    engine.runner.context.work.poke()
    assert (await house.ended(engine, created)).execution.state is ExecutionState.COMPLETED


async def test_a_process_that_hands_over_takes_nothing_more(house: House) -> None:
    async with house.process() as one:
        await one.runner.hand_over()
        created = await begun(one, step("a"))
        assert created.execution.incarnation is None
        await one.executions.cancel(SCOPE, (await begun(one, step("b"))).execution.id, "bob", "enough")
        assert not len(one.runner.runs) and not house.contexts
    detail = await house.ended(await house.open(), created)
    assert detail.execution.state is ExecutionState.COMPLETED


async def test_a_process_without_its_lease_drops_all_at_once(house: House) -> None:
    engine = await house.open()
    await begun(engine, step("a", "gate"))
    await house.wait_for("a")
    engine.runner.tenure.fence()
    assert not len(engine.runner.runs) and not engine.runner.tenure.may_begin
    await asyncio.sleep(0)
    assert house.stopped == ["a"]


async def test_what_a_dropped_execution_committed_is_told_to_its_watchers(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They would find it by a look, seconds later, where no other process takes the execution soon."""
    engine = await house.open()
    created = await begun(engine, step("a", "gate"))
    await house.wait_for("a")
    submit, result = house.repository.submit, asyncio.get_running_loop().create_future()
    written: list[Transition] = []

    def unanswered(transition: Transition) -> asyncio.Future[CommitResult]:
        written.append(transition)
        return result

    monkeypatch.setattr(house.repository, "submit", unanswered)
    with engine.hub.subscribe(created.execution.id) as subscription:
        house.gates["a"].set()
        while not written:  # noqa: ASYNC110 - no signal tells of it
            await asyncio.sleep(0)
        engine.runner.tenure.fence()
        result.set_result(await submit(written[0]))
        await subscription.wait(0, PATIENCE)
        assert list(subscription.after(written[0].base_seq)) == list(written[0].events)


async def test_what_was_released_is_dropped_if_it_was_at_the_epoch_that_is_driven(house: House) -> None:
    engine = await house.open()
    created = await begun(engine, step("a", "gate"))
    await house.wait_for("a")
    tenure, execution_id = engine.runner.tenure, created.execution.id
    run = engine.runner.run_of(execution_id)
    assert run is not None
    for epoch in (run.execution.epoch + 1, run.execution.epoch - 1):
        tenure.withhold(execution_id, epoch)
        tenure.drop(execution_id, epoch)
        assert not run.is_withheld and engine.runner.run_of(execution_id) is run
    tenure.withhold(execution_id, run.execution.epoch)
    assert run.is_withheld
    tenure.drop(execution_id, run.execution.epoch)
    assert engine.runner.run_of(execution_id) is None
    await asyncio.sleep(0)
    assert house.stopped == ["a"]


async def test_what_others_took_while_a_process_was_cut_off_is_dropped_and_the_rest_goes_on(house: House) -> None:
    engine = await house.open()
    kept = await begun(engine, step("kept", "gate"))
    taken = await begun(engine, step("taken", "gate"))
    await house.wait_for("kept")
    await house.wait_for("taken")
    tenure = engine.runner.tenure
    await house.repository.release(tenure.incarnation, [taken.execution.id])
    await tenure.reclaim()
    assert set(engine.runner.runs.ids) == {kept.execution.id}
    await asyncio.sleep(0)
    assert house.stopped == ["taken"]
    assert tenure.ownership.generation == 1
    house.gates["kept"].set()
    assert (await house.ended(engine, kept)).steps[0].output == 1


@pytest.mark.parametrize("error", [UnavailableError("away"), RuntimeError("a mistake")])
async def test_after_a_failed_claim_the_next_one_comes_later_and_asks_for_less(
    house: House, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    asked: list[int] = []
    enough, claim = asyncio.Event(), house.repository.claim

    async def failing(incarnation: Any, limit: int, **how: Any) -> Any:
        asked.append(limit)
        if len(asked) > 4:
            enough.set()
            return await claim(incarnation, limit, **how)
        raise error

    monkeypatch.setattr(house.repository, "claim", failing)
    engine = await house.open()
    for _ in range(20):
        engine.runner.context.work.poke()
        await asyncio.sleep(0)
    assert asked == [100]
    await engine.runner.stop()

    asked.clear()
    await house.open(claim_interval=0.05)
    async with asyncio.timeout(PATIENCE):
        await enough.wait()
    assert asked[:5] == [100, 50, 25, 12, 6]


async def test_what_a_look_takes_before_the_call_that_it_was_sent_by_has_been_told_of(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = await house.open(claim_interval=0.05, park_after=0.0)
    created = await begun(engine, step("pause", "wait", params={"duration": SELDOM}))
    claim, claim_one, is_taken = house.repository.claim, house.repository.claim_one, asyncio.Event()

    async def look(*what: Any, **how: Any) -> Any:
        found = await claim(*what, **how)
        if found:
            is_taken.set()
        return found

    async def late(*what: Any) -> Any:
        await is_taken.wait()
        return await claim_one(*what)

    monkeypatch.setattr(house.repository, "claim", look)
    monkeypatch.setattr(house.repository, "claim_one", late)
    await engine.control.ask(SCOPE, created.execution.id, MessageKind.PAUSE, "ann", {})
    await judged(engine.hub.finds)
    assert +engine.hub.finds.counts == {}


async def test_the_store_is_asked_for_executions_within_a_look(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """ST10: what is let go before its answer comes is not taken up from that."""
    under_way, seen = list[Look](), dict[str, bool]()
    looking = ActiveRuns.looking

    @contextmanager
    def noted(self: ActiveRuns) -> Iterator[Look]:
        with looking(self) as look:
            under_way.append(look)
            yield look
            under_way.remove(look)

    monkeypatch.setattr(ActiveRuns, "looking", noted)
    for name in ("claim", "claim_one"):
        ask = getattr(house.repository, name)

        async def asked(*what: Any, name: str = name, ask: Any = ask, **how: Any) -> Any:
            seen[name] = bool(under_way)
            return await ask(*what, **how)

        monkeypatch.setattr(house.repository, name, asked)
    engine = await house.open(park_after=0.0)
    created = await begun(engine, step("pause", "wait", params={"duration": SELDOM}))
    await engine.control.ask(SCOPE, created.execution.id, MessageKind.PAUSE, "ann", {})
    assert seen == {"claim": True, "claim_one": True}
