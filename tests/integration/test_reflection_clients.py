"""Every RPC through reflection, with command-line clients that know nothing of us: buf curl, and grpcurl with Go."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any, Protocol

import pytest

from service.server import METHODS
from tests.folders import ROOT
from tests.integration.stage import Served
from tests.patience import PATIENCE

ABSENT = "01900000-0000-7000-8000-000000000000"

DEFINITION = {
    "name": "by-hand",
    "steps": [
        {"id": "greet", "handler": "transform", "params": {"value": "Hello ${ input.name }!"}},
        {"id": "shout", "handler": "transform", "params": {"expression": "steps.greet.output.upperAscii()"}},
    ],
}
WAITING = {"name": "waiting", "steps": [{"id": "pause", "handler": "wait", "params": {"duration": "1h"}}]}


class Tool(Protocol):
    """A command-line client."""

    async def call(self, target: str, method: str, request: Any) -> list[Any]:
        """Invoke a method with a JSON request and return the JSON responses. Raises ToolError."""
        ...


class ToolError(Exception):
    """The call was refused; the text is what the tool printed."""


async def _run(*command: str | Path) -> str:
    process = await asyncio.create_subprocess_exec(
        *map(str, command), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(PATIENCE):
        out, errors = await process.communicate()
    if process.returncode:
        raise ToolError(out.decode() + errors.decode())
    return out.decode()


def _snake(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object with the names of the protos: buf writes JSON names, grpcurl these."""
    return {"".join(f"_{c.lower()}" if c.isupper() else c for c in key): value for key, value in pairs}


def _documents(text: str) -> list[Any]:
    decoder, found, at = json.JSONDecoder(object_pairs_hook=_snake), [], 0
    while text[at:].strip():
        at += len(text[at:]) - len(text[at:].lstrip())
        document, at = decoder.raw_decode(text, at)
        found.append(document)
    return found


class BufCurl:
    """buf's own client, which pip installs."""

    program = Path(sys.executable).with_name("buf")
    flags = ("curl", "--protocol", "grpc", "--http2-prior-knowledge")

    async def call(self, target: str, method: str, request: Any) -> list[Any]:
        return _documents(
            await _run(self.program, *self.flags, "--data", json.dumps(request), f"http://{target}{method}")
        )


class GrpcUrl:
    """The client that most people use; `make test` builds it where Go is."""

    program = ROOT / ".tools" / "bin" / "grpcurl"

    async def call(self, target: str, method: str, request: Any) -> list[Any]:
        command = (self.program, "-plaintext", "-d", json.dumps(request), target, method.lstrip("/"))
        return _documents(await _run(*command))

    async def say(self, target: str, *words: str) -> str:
        """Run another command of it."""
        return await _run(self.program, "-plaintext", target, *words)


@pytest.fixture
def grpcurl() -> GrpcUrl:
    """grpcurl, where it could be built."""
    if not GrpcUrl.program.exists():
        pytest.skip("there is no .tools/bin/grpcurl, which `make test` builds with Go: buf curl alone is tried")
    return GrpcUrl()


class Session:
    """Calls a server through a tool, and remembers which methods were called."""

    def __init__(self, tool: Tool, target: str) -> None:
        self._tool = tool
        self._target = target
        self.called: set[str] = set()

    async def stream(self, service: str, method: str, **request: Any) -> list[Any]:
        """All responses of a call."""
        name = f"/flowkeep.v1.{service}/{method}"
        self.called.add(name)
        return await self._tool.call(self._target, name, request)

    async def call(self, service: str, method: str, **request: Any) -> Any:
        """The one response of a call."""
        (response,) = await self.stream(service, method, **request) or [{}]
        return response


