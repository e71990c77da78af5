"""Handlers that run in processes beside the server: what they show and give, how they fail, how they are stopped."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import pytest_asyncio

import flowkeep
from flowkeep.handlers import handler
from flowkeep.payload import from_value
from persistence.memory import MemoryRepository
from service.app import running_server
from service.config import Config
from service.engine.handlers import process_http
from tests.integration.stage import PACE, ended, eventually, made, step
from tests.integration.web import Web
from tests.unit.attempts import carried

HANDLERS = '''
import os
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from flowkeep.handlers import HandlerError, StepContext, Suspend, handler


@handler("whole", process=True)
def whole(word: str, context: StepContext, times: int = 2) -> dict:
    """Says a word."""
    context.add_usage(input_tokens=3)
    print("what is printed is not taken for an answer")
    given = context.variables["input"]
    return {"said": word * times, "pid": os.getpid(), "input": given, "in_time": context.remaining > 0}


@handler("pause", process=True)
def pause() -> Suspend:
    return Suspend(datetime.now(UTC) + timedelta(seconds=0.01), {"paused": True})


@handler("fail", process=True)
def fail():
    raise HandlerError("BROKEN", "as told", {"n": 1}, retryable=False)


@handler("crash", process=True)
def crash():
    raise LookupError("in the other process")


@handler("large", process=True)
def large():
    return "x" * (17 << 20)


@handler("die", process=True)
def die(context: StepContext):
    if context.attempt == 1:
        os._exit(3)
    return context.attempt


@handler("ask", process=True)
def ask(url: str, context: StepContext) -> list:
    return [context.sync_http.post(url, json={"n": 1}).text, context.sync_http.get(url).json()]


@handler("ask_for_much", process=True)
def ask_for_much(url: str, context: StepContext) -> str:
    try:
        context.sync_http.get(url)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "it came"


@handler("leave", process=True)
def leave(context: StepContext):
    """Leaves a thread behind, which goes on to speak and ask."""
    def speak():
        while True:
            context.emit("of the first")
            context.add_usage(output_tokens=5)
            try:
                context.sync_http.get("http://192.0.2.1/")
            except Exception as error:
                time.sleep(0.01)
    threading.Thread(target=speak, daemon=True).start()


@handler("spin", process=True)
def spin(context: StepContext):
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"])
    context.report(1, f"{os.getpid()} {child.pid}")
    while True:
        pass
'''


@pytest_asyncio.fixture
async def client(tmp_path: Path) -> AsyncIterator[flowkeep.Client]:
    """A client of a server that has these handlers."""
    file = tmp_path / "apart.py"
    file.write_text(HANDLERS)
    config = Config(**{"listen": "127.0.0.1:0", "handlers": [str(file)], "handler_processes": 1, **PACE})  # type: ignore[arg-type]
    async with (
        running_server(config, MemoryRepository(), alone=True) as server,
        flowkeep.Client(server.target) as client,
    ):
        yield client


async def outcome(client: flowkeep.Client, *steps: dict[str, Any], **input: Any) -> flowkeep.Execution:
    """The execution of a new workflow, when it has ended."""
    started = await client.execute(await made(client, *steps), input)
    return await ended(client, started.execution_id)


async def test_a_function_in_a_process_is_like_any_other(client: flowkeep.Client) -> None:
    again = step("again", "whole", word="b", times=1)
    found = await outcome(client, step("a", "whole", word="a"), step("p", "pause"), again, order=7)
    first, paused, second = (from_value(each.output) for each in found.steps)
    assert (first["said"], second["said"], first["input"], first["in_time"]) == ("aa", "b", {"order": 7}, True)
    assert first["pid"] == second["pid"] != os.getpid(), "a process serves one call after the other"
    assert paused == {"paused": True}
    assert found.usage.input_tokens == 6
    about = {each.name: each for each in await client.list_handlers()}["whole"]
    assert about.description == "Says a word."


async def test_it_fails_as_it_would_here(client: flowkeep.Client) -> None:
    wanted = {"on_error": "CONTINUE", "retry_policy": {"max_attempts": 1}}
    names = ("fail", "crash", "large")
    found = await outcome(client, *(step(each, each, **wanted) for each in names))
    failed, crashed, large = (each.failure for each in found.steps)
    assert (failed.code, failed.message, failed.retryable) == ("BROKEN", "as told", False)
    assert crashed.code == "HANDLER_ERROR" and "LookupError: in the other process" in crashed.stack_trace
    assert large.code == "INVALID_OUTPUT"


async def test_one_that_dies_is_tried_again_in_another(client: flowkeep.Client) -> None:
    policy = {"max_attempts": 2, "initial_interval": 0.01}
    (tried,) = (await outcome(client, step("a", "die", retry_policy=policy))).steps
    (lost,) = tried.failed_attempts
    assert (lost.failure.code, lost.failure.retryable) == ("HANDLER_ERROR", True)
    assert lost.failure.message == "handler 'die': the process that ran it ended with exit code 3"
    assert from_value(tried.output) == 2


async def test_its_requests_go_by_the_server_and_say_whose_they_are(client: flowkeep.Client, web: Web) -> None:
    url = web.answer("/x", body="[1]")
    found = await outcome(client, step("call", "ask", url=url))
    assert from_value(found.steps[0].output) == ["[1]", [1]]
    assert [call.body for call in web.calls] == [b'{"n":1}', b""]
    for call in web.calls:
        headers = {key.lower(): value for key, value in call.headers.items()}
        assert (headers["x-flowkeep-execution"], headers["x-flowkeep-step"]) == (found.execution_id, "call")
        assert headers["idempotency-key"] and headers["user-agent"] == "flowkeep"


async def test_its_requests_are_refused_where_workflows_may_not_call(client: flowkeep.Client) -> None:
    url = "http://169.254.169.254/latest/meta-data"
    (found,) = (await outcome(client, step("a", "ask", url=url, retry_policy={"max_attempts": 1}))).steps
    assert (found.failure.code, found.failure.retryable) == ("ADDRESS_NOT_ALLOWED", False)


async def test_an_answer_that_is_too_large_for_a_process_is_an_error_there(
    client: flowkeep.Client, web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process_http, "LARGEST_BODY", 10)
    for body, wanted in (("x" * 10, "it came"), ("x" * 11, "ReadError: the body of the answer has more than the 10")):
        found = await outcome(client, step("call", "ask_for_much", url=web.answer("/much", body=body)))
        assert str(from_value(found.steps[0].output)).startswith(wanted)


async def test_what_a_call_left_behind_is_not_heard_in_the_next_one(client: flowkeep.Client) -> None:
    """That one is of any org."""
    await outcome(client, step("a", "leave"))
    done = await outcome(client, *(step(f"a{each}", "whole", word="a") for each in range(3)))
    assert (done.usage.input_tokens, done.usage.output_tokens) == (9, 0)


async def test_one_that_was_killed_while_it_had_nothing_to_do_is_not_used_again(client: flowkeep.Client) -> None:
    """As by a system that is short of memory: the attempt has not begun, and must not fail for it."""
    (warm,) = (await outcome(client, step("a", "whole", word="a"))).steps
    pid = int(from_value(warm.output)["pid"])
    os.kill(pid, signal.SIGKILL)

    async def is_gone() -> bool:
        return not psutil.pid_exists(pid)

    await eventually(is_gone)
    (again,) = (await outcome(client, step("a", "whole", word="a", retry_policy={"max_attempts": 1}))).steps
    assert from_value(again.output)["pid"] != pid


def runs(pid: int) -> bool:
    """Whether a process is there, and not only what is left of it until somebody asks how it ended."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.parametrize("how", ["cancel", "timeout"])
async def test_one_that_must_stop_is_killed_with_all_that_it_started(client: flowkeep.Client, how: str) -> None:
    await outcome(client, step("warm", "whole", word="a"))  # so that its time is its own
    limits = {"timeout": 3.0, "retry_policy": {"max_attempts": 1}} if how == "timeout" else {}
    started = await client.execute(await made(client, step("a", "spin", **limits)))
    pids: list[int] = []
    async for event in client.watch(started.execution_id):
        if event.HasField("step_progressed"):
            pids = [int(each) for each in event.step_progressed.message.split()]
            if how == "cancel":
                await client.cancel(started.execution_id)
    found = await client.get_execution(started.execution_id)
    assert found.steps[0].failure.code == {"cancel": "", "timeout": "STEP_TIMEOUT"}[how]

    async def are_gone() -> bool:
        return not any(map(runs, pids))

    await eventually(are_gone)
    assert from_value((await outcome(client, step("next", "whole", word="a"))).steps[0].output)["pid"] not in pids


def test_an_async_function_is_refused() -> None:
    @handler("f", process=True)
    async def function() -> None: ...

    with pytest.raises(TypeError, match="process=True is for functions that are not async"):
        carried(function)
