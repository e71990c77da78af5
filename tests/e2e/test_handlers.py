"""Handlers of people, in `flowkeep` as a process."""

from __future__ import annotations

import json
from pathlib import Path

from tests.e2e.process import FLOWKEEP, Outcome, flowkeep, run_command

HANDLERS = """
import os, subprocess, sys, threading
from flowkeep.handlers import handler
from service.prices import price
from persistence import store

print("printed at import")


@handler("noisy")
def noisy() -> str:
    print("printed in a thread of ours")
    own = threading.Thread(target=print, args=("printed in a thread of its own",))
    own.start()
    own.join()
    subprocess.run(["echo", "printed by a program"], check=True)
    os.write(1, b"printed to the descriptor\\n")
    return price + store


@handler("noisy_too")
async def noisy_too() -> None:
    print("printed on the loop")
"""
WORKFLOW = """
name: noisy
steps:
  - {id: a, handler: noisy}
  - {id: b, handler: noisy_too}
output: ${ steps.a.output }
"""
BLOCKING = """
import asyncio, time
from flowkeep.handlers import StepContext, handler


@handler("blocks")
async def blocks(context: StepContext) -> int:
    time.sleep(4.5)
    await asyncio.sleep(0.01)
    return context.attempt
"""
PRINTED = (
    "printed at import",
    "printed in a thread of ours",
    "printed in a thread of its own",
    "printed by a program",
    "printed to the descriptor",
    "printed on the loop",
)


async def run_in(folder: Path, *arguments: str) -> Outcome:
    """Run `flowkeep` in a project of somebody who has packages of the names of the server's."""
    (folder / "service").mkdir(exist_ok=True)
    (folder / "service" / "prices.py").write_text("price = 'cheap'")
    (folder / "service" / "__init__.py").write_text("")
    (folder / "persistence.py").write_text("store = ' and kept'")
    (folder / "buf").mkdir(exist_ok=True)
    (folder / "buf" / "__init__.py").write_text("raise SystemExit")
    (folder / "handlers.py").write_text(HANDLERS)
    (folder / "noisy.yaml").write_text(WORKFLOW)
    return await run_command("env", "-C", str(folder), *FLOWKEEP, *arguments)


async def test_standard_output_is_only_ours_in_a_folder_that_is_anybodys(folder: Path) -> None:
    for place in ("handlers", "handlers.py"):
        outcome = await run_in(folder, "run", "noisy.yaml", "--handlers", place, "--output", "json")
        assert outcome.code == 0, outcome
        assert outcome.json_lines[-1]["finished"]["result"] == "cheap and kept"
        assert sorted(outcome.err.splitlines()) == sorted(PRINTED)

    shown = await run_in(folder, "run", "noisy.yaml", "--handlers", "handlers")
    assert (shown.code, sorted(shown.err.splitlines())) == (0, sorted(PRINTED))
    assert "cheap and kept" in shown.out
    assert "printed" not in shown.out


async def test_a_handler_that_blocks_run_is_named_and_goes_on(folder: Path) -> None:
    """However long it does: nobody else is there to take it over, and no answer of the own server is late."""
    (folder / "blocking.py").write_text(BLOCKING)
    (folder / "blocking.json").write_text('{"name": "b", "steps": [{"id": "a", "handler": "blocks"}]}')
    command = ("run", str(folder / "blocking.json"), "--handlers", str(folder / "blocking.py"), "-o", "json")
    outcome = await flowkeep(*command, settings={"FLOWKEEP_LEASE_TTL": "1"})
    assert (outcome.code, outcome.json_lines[-1]["finished"]["result"]) == (0, 1), outcome
    assert "the event loop is blocked" in outcome.err
    assert "time.sleep(4.5)" in outcome.err


async def test_doctor_says_what_is_wrong_with_handlers(folder: Path) -> None:
    (folder / "broken.py").write_text("print('printed at import')\nimport sys\nsys.exit('no')")
    away = {"FLOWKEEP_DATABASE_URL": "postgresql://me@127.0.0.1:1/x"}
    settings = {"FLOWKEEP_HANDLERS": json.dumps([str(folder / "broken.py")]), **away}
    outcome = await flowkeep("doctor", "-o", "json", settings=settings)
    (finding,) = [each for each in json.loads(outcome.out) if each["subject"] == "handlers"]
    assert finding["verdict"] == "fail"
    for part in ("broken.py", "SystemExit: no", "line 3"):
        assert part in finding["text"]
    assert outcome.err == "printed at import\n"


ENDING = """
import asyncio, sys
from flowkeep.handlers import handler


async def leave() -> None:
    sys.exit(3)


@handler("task")
async def task() -> None:
    await asyncio.create_task(leave())


@handler("group")
async def group() -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(interrupt())


async def interrupt() -> None:
    raise KeyboardInterrupt


@handler("callback")
async def callback() -> None:
    asyncio.get_running_loop().call_soon(sys.exit, 4)
    await asyncio.sleep(0.01)
"""


async def test_tasks_and_callbacks_of_a_handler_cannot_end_the_process(folder: Path) -> None:
    (folder / "ending.py").write_text(ENDING)
    steps = [{"id": name, "handler": name, "on_error": "CONTINUE"} for name in ("task", "group", "callback")]
    output = {"codes": "${ [steps.task.error.message, steps.group.error.message, steps.callback.state] }"}
    (folder / "ending.json").write_text(json.dumps({"name": "ending", "steps": steps, "output": output}))
    arguments = ("run", str(folder / "ending.json"), "--handlers", str(folder / "ending.py"), "-o", "json")
    outcome = await flowkeep(*arguments)
    assert outcome.code == 0, outcome
    task, group, state = outcome.json_lines[-1]["finished"]["result"]["codes"]
    assert "'task' raised SystemExit" in task
    assert "'group' raised KeyboardInterrupt" in group
    assert state == "COMPLETED"
    assert "wanted to end the process" in outcome.err
