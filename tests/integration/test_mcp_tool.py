"""`mcp_tool` against real MCP servers: a program over stdio, and one that serves streamable HTTP."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import pytest_asyncio

from service.engine.handlers.mcp_tool import mcp_tool
from service.engine.mcp.servers import parse
from service.engine.mcp.sessions import Sessions
from tests.folders import new_folder
from tests.integration.conftest import Log
from tests.integration.mcp_servers import SECRET, Lab, Web, handler_of, plain, program, stopped
from tests.integration.stage import eventually

BOTH = pytest.mark.parametrize("server", ["stdio", "http"])
ADD = {
    "properties": {
        "a": {"title": "A", "type": "integer"},
        "b": {"default": 0, "minimum": 0, "title": "B", "type": "integer"},
    },
    "required": ["a"],
    "title": "addArguments",
    "type": "object",
}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def shared() -> AsyncIterator[Lab]:
    """The servers, started once: each takes seconds."""
    with new_folder() as folder:
        async with stopped(Web(folder / "notes")) as web:
            await web.start()
            header = {"Authorization": f"Bearer {SECRET}"}
            handler = handler_of({"stdio": program(web.notes), "http": {"url": web.url, "headers": header}})
            lab = Lab(handler, web.notes, web)
            yield lab
            await closed(lab)


@pytest.fixture
def lab(shared: Lab) -> Lab:
    shared.shown.clear()
    return shared


@BOTH
async def test_a_tool_is_called(lab: Lab, server: str) -> None:
    text = {"type": "text", "text": '{\n  "total": 3\n}'}
    assert await lab.call(server, "add", {"a": 1, "b": 2}) == {"content": [text], "structured": {"total": 3}}


@BOTH
async def test_content_keeps_its_types(lab: Lab, server: str) -> None:
    assert await lab.call(server, "mixed") == {
        "content": [
            {"type": "text", "text": "see"},
            {"type": "image", "data": "aW1n", "mimeType": "image/png"},
            {"type": "audio", "data": "c25k", "mimeType": "audio/wav"},
            {"type": "resource_link", "uri": "file:///a.txt", "name": "a"},
        ],
        "structured": None,
    }


@BOTH
async def test_an_error_of_the_tool_is_told_and_retried_without_secrets(lab: Lab, server: str) -> None:
    error = await lab.failure(server, "fail", {"text": "it"})
    assert (error.code, error.retryable) == ("TOOL_ERROR", True)
    assert error.message == f"{server} fail: Error executing tool fail: cannot do it with ***"
    assert error.details == {"server": server, "tool": "fail"}


@BOTH
async def test_wrong_arguments_are_named_and_not_sent(lab: Lab, server: str) -> None:
    error = await lab.failure(server, "add", {"a": "x", "b": -1})
    assert (error.code, error.retryable) == ("INVALID_PARAMS", False)
    assert "arguments.a the value is not of type" in error.message
    assert "arguments.b the value is less than the minimum of 0" in error.message
    assert (await lab.failure(server, "add")).message == f"{server} add: arguments.a is required"


async def test_unknown_names_are_answered_with_those_that_there_are(lab: Lab) -> None:
    error = await lab.failure("stdio", "ad")
    assert (error.code, error.retryable) == ("TOOL_NOT_FOUND", False)
    assert "there are add, die, environment, " in error.message
    error = await lab.failure("studio", "add")
    assert (error.code, error.retryable) == ("SERVER_NOT_FOUND", False)
    assert error.message == "studio add: there is no server of this name; there are http, stdio"


@BOTH
async def test_the_schema_is_the_one_of_the_hash(lab: Lab, server: str) -> None:
    right = hashlib.sha256(json.dumps(ADD, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
    error = await lab.failure(server, "add", {"a": 1}, schema_hash="0" * 64)
    assert (error.code, error.retryable) == ("TOOL_CHANGED", False)
    assert error.details == {"server": server, "tool": "add", "schema_hash": right}
    assert (await lab.call(server, "add", {"a": 1}, schema_hash=right))["structured"] == {"total": 1}


async def test_a_schema_that_changes_while_the_session_goes_on_is_noticed(tmp_path: Path) -> None:
    handler = handler_of({"own": program(tmp_path / "notes")})
    own = Lab(handler, tmp_path / "notes", Web(tmp_path))
    known = (await own.failure("own", "add", {"a": 1}, schema_hash="0" * 64)).details["schema_hash"]
    await own.call("own", "more")
    error = await own.failure("own", "add", {"a": 1}, schema_hash=known)
    assert error.code == "TOOL_CHANGED"
    assert error.details["schema_hash"] != known
    await closed(own)


async def test_a_change_that_the_server_tells_of_is_heeded(tmp_path: Path) -> None:
    own = Lab(handler_of({"own": program(tmp_path / "notes")}), tmp_path / "notes", Web(tmp_path))
    assert (await own.call("own", "add", {"a": 1}))["structured"] == {"total": 1}
    await own.call("own", "more", {"tells": True})
    assert (await own.failure("own", "add", {"a": 1})).code == "INVALID_PARAMS"
    await closed(own)


@BOTH
async def test_progress_and_messages_are_shown(lab: Lab, server: str) -> None:
    await lab.call(server, "work", {"steps": 4})
    assert [each for each in lab.shown if isinstance(each, tuple)] == [(25 * n, f"step {n}") for n in range(1, 5)]
    assert [each for each in lab.shown if isinstance(each, str)] == ["partial text\n", "a word of the log\n"]


async def test_messages_of_the_log_are_not_shown_to_another_call(lab: Lab) -> None:
    """They do not say which call they are of."""
    hung = lab.noted("hangs")
    other = asyncio.ensure_future(lab.call("stdio", "hang"))
    await lab.hears("hangs", hung + 1)
    await lab.call("stdio", "work", {"steps": 1})
    assert lab.shown == [(100, "step 1"), "partial text\n"]
    other.cancel()
    await asyncio.wait([other])


@BOTH
async def test_st5_the_server_is_told_the_token_and_the_attempt(lab: Lab, server: str) -> None:
    meta = (await lab.call(server, "meta"))["structured"]
    assert (meta["flowkeep/idempotency_token"], meta["flowkeep/attempt"]) == ("t", 2)


@BOTH
async def test_a_cancelled_call_is_cancelled_at_the_server_and_the_session_goes_on(lab: Lab, server: str) -> None:
    before, hung, cancelled = await lab.structured(server, "pid"), lab.noted("hangs"), lab.noted("cancelled")
    call = asyncio.ensure_future(lab.call(server, "hang"))
    await lab.hears("hangs", hung + 1)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await lab.hears("cancelled", cancelled + 1)
    error = await lab.failure(server, "hang", timeout="20ms")
    assert (error.code, error.retryable) == ("CONNECTION_FAILED", True)
    assert "no answer within 20ms" in error.message
    assert await lab.structured(server, "pid") == before


@BOTH
@pytest.mark.parametrize(
    ("tool", "arguments"),
    [
        ("large", {"characters": 200_000}),
        ("large", {"characters": 600_000}),
        ("many", {"values": 12_000}),
        ("many", {"values": 50_000}),
    ],
)
async def test_an_answer_that_is_too_large_fails_alone(lab: Lab, server: str, tool: str, arguments: Any) -> None:
    """Beyond what an output may be, and beyond what a message may be."""
    before = await lab.structured(server, "pid")
    error = await lab.failure(server, tool, arguments)
    assert (error.code, error.retryable) == ("RESPONSE_TOO_LARGE", False)
    assert await lab.structured(server, "pid") == before
    assert await lab.structured(server, "large", {"characters": 100_000}) == "x" * 100_000


async def test_a_program_that_was_killed_is_started_anew(lab: Lab) -> None:
    before, hung = await lab.structured("stdio", "pid"), lab.noted("hangs")
    call = asyncio.ensure_future(lab.failure("stdio", "hang"))
    await lab.hears("hangs", hung + 1)
    os.kill(before, signal.SIGKILL)
    error = await call
    assert (error.code, error.retryable) == ("CONNECTION_FAILED", True)
    assert "the program of the server ended" in error.message
    assert await lab.structured("stdio", "pid") != before
    assert (await lab.failure("stdio", "die")).code == "CONNECTION_FAILED"
    assert await lab.structured("stdio", "pid") != before


async def test_a_program_that_ended_between_calls_fails_none(tmp_path: Path, said: Callable[[str], Log]) -> None:
    own = Lab(handler_of({"own": plain(tmp_path)}), tmp_path, Web(tmp_path))
    before = (await own.call("own", "t"))["structured"]["pid"]
    os.kill(before, signal.SIGKILL)

    async def is_told() -> bool:
        return bool(said("MCP server ended"))

    await eventually(is_told)
    assert (await own.call("own", "t"))["structured"]["pid"] != before
    await closed(own)


async def test_a_server_that_forgot_the_session_is_given_a_new_one(lab: Lab) -> None:
    before, hung = await lab.structured("http", "pid"), lab.noted("hangs")
    call = asyncio.ensure_future(lab.failure("http", "hang"))
    await lab.hears("hangs", hung + 1)
    await lab.web.kill()
    error = await call
    assert (error.code, error.retryable) == ("CONNECTION_FAILED", True)
    await lab.web.start()
    now = await lab.structured("http", "pid")
    assert now != before
    await lab.web.kill()
    await lab.web.start()
    error = await lab.failure("http", "pid")
    assert (error.code, error.retryable) == ("CONNECTION_FAILED", True)
    assert await lab.structured("http", "pid") != now


async def test_orgs_share_no_session(tmp_path: Path) -> None:
    own = Lab(handler_of({"own": plain(tmp_path)}), tmp_path, Web(tmp_path))
    acme, other, again = [(await own.call("own", "t", org=org))["structured"]["pid"] for org in ("a", "b", "a")]
    assert acme == again != other
    await closed(own)


async def test_sessions_are_bounded_and_the_one_idle_for_longest_makes_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.engine.mcp.sessions.CALLS", 2)
    own = Lab(handler_of({"own": plain(tmp_path)}), tmp_path, Web(tmp_path))
    pids = {org: (await own.call("own", "t", org=org))["structured"]["pid"] for org in ("a", "b", "c")}
    await ended(pids["a"])
    for org in ("b", "c"):
        assert (await own.call("own", "t", org=org))["structured"]["pid"] == pids[org]
    await closed(own)


async def test_idle_sessions_are_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.engine.mcp.sessions.IDLE", 0.0)
    monkeypatch.setattr("service.engine.mcp.sessions._LOOK", 0.01)
    sessions = Sessions(parse(json.dumps({"own": plain(tmp_path)})))
    own = Lab(mcp_tool(sessions), tmp_path, Web(tmp_path))
    pid = (await own.call("own", "t"))["structured"]["pid"]
    tending = asyncio.ensure_future(sessions.tend())
    await ended(pid)
    tending.cancel()
    assert (await own.call("own", "t"))["structured"]["pid"] != pid
    await closed(own)


async def test_a_program_gets_nothing_of_our_environment_but_what_it_needs_and_ends_with_the_handler(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLOWKEEP_PAGE_TOKEN_SECRET", "ours")
    own = Lab(handler_of({"own": {**plain(tmp_path), "env": {"KEY": "1"}}}), tmp_path, Web(tmp_path))
    found = (await own.call("own", "t"))["structured"]
    assert {"KEY", "PATH"} <= found["env"].keys()
    assert not [name for name in found["env"] if name.startswith("FLOWKEEP_")]
    process = psutil.Process(found["pid"])
    await closed(own)
    assert not process.is_running()


async def test_a_program_that_cannot_be_started_says_so(tmp_path: Path) -> None:
    own = Lab(handler_of({"own": {"command": str(tmp_path / "nothing")}}), tmp_path / "notes", Web(tmp_path))
    error = await own.failure("own", "add")
    assert (error.code, error.retryable) == ("CONNECTION_FAILED", True)
    assert "could not be started" in error.message
    await closed(own)


async def test_a_program_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    """Also where it would go on when its input ends, and that process was killed."""
    script = f"""
