"""The `flowkeep` command as a process, against a real server."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.e2e.process import (
    FLOWKEEP,
    PATIENCE,
    Outcome,
    ServerProcess,
    copy_data,
    environment,
    flowkeep,
    run_command,
)
from tests.folders import new_folder

GREETING = """
name: greeting
description: Says hello.
input_schema:
  type: object
  required: [name]
  properties:
    name: {type: string}
steps:
  - id: text
    handler: transform
    params:
      value: Hello, ${ input.name }!
  - id: length
    handler: transform
    params:
      expression: size(steps.text.output)
output:
  text: ${ steps.text.output }
  length: ${ steps.length.output }
"""
SLEEP = """
name: sleep
steps:
  - {id: sleep, handler: wait, params: {duration: 1h}}
  - {id: never, handler: transform, params: {value: 1}}
"""
BROKEN = """
name: broken
steps:
  - {id: divide, handler: transform, params: {expression: 1 / input.zero}}
"""
IMPOSSIBLE = """
name: impossible
steps:
  - {id: divide, handler: transform, params: {value: "${ 1 / input.zero }"}}
"""
CRASHING = """
from flowkeep.handlers import handler


@handler("crash")
async def crash() -> str:
    return {}["absent"]
"""
NO_EXECUTION = "01930000-0000-7000-8000-000000000000"


@pytest_asyncio.fixture(scope="module")
async def target(prepared: Path) -> AsyncIterator[str]:
    """Address of a server with the workflows above."""
    with new_folder("flowkeep-e2e-") as folder:
        server = ServerProcess(folder, listen="127.0.0.1:0")
        await copy_data(prepared, server.data_dir)
        await server.start()
        for document in (GREETING, SLEEP, BROKEN, IMPOSSIBLE):
            await at(server.target, "apply", "-", given=document)
        yield server.target
        await server.close()
        print(server.log[-4000:])
        assert not server.complaints


async def at(target: str, *arguments: str, given: str = "", code: int = 0) -> Outcome:
    """Run a command with `--output json`, which has to end with this code."""
    outcome = await flowkeep(*arguments, "--output", "json", target=target, given=given)
    assert outcome.code == code, outcome
    assert "Traceback" not in outcome.err
    return outcome


async def shown(target: str, *arguments: str, given: str = "", code: int = 0) -> str:
    """Return what a command shows to people on standard output; it has to end with this code."""
    outcome = await flowkeep(*arguments, target=target, given=given)
    assert outcome.code == code, outcome
    assert outcome.err == ""
    return outcome.out


async def refused(target: str, *arguments: str, given: str = "", code: int) -> str:
    """Return what a command says on standard error when it is refused, after checking that its JSON says the same."""
    outcome = await flowkeep(*arguments, target=target, given=given)
    assert (outcome.code, outcome.out) == (code, ""), outcome
    assert "Traceback" not in outcome.err
    error = json.loads((await at(target, *arguments, given=given, code=code)).err)["error"]
    assert error["code"]
    assert error["message"]
    return outcome.err


async def execute(target: str, *arguments: str) -> dict[str, Any]:
    started: dict[str, Any] = (await at(target, "execute", *arguments)).json
    return started


async def test_workflows(target: str) -> None:
    applied = await at(target, "apply", "-", given=GREETING.replace("hello", "hello again"))
    assert [each["action"] for each in applied.json["results"]] == ["updated"]
    assert "unchanged greeting" in await shown(target, "apply", "-", given=GREETING.replace("hello", "hello again"))

    workflow = (await at(target, "workflows", "get", "greeting")).json
    assert workflow["definition"]["description"] == "Says hello again."
    assert workflow["revision"] >= 2
    # What `get` shows can be applied.
    reapplied = await at(target, "apply", "-", given=json.dumps(workflow["definition"]))
    assert reapplied.json["results"][0]["action"] == "unchanged"
    names = [each["name"] for each in (await at(target, "workflows", "list")).json["workflows"]]
    assert {"greeting", "sleep", "broken"} <= set(names)
    assert "greeting" in await shown(target, "workflows", "list")
    assert "Says hello again." in await shown(target, "workflows", "get", "greeting")
    assert (await at(target, "workflows", "validate", "-", given=SLEEP)).json == {"violations": []}
    handlers = (await at(target, "handlers")).json["handlers"]
    assert {"call_api", "wait", "condition", "transform"} <= {each["name"] for each in handlers}


async def test_a_workflow_is_deleted(target: str) -> None:
    await shown(target, "apply", "-", given=GREETING.replace("greeting", "goodbye"))
    unasked = await flowkeep("workflows", "delete", "goodbye", target=target)
    assert (unasked.code, unasked.out) == (2, "")
    assert "--yes" in unasked.err
    await shown(target, "workflows", "get", "goodbye")  # it is still there
    await shown(target, "workflows", "delete", "goodbye", "--yes")
    assert "NOT_FOUND" in await refused(target, "workflows", "get", "goodbye", code=3)


async def test_an_execution_is_watched_to_its_end(target: str) -> None:
    text = await shown(target, "execute", "greeting", "--set", "name=Ann", "--watch")
    for line in ("started", "text: completed", "length: completed", "COMPLETED", "Hello, Ann!"):
        assert line in text

    events = (await at(target, "execute", "greeting", "--input", '{"name": "Bob"}', "--watch")).json_lines
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    assert events[-1]["finished"]["result"] == {"text": "Hello, Bob!", "length": 11}
    execution_id = events[0]["execution_id"]
    assert (await at(target, "watch", execution_id)).json_lines == events
    assert (await at(target, "watch", execution_id, "--after-seq", "3")).json_lines == events[3:]
    assert "Hello, Bob!" in await shown(target, "watch", execution_id)


async def test_an_execution_is_found_and_shown(target: str) -> None:
    ended = await execute(target, "greeting", "--set", "name=Cy", "--wait", "--tag", "found", "--correlation-id", "7")
    assert ended["state"] == "COMPLETED"
    execution_id = ended["execution_id"]
    execution = (await at(target, "get", execution_id)).json
    assert execution == ended
    assert execution["result"] == {"text": "Hello, Cy!", "length": 10}
    assert [step["state"] for step in execution["steps"]] == ["COMPLETED", "COMPLETED"]
    assert execution_id in await shown(target, "get", execution_id)

    filters = ("--workflow", "greeting", "--state", "completed", "--tag", "found", "--correlation-id", "7")
    listed = (await at(target, "list", *filters, "--count")).json
    assert [each["execution_id"] for each in listed["executions"]] == [execution_id]
    assert listed["total_size"] == 1
    assert execution_id in await shown(target, "list", *filters)
    narrow = {"COLUMNS": "60", "FORCE_COLOR": "1"}  # of a pipe they say nothing
    assert "TAGS" in (await flowkeep("list", *filters, target=target, settings=narrow)).out
    assert (await at(target, "list", *filters, "--created-before", "1h")).json["executions"] == []


async def test_an_execution_is_found_by_the_beginning_of_its_id(target: str) -> None:
    one = two = ""
    while not two or one[:8] != two[:8]:  # those of about a minute begin alike
        one, two = two, (await execute(target, "greeting", "--set", "name=Ida", "--wait"))["execution_id"]
    for beginning in (one[:20], one.replace("-", "")[:31].upper(), one.replace("-", "")):
        assert (await at(target, "get", beginning)).json["execution_id"] == one
    assert "Hello, Ida!" in await shown(target, "watch", one[:20])
    assert (await at(target, "events", one[:20])).json_lines[0]["execution_id"] == one
    assert "EXECUTION_FINISHED" in await refused(target, "cancel", one[:20], code=5)

    ambiguous = await refused(target, "get", one[:8], code=2)
    assert two in ambiguous  # the newest are named
    assert "EXECUTION_NOT_FOUND" in await refused(target, "get", NO_EXECUTION[:18], code=3)
    for wrong in (one[:7], f"{one}0"):
        assert "execution_id" in await refused(target, "get", wrong, code=2)


async def test_the_history_of_an_execution(target: str) -> None:
    execution_id = (await execute(target, "greeting", "--set", "name=Eve", "--wait"))["execution_id"]
    watched = (await at(target, "watch", execution_id)).json_lines
    assert (await at(target, "events", execution_id)).json_lines == watched
    assert (await at(target, "events", execution_id, "--after-seq", "3")).json_lines == watched[3:]
    assert (await at(target, "events", execution_id, "--after-seq", str(len(watched)))).out == ""
    lines = (await shown(target, "events", execution_id, "--follow")).splitlines()
    assert [line.split()[0] for line in lines] == [str(event["seq"]) for event in watched]
    assert "text: completed" in "\n".join(lines)

    asleep = (await execute(target, "sleep"))["execution_id"]
    assert "sleep: waiting" in await shown(target, "events", asleep)  # ends although the execution has not
    await at(target, "cancel", asleep)


@pytest.mark.parametrize("zone", ["America/Los_Angeles", "Pacific/Kiritimati"])
async def test_a_time_may_lie_at_the_end_of_the_calendar(target: str, zone: str) -> None:
    bounds = ("--created-after", "0001-01-01T00:00:00", "--created-before", "9999-12-31T23:59:59")
    execution_id = (await execute(target, "greeting", "--set", "name=Eve"))["execution_id"]
    listed = await flowkeep("list", *bounds, "-o", "json", target=target, settings={"TZ": zone})
    assert listed.code == 0, listed
    assert execution_id in [each["execution_id"] for each in listed.json["executions"]]


async def test_a_request_id_starts_one_execution(target: str) -> None:
    first = await execute(target, "greeting", "--set", "name=Di", "--request-id", "once")
    again = await execute(target, "greeting", "--set", "name=Di", "--request-id", "once")
    assert (first["created"], again["created"]) == (True, False)
    assert first["execution_id"] == again["execution_id"]
    said = await refused(target, "execute", "greeting", "--set", "name=Ed", "--request-id", "once", code=5)
    assert "REQUEST_ID_REUSED" in said


async def test_an_execution_is_cancelled(target: str) -> None:
    execution_id = (await execute(target, "sleep"))["execution_id"]
    receipt = (await at(target, "cancel", execution_id, "--reason", "no time")).json
    assert receipt["execution"]["state"] == "CANCELLED"
    assert [step["path"] for step in receipt["steps"]] == ["sleep", "never"]
    assert "CANCELLED" in await shown(target, "cancel", execution_id)  # it is idempotent
    assert "no time" in await shown(target, "watch", execution_id, code=1)

    ended = (await execute(target, "greeting", "--set", "name=Flo", "--wait"))["execution_id"]
    assert "EXECUTION_FINISHED" in await refused(target, "cancel", ended, code=5)


async def test_an_execution_that_fails_ends_the_command_with_1(target: str) -> None:
    arguments = ("execute", "broken", "--set", "zero=0")
    assert "divide" in await shown(target, *arguments, "--watch", code=1)
    failed = (await at(target, *arguments, "--wait", code=1)).json
    assert failed["state"] == "FAILED"
    assert failed["failure"]["step_path"] == "divide"

    at_once = (await at(target, "execute", "impossible", "--set", "zero=0", code=1)).json
    assert (at_once["state"], at_once["created"]) == ("FAILED", True)
    said = await shown(target, "execute", "impossible", "--set", "zero=0", code=1)
    assert "FAILED" in said
    assert "finite number" in said


async def test_a_failure_is_said_once_with_its_cause_and_leads_to_the_step(target: str) -> None:
    arguments = ("execute", "broken", "--set", "zero=0")
    watched = await shown(target, *arguments, "--watch", code=1)
    execution_id = watched.splitlines()[0].split()[-1]
    for said in (watched, await shown(target, "get", execution_id)):
        assert said.count("finite number") == 1
        assert "STEP_FAILED" not in said
        assert f"flowkeep get {execution_id} --step divide" in said
    assert "divide: EXPRESSION_ERROR" in await shown(target, "list", "--workflow", "broken", "--limit", "1")

    shown_step = await shown(target, "get", execution_id, "--step", "divide")
    for part in ("divide", "transform", "FAILED", '"expression": "1 / input.zero"', "EXPRESSION_ERROR"):
        assert part in shown_step
    step = (await at(target, "get", execution_id, "--step", "divide")).json
    assert (step["path"], step["failure"]["code"]) == ("divide", "EXPRESSION_ERROR")
    unknown = await flowkeep("get", execution_id, "--step", "none", target=target)
    assert unknown.code == 2
    assert "divide" in unknown.err


async def test_an_execution_is_named_first(target: str) -> None:
    text = await shown(target, "execute", "greeting", "--set", "name=Hal", "--wait")
    execution_id = text.splitlines()[0].split()[-1]
    assert (await at(target, "get", execution_id)).json["state"] == "COMPLETED"
    for how in ("--wait", "--watch"):
        started = await at(target, "execute", "greeting", "--set", "name=Hal", how)
        named = json.loads(started.err)["started"]
        assert (
            named["execution_id"]
            == json.loads(started.out.splitlines()[0] if how == "--watch" else started.out)["execution_id"]
        )


async def test_output_that_nobody_takes_ends_a_command_honestly(target: str) -> None:
    async def shell(script: str) -> tuple[int, str]:
        outcome = await run_command("bash", "-c", script, settings={"FLOWKEEP_TARGET": target})
        return int(outcome.out.splitlines()[-1]), outcome.err

    watching = "flowkeep execute greeting --set name=Ike --watch"
    code, said = await shell(f"{watching} | true; echo ${{PIPESTATUS[0]}}")  # which has gone before the first line
    assert (code, said) == (141, "")
    for command in ("flowkeep list", "flowkeep --help", "flowkeep list -o json", "flowkeep config", watching):
        code, said = await shell(f"{command} > /dev/full; echo $?")
        assert (code, said) == (6, "flowkeep: standard output cannot be written: No space left on device\n")
        assert (await shell(f"{command} 2> /dev/full > /dev/null; echo $?"))[0] == 0
    assert (await shell("flowkeep get ffffffff 2> /dev/full; echo $?"))[0] == 3
    assert (await shell("flowkeep list >&-; echo $?"))[0] == 6


async def test_errors_say_what_is_wrong(target: str) -> None:
    assert NO_EXECUTION in await refused(target, "get", NO_EXECUTION, code=3)
    assert "nothing" in await refused(target, "execute", "nothing", code=3)
    assert "name" in await refused(target, "execute", "greeting", code=2)
    assert "handlr" in await refused(target, "apply", "-", given=SLEEP.replace("handler", "handlr"), code=2)
    said = await refused(target, "apply", "-", given=SLEEP.replace("wait", "nap").replace("1h", "x"), code=2)
    assert "steps[0].handler" in said
    violations = (await at(target, "workflows", "validate", "-", given=SLEEP.replace("1h", "x"), code=2)).json
    assert violations["violations"] == [
        {
            "file": "-",
            "document": 1,
            "line": 4,
            "column": 41,
            "step": "sleep",
            "field": "steps[0].params.duration",
            "description": violations["violations"][0]["description"],
        }
    ]


WRONG = """
name: 1st
ordering: GRAPHS
steps:
  - id: fetch
    type: call_apj
    params: {url: {{ input.url }}, url: x}
    timeout: 5x
  - {id: then, handler: wait, params: {duration: soon}, dependsOn: [fetch], on: 1}