async def _use_every_rpc(session: Session) -> None:
    work, run = "WorkflowService", "ExecutionService"
    handlers = await session.call(work, "ListHandlers")
    assert {"call_api", "wait", "condition", "transform"} <= {each["name"] for each in handlers["handlers"]}
    assert await session.call(work, "ValidateWorkflow", definition=DEFINITION) == {}
    wrong = await session.call(work, "ValidateWorkflow", definition={"name": "x"})
    assert wrong["violations"]
    made = await session.call(work, "CreateWorkflow", definition=DEFINITION)
    assert made["workflow"]["revision"] == 1
    found = await session.call(work, "GetWorkflow", workflow="by-hand")
    assert found["workflow"]["definition"]["steps"] == DEFINITION["steps"]
    updated = await session.call(
        work, "UpdateWorkflow", workflow="by-hand", definition=DEFINITION, etag=found["workflow"]["etag"]
    )
    assert updated["workflow"]["revision"] == 2
    listed = await session.call(work, "ListWorkflows", page_size=10)
    assert [each["name"] for each in listed["workflows"]] == ["by-hand"]

    worker = {"worker_id": "w", "capacity": 1, "handlers": [{"name": "mine"}]}
    (registered,) = await session.stream("WorkerService", "Work", register=worker)
    assert registered["registered"]["org"] == "development"
    assert await session.call("WorkerService", "ListWorkers") == {}

    answer = await session.call(run, "Execute", workflow="by-hand", input={"name": "you"}, wait=True)
    execution_id = answer["execution"]["execution_id"]
    assert (answer["created"], answer["execution"]["result"]) == (True, "HELLO YOU!")
    detail = await session.call(run, "GetExecution", execution_id=execution_id)
    assert [step["state"] for step in detail["execution"]["steps"]] == ["STATE_COMPLETED"] * 2
    listed_steps = await session.call(run, "ListSteps", execution_id=execution_id, handler="transform", page_size=1)
    (first,) = listed_steps["steps"]
    assert listed_steps["next_page_token"]
    got = await session.call(run, "GetStep", execution_id=execution_id, path=first["path"])
    assert (got["step"]["output"], "output" in first) == ("Hello you!", False)
    compared = await session.call(run, "CompareExecutions", execution_id=execution_id, other_execution_id=execution_id)
    assert (compared["totals"]["steps"], "differs_in" in compared) == (2, False)
    where = {"states": ["STATE_COMPLETED"]}
    page = await session.call(run, "ListExecutions", filter=where, count_total=True)
    assert (page["executions"][0]["execution_id"], page["total_size"]) == (execution_id, 1)

    batch = await session.call(run, "BatchExecute", requests=[{"workflow": "by-hand"}, {"workflow": "absent"}])
    started, refused = batch["results"]
    assert started["response"]["created"]
    assert refused["error"]["details"][0]["reason"] == "WORKFLOW_NOT_FOUND"

    responses = await session.stream(run, "WatchExecution", execution_id=execution_id)
    events = [event for response in responses for event in response.get("events", {}).get("events", ())]
    assert [int(event["seq"]) for event in events] == list(range(1, len(events) + 1))
    assert events[-1]["finished"]["result"] == "HELLO YOU!"

    applied = await session.call(work, "ApplyWorkflows", definitions=[DEFINITION, WAITING])
    assert [each["outcome"] for each in applied["results"]] == ["OUTCOME_UNCHANGED", "OUTCOME_CREATED"]
    waiting = (await session.call(run, "Execute", workflow="waiting"))["execution"]["execution_id"]
    why = await session.call(run, "ExplainExecution", execution_id=waiting)
    assert why["steps"][0]["obstacles"][0]["sentence"].startswith("It waits")
    queue = await session.call(run, "ExplainQueue", workflow="waiting")
    assert queue["obstacles"][0]["sentence"] == "No execution of it waits for a server."
    paused = await session.call(run, "Pause", execution_id=waiting, reason="lunch", stop_deadline=True)
    assert (paused["execution"]["state"], paused["execution"]["pause"]["reason"]) == ("STATE_PAUSED", "lunch")
    assert (await session.call(run, "Resume", execution_id=waiting))["execution"]["state"] == "STATE_RUNNING"
    points = [{"path": "*", "condition": "params.n > 1"}]
    held = await session.call(run, "SetBreakpoints", execution_id=waiting, breakpoints=points)
    assert held["execution"]["breakpoints"] == points
    with pytest.raises(ToolError, match="not held by a breakpoint"):
        await session.call(run, "EditStepInput", execution_id=waiting, path="pause", input={})
    with pytest.raises(ToolError, match="must be PAUSED"):
        await session.call(run, "EditVariables", execution_id=waiting, vars={"n": 1})
    signal = await session.call(run, "SignalExecution", execution_id=waiting, name="paid", payload={"n": 1})
    assert signal["execution"]["execution_id"] == waiting
    start = {"workflow": "waiting", "correlation_id": "A-17"}
    begun = await session.call(run, "SignalWithStart", start=start, name="paid", payload={"n": 1})
    assert begun["started"] is True
    await session.call(run, "Terminate", execution_id=begun["execution"]["execution_id"])
    receipt = await session.call(run, "Cancel", execution_id=waiting, reason="by hand")
    assert receipt["execution"]["state"] == "STATE_CANCELLED"
    assert [each["effect"] for each in receipt["steps"]] == ["EFFECT_WAIT_REMOVED"]
    waiting = (await session.call(run, "Execute", workflow="waiting"))["execution"]["execution_id"]
    ended = await session.call(run, "Terminate", execution_id=waiting)
    assert ended["execution"]["failure"]["code"] == "TERMINATED"
    retried = await session.call(run, "Retry", execution_id=waiting, reason="after all")
    assert (retried["execution"]["run"], retried["execution"]["state"]) == (2, "STATE_RUNNING")
    alone = await session.call(run, "TestStep", step={"id": "a", "handler": "transform", "params": {"value": "x"}})
    assert alone["step"]["output"] == "x"
    await session.call(run, "Cancel", execution_id=waiting, reason="by hand")
    forked = await session.call(run, "ForkExecution", execution_id=waiting)
    assert forked["execution"]["lineage"]["source_execution_id"] == waiting
    await session.call(run, "Terminate", execution_id=forked["execution"]["execution_id"])
    halted = await session.call(work, "PauseWorkflow", workflow="waiting", reason="lunch")
    assert halted["workflow"]["pause"]["reason"] == "lunch"
    assert "pause" not in (await session.call(work, "ResumeWorkflow", workflow="waiting"))["workflow"]
    every = [{"path": "*"}]
    awaited = await session.call(work, "SetWorkflowBreakpoints", workflow="waiting", breakpoints=every, executions=3)
    assert (awaited["breakpoints"]["executions_left"], awaited["breakpoints"]["breakpoints"]) == (3, every)
    assert await session.call(work, "DeleteWorkflow", workflow="waiting") == {}

    told = "NotificationService"
    assert await session.call(told, "ListNotifications", unread_only=True, count_unread=True) == {}
    assert await session.call(told, "MarkNotificationsRead", up_to_seq=1) == {}
    with pytest.raises(ToolError, match="beyond"):  # it has no end of its own
        await session.call(told, "WatchNotifications", after_seq=1)
    await _do_a_task(session)
    await _act_in_bulk(session)