import asyncio
from pathlib import Path
from tests.integration.mcp_servers import Lab, Web, handler_of

async def main():
    asked = {plain(tmp_path)!r}
    line = " ".join([asked["command"], *asked["args"]])
    stubborn = {{"command": "sh", "args": ["-c", f"{{line}}; sleep 1000"]}}
    lab = Lab(handler_of({{"own": stubborn}}), Path(), Web(Path()))
    print((await lab.call("own", "t"))["structured"]["pid"], flush=True)
    await asyncio.sleep(1000)

asyncio.run(main())
"""
    owner = await asyncio.create_subprocess_exec(sys.executable, "-c", script, stdout=asyncio.subprocess.PIPE)
    assert owner.stdout is not None
    shell = psutil.Process(int(await owner.stdout.readline())).parent()
    assert shell is not None
    assert shell.cmdline()[0] == "sh"
    owner.kill()
    await owner.wait()

    async def has_ended() -> bool:
        return not shell.is_running() or shell.status() == psutil.STATUS_ZOMBIE

    await eventually(has_ended)


async def ended(pid: int) -> None:
    async def has_gone() -> bool:
        return not psutil.pid_exists(pid)

    await eventually(has_gone)


async def closed(lab: Lab) -> None:
    assert lab.handler.close is not None
    await lab.handler.close()
