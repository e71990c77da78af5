"""Webhooks of `send_notification`, by a real HTTP server."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
import pytest_asyncio

from service.engine.egress.egress import Egress
from service.engine.egress.guard import Guard
from service.engine.handlers.model import Handler
from service.engine.handlers.send_notification import send_notification
from tests.integration.web import CONTEXT, Web, call, failure

HOOK = "/services/T0/B0/geheim-1234"


@pytest_asyncio.fixture
async def notifier() -> AsyncIterator[Handler]:
    """The handler as a developer has it: it may call this machine."""
    handler = send_notification(Egress(Guard(has_loopback=True)))
    yield handler
    assert handler.close is not None
    await handler.close()


@pytest.mark.parametrize(
    "said",
    [
        {"text": "Order 7 <https://example.org|is here>"},
        {"text": "7", "blocks": [{"type": "divider"}]},
        {"blocks": [{"type": "divider"}]},
    ],
)
async def test_a_message_to_slack(notifier: Handler, web: Web, said: dict[str, Any]) -> None:
    url = web.answer(HOOK, body="ok")
    assert await call(notifier, slack={"url": url, **said}) == {"channel": "slack", "status": 200}
    (made,) = web.calls
    assert (made.method, made.path, json.loads(made.body)) == ("POST", HOOK, said)
    assert made.headers["content-type"] == "application/json"


@pytest.mark.parametrize("body", [None, [1, {"a": "ü"}], "text"])
async def test_json_to_a_webhook(notifier: Handler, web: Web, body: Any) -> None:
    url = web.answer("/hook", 202)
    params = {"url": url, "json": body, "headers": {"X-Kind": "order"}, "auth": {"bearer": "geheim-5"}}
    assert await call(notifier, webhook=params) == {"channel": "webhook", "status": 202}
    (made,) = web.calls
    assert (made.method, json.loads(made.body)) == ("POST", body)
    assert (made.headers["x-kind"], made.headers["authorization"]) == ("order", "Bearer geheim-5")


async def test_st5_the_key_is_equal_over_attempts(notifier: Handler, web: Web) -> None:
    url = web.answer("/hook")
    for attempt in (1, 2):
        await call(notifier, replace(CONTEXT, attempt=attempt), slack={"url": url, "text": "x"})
        await call(notifier, replace(CONTEXT, attempt=attempt), webhook={"url": url, "json": 1})
    assert {made.headers["idempotency-key"] for made in web.calls} == {"token-of-the-step"}
    assert [made.headers["x-flowkeep-attempt"] for made in web.calls] == ["1", "1", "2", "2"]


@pytest.mark.parametrize(
    "answer",
    [
        {"body": "x" * (2 << 20)},
        {"body": "{", "Content_Type": "application/json"},
        {"body": "not gzip", "Content_Encoding": "gzip"},
    ],
)
async def test_what_a_receiver_says_beside_its_status_does_not_matter(
    notifier: Handler, web: Web, answer: dict[str, Any]
) -> None:
    assert (await call(notifier, webhook={"url": web.answer("/hook", **answer), "json": 1}))["status"] == 200


@pytest.mark.parametrize(("status", "retryable"), [(404, False), (429, True), (500, True)])
async def test_a_status_that_is_no_success(notifier: Handler, web: Web, status: int, retryable: bool) -> None:
    url = web.answer(HOOK, status, "no_team", Retry_After="7")
    error = await failure(notifier, slack={"url": url, "text": "x"})
    assert (error.code, error.retryable) == (f"HTTP_STATUS_{status // 100}XX", retryable)
    assert error.retry_after == (7.0 if status == 429 else None)
    assert error.details == {"method": "POST", "url": web.url, "status": status, "body": "no_team"}


@pytest.mark.parametrize(
    "said",
    [
        f"Cannot POST {HOOK}",
        "no geheim-1234, geheim 99 or geheim_3",
        "x" * 505 + "geheim-1234",  # of which a part is told, if what is told is cut off first
    ],
)
async def test_nothing_of_a_url_is_told_but_its_host(notifier: Handler, web: Web, said: str) -> None:
    url = web.answer(HOOK, 404, said)
    key = {"api_key": {"value": "geheim_3", "header": "X-Way"}}
    error = await failure(notifier, webhook={"url": f"{url}?t=geheim%2099", "json": 1, "auth": key})
    assert error.message == f"POST {web.url.removeprefix('http://')}: answered 404 Not Found"
    assert "gehei" not in f"{error} {error.details}"


async def test_an_address_inside_is_not_called(web: Web) -> None:
    handler = send_notification()
    error = await failure(handler, slack={"url": web.answer(HOOK), "text": "x"})
    assert (error.code, error.retryable) == ("ADDRESS_NOT_ALLOWED", False)
    assert not web.calls
    assert handler.close is not None
    await handler.close()