async def _do_a_task(session: Session) -> None:
    people, ask = "TaskService", {"id": "ask", "handler": "create_task", "params": {"title": "Approve"}}
    await session.call("WorkflowService", "CreateWorkflow", definition={"name": "asking", "steps": [ask]})
    await session.call("ExecutionService", "Execute", workflow="asking")
    (task,) = (await session.call(people, "ListTasks", filter={"mine": True}))["tasks"]
    of_it = {"task_id": task["task_id"]}
    for method, more in (
        ("ClaimTask", {}),
        ("CommentTask", {"text": "mine"}),
        ("ReleaseTask", {}),
        ("DelegateTask", {"assignee": "developer"}),
        ("CompleteTask", {"outcome": "done"}),
    ):
        assert (await session.call(people, method, **of_it, **more))["task"]["title"] == "Approve"
    done = (await session.call(people, "GetTask", **of_it))["task"]
    assert (done["state"], done["completed_by"]) == ("STATE_COMPLETED", "developer")
    with pytest.raises(ToolError, match="execution_id"):  # it has no end of its own
        await session.call(people, "WatchTasks", filter={"execution_id": "x"})


async def _act_in_bulk(session: Session) -> None:
    bulk, what = "BulkService", {"filter": {"workflow": "by-hand"}, "action": {"cancel": {}}}
    assert await session.call(bulk, "StartBulk", **what, validate_only=True) == {}  # all have ended
    started = (await session.call(bulk, "StartBulk", **what, reason="by hand"))["bulk"]
    of_it = {"bulk_id": started["bulk_id"]}
    *_, last = await session.stream(bulk, "WatchBulk", **of_it)
    assert last["bulk"]["state"] == "STATE_COMPLETED"
    assert await session.call(bulk, "GetBulk", **of_it) == last
    assert await session.call(bulk, "StopBulk", **of_it) == last
    assert (await session.call(bulk, "ListBulks"))["bulks"] == [last["bulk"]]
    assert await session.call(bulk, "ListBulkResults", **of_it) == {}


