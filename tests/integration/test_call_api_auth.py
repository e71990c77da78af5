"""How `call_api` shows who calls: API keys, and tokens of OAuth 2 from a real server of both."""

from __future__ import annotations

import asyncio
import json
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import parse_qs

import pytest

from service.engine.handlers import http_tokens
from service.engine.handlers.model import Handler
from tests.integration.web import CONTEXT, Answer, Call, Web, call, failure
from tests.patience import PATIENCE

SECRET = "g:h+e i%m-secret"


@dataclass
class Issuer:
    """Gives tokens that are numbered at /token, and at /api takes those of the numbers that are good."""

    web: Web
    expires_in: Any = 3600
    good: Callable[[int], bool] = lambda number: True
    asked: list[Call] = field(default_factory=list)
    shown: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.token_url = self.web.by("/token", self.give)
        self.url = self.web.by("/api", self._take)

    def auth(self, **more: Any) -> dict[str, Any]:
        """The params of a client that the issuer knows."""
        return {
            "oauth2": {"token_url": self.token_url, "client_id": "ann@example", "client_secret": SECRET, **more},
        }

    def give(self, sent: Call) -> Answer:
        """Give the next token."""
        self.asked.append(sent)
        given = {"access_token": f"token-{len(self.asked)}", "token_type": "Bearer", "expires_in": self.expires_in}
        return 200, {"Content-Type": "application/json"}, json.dumps(given).encode()

    def _take(self, sent: Call) -> Answer:
        shown = sent.headers.get("authorization", "")
        self.shown.append(shown)
        return (200 if self.good(int(shown.rpartition("-")[2])) else 401), {}, b""


@pytest.fixture
def issuer(web: Web) -> Issuer:
    return Issuer(web)


async def test_key_in_a_header_or_in_the_query(caller: Handler, web: Web) -> None:
    url = web.answer("/a")
    await call(caller, url=url, auth={"api_key": {"header": "X-Tool", "value": "k&y 1"}})
    await call(caller, url=f"{url}?a=1", query={"b": 2}, auth={"api_key": {"query": "tool", "value": "k&y 1"}})
    assert web.calls[0].headers["x-tool"] == "k&y 1"
    assert web.calls[1].path == "/a?a=1&b=2&tool=k%26y+1"


@pytest.mark.parametrize("place", ["header", "query"])
async def test_key_is_never_told(caller: Handler, web: Web, place: str) -> None:
    """Its name need not look like that of a secret."""
    url = web.by("/a", lambda sent: (400, {}, f"{sent.path} {sent.headers} geheim-key".encode()))
    error = await failure(caller, url=url, auth={"api_key": {place: "tool", "value": "geheim-key"}})
    assert "geheim" not in f"{error} {error.details}"
    assert error.details["status"] == 400


@pytest.mark.parametrize("place", ["basic", "body", None])
async def test_token_is_asked_for_as_the_rfc_has_it(caller: Handler, issuer: Issuer, place: str | None) -> None:
    more = {"client_auth": place} if place else {}
    auth = issuer.auth(scopes=["read", "write"], audience="https://api", **more)
    await call(caller, url=issuer.url, auth=auth)
    (asked,) = issuer.asked
    fields = {name: value for name, (value,) in parse_qs(asked.body.decode(), strict_parsing=True).items()}
    expected = {"grant_type": "client_credentials", "scope": "read write", "audience": "https://api"}
    if place == "body":
        assert fields == {**expected, "client_id": "ann@example", "client_secret": SECRET}
        assert "authorization" not in asked.headers
    else:
        assert fields == expected
        pair = b64encode(b"ann%40example:g%3Ah%2Be+i%25m-secret").decode()
        assert asked.headers["authorization"] == f"Basic {pair}"
    assert "idempotency-key" not in asked.headers
    assert issuer.shown == ["Bearer token-1"]


async def test_token_is_fetched_once_for_calls_at_the_same_time_and_later(caller: Handler, issuer: Issuer) -> None:
    await asyncio.gather(*(call(caller, url=issuer.url, auth=issuer.auth()) for _ in range(20)))
    await call(caller, url=issuer.url, auth=issuer.auth())
    assert len(issuer.asked) == 1
    assert issuer.shown == ["Bearer token-1"] * 21


async def test_token_is_of_one_org_client_secret_and_scope(caller: Handler, issuer: Issuer) -> None:
    await call(caller, url=issuer.url, auth=issuer.auth())
    await call(caller, replace(CONTEXT, org="others"), url=issuer.url, auth=issuer.auth())
    for more in ({"client_id": "bob"}, {"client_secret": "other"}, {"scopes": ["a"]}, {"audience": "b"}):
        await call(caller, url=issuer.url, auth=issuer.auth(**more))
    assert len(issuer.asked) == 6
    assert len(set(issuer.shown)) == 6


@pytest.mark.parametrize(
    ("expires_in", "later", "fetched"),
    [
        (1000, 930, 1),
        (1000, 945, 2),
        ("1000", 945, 2),
        (10, 8, 1),
        (10, 9.5, 2),
        (None, 200, 1),
        (None, 300, 2),
        ("soon", 300, 2),
        (1e9, 86_000, 1),
        (1e9, 86_400, 2),
        (0, 0, 2),
    ],
)
async def test_token_is_kept_until_shortly_before_its_end(
    caller: Handler, issuer: Issuer, monkeypatch: pytest.MonkeyPatch, expires_in: Any, later: float, fetched: int
) -> None:
    issuer.expires_in = expires_in
    monkeypatch.setattr(http_tokens, "monotonic", lambda: 1000.0)
    await call(caller, url=issuer.url, auth=issuer.auth())
    monkeypatch.setattr(http_tokens, "monotonic", lambda: 1000.0 + later)
    await call(caller, url=issuer.url, auth=issuer.auth())
    assert len(issuer.asked) == fetched


