"""The `flowkeep` command as a process, against a real server."""

from __future__ import annotations

import json

import pytest

from tests.e2e.commands import SLEEP, at, execute, refused, shown
from tests.e2e.process import flowkeep, run_command

NO_EXECUTION = "01930000-0000-7000-8000-000000000000"


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
    found_by = ("--tag", "found", "--label", "team=growth", "--correlation-id", "7")
    ended = await execute(target, "greeting", "--set", "name=Cy", "--wait", *found_by)
    assert ended["state"] == "COMPLETED"
    execution_id = ended["execution_id"]
    execution = (await at(target, "get", execution_id)).json
    assert execution == ended
    assert execution["result"] == {"text": "Hello, Cy!", "length": 10}
    assert [step["state"] for step in execution["steps"]] == ["COMPLETED", "COMPLETED"]
    assert execution_id in await shown(target, "get", execution_id)
    before = (await at(target, "get", execution_id, "--at", "1")).json
    assert (before["state"], before["last_seq"]) == ("PENDING", 1)

    filters = ("--workflow", "greeting", "--state", "completed", "--owner", ended["owner"], *found_by)
    listed = (await at(target, "list", *filters, "--count")).json
    assert [each["execution_id"] for each in listed["executions"]] == [execution_id]
    assert listed["total_size"] == 1
    assert execution_id in await shown(target, "list", *filters)
    narrow = {"COLUMNS": "60", "FORCE_COLOR": "1"}  # of a pipe they say nothing
    assert "TAGS" in (await flowkeep("list", *filters, target=target, settings=narrow)).out
    for nothing in (("--created-before", "1h"), ("--label", "size=1"), ("--owner", "somebody")):
        assert (await at(target, "list", *filters, *nothing)).json["executions"] == [], nothing


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


async def test_a_file_of_requests_is_started(target: str) -> None:
    lines = [
        {"workflow": "greeting", "input": {"name": "Ida"}, "request_id": "b-1", "tags": ["t"], "start_delay": "0s"},
        {"workflow": "absent", "request_id": "b-2"},
        {"input": {"name": 1}, "request_id": "b-3"},
        {"input": {"name": "Ian"}, "request_id": "b-4"},
    ]
    given = "\n\n".join(map(json.dumps, lines))
    outcomes = (await at(target, "batch", "-", "--workflow", "greeting", given=given, code=1)).json_lines
    assert [each["line"] for each in outcomes] == [1, 3, 5, 7]
    assert [each.get("created") for each in outcomes] == [True, None, None, True]
    assert [outcomes[place]["error"]["reason"] for place in (1, 2)] == ["WORKFLOW_NOT_FOUND", "INVALID_FIELDS"]
    assert [each["field"] for each in outcomes[2]["error"]["violations"]] == ["input.name"]

    said = (await shown(target, "batch", "-", "--workflow", "greeting", given=given, code=1)).splitlines()
    assert said[0].startswith("This request had started greeting")
    assert said[0].endswith(outcomes[0]["execution_id"])
    assert said[1].startswith("Line 3 was refused: workflow 'absent' not found")


async def test_lines_that_are_no_requests_are_named_before_any_is_sent(target: str) -> None:
    given = '{"workflow": "greeting", "request_id": "never"}\nno\n[]\n{"wait": true}\n{"timeout": "long"}\n{}'
    said = await refused(target, "batch", "-", given=given, code=2)
    for line in range(2, 7):
        assert f"standard input:{line}: " in said
    assert "workflow is required" in said
    assert "holds no requests" in await refused(target, "batch", "-", code=2)
    first = await execute(target, "greeting", "--set", "name=Liv", "--request-id", "never")
    assert first["created"]


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
    for part in ("divide", "transform", "FAILED", "EXPRESSION_ERROR", "finite number"):
        assert part in shown_step
    assert "Input" not in shown_step  # the server runs it itself
    step = (await at(target, "get", execution_id, "--step", "divide")).json
    assert (step["path"], step["failure"]["code"]) == ("divide", "EXPRESSION_ERROR")
    assert (await at(target, "get", execution_id, "--step", "divide", "--iteration", "1")).json == step
    never = await flowkeep("get", execution_id, "--step", "divide", "--iteration", "2", target=target)
    assert never.code and "iteration 2" in never.err
    listed = (await at(target, "steps", execution_id, "--state", "failed", "--full")).json
    assert (listed["steps"], listed["next_page_token"]) == ([step], "")
    assert await shown(target, "steps", execution_id, "--full") == f"{shown_step}\n"
    unknown = await flowkeep("get", execution_id, "--step", "none", target=target)
    assert unknown.code == 2
    assert "divide" in unknown.err