@pytest.mark.usefixtures("prompt")
async def test_buf_curl_drives_every_rpc(served: Served) -> None:
    session = Session(BufCurl(), served.target)
    await _use_every_rpc(session)
    assert session.called == set(METHODS)


@pytest.mark.parametrize("protocol", ["grpc-v1", "grpc-v1alpha"])
async def test_buf_curl_lists_the_methods(served: Served, protocol: str) -> None:
    tool = BufCurl()
    flags = (*tool.flags, "--reflect-protocol", protocol, "--list-methods")
    said = await _run(tool.program, *flags, f"http://{served.target}")
    assert {method.lstrip("/") for method in METHODS} <= set(said.split())


async def test_buf_curl_shows_what_is_wrong(served: Served) -> None:
    with pytest.raises(ToolError) as refused:
        await BufCurl().call(served.target, "/flowkeep.v1.ExecutionService/GetExecution", {"execution_id": ABSENT})
    answer = json.loads(str(refused.value))
    assert answer["code"] == "not_found"
    assert answer["details"][0]["type"] == "google.rpc.ErrorInfo"


@pytest.mark.usefixtures("prompt")
async def test_grpcurl_drives_every_rpc(served: Served, grpcurl: GrpcUrl) -> None:
    session = Session(grpcurl, served.target)
    await _use_every_rpc(session)
    assert session.called == set(METHODS)


async def test_grpcurl_lists_and_describes(served: Served, grpcurl: GrpcUrl) -> None:
    services = (await grpcurl.say(served.target, "list")).split()
    assert {"flowkeep.v1.WorkflowService", "flowkeep.v1.ExecutionService", "grpc.health.v1.Health"} <= set(services)
    said = await grpcurl.say(served.target, "describe", "flowkeep.v1.ExecutionService")
    assert "returns ( stream .flowkeep.v1.WatchExecutionResponse )" in said
    (health,) = await grpcurl.call(served.target, "grpc.health.v1.Health/Check", {})
    assert health == {"status": "SERVING"}


async def test_grpcurl_shows_what_is_wrong(served: Served, grpcurl: GrpcUrl) -> None:
    with pytest.raises(ToolError, match=r"(?s)Code: InvalidArgument.*definition.name"):
        await grpcurl.call(served.target, "/flowkeep.v1.WorkflowService/CreateWorkflow", {"definition": {}})


async def test_grpcurl_shows_comments_and_rules(served: Served, grpcurl: GrpcUrl) -> None:
    said = await grpcurl.say(served.target, "describe", "flowkeep.v1.CancelRequest")
    assert "// Required. Id of the execution." in said
    assert "(.buf.validate.field) = { string: { uuid: true } }" in said


async def test_grpcurl_describes_every_service_of_the_server(served: Served, grpcurl: GrpcUrl) -> None:
    said = await grpcurl.say(served.target, "describe")
    assert "grpc.reflection.v1.ServerReflection is a service" in said
    assert "grpc.reflection.v1alpha.ServerReflection is a service" in said


async def test_grpcurl_shows_the_details_of_errors(served: Served, grpcurl: GrpcUrl) -> None:
    with pytest.raises(ToolError, match=r'"reason": "EXECUTION_NOT_FOUND"'):
        await grpcurl.call(served.target, "/flowkeep.v1.ExecutionService/GetExecution", {"execution_id": ABSENT})