async def test_what_is_kept_is_bounded(caller: Handler, issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was used last stays."""
    monkeypatch.setattr(http_tokens, "OF_ONE_ORG", 2)
    for client in ("a", "b", "a", "c", "a", "b"):
        await call(caller, url=issuer.url, auth=issuer.auth(client_id=client))
    assert len(issuer.asked) == 4
    monkeypatch.setattr(http_tokens, "MOST_ORGS", 1)
    for org in ("acme", "others", "acme"):
        await call(caller, replace(CONTEXT, org=org), url=issuer.url, auth=issuer.auth(client_id="b"))
    assert len(issuer.asked) == 6


async def test_refused_token_is_replaced_within_the_attempt(caller: Handler, issuer: Issuer) -> None:
    await call(caller, url=issuer.url, auth=issuer.auth())
    issuer.good = lambda number: number > 1
    outputs = await asyncio.gather(
        *(call(caller, url=issuer.url, method="POST", json=[1], auth=issuer.auth()) for _ in range(5))
    )
    assert [each["status"] for each in outputs] == [200] * 5
    assert len(issuer.asked) == 2  # one of the five fetched it for all
    assert {each.body for each in issuer.web.calls if each.method == "POST" and each.path == "/api"} == {b"[1]"}


async def test_second_refusal_is_the_answer(caller: Handler, issuer: Issuer) -> None:
    issuer.good = lambda number: False
    error = await failure(caller, url=issuer.url, auth=issuer.auth())
    assert (error.code, error.retryable, error.details["status"]) == ("HTTP_STATUS_4XX", False, 401)
    assert issuer.shown == ["Bearer token-1", "Bearer token-2"]


async def test_api_that_says_what_it_was_shown_tells_no_token(caller: Handler, web: Web, issuer: Issuer) -> None:
    url = web.by("/echo", lambda sent: (500, {}, sent.headers["authorization"].encode()))
    error = await failure(caller, url=url, auth=issuer.auth())
    assert error.details["body"] == "***"


@pytest.mark.parametrize(
    ("status", "body", "code", "retryable"),
    [
        (401, '{"error": "invalid_client"}', "HTTP_STATUS_4XX", False),
        (503, "", "HTTP_STATUS_5XX", True),
        (302, "", "HTTP_STATUS_3XX", False),
        (200, '{"access_token": ""}', "INVALID_RESPONSE", False),
        (200, '{"access_token": "ab\\ncd"}', "INVALID_RESPONSE", False),
        (200, '{"access_token": "geheim", "token_type": "mac"}', "INVALID_RESPONSE", False),
        (200, "[]", "INVALID_RESPONSE", False),
        (200, '{"access_token": "geheim"', "INVALID_RESPONSE", False),
        (200, '{"access_token": "geheim", "x": "%s"}' % ("x" * 70_000), "RESPONSE_TOO_LARGE", False),
    ],
)
async def test_token_that_is_not_to_be_had_fails_the_call(
    caller: Handler, web: Web, status: int, body: str, code: str, retryable: bool
) -> None:
    token_url = web.answer("/token", status, body + ("" if status == 200 else f" {SECRET}"))
    oauth2 = {"token_url": token_url, "client_id": "ann", "client_secret": SECRET}
    error = await failure(caller, url=web.answer("/api"), auth={"oauth2": oauth2})
    assert (error.code, error.retryable, error.details["url"]) == (code, retryable, token_url)
    assert "geheim" not in f"{error} {error.details}"
    assert SECRET not in f"{error} {error.details}"
    assert [each.path for each in web.calls] == ["/token"]


async def test_token_is_fetched_within_the_time_and_the_guard_of_the_call(caller: Handler, web: Web) -> None:
    oauth2 = {"token_url": f"{web.url}/hang", "client_id": "ann", "client_secret": SECRET}
    hanging = asyncio.ensure_future(call(caller, url=web.answer("/api"), auth={"oauth2": oauth2}))
    error = await failure(caller, url=web.answer("/api"), auth={"oauth2": oauth2}, timeout=0.05)
    assert (error.code, "no complete answer within 0.05 s" in error.message) == ("CONNECTION_FAILED", True)
    web.release.set()
    with pytest.raises(Exception, match="INVALID_RESPONSE"):
        await hanging
    inside = {**oauth2, "token_url": "http://10.0.0.1/token"}
    error = await failure(caller, url=web.answer("/api"), auth={"oauth2": inside})
    assert (error.code, error.retryable) == ("ADDRESS_NOT_ALLOWED", False)


async def test_one_that_fetches_and_is_cancelled_leaves_it_to_the_next(
    caller: Handler, web: Web, issuer: Issuer
) -> None:
    arrived, loop = asyncio.Event(), asyncio.get_running_loop()

    def held(sent: Call) -> Answer:
        loop.call_soon_threadsafe(arrived.set)
        web.release.wait(PATIENCE)
        return issuer.give(sent)

    auth = issuer.auth(token_url=web.by("/held", held))
    first, second = (asyncio.ensure_future(call(caller, url=issuer.url, auth=auth)) for _ in range(2))
    async with asyncio.timeout(PATIENCE):
        await arrived.wait()
    first.cancel()
    web.release.set()
    assert (await second)["status"] == 200
    assert [each.path for each in web.calls] == ["/held", "/held", "/api"]