async def test_the_steps_of_an_execution_are_listed(target: str) -> None:
    execution_id = (await execute(target, "sleep"))["execution_id"]
    text = await shown(target, "steps", execution_id[:20])
    assert [line.split()[0] for line in text.splitlines()[2:]] == ["sleep", "never"]
    first = (await at(target, "steps", execution_id, "--limit", "1")).json
    assert [(step["path"], "input" in step) for step in first["steps"]] == [("sleep", False)]
    token = first["next_page_token"]
    rest = (await at(target, "steps", execution_id, "--limit", "0", "--page-token", token)).json
    assert ([step["path"] for step in rest["steps"]], rest["next_page_token"]) == (["never"], "")
    assert "There are more" in await shown(target, "steps", execution_id, "--limit", "1")
    (never,) = (await at(target, "steps", execution_id, "--state", "pending", "--handler", "transform")).json["steps"]
    assert never["path"] == "never"
    assert "No steps" in await shown(target, "steps", execution_id, "--handler", "absent")
    assert "EXECUTION_NOT_FOUND" in await refused(target, "steps", NO_EXECUTION, code=3)
    wrong = await flowkeep("steps", execution_id, "--state", "lost", target=target)
    assert (wrong.code, "PENDING, RUNNING" in wrong.err) == (2, True)
    await at(target, "cancel", execution_id)


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


async def test_a_walk_through_a_history(target: str) -> None:
    execution_id = (await execute(target, "greeting", "--set", "name=Flo", "--wait"))["execution_id"]
    recorded = (await at(target, "events", execution_id)).json_lines
    last = len(recorded)

    every = (await at(target, "replay", execution_id, "--all")).json_lines
    assert [{"execution_id": execution_id, **each["event"]} for each in every] == recorded
    assert (every[0]["state"], every[-1]["state"]) == ("PENDING", "COMPLETED")
    assert (await at(target, "replay", execution_id, "--all", "--at", str(last))).json_lines == every[-1:]

    walked = await at(target, "replay", execution_id, given="n\n\nb\nf\nl\nn\n2\ng 3\nb 2\nn 99\nf\nt length\nq\nx")
    of_length = next(each["event"]["seq"] for each in every if (each["step"] or {}).get("path") == "length")
    seqs = [1, 2, 3, 2, 1, last, last, 2, 3, 1, last, 1, of_length]
    assert walked.json_lines == [every[seq - 1] for seq in seqs]

    text = await shown(target, "replay", execution_id, "--at", str(of_length), given="s\ns length\nh\nq\n")
    for said in ("length: completed", "2 of 2 steps completed", "Output: 11", '"name": "Flo"', "g SEQ"):
        assert said in text
    for wrong in ("99", "0", "jump", "n n", "t nothing", "s nothing"):
        outcome = await flowkeep("replay", execution_id, target=target, given=wrong)
        assert (outcome.code, len(outcome.err.splitlines())) == (2, 1), wrong
    assert "1 to" in await refused(target, "replay", execution_id, "--at", str(last + 1), code=2)


async def test_two_executions_beside_each_other(target: str) -> None:
    one, other = [
        (await execute(target, "greeting", "--set", f"name={name}", "--wait"))["execution_id"] for name in ("Gil", "Io")
    ]
    found = (await at(target, "compare", one, other)).json
    assert (found["differs_in"], found["totals"]["differing_steps"]) == (["INPUT", "OUTPUT"], 2)
    assert found["input_patch"] == [{"op": "replace", "path": "/name", "value": "Io"}]
    text = await shown(target, "compare", one, other)
    for said in ("They differ in input, output; 2 of 2 steps differ.", '~ /name: "Io"', "text output:", "~ all: 10"):
        assert said in text
    assert "They are alike; 0 of 2 steps differ." in await shown(target, "compare", one, one)
    assert "EXECUTION_NOT_FOUND" in await refused(target, "compare", one, NO_EXECUTION, code=3)


async def test_why_an_execution_does_not_move(target: str) -> None:
    execution_id = (await execute(target, "greeting", "--set", "name=Flo", "--wait"))["execution_id"]
    (found,) = (await at(target, "explain", execution_id)).json["obstacles"]
    assert (found["sentence"], found["ended"]) == (
        "It has ended: COMPLETED. Nothing is to come.",
        {"state": "COMPLETED"},
    )
    assert "It has ended: COMPLETED." in await shown(target, "explain", execution_id)
    assert NO_EXECUTION in await refused(target, "explain", NO_EXECUTION, code=3)


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