---
name: second
steps:
  - {id: "a-b", handler: transform, params: {value: 2026-11-28}}
"""


async def test_all_that_is_wrong_is_told_at_once_with_its_place(target: str, folder: Path) -> None:
    (folder / "wrong.yaml").write_text(WRONG.lstrip())
    (folder / "torn.json").write_text('{"name": "torn",\n "steps": [')
    (folder / "sound.yaml").write_text(SLEEP.replace("sleep", "sound"))
    files = [str(folder / name) for name in ("wrong.yaml", "torn.json", "sound.yaml")]
    said = await shown(target, "workflows", "validate", *files, code=2)
    places = [line.removeprefix(f"{folder}/").split(": ")[:3] for line in said.splitlines()]
    assert places == [
        ["wrong.yaml:1:1", "name", "must be letters, digits, ., _ and -, and begin with a letter"],
        ["wrong.yaml:2:1", "ordering", "must be one of SEQUENTIAL, GRAPH, not 'GRAPHS'. Did you mean GRAPH?"],
        ["wrong.yaml:5:5", "step fetch", "steps[0].type"],
        ["wrong.yaml:5:5", "step fetch", "steps[0].type"],
        ["wrong.yaml:6:19", "step fetch", "steps[0].params.url"],
        ["wrong.yaml:6:36", "step fetch", "steps[0].params.url"],
        ["wrong.yaml:7:5", "step fetch", "steps[0].timeout"],
        ["wrong.yaml:8:40", "step then", "steps[1].params.duration"],
        ["wrong.yaml:8:57", "step then", "steps[1].dependsOn"],
        ["wrong.yaml:8:77", "step then", "steps[1].on"],
        ["wrong.yaml:8:77", "step then", "steps[1].on"],
        ["wrong.yaml:12:6", "step a-b", "steps[0].id"],
        ["wrong.yaml:12:53", "step a-b", "steps[0].params.value"],
        ["torn.json:2:12", "is no JSON", "it ends in the middle; what began in line 2 is not closed"],
    ]
    told = (await at(target, "workflows", "validate", *files, code=2)).json["violations"]
    assert [(each["line"], each["column"]) for each in told] == [
        tuple(map(int, place[0].split(":")[1:])) for place in places
    ]
    assert {(each["file"], each["document"]) for each in told} == {(files[0], 1), (files[0], 2), (files[1], 1)}

    for command in (("apply", *files), ("run", files[0])):
        refused = await flowkeep(*command, target=target)
        assert (refused.code, refused.out) == (2, "")
        assert said.splitlines()[0] in refused.err.splitlines()
    assert "NOT_FOUND" in (await flowkeep("workflows", "get", "sound", target=target)).err


async def test_definitions_are_applied_together_or_not_at_all(target: str, folder: Path) -> None:
    documents = {"one.yaml": SLEEP.replace("sleep", "one") + "---" + SLEEP.replace("sleep", "two")}
    documents["three.json"] = (
        '{"name": "three", "steps": [{"id": "a", "handler": "transform", "params": {"value": -0.0}}]}'
    )
    for name, text in documents.items():
        (folder / name).write_text(text)
    files = [str(folder / name) for name in documents]
    would_be = await shown(target, "apply", "--dry-run", *files)
    assert [line.split()[:3] for line in would_be.splitlines()] == [["would", "be", "created:"]] * 3
    first, again = [(await at(target, "apply", *files)).json["results"] for _ in range(2)]
    assert [(each["action"], each["workflow"]["name"]) for each in first] == [
        ("created", "one"),
        ("created", "two"),
        ("created", "three"),
    ]
    assert [(each["action"], each["workflow"]["revision"]) for each in again] == [("unchanged", 1)] * 3

    (folder / "one.yaml").write_text(documents["one.yaml"].replace("1h", "2h"))
    twice = str(folder / "twice.yaml")
    (folder / "twice.yaml").write_text("\n" + SLEEP.replace("sleep", "two"))
    said = await flowkeep("apply", *files, twice, target=target)
    assert (said.code, said.out) == (2, "")
    assert f"{twice}:3:1: name: 'two' is the name of the workflow in {files[0]}:7:1 too" in said.err
    assert [each["action"] for each in (await at(target, "apply", *files)).json["results"]] == [
        "updated",
        "updated",
        "unchanged",
    ]


async def test_json_is_read_as_json(target: str, folder: Path) -> None:
    await at(
        target, "apply", "-", given="name: echo\nsteps: [{id: e, handler: transform, params: {expression: input}}]"
    )
    text = '{\n\t"e": 1e5, "u": "a\u2028b", "s": "\\ud83d\\ude00", "d": "\x7f"}'
    (folder / "input.json").write_text(text, encoding="utf-8-sig")
    for given in (f"@{folder / 'input.json'}", text):
        assert (await execute(target, "echo", "-i", given, "--wait"))["result"] == json.loads(text)
    settings = ("--set", "sha=12e4567", "--set", "x=NaN", "--set-string", "n=5", "--timeout", "30")
    assert (await execute(target, "echo", *settings, "--wait"))["result"] == {"sha": "12e4567", "x": "NaN", "n": "5"}
    for command, wrong in ((("execute", "echo"), "{}x"), (("run", str(folder / "absent.yaml")), "@/nowhere")):
        said = await refused(target, *command, "-i", wrong, code=2)
        assert len(said.splitlines()) == 1, said


@pytest.mark.parametrize(
    "arguments",
    [
        ("apply", "/nowhere/at-all.yaml"),
        ("execute", "greeting", "--input", "{"),
        ("execute", "greeting", "--set", "name"),
        ("list", "--state", "asleep"),
        ("list", "--created-after", "soon"),
        ("execute", "greeting", "--timeout", "5y"),
        ("execute", "greeting", "--set", "a.b=1", "--set", "a=2"),
        ("list", "--target", "unix:"),
        ("list", "--target", ""),
        ("list", "--token", "a\rb"),
        ("fly",),
        ("get",),
    ],
    ids=" ".join,
)
async def test_wrong_arguments_end_a_command_with_2(target: str, arguments: tuple[str, ...]) -> None:
    outcome = await flowkeep(*arguments, target=target)
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.startswith("Error: ")
    assert len(outcome.err.splitlines()) == 1


@pytest.mark.parametrize("arguments", [("get",), ("list", "--state", "asleep")], ids=" ".join)
async def test_with_json_a_wrong_argument_is_told_in_json(target: str, arguments: tuple[str, ...]) -> None:
    for asked in (("--output=json", *arguments), (*arguments, "-o", "json")):
        outcome = await flowkeep(*asked, target=target)
        assert (outcome.code, outcome.out) == (2, "")
        assert json.loads(outcome.err)["error"]["code"] == "INVALID_ARGUMENT"


async def test_a_server_that_is_away_ends_a_command_with_4(folder: Path) -> None:
    outcome = await flowkeep("list", target=f"unix:{folder / 'nobody.sock'}")
    assert (outcome.code, outcome.out) == (4, "")
    assert "flowkeep serve" in outcome.err
    assert len(outcome.err.splitlines()) == 1

    asked = await flowkeep("execute", "greeting", "--request-id", "r-1", target=f"unix:{folder / 'nobody.sock'}")
    assert (asked.code, asked.out) == (4, "")
    assert "--request-id r-1" in asked.err


async def test_a_watch_says_when_it_tries_again_and_when_it_goes_on(server: ServerProcess) -> None:
    await at(server.target, "apply", "-", given=SLEEP)
    command = (*FLOWKEEP, "execute", "sleep", "--watch")
    watching = await asyncio.create_subprocess_exec(
        *command,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment({"FLOWKEEP_TARGET": server.target}),
    )
    assert watching.stdout is not None
    assert watching.stderr is not None
    async with asyncio.timeout(PATIENCE):
        execution_id = (await watching.stdout.readline()).decode().split()[-1]
        while b"sleep: waiting" not in await watching.stdout.readline():
            pass
        await server.kill9()
        assert b"Trying again" in await watching.stderr.readline()
        await server.restart()
        assert b"is back" in await watching.stderr.readline()
        watching.send_signal(signal.SIGINT)
        assert f"flowkeep watch {execution_id}" in (await watching.stderr.read()).decode()
        assert await watching.wait() == 130


async def test_run_shows_the_stack_trace_of_a_handler(folder: Path) -> None:
    (folder / "ours.py").write_text(CRASHING)
    given = "name: crashing\nsteps: [{id: crash, handler: crash}]"
    command = ("run", "-", "--handlers", str(folder / "ours.py"))
    outcome = await flowkeep(*command, given=given)
    assert (outcome.code, outcome.err) == (1, "")
    assert "KeyError: 'absent'" in outcome.out
    assert outcome.out.count("HANDLER_ERROR") == 1
    told = await flowkeep(*command, "-o", "json", given=given)
    assert told.json_lines[-1]["finished"]["failure"]["step_path"] == "crash"
    assert "KeyError: 'absent'" in json.loads(told.err)["failure"]["stack_trace"]
