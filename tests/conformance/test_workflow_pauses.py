"""A paused workflow: what has not started is held back, what runs is asked once, and the resume ends that alone."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from msgspec.structs import replace

from persistence.errors import RequestIdReusedError, WorkflowNotFoundError
from persistence.listing import WorkflowFilter
from persistence.model import Execution, ExecutionState, MessageKind, Pause, Workflow
from persistence.pauses import NEVER, PAUSE_ID, WorkflowPausing
from persistence.posting import Posting
from persistence.repository import Repository
from persistence.requests import Method, Request
from persistence.transition import Reopening, Waiting
from service.engine.ids import uuid7
from tests.conformance.builders import (
    MOMENT,
    ORG,
    SCOPE,
    Keeper,
    document,
    ending,
    events,
    execution,
    in_seconds,
    new,
    now,
    parking,
    step,
    transition,
)

PENDING, RUNNING, PAUSED = ExecutionState.PENDING, ExecutionState.RUNNING, ExecutionState.PAUSED


def pausing(**changes: Any) -> WorkflowPausing:
    """What ann asks for, or as `changes` say."""
    return replace(WorkflowPausing(uuid7(), "ann", "an incident"), **changes)


async def row(repository: Repository, of: Execution) -> Execution:
    return await repository.get_execution(SCOPE, of.id)


async def mail(repository: Repository, incarnation: UUID) -> dict[UUID, list[tuple[str, Any]]]:
    """What executions of a process were sent, each with the id of the pause that sent it."""
    found = await repository.deliver(incarnation)
    return {each.execution_id: [(m.kind, m.body.get(PAUSE_ID)) for m in each.messages] for each in found}


async def test_it_is_shown_with_who_paused_it_and_new_revisions_leave_it_so(
    repository: Repository, workflow: Workflow
) -> None:
    asked = pausing()
    before = now()
    paused = await repository.pause_workflow(SCOPE, workflow.name, asked)
    assert paused.pause is not None and before - timedelta(seconds=5) <= paused.pause.time <= now() + timedelta(
        seconds=5
    )
    assert (paused.pause.id, paused.pause.by, paused.pause.reason) == (asked.id, "ann", "an incident")
    assert not paused.pause.pauses_running
    again = await repository.pause_workflow(SCOPE, str(workflow.id), pausing(by="bob", reason="me too"))
    assert again == paused
    updated = await repository.update_workflow(SCOPE, workflow.name, document("research", tags=["x"]), "", "bob")
    (applied,) = await repository.apply_workflows(ORG, [(uuid7(), document("research", tags=["y"]))], "bob")
    (listed,) = [
        each for each in await repository.list_workflows(SCOPE, WorkflowFilter(), None, 10) if each.id == workflow.id
    ]
    old = await repository.get_workflow(SCOPE, workflow.name, 1)
    assert updated.pause == applied.workflow.pause == listed.pause == old.pause == paused.pause
    resumed = await repository.resume_workflow(SCOPE, workflow.name, "bob", "")
    assert resumed.pause is None and resumed.revision == 3
    assert (await repository.resume_workflow(SCOPE, workflow.name, "bob", "")).pause is None
    for call in (
        repository.pause_workflow(SCOPE, "absent", asked),
        repository.resume_workflow(SCOPE, "absent", "x", ""),
    ):
        with pytest.raises(WorkflowNotFoundError):
            await call


async def test_a_deleted_one_stays_paused_and_its_name_is_free(repository: Repository, keeper: Keeper) -> None:
    await repository.pause_workflow(SCOPE, keeper.workflow.name, pausing())
    await kept(repository, execution(keeper.workflow))
    await repository.delete_workflow(SCOPE, keeper.workflow.name, "", True, "ann")
    assert (await repository.get_workflow(SCOPE, str(keeper.workflow.id))).pause is not None
    other = await repository.create_workflow(ORG, uuid7(), document(keeper.workflow.name), "ann")
    assert other.pause is None


async def test_what_has_not_started_is_claimed_by_nobody_until_the_resume(
    repository: Repository, workflow: Workflow, incarnation: UUID
) -> None:
    before = await kept(repository, execution(workflow))
    delayed = await kept(repository, execution(workflow, wake_time=in_seconds(300), scheduled_time=in_seconds(300)))
    await repository.pause_workflow(SCOPE, workflow.name, pausing())
    after = await kept(repository, execution(workflow))
    for each in (before, delayed, after):
        found = await row(repository, each)
        assert (found.held_back, found.wake_time, found.state) == (True, NEVER, PENDING)
    assert await repository.claim(incarnation, 10) == []
    await repository.resume_workflow(SCOPE, workflow.name, "bob", "")
    found = await row(repository, delayed)
    assert (found.held_back, found.wake_time) == (False, found.scheduled_time)
    claimed = await repository.claim(incarnation, 10)
    assert [each.execution.id for each in claimed] == [before.id, after.id]
    assert not any(each.execution.held_back for each in claimed)


async def test_what_would_start_with_its_creation_is_kept_as_what_waits(
    repository: Repository, workflow: Workflow, incarnation: UUID
) -> None:
    await repository.pause_workflow(SCOPE, workflow.name, pausing())
    started = execution(workflow, incarnation, last_seq=2, start_time=MOMENT, deadline_time=MOMENT, request_id="r")
    accepted = replace(started, state=PENDING, incarnation=None, wake_time=now(), last_seq=1)
    accepted = replace(accepted, start_time=None, deadline_time=None)
    waiting = Waiting(accepted, (), events(0, 1))
    creation = new(started, steps=(step(),), waiting=waiting)
    for _ in range(2):  # with its request id again
        created = await repository.create(creation)
        assert (created.execution.state, created.execution.held_back, created.outcome) == (PENDING, True, None)
    detail = await repository.get_detail(SCOPE, started.id)
    assert (detail.execution.last_seq, detail.execution.incarnation, list(detail.steps)) == (1, None, [])
    assert [event.seq for event in await repository.read_events(SCOPE, started.id, 0, 10)] == [1]
    await repository.resume_workflow(SCOPE, workflow.name, "bob", "")
    other = replace(started, id=uuid7(), request_id="")
    created = await repository.create(new(other, waiting=replace(waiting, execution=replace(accepted, id=other.id))))
    assert (created.execution.state, created.execution.held_back) == (RUNNING, False)


async def test_what_was_sent_to_it_is_seen_while_it_is_held_back(
    repository: Repository, workflow: Workflow, incarnation: UUID
) -> None:
    unseen, later = await kept(repository, execution(workflow)), await kept(repository, execution(workflow))
    await repository.request_cancel(SCOPE, unseen.id, "bob", "enough")
    await repository.pause_workflow(SCOPE, workflow.name, pausing())
    await repository.request_cancel(SCOPE, later.id, "bob", "enough")
    claimed = await repository.claim(incarnation, 10)
    assert {each.execution.id for each in claimed} == {unseen.id, later.id}
    assert all(each.execution.held_back and len(each.messages) == 1 for each in claimed)
    cancelled = ending(claimed[0].execution, ExecutionState.CANCELLED, mail_seen=1)
    assert await repository.submit(cancelled) == "COMMITTED"
    found = await row(repository, claimed[0].execution)
    assert (found.state, found.wake_time) == (ExecutionState.CANCELLED, None)
    await repository.resume_workflow(SCOPE, workflow.name, "bob", "")
    (again,) = await repository.claim(incarnation, 10)
    assert (again.execution.id, len(again.messages)) == (claimed[1].execution.id, 1)


async def test_an_owner_who_does_not_know_of_the_resume_has_it_no_longer(
    repository: Repository, workflow: Workflow, incarnation: UUID
) -> None:
    await repository.pause_workflow(SCOPE, workflow.name, pausing())
    waiting = await kept(repository, execution(workflow))
    claimed = await repository.claim_one(incarnation, ORG, waiting.id)
    assert claimed is not None and claimed.execution.held_back
    await repository.resume_workflow(SCOPE, workflow.name, "bob", "")
    mine = claimed.execution
    parked = parking(mine, NEVER, state=PENDING, events=(), mail_seen=mine.mail)
    assert await repository.submit(parked) == "FENCED"
    (again,) = await repository.claim(incarnation, 10)
    assert again.execution.id == waiting.id and not again.execution.held_back


async def test_what_runs_is_sent_a_pause_once_and_a_resume_if_that_paused_it(
    repository: Repository, keeper: Keeper, workflow: Workflow, incarnation: UUID
) -> None:
    by_hand = await keeper.put(state=PAUSED, start_time=MOMENT, pause=Pause("bob", "mine", MOMENT))
    before_b = Pause("bob", "before step b", MOMENT, step="b")
    held = await keeper.put(state=PAUSED, start_time=MOMENT, pause=before_b)
    ends = await keeper.put(state=ExecutionState.CANCELLING)
    runs, unaware = await keeper.put(), await keeper.put()
    asked = pausing(pauses_running=True, stops_deadline=True)
    paused = await repository.pause_workflow(SCOPE, workflow.name, asked)
    assert paused.pause is not None and paused.pause.pauses_running
    sent = await mail(repository, incarnation)
    assert sent == {each.id: [(MessageKind.PAUSE, str(asked.id))] for each in (runs, unaware)}
    pause = Pause("ann", "an incident", MOMENT, workflow_pause_id=str(asked.id))
    (message,) = next(m.messages for m in await repository.deliver(incarnation) if m.execution_id == runs.id)
    assert (message.sender, message.body["reason"], message.body["stop_deadline"]) == ("ann", "an incident", True)
    seen = transition(runs, state=PAUSED, pause=pause, consumed=(message.id,), mail_seen=1)
    assert await repository.submit(seen) == "COMMITTED"
    await repository.resume_workflow(SCOPE, workflow.name, "bob", "over")
    sent = await mail(repository, incarnation)
    assert sent.pop(runs.id) == [(MessageKind.RESUME, str(asked.id))]
    assert sent == {unaware.id: [(kind, str(asked.id)) for kind in (MessageKind.PAUSE, MessageKind.RESUME)]}
    for each in (by_hand, held, ends):
        assert (await row(repository, each)).mail == each.mail


async def test_what_its_owner_is_about_to_start_is_taken_from_it(
    repository: Repository, keeper: Keeper, workflow: Workflow, incarnation: UUID
) -> None:
    starts, told = [await keeper.put(state=PENDING) for _ in range(2)]
    paused = await keeper.put_free(state=PAUSED, pause=Pause("bob", "mine", MOMENT))
    await repository.request_cancel(SCOPE, told.id, "bob", "enough")
    await repository.pause_workflow(SCOPE, workflow.name, pausing())
    assert await repository.submit(transition(starts, start_time=MOMENT)) == "FENCED"
    assert [(await row(repository, each)).held_back for each in (starts, told, paused)] == [True] * 3
    (claimed,) = await repository.claim(incarnation, 10)  # for what was sent to it
    assert (claimed.execution.id, claimed.execution.epoch > told.epoch) == (told.id, True)


async def test_a_pause_is_widened_to_what_runs(
    repository: Repository, keeper: Keeper, workflow: Workflow, incarnation: UUID
) -> None:
    first = pausing()
    runs = await keeper.put()
    await repository.pause_workflow(SCOPE, workflow.name, first)
    assert await mail(repository, incarnation) == {}
    widened = await repository.pause_workflow(SCOPE, workflow.name, pausing(by="bob", pauses_running=True))
    assert widened.pause is not None
    assert (widened.pause.id, widened.pause.by, widened.pause.pauses_running) == (first.id, "ann", True)
    assert await mail(repository, incarnation) == {runs.id: [(MessageKind.PAUSE, str(first.id))]}


async def test_what_is_retried_meanwhile_is_paused_until_the_resume(
    repository: Repository, keeper: Keeper, workflow: Workflow, incarnation: UUID
) -> None:
    failed = await keeper.put()
    assert await repository.submit(ending(failed, ExecutionState.FAILED, failure={"code": "X", "message": "x"})) == (
        "COMMITTED"
    )
    asked = pausing()
    await repository.pause_workflow(SCOPE, workflow.name, asked)
    last = (await row(repository, failed)).last_seq
    reopening = Reopening(failed.id, last, 2, failed.counts, now(), in_seconds(60), 100, events(last)[0])
    reopened = (await repository.reopen(SCOPE, reopening)).execution
    assert (reopened.state, reopened.mail, reopened.held_back) == (RUNNING, 1, False)
    (claimed,) = await repository.claim(incarnation, 10)
    ((kind, sender, body),) = [(m.kind, m.sender, m.body) for m in claimed.messages]
    assert (kind, sender, body[PAUSE_ID], body["stop_deadline"]) == ("PAUSE", "ann", str(asked.id), True)


async def test_a_pause_is_sent_where_that_of_the_workflow_is_on_its_way(
    repository: Repository, keeper: Keeper, workflow: Workflow
) -> None:
    mine = await keeper.put()
    await repository.pause_workflow(SCOPE, workflow.name, pausing(pauses_running=True))
    await repository.resume_workflow(SCOPE, workflow.name, "bob", "")
    for is_sent in (True, False):
        posted = await repository.post(SCOPE, mine.id, Posting(uuid7(), MessageKind.PAUSE, "ann", {}))
        assert (posted.message is not None) == is_sent
    resumed = await repository.post(SCOPE, mine.id, Posting(uuid7(), MessageKind.RESUME, "ann", {}))
    assert resumed.message is not None


@pytest.mark.parametrize("pause", ["by hand", "of a breakpoint", "of the workflow"])
async def test_a_pause_that_somebody_asks_for_is_sent_where_another_gives_way(
    repository: Repository, keeper: Keeper, pause: str
) -> None:
    how: dict[str, Any] = {"of a breakpoint": {"step": "b"}, "of the workflow": {"workflow_pause_id": "w"}}.get(
        pause, {}
    )
    mine = await keeper.put(state=PAUSED, pause=Pause("bob", "mine", MOMENT, **how))
    asked = Posting(uuid7(), MessageKind.PAUSE, "ann", {"reason": "hold it"})
    posted = await repository.post(SCOPE, mine.id, asked)
    assert (posted.message is not None) == bool(how)
    again = await repository.post(SCOPE, mine.id, replace(asked, id=uuid7()))
    assert again.message is None


async def test_a_request_id_pauses_and_resumes_once(repository: Repository, workflow: Workflow) -> None:
    pause, resume = (Request(name, method, b"x") for name, method in (("p", _PAUSE), ("r", _RESUME)))
    first = await repository.pause_workflow(SCOPE, workflow.name, pausing(), pause)
    await repository.resume_workflow(SCOPE, workflow.name, "ann", "", resume)
    assert (await repository.pause_workflow(SCOPE, workflow.name, pausing(), pause)).pause is None
    await repository.pause_workflow(SCOPE, workflow.name, pausing())
    assert (await repository.resume_workflow(SCOPE, workflow.name, "ann", "", resume)).pause is not None
    assert first.pause is not None
    with pytest.raises(RequestIdReusedError):
        await repository.resume_workflow(SCOPE, workflow.name, "ann", "", Request("p", _RESUME, b"x"))
    with pytest.raises(WorkflowNotFoundError):  # and that leaves the id free
        await repository.pause_workflow(SCOPE, "absent", pausing(), Request("q", _PAUSE, b"x"))
    await repository.pause_workflow(SCOPE, workflow.name, pausing(), Request("q", _PAUSE, b"x"))


_PAUSE, _RESUME = Method.PAUSE_WORKFLOW, Method.RESUME_WORKFLOW


async def kept(repository: Repository, made: Execution) -> Execution:
    """Keep an execution and return it."""
    return (await repository.create(new(made))).execution
