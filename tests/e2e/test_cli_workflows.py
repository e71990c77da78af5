"""The `flowkeep` commands about workflows, and how their files are read, against a real server."""

from __future__ import annotations

import json
from pathlib import Path

from tests.e2e.commands import GREETING, SLEEP, at, execute, refused, shown
from tests.e2e.process import flowkeep


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
    assert (await at(target, "workflows", "validate", "-", given=SLEEP)).json == {"violations": [], "warnings": []}
    handlers = (await at(target, "handlers")).json["handlers"]
    assert {"call_api", "wait", "condition", "transform"} <= {each["name"] for each in handlers}


PLAIN = """
name: plain
steps:
  - id: call
    handler: call_api
    params: {url: "https://example.com", auth: {bearer: sk-geheim}}
"""


async def test_a_credential_in_plain_text_is_warned_of(target: str) -> None:
    validated = await flowkeep("workflows", "validate", "-", target=target, given=PLAIN)
    assert (validated.code, validated.out) == (0, "sound\n")
    assert validated.err.startswith("warning: -:6:")
    assert "step call: steps[0].params.auth.bearer: is a credential in plain text" in validated.err
    (warning,) = (await at(target, "apply", "-", "--dry-run", given=PLAIN)).json["warnings"]
    assert (warning["code"], warning["line"], warning["step"]) == ("PLAIN_SECRET", 6, "call")
    assert "sk-geheim" not in f"{validated.err}{warning}"


async def test_a_workflow_is_deleted(target: str) -> None:
    await shown(target, "apply", "-", given=GREETING.replace("greeting", "goodbye"))
    unasked = await flowkeep("workflows", "delete", "goodbye", target=target)
    assert (unasked.code, unasked.out) == (2, "")
    assert "--yes" in unasked.err
    await shown(target, "workflows", "get", "goodbye")  # it is still there
    await shown(target, "workflows", "delete", "goodbye", "--yes")
    assert "NOT_FOUND" in await refused(target, "workflows", "get", "goodbye", code=3)


async def test_what_is_asked_again_with_its_request_id_is_answered_as_before(target: str) -> None:
    parting = GREETING.replace("greeting", "parting")
    for _ in range(2):
        applied = await at(target, "apply", "-", "--request-id", "apply-parting", given=parting)
        assert [each["action"] for each in applied.json["results"]] == ["created"]
    for _ in range(2):
        deleted = await at(target, "workflows", "delete", "parting", "--yes", "--request-id", "delete-parting")
        assert deleted.json == {"deleted": "parting"}
    reused = ("workflows", "delete", "sleep", "--yes", "--request-id", "delete-parting")
    refusal = await refused(target, *reused, code=5)
    assert "REQUEST_ID_REUSED" in refusal


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


TRIED = """
name: tried
steps:
  - {id: ask, handler: call_api, params: {url: "http://127.0.0.1:9/${ input.user }"}}
  - {id: greet, handler: transform, params: {value: "Hello ${ steps.ask.output.name }"}}
  - {id: shout, handler: transform, condition: steps.greet.output.size() > 20, params: {value: "!"}}
"""


async def test_one_step_is_run_by_itself(target: str, tmp_path: Path) -> None:
    (tmp_path / "tried.yaml").write_text(TRIED)
    source = f"@{tmp_path / 'tried.yaml'}"
    text = await shown(target, "test-step", source, "greet", "--outputs", '{"ask": {"name": "Eve"}}')
    assert "Hello Eve" in text
    assert "Next: shout would be skipped" in text
    assert "user" in await shown(target, "test-step", source, "ask", code=1)
    assert "no such step" in await refused(target, "test-step", source, "absent", code=2)
    await shown(target, "apply", source[1:])
    execution_id = (await execute(target, "tried", "--set", "user=7"))["execution_id"]
    tried = await at(target, "test-step", "-", "shout", "--execution", execution_id[:18], "--outputs", '{"greet": "x"}')
    assert tried.json["step"]["state"] == "SKIPPED"
