"""The workers in TypeScript and Go keep the rules of `WorkerService`, against a server that the test plays."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
import pytest_asyncio
from google.protobuf import json_format

from flowkeep.v1.handler_pb2 import Handler
from flowkeep.v1.worker_service_pb2 import Assignment, Attempt, AttemptCancelled, AttemptSettled, ServerDraining
from tests.clients.program import LONGEST, WORKERS, pass_gate, worker_of
from tests.clients.scripted import Server, Stream, serving

pytestmark = pytest.mark.timeout(600)


@pytest_asyncio.fixture
async def server() -> AsyncIterator[Server]:
    """A server that the test plays."""
    async with serving() as played:
        yield played


@pytest_asyncio.fixture(params=WORKERS)
async def process(request: pytest.FixtureRequest, server: Server) -> AsyncIterator[asyncio.subprocess.Process]:
    """A worker in each language."""
    async with worker_of(request.param, server.target, FLOWKEEP_GRACE="1h") as process:
        yield process


def attempt(path: str, number: int = 1) -> Attempt:
    """An attempt of a step."""
    return Attempt(execution_id="e", step_path=path, iteration=1, attempt=number)


def assign(stream: Stream, handler: str, number: int = 1, **params: object) -> Attempt:
    """Give the worker an attempt to run."""
    named = attempt(handler, number)
    stream.tell(assignment=Assignment(attempt=named, handler=handler, params=json.dumps(params).encode()))
    return named


@pytest.mark.usefixtures("process")
async def test_it_says_what_it_has_and_runs_what_it_is_given(server: Server) -> None:
    stream, register = await server.stream()
    greet = next(each for each in register.handlers if each.name == "greet")
    assert (register.capacity, list(register.attempts), bool(register.worker_id)) == (2, [], True)
    assert (greet.description, greet.effect) == ("Greets somebody.", Handler.EFFECT_NONE)
    assert json_format.MessageToDict(greet.params_schema)["required"] == ["name"]
    await stream.hears("heartbeat")

    assign(stream, "greet", name="you")
    progress = await stream.hears("progress")
    done = await stream.hears("completed")
    assert (progress.progress_percent, progress.message) == (50, "half way")
    assert json.loads(done.output) == {"text": "Hello you!", "attempt": 1}
    assert (done.usage.input_tokens, done.usage.output_tokens, done.usage.cost_micros) == (3, 2, 7)

    assign(stream, "refuse")
    refused = await stream.hears("failed")
    assert (refused.code, refused.message, refused.retryable) == ("TOO_LATE", "the shop is closed", False)
    assert json.loads(refused.details) == {"opens": 9}


@pytest.mark.parametrize("language", WORKERS)
async def test_it_says_its_version_and_labels(server: Server, language: str) -> None:
    async with worker_of(language, server.target):
        _, register = await server.stream()
        assert (register.version, dict(register.labels)) == ("1.4.2", {"language": language})


@pytest.mark.usefixtures("process")
async def test_it_stops_what_it_is_told_to_stop(server: Server, gate: Path) -> None:
    stream, _ = await server.stream()
    held, stale = assign(stream, "hold", 1, until=str(gate)), assign(stream, "hold", 2, until=str(gate))
    stream.tell(cancelled=AttemptCancelled(attempt=stale, reason=AttemptCancelled.REASON_STALE))
    stream.tell(cancelled=AttemptCancelled(attempt=held, reason=AttemptCancelled.REASON_CANCELLED))
    stopped = await stream.hears("failed", "completed")
    assert (stopped.attempt, stopped.code) == (held, "CANCELLED")
    # Of the stale one it says nothing: what comes next is of this one.
    assign(stream, "greet", name="you")
    assert (await stream.hears("failed", "completed")).attempt.step_path == "greet"


@pytest.mark.usefixtures("process")
async def test_attempts_and_results_outlive_streams(server: Server, gate: Path) -> None:
    first, register = await server.stream()
    held = assign(first, "hold", until=str(gate))
    first.cut()

    second, again = await server.stream()
    assert (again.worker_id, list(again.attempts)) == (register.worker_id, [held])
    second.tell(draining=ServerDraining())
    pass_gate(gate)
    assert (await second.hears("completed")).attempt == held
    second.cut()  # the result is not settled

    third, again = await server.stream()
    assert list(again.attempts) == [held]
    assert (await third.hears("completed")).output == b"1"
    third.tell(draining=ServerDraining())
    third.tell(settled=AttemptSettled(attempt=held, is_recorded=True))

    _, again = await server.stream()
    assert list(again.attempts) == []


@pytest.mark.parametrize("way", ["nothing", "pause", "progress", "usage", "text"])
@pytest.mark.usefixtures("process")
async def test_what_a_handler_throws_fails_its_attempt_and_never_the_worker(server: Server, way: str) -> None:
    stream, _ = await server.stream()
    bad = assign(stream, "bad", way=way)
    failed = await stream.hears("failed")
    assert (failed.attempt, failed.code) == (
        bad,
        "TOO_LATE" if failed.message == "the shop is closed" else "HANDLER_ERROR",
    )
    stream.tell(settled=AttemptSettled(attempt=bad, is_recorded=True))
    assign(stream, "greet", name="you")
    await stream.hears("completed")


@pytest.mark.usefixtures("process")
async def test_what_is_no_longer_wanted_is_stopped(server: Server, gate: Path) -> None:
    first, _ = await server.stream()
    held = assign(first, "hold", until=str(gate))
    first.cut()
    second, _ = await server.stream(held)
    second.cut()
    _, again = await server.stream()
    assert list(again.attempts) == []


@pytest.mark.usefixtures("process")
async def test_it_comes_again_when_its_token_has_expired_or_the_server_failed(server: Server) -> None:
    for code in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.INTERNAL, grpc.StatusCode.ABORTED):
        stream, _ = await server.stream()
        stream.cut(code)
    await server.stream()


@pytest.mark.parametrize("language", WORKERS)
async def test_it_asks_for_a_fresh_token_whenever_it_connects(server: Server, language: str, tmp_path: Path) -> None:
    """Also where there is none for a moment, and where it is renewed only after the old one was refused."""
    tokens = tmp_path / "token"
    tokens.write_text("first\n")
    async with worker_of(language, server.target, FLOWKEEP_TOKENS=str(tokens)) as process:
        assert process.stdout is not None
        stream, _ = await server.stream()
        assert stream.authorization == "Bearer first"
        tokens.unlink()
        stream.cut(grpc.StatusCode.UNAUTHENTICATED)
        async with asyncio.timeout(LONGEST):
            for _ in range(2):  # the second one is of a try without a token
                assert (await process.stdout.readline()).startswith(b"broke")
        _renew(tokens, "second")
        assert (await server.refuse(grpc.StatusCode.UNAUTHENTICATED)).authorization == "Bearer second"
        _renew(tokens, "third")
        stream, _ = await server.stream()
        assert stream.authorization in ("Bearer second", "Bearer third")  # it may have come again before


def _renew(tokens: Path, token: str) -> None:
    """Let there be another token, at once and whole."""
    fresh = tokens.with_name("fresh")
    fresh.write_text(token)
    fresh.replace(tokens)


async def test_it_drains_on_sigterm(process: asyncio.subprocess.Process, server: Server, gate: Path) -> None:
    stream, _ = await server.stream()
    held = assign(stream, "hold", until=str(gate))
    assert process.stdout is not None
    async with asyncio.timeout(LONGEST):
        assert (await process.stdout.readline()).strip() == b"holds 1"
        process.send_signal(signal.SIGTERM)
        await stream.hears("draining")
        pass_gate(gate)
        assert (await stream.hears("completed")).attempt == held
        stream.tell(settled=AttemptSettled(attempt=held, is_recorded=True))
        await stream.ends()
        said, _ = await process.communicate()
    assert (process.returncode, said.split()[0]) == (0, b"drained")
