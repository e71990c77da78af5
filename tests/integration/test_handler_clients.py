"""What the context of a handler has for it: a logger that knows the attempt, and HTTP clients behind the guard."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from flowkeep.handlers import StepContext, handler
from flowkeep.payload import from_value
from tests.integration.conftest import Serve
from tests.integration.stage import ended, made, step
from tests.integration.web import Web


@handler("ask")
async def ask(url: str, context: StepContext) -> list[Any]:
    """Call twice at once, and read one answer bit by bit."""

    async def read() -> str:
        async with context.http.stream("POST", url, json={"n": 1}) as response:
            return "".join([text async for text in response.aiter_text()])

    answers = await asyncio.gather(read(), context.http.get(url))
    return [answers[0], answers[1].json()]


@handler("ask_in_thread")
def ask_in_thread(url: str, context: StepContext) -> list[Any]:
    """Call twice, one after the other."""
    return [context.sync_http.post(url, json={"n": 1}).text, context.sync_http.get(url).json()]


@handler("say")
def say(word: str, context: StepContext) -> None:
    """Log a word, and an error."""
    context.log.info("the word is %s", word)
    try:
        raise LookupError(word)
    except LookupError:
        context.log.exception("it failed")


@pytest.mark.parametrize("name", ["ask", "ask_in_thread"])
async def test_requests_say_whose_they_are(serve: Serve, web: Web, name: str) -> None:
    served = await serve([ask, ask_in_thread])
    url = web.answer("/x", body="[1]")
    started = await served.client.execute(await made(served.client, step("call", name, url=url)))
    (found,) = (await ended(served.client, started.execution_id)).steps
    assert from_value(found.output) == ["[1]", [1]]
    assert len(web.calls) == 2
    for call in web.calls:
        headers = {key.lower(): value for key, value in call.headers.items()}
        assert headers["x-flowkeep-execution"] == started.execution_id
        assert (headers["x-flowkeep-step"], headers["x-flowkeep-attempt"]) == ("call", "1")
        assert headers["idempotency-key"]


@pytest.mark.parametrize("name", ["ask", "ask_in_thread"])
async def test_addresses_that_workflows_may_not_call_are_refused(serve: Serve, name: str) -> None:
    served = await serve([ask, ask_in_thread])
    url = "http://169.254.169.254/latest/meta-data"
    once = {"retry_policy": {"max_attempts": 1}}
    started = await served.client.execute(await made(served.client, step("call", name, url=url, **once)))
    (found,) = (await ended(served.client, started.execution_id)).steps
    assert (found.failure.code, found.failure.retryable) == ("ADDRESS_NOT_ALLOWED", False)


@pytest.fixture
def lines() -> Iterator[list[str]]:
    """What handlers log."""
    found: list[str] = []

    class Keeper(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            found.append(f"{record.levelname} {record.getMessage()}")

    logger, keeper = logging.getLogger("flowkeep.handlers"), Keeper()
    logger.addHandler(keeper)
    logger.setLevel(logging.INFO)
    yield found
    logger.removeHandler(keeper)
    logger.setLevel(logging.NOTSET)


async def test_what_a_handler_logs_hides_secrets(
    serve: Serve, lines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORD", "xyzzy-plugh")
    served = await serve([say], secrets_environment={"development": {"word": "WORD"}})
    name = await made(served.client, step("a", "say", word="${ secret('word') }"))
    await served.client.execute(name, wait=True)
    said, failed = lines
    assert said == "INFO the word is ${ secret('word') }"
    assert failed.startswith("ERROR it failed\nTraceback") and "LookupError" in failed
    assert "xyzzy" not in failed
