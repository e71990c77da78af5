"""`flowkeep tasks` against a real server."""

from __future__ import annotations

import asyncio
import json
import signal

from tests.e2e.commands import at, execute, refused, shown
from tests.e2e.process import FLOWKEEP, environment
from tests.patience import PATIENCE

ASKING = """
name: asking
steps:
  - id: ask
    handler: create_task
    params:
      title: Approve the trip
      outcomes: [approved, rejected]
      form: {type: object, properties: {days: {type: integer, maximum: 5}}}
"""


async def test_a_task_is_found_shown_talked_about_and_completed(target: str) -> None:
    await shown(target, "apply", "-", given=ASKING)
    execution_id = (await execute(target, "asking"))["execution_id"]
    (task,) = (await at(target, "tasks", "list", "--mine", "--execution", execution_id[:18])).json["tasks"]
    task_id = task["task_id"]
    assert (task["state"], task["title"]) == ("OPEN", "Approve the trip")
    assert f"for a person, task {task_id}" in await shown(target, "get", execution_id)
    await shown(target, "tasks", "claim", task_id)
    await shown(target, "tasks", "comment", task_id, "how long?")
    text = await shown(target, "tasks", "show", task_id)
    assert "developer" in text
    assert "how long?" in text
    assert f"flowkeep tasks complete {task_id} approved|rejected --set NAME=VALUE" in text
    complaint = await refused(target, "tasks", "complete", task_id, "approved", "--set", "days=9", code=2)
    assert "values.days" in complaint
    done = (await at(target, "tasks", "complete", task_id, "approved", "--set", "days=3")).json
    assert (done["state"], done["values"]) == ("COMPLETED", {"days": 3})
    assert "TASK_ENDED" in await refused(target, "tasks", "complete", task_id, "rejected", code=5)
    assert "Approve the trip" in await shown(target, "tasks", "list", "--all")


WAITING = """
name: waiting
steps:
  - {id: go, handler: wait_signal, params: {name: go, timeout: 1d, schema: {required: [n]}}}
"""


async def test_a_signal_is_sent_by_id_or_by_what_the_execution_belongs_to(target: str) -> None:
    await shown(target, "apply", "-", given=WAITING)
    first = (await execute(target, "waiting"))["execution_id"]
    assert "for the signal go" in await shown(target, "get", first)
    assert "payload.n" in await refused(target, "signal", first, "go", code=2)
    sent = (await at(target, "signal", first[:18], "go", "--set", "n=3")).json
    assert f'"{sent["signal_id"]}"' in (await at(target, "get", first)).out
    second = (await execute(target, "waiting", "--correlation-id", "A-17"))["execution_id"]
    text = await shown(
        target, "signal", "-", "go", "-i", '{"n": 1}', "--workflow", "waiting", "--correlation-id", "A-17"
    )
    assert second in text
    assert "signal go received" in await shown(target, "events", second)
    await refused(target, "signal", "-", "go", code=2)


async def test_a_signal_starts_the_execution_that_it_is_for(target: str) -> None:
    await shown(target, "apply", "-", given=WAITING)
    meant = ("signal", "-", "go", "--set", "n=1", "--workflow", "waiting", "--correlation-id", "B-17", "--start")
    later = (*meant[:2], "later", *meant[3:])
    started = await shown(target, *later, "--start-input", '{"item": "book"}')
    assert started.rstrip().endswith(", which it started")
    sent = (await at(target, *meant)).json
    assert sent["execution"]["execution_id"] in started
    assert sent["started"] is False
    assert "--start" in await refused(target, "signal", "0" * 8, "go", "--start", code=2)
    assert "--start" in await refused(target, *meant[:-1], "--start-input", "{}", code=2)


async def test_tasks_are_watched_as_they_come_change_and_go(target: str) -> None:
    await shown(target, "apply", "-", given=ASKING)
    execution_id = (await execute(target, "asking"))["execution_id"]
    watching = await asyncio.create_subprocess_exec(
        *(*FLOWKEEP, "tasks", "watch", "--execution", execution_id, "--output", "json"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment({"FLOWKEEP_TARGET": target}),
    )
    assert watching.stdout is not None
    async with asyncio.timeout(2 * PATIENCE):
        task = json.loads(await watching.stdout.readline())
        assert (task["state"], task["title"]) == ("OPEN", "Approve the trip")
        await shown(target, "tasks", "claim", task["task_id"])
        assert json.loads(await watching.stdout.readline())["state"] == "CLAIMED"
        await shown(target, "tasks", "complete", task["task_id"], "rejected")
        assert json.loads(await watching.stdout.readline()) == {"gone_task_id": task["task_id"]}
        watching.send_signal(signal.SIGINT)
        await watching.communicate()
