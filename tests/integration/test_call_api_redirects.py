"""Redirects that `call_api` follows, between two real HTTP servers: two origins."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from service.engine.handlers.model import Handler
from tests.integration.web import Answer, Call, Web, call, failure, serving_web


@pytest.fixture
def other() -> Iterator[Web]:
    """Another origin."""
    with serving_web() as server:
        yield server


@pytest.mark.parametrize(
    ("status", "method", "then"),
    [
        *((status, "POST", "GET") for status in (301, 302, 303)),
        *((status, "PUT", "PUT") for status in (301, 302)),
        (303, "PUT", "GET"),
        *((status, "HEAD", "HEAD") for status in (301, 303, 307)),
        *((status, "POST", "POST") for status in (307, 308)),
    ],
)
async def test_method_is_that_of_the_standard_of_fetch(
    caller: Handler, web: Web, status: int, method: str, then: str
) -> None:
    url = web.answer("/a", status, Location="/b?x=1")
    body: dict[str, Any] = {} if method == "HEAD" else {"json": [1]}
    output = await call(caller, url=url, method=method, redirects="same_origin", **body)
    assert output["status"] == 200
    first, second = web.calls
    assert (second.method, second.path, second.headers["host"]) == (then, "/b?x=1", first.headers["host"])
    keeps = then != "GET" and method != "HEAD"
    assert (second.body, second.headers.get("content-type")) == ((b"[1]", "application/json") if keeps else (b"", None))
    assert second.headers["idempotency-key"] == "token-of-the-step"


@pytest.mark.parametrize("policy", ["same_origin", "any"])
async def test_same_origin_gets_what_the_first_call_got(caller: Handler, web: Web, policy: str) -> None:
    url = web.answer("/a", 307, Location="b")
    headers = {"Cookie": "c=1", "X-Api-Key": "k"}
    await call(caller, url=url, redirects=policy, headers=headers, auth={"bearer": "abc"})
    names = ("authorization", "cookie", "x-api-key")
    assert [web.calls[1].headers.get(name) for name in names] == ["Bearer abc", "c=1", "k"]


async def test_name_of_the_host_is_the_one_that_was_given_for_its_origin_alone(
    caller: Handler, web: Web, other: Web
) -> None:
    url = web.answer("/a", 307, Location=web.answer("/b", 307, Location=other.answer("/c")))
    await call(caller, url=url, redirects="any", headers={"Host": "shop.example"})
    hosts = [each.headers["host"] for each in (*web.calls, *other.calls)]
    assert hosts == ["shop.example", "shop.example", other.url.removeprefix("http://")]


@pytest.mark.parametrize(
    ("auth", "secret"),
    [
        ({"bearer": "geheim"}, "geheim"),
        ({"basic": {"username": "ann", "password": "geheim"}}, "YW5uOmdlaGVpbQ"),
        ({"api_key": {"header": "X-Tool", "value": "geheim"}}, "geheim"),
        ({"api_key": {"query": "tool", "value": "geheim"}}, "geheim"),
    ],
)
async def test_no_secret_is_sent_to_another_origin_nor_back(
    caller: Handler, web: Web, other: Web, auth: dict[str, Any], secret: str
) -> None:
    url = web.answer("/a", 307, Location=other.answer("/b", 307, Location=web.answer("/c")))
    headers = {"Cookie": secret, "X-Session": secret, "X-Plain": "1"}
    output = await call(caller, url=url, method="POST", json=[1], redirects="any", headers=headers, auth=auth)
    assert output["status"] == 200
    assert [each.path for each in (*other.calls, *web.calls[1:])] == ["/b", "/c"]
    for sent in (*other.calls, *web.calls[1:]):
        assert secret not in f"{sent.headers} {sent.path}"
        assert (sent.headers["x-plain"], sent.body, sent.headers["content-type"]) == ("1", b"[1]", "application/json")


async def test_user_in_the_url_is_sent_to_no_other_origin_and_none_is_taken_from_a_redirect(
    caller: Handler, web: Web, other: Web
) -> None:
    location = other.answer("/b").replace("http://", "http://eve:pw@")
    url = web.answer("/a", 302, Location=location).replace("http://", "http://ann:geheim@")
    await call(caller, url=url, redirects="any")
    assert "authorization" in web.calls[0].headers
    assert "authorization" not in other.calls[0].headers


async def test_other_origin_is_not_gone_to_by_same_origin(caller: Handler, web: Web, other: Web) -> None:
    url = web.answer("/a", 302, Location=other.answer("/b"))
    error = await failure(caller, url=url, redirects="same_origin")
    assert (error.code, error.retryable, error.details["url"]) == ("HTTP_STATUS_3XX", False, url)
    assert "to another origin are not followed" in error.message
    assert not other.calls


async def test_five_are_followed_and_no_more(caller: Handler, web: Web) -> None:
    for number in range(6):
        web.answer(f"/{number}", 302, Location=f"/{number + 1}")
    assert (await call(caller, url=f"{web.url}/1", redirects="any"))["status"] == 200
    web.calls.clear()
    error = await failure(caller, url=f"{web.url}/0", redirects="any")
    assert (error.code, error.retryable, error.details["status"]) == ("HTTP_STATUS_3XX", False, 302)
    assert error.details["url"] == f"{web.url}/5"
    assert [each.path for each in web.calls] == [f"/{number}" for number in range(6)]


async def test_redirect_that_counts_as_success_is_given(caller: Handler, web: Web) -> None:
    url = web.answer("/a", 303, Location="/b")
    output = await call(caller, url=url, redirects="any", success_codes=[303])
    assert (output["status"], output["headers"]["location"]) == (303, "/b")


@pytest.mark.parametrize(
    "location",
    ["ftp://host/geheim", "file:///geheim", "http://[geheim", "http://h:99999/", "/" + "x" * 9000],
)
async def test_redirect_to_what_cannot_be_called(caller: Handler, web: Web, location: str) -> None:
    error = await failure(caller, url=web.answer("/a", 302, Location=location), redirects="any")
    assert (error.code, error.retryable, error.details["status"]) == ("INVALID_RESPONSE", False, 302)
    assert "geheim" not in f"{error} {error.details}"
    assert len(web.calls) == 1


async def test_each_redirect_is_guarded_and_the_failure_names_it(caller: Handler, web: Web) -> None:
    url = web.answer("/a", 302, Location="http://10.0.0.1/inside?token=geheim")
    error = await failure(caller, url=url, redirects="any")
    assert (error.code, error.retryable) == ("ADDRESS_NOT_ALLOWED", False)
    assert error.details == {"method": "GET", "url": "http://10.0.0.1/inside?token=***"}


async def test_redirect_whose_body_does_not_come_is_followed_within_the_time_of_all(caller: Handler, web: Web) -> None:
    url = web.answer("/drip", 302, Location=web.answer("/b"))
    assert (await call(caller, url=url, redirects="any"))["status"] == 200
    error = await failure(caller, url=url, redirects="any", timeout=0.2)
    assert (error.code, error.details["url"]) == ("CONNECTION_FAILED", f"{web.url}/b")
    assert "within 0.2 s" in error.message


async def test_token_is_renewed_for_its_own_origin_alone(caller: Handler, web: Web, other: Web) -> None:
    given = json.dumps({"access_token": "geheim"})
    auth = {"oauth2": {"token_url": web.answer("/token", body=given), "client_id": "a", "client_secret": "b"}}

    def refuse(sent: Call) -> Answer:
        return (401 if len([each for each in web.calls if each.path == "/b"]) == 1 else 200), {}, b""

    url = web.answer("/a", 307, Location=web.by("/b", refuse).removeprefix(web.url))
    assert (await call(caller, url=url, auth=auth, redirects="any"))["status"] == 200
    assert [each.path for each in web.calls] == ["/token", "/a", "/b", "/token", "/b"]
    web.answer("/a", 307, Location=other.answer("/c", 401))
    error = await failure(caller, url=url, auth=auth, redirects="any")
    assert error.details["status"] == 401
    assert [each.path for each in other.calls] == ["/c"]
    assert "authorization" not in other.calls[0].headers
