"""Tasks of people over gRPC: the example, who may do what, what is refused, watching, and other servers."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import yaml

import flowkeep
from flowkeep.handlers import handler
from flowkeep.payload import from_value
from flowkeep.v1.task_pb2 import Task
from service.engine.people import people
from tests.folders import ROOT
from tests.integration.conftest import Serve
from tests.integration.credentials import AUDIENCE, ISSUER, OWN, PUBLIC_PEM, token
from tests.integration.stage import Served, ended, made, step
from tests.patience import PATIENCE

EXAMPLE = yaml.safe_load((ROOT / "clients" / "examples" / "approval.yaml").read_text())
COMPLETED = flowkeep.Execution.STATE_COMPLETED
WORK = [permission for permission in OWN if permission.startswith("tasks.")]


def ask(step_id: str = "ask", **params: Any) -> dict[str, Any]:
    return step(step_id, "create_task", **{"title": "Approve", "outcomes": ["yes", "no"], **params})


async def task_of(client: flowkeep.Client, execution_id: str) -> Task:
    """The task that an execution waits for, when it does."""
    async with asyncio.timeout(PATIENCE):
        async for event in client.watch(execution_id):
            if event.WhichOneof("kind") == "step_waiting":
                return await client.get_task(event.step_waiting.wait.task.task_id)
    raise AssertionError("it waits for nobody")


@pytest.mark.parametrize(
    ("outcome", "values", "paid"), [("approved", {"amount": 90}, 90), ("approved", None, 120), ("rejected", None, 0)]
)
async def test_the_example_pays_what_was_approved(
    client: flowkeep.Client, outcome: str, values: Any, paid: float
) -> None:
    await client.create_workflow(EXAMPLE)
    execution = await client.execute("expense", {"purpose": "books", "amount": 120})
    task = await task_of(client, execution.execution_id)
    assert (task.title, list(task.groups)) == ("Approve 120 for books", ["accounting"])
    await client.complete_task(task.task_id, outcome, values)
    result = from_value((await ended(client, execution.execution_id)).result)
    assert result == {"paid": paid, "by": "developer"}


async def test_the_example_pays_small_ones_at_once(client: flowkeep.Client) -> None:
    await client.create_workflow(EXAMPLE)
    assert await client.run("expense", {"purpose": "tea", "amount": 5}) == {"paid": 5, "by": ""}


async def test_a_parked_execution_shows_whom_it_waits_for_and_goes_on_with_what_they_say(serve: Serve) -> None:
    """Another server is asked than the one that began it."""
    first, second = await serve(park_after=0), await serve()
    name = await made(first.client, ask(due_in="1h"), step("b", "transform", expression="steps.ask.output.outcome"))
    execution_id = (await first.client.execute(name)).execution_id
    task = await task_of(first.client, execution_id)
    shown = (await second.client.get_execution(execution_id)).steps[0]
    assert (shown.wait.task.task_id, shown.wait.wake_time) == (task.task_id, task.due_time)
    assert (task.step_path, task.execution_id, task.workflow_name) == ("ask", execution_id, name)
    await second.client.complete_task(task.task_id, "no", comment="too much")
    execution = await ended(second.client, execution_id)
    assert from_value(execution.result) == "no"
    assert from_value(execution.steps[0].output)["comment"] == "too much"


async def test_what_an_answer_leads_to_is_called_once_and_not_at_all_where_the_execution_is_given_up(
    serve: Serve, admin: asyncpg.Connection
) -> None:
    called: list[str] = []

    @handler("pay", effect="external")
    async def pay(what: str) -> str:
        called.append(f"pay {what}")
        return what

    @handler("look", effect="none")
    async def look(what: str) -> None:
        called.append(f"look at {what}")

    server = await serve([pay, look], park_after=0)
    what = "${ input.what }"
    seen, once = step("look", "look", what=what), step("pay", "pay", what=what, delivery="AT_MOST_ONCE")
    name = await made(server.client, ask(due_in="1h"), seen, once)
    paid, given_up = [(await server.client.execute(name, {"what": what})).execution_id for what in ("tea", "gin")]
    tasks = [await task_of(server.client, each) for each in (paid, given_up)]
    await admin.execute("UPDATE executions SET deaths = 5 WHERE id = $1", given_up)
    for task in tasks:
        await server.client.complete_task(task.task_id, "yes")
    found = await ended(server.client, paid)
    assert (found.state, [each.attempt for each in found.steps]) == (COMPLETED, [0, 1, 1])
    assert (await ended(server.client, given_up)).failure.code == "POISONED"
    assert sorted(called) == ["look at tea", "pay tea"]


async def test_what_is_wrong_with_a_completion_is_told_by_field(client: flowkeep.Client) -> None:
    form = {"type": "object", "required": ["amount"], "properties": {"amount": {"type": "number", "maximum": 10}}}
    name = await made(client, ask(form=form))
    task = await task_of(client, (await client.execute(name)).execution_id)
    with pytest.raises(flowkeep.InvalidArgumentError) as refused:
        await client.complete_task(task.task_id, "perhaps", {"amount": 11, "more": 1})
    assert [violation.field for violation in refused.value.violations] == ["values.amount", "outcome"]
    with pytest.raises(flowkeep.InvalidArgumentError) as refused:
        await client.complete_task(task.task_id, "yes")
    assert [violation.field for violation in refused.value.violations] == ["values.amount"]
    assert (await client.get_task(task.task_id)).state == Task.STATE_OPEN


async def test_a_cancelled_execution_takes_its_task_along(client: flowkeep.Client) -> None:
    execution_id = (await client.execute(await made(client, ask()))).execution_id
    task = await task_of(client, execution_id)
    await client.cancel(execution_id)
    await ended(client, execution_id)
    with pytest.raises(flowkeep.FailedPreconditionError) as refused:
        await client.complete_task(task.task_id, "yes")
    assert (refused.value.reason, refused.value.metadata["state"]) == ("TASK_ENDED", "CANCELLED")


async def test_a_repeated_completion_is_answered_and_another_refused(client: flowkeep.Client) -> None:
    execution_id = (await client.execute(await made(client, ask()))).execution_id
    task = await task_of(client, execution_id)
    first = await client.complete_task(task.task_id, "yes", request_id="once")
    assert await client.complete_task(task.task_id, "yes", request_id="once") == first
    with pytest.raises(flowkeep.FailedPreconditionError) as refused:
        await client.complete_task(task.task_id, "no")
    assert refused.value.metadata["completed_by"] == "developer"


async def test_overdue_it_goes_on_with_the_default(client: flowkeep.Client) -> None:
    name = await made(client, ask(due_in=0.05, overdue={"outcome": "no"}))
    execution_id = (await client.execute(name)).execution_id
    output = from_value((await ended(client, execution_id)).result)
    assert (output["outcome"], output["overdue"], output["completed_by"]) == ("no", True, "")
    assert (await client.get_task(output["task_id"])).state == Task.STATE_EXPIRED


async def test_who_watches_sees_tasks_come_change_and_go(client: flowkeep.Client) -> None:
    name = await made(client, ask())
    async with asyncio.timeout(PATIENCE), aclosing(client.watch_tasks(states=["OPEN"])) as watch:
        assert not (await anext(watch)).tasks
        execution_id = (await client.execute(name)).execution_id
        while not (news := await anext(watch)).tasks:
            pass
        (task,) = news.tasks
        assert (task.execution_id, task.state) == (execution_id, Task.STATE_OPEN)
        await client.claim_task(task.task_id)
        while not (news := await anext(watch)).gone_task_ids:
            pass
        assert list(news.gone_task_ids) == [task.task_id]


async def test_who_watches_sees_more_than_are_read_at_a_time(
    client: flowkeep.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(people, "PAGE", 2)
    monkeypatch.setattr(people, "WATCHED", 4)
    name = await made(client, ask(wait=False))
    for _ in range(5):
        await client.execute(name, wait=True)
    newest = [task.task_id async for task in client.list_tasks()]
    async with asyncio.timeout(PATIENCE), aclosing(client.watch_tasks(states=["OPEN"])) as watch:
        pages = [[task.task_id for task in (await anext(watch)).tasks] for _ in range(2)]
        assert pages == [newest[:2], newest[2:4]]
        await client.complete_task(newest[1], "yes")
        seen, gone = list[str](), list[str]()
        while not (seen and gone):
            news = await anext(watch)
            seen += [task.task_id for task in news.tasks]
            gone += news.gone_task_ids
        assert (seen, gone) == (newest[4:], newest[1:2])


async def guarded(serve: Serve, folder: Path) -> Served:
    """A server that knows callers by tokens."""
    key_file = folder / "key.pem"
    key_file.write_bytes(PUBLIC_PEM)
    return await serve(jwt_key_file=key_file, jwt_issuer=ISSUER, jwt_audience=AUDIENCE)


async def test_people_are_known_by_subject_and_by_the_groups_of_their_token(serve: Serve, tmp_path: Path) -> None:
    served = await guarded(serve, tmp_path)
    alice, bob, carol, boss = (
        served.client_with(token(**claims))
        for claims in (
            {},
            {"sub": "bob", "groups": ["heads"], "permissions": WORK},
            {"sub": "carol", "permissions": WORK},
            {"sub": "boss", "permissions": [*WORK, "tasks.all_assignees"]},
        )
    )
    async with alice, bob, carol, boss:
        execution_id = (await alice.execute(await made(alice, ask(groups=["heads"])))).execution_id
        task = await task_of(alice, execution_id)
        assert [each.task_id async for each in bob.list_tasks(mine=True)] == [task.task_id]
        assert [each.task_id async for each in carol.list_tasks()] == []
        with pytest.raises(flowkeep.NotFoundError):
            await carol.claim_task(task.task_id)
        with pytest.raises(flowkeep.PermissionDeniedError) as refused:
            await alice.complete_task(task.task_id, "yes")
        assert refused.value.reason == "TASK_NOT_ASSIGNED"
        await bob.claim_task(task.task_id)
        with pytest.raises(flowkeep.FailedPreconditionError) as taken:
            await boss.complete_task(task.task_id, "yes")
        assert (taken.value.reason, taken.value.metadata["claimed_by"]) == ("TASK_CLAIMED", "bob")
        await bob.delegate_task(task.task_id, "carol", comment="yours")
        done = await carol.complete_task(task.task_id, "yes")
        assert (done.completed_by, [each.author for each in done.comments]) == ("carol", ["bob"])
        assert from_value((await ended(alice, execution_id)).result)["completed_by"] == "carol"
