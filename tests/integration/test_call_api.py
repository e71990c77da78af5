"""`call_api` against a real HTTP server."""

from __future__ import annotations

import asyncio
import gzip
import json
import socket
from dataclasses import replace
from datetime import datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from service.engine.handlers.model import Handler
from tests.integration.web import CONTEXT, Web, call, failure
from tests.unit.attempts import NOW


@pytest.mark.parametrize(
    ("status", "code", "retryable"),
    [
        (400, "HTTP_STATUS_4XX", False),
        (404, "HTTP_STATUS_4XX", False),
        (408, "HTTP_STATUS_4XX", True),
        (425, "HTTP_STATUS_4XX", True),
        (429, "HTTP_STATUS_4XX", True),
        (500, "HTTP_STATUS_5XX", True),
        (503, "HTTP_STATUS_5XX", True),
    ],
)
async def test_status_that_is_no_success(caller: Handler, web: Web, status: int, code: str, retryable: bool) -> None:
    url = web.answer("/orders", status, "x" * 5000)
    error = await failure(caller, url=url, method="POST")
    assert (error.code, error.retryable, error.retry_after) == (code, retryable, None)
    assert error.details == {"method": "POST", "url": url, "status": status, "body": "x" * 512}
    assert error.message.startswith(f"POST {url.removeprefix('http://')}: answered {status} ")


async def test_success_codes_decide(caller: Handler, web: Web) -> None:
    url = web.answer("/a", 404)
    assert (await call(caller, url=url, success_codes=["2xx", 404]))["status"] == 404
    assert (await call(caller, url=url, success_codes=["4XX"]))["status"] == 404
    assert (await failure(caller, url=web.answer("/b", 204), success_codes=[200])).code == "HTTP_STATUS_2XX"


async def test_redirect_is_not_followed(caller: Handler, web: Web) -> None:
    url = web.answer("/a", 302, Location="/b")
    error = await failure(caller, url=url)
    assert error.code == "HTTP_STATUS_3XX"
    assert not error.retryable
    assert "redirects are not followed" in error.message
    assert [c.path for c in web.calls] == ["/a"]


@pytest.mark.parametrize(
    ("status", "headers", "expected"),
    [
        (429, {"Retry_After": "7"}, 7.0),
        (503, {"Retry_After": "86400"}, 3600.0),
        (503, {"Retry_After": "9" * 400}, 3600.0),
        (503, {"Retry_After": format_datetime(NOW.replace(minute=2), usegmt=True)}, 120.0),
        (503, {"Retry_After": format_datetime(NOW.replace(year=2020), usegmt=True)}, 0.0),
        (503, {"Retry_After": format_datetime(NOW.replace(minute=2)).replace("+0000", "UT")}, 120.0),
        (503, {"Retry_After": "Thursday, 01-Jan-26 00:00:30 GMT"}, 30.0),
        (503, {"Retry_After": "Thu Jan  1 00:00:30 2026"}, 30.0),
        (429, {"Retry_After": "1.5"}, 1.5),
        (429, {"Retry_After": f"{NOW.timestamp() + 30:.0f}"}, 30.0),  # a moment, as some have it
        *((503, {"Retry_After": wish}, None) for wish in ("soon", "-5", "+5", "5s", "5, 5", ",", "1_0", "1e3", " ")),
        (500, {"Retry_After": "7"}, None),
    ],
)
async def test_retry_after(
    caller: Handler, web: Web, status: int, headers: dict[str, str], expected: float | None
) -> None:
    # The server of the standard library shows its clock; the test's is the one to count from.
    url = web.answer("/a", status, **headers, Date=format_datetime(NOW, usegmt=True))
    error = await failure(caller, url=url)
    assert error.retry_after == expected


@pytest.mark.parametrize(("clock", "expected"), [({}, 90.0), ({"Date": NOW.replace(hour=3)}, 60.0)])
async def test_date_of_retry_after_counts_by_the_clock_of_the_other_side(
    caller: Handler, web: Web, clock: dict[str, datetime], expected: float
) -> None:
    """And by ours where it shows none."""
    until = next(iter(clock.values()), NOW + timedelta(seconds=30)) + timedelta(seconds=60)
    dates = {name: format_datetime(moment, usegmt=True) for name, moment in {**clock, "Retry_After": until}.items()}
    assert (await failure(caller, url=web.answer("/a", 503, **dates))).retry_after == expected


async def test_st5_token_is_equal_over_attempts_and_the_attempt_is_sent_apart(caller: Handler, web: Web) -> None:
    url = web.answer("/a")
    for attempt in (1, 2, 3):
        await call(caller, replace(CONTEXT, attempt=attempt), url=url)
    assert {c.headers["idempotency-key"] for c in web.calls} == {"token-of-the-step"}
    assert [c.headers["x-flowkeep-attempt"] for c in web.calls] == ["1", "2", "3"]


@pytest.mark.parametrize(
    ("params", "kind", "body"),
    [
        ({"json": {"a": [1, None]}}, "application/json", b'{"a":[1,null]}'),
        ({"json": None}, "application/json", b"null"),
        ({"text": "grüße"}, "text/plain; charset=utf-8", "grüße".encode()),
        ({"text": "<a/>", "headers": {"content-type": "application/xml"}}, "application/xml", b"<a/>"),
        ({"form": {"a": 1, "b": [True, "x y"]}}, "application/x-www-form-urlencoded", b"a=1&b=true&b=x+y"),
    ],
)
async def test_bodies(caller: Handler, web: Web, params: dict[str, Any], kind: str, body: bytes) -> None:
    await call(caller, url=web.answer("/a"), method="POST", **params)
    assert (web.calls[0].headers["content-type"], web.calls[0].body) == (kind, body)


@pytest.mark.parametrize(
    ("written", "query", "sent"),
    [
        ("?flag&a=1&b=2&a=3&c=b%20c&d=%E9&e=%2f&f=x;y=1", None, "?flag&a=1&b=2&a=3&c=b%20c&d=%E9&e=%2f&f=x;y=1"),
        ("?a+b=c+d&&e=&=f&100%", {}, "?a+b=c+d&&e=&=f&100%"),
        ("?q={[|]}'~!*", None, "?q={[|]}'~!*"),
        ('?q="<ü> x"', None, "?q=%22%3C%C3%BC%3E%20x%22"),
        ("?x=1#part", {"n": [1, 2], "ok": False}, "?x=1&n=1&n=2&ok=false"),
        ("?x=1", {"x": 2}, "?x=1&x=2"),
        ("?d=%E9&flag&", {"x": "a b&c"}, "?d=%E9&flag&x=a+b%26c"),
        ("?", {"x": 1}, "?x=1"),
        ("", {"x": 1}, "?x=1"),
    ],
)
async def test_query_is_sent_as_written_and_added_to(
    caller: Handler, web: Web, written: str, query: dict[str, Any] | None, sent: str
) -> None:
    more: dict[str, Any] = {} if query is None else {"query": query}
    await call(caller, url=web.answer("/a") + written, **more)
    assert web.calls[0].path == "/a" + sent


async def test_authorisation(caller: Handler, web: Web) -> None:
    url = web.answer("/a", Set_Cookie="s=1", WWW_Authenticate="Basic")
    output = await call(caller, url=url, auth={"bearer": "abc"})
    await call(caller, url=url, auth={"basic": {"username": "ann", "password": "pw"}})
    await call(caller, url=url.replace("http://", "http://ann:p%77@"))
    assert [c.headers["authorization"] for c in web.calls] == ["Bearer abc", *["Basic YW5uOnB3"] * 2]
    assert not {"set-cookie", "www-authenticate"} & output["headers"].keys()


async def test_cookies_of_one_call_do_not_ride_on_another(caller: Handler, web: Web) -> None:
    url = web.answer("/a", Set_Cookie="session=1; Path=/")
    await call(caller, url=url)
    await call(caller, url=url)
    assert "cookie" not in web.calls[1].headers


async def test_own_timeout(caller: Handler, web: Web) -> None:
    for timeout, said in ((0.05, "0.05 s"), ("50ms", "50ms")):
        error = await failure(caller, url=web.url + "/hang", timeout=timeout)
        assert (error.code, error.retryable) == ("CONNECTION_FAILED", True)
        assert f"no complete answer within {said}" in error.message


async def test_timeout_of_the_step_and_cancel_reach_the_call(caller: Handler, web: Web) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await call(caller, url=web.url + "/hang")


async def test_connection_refused(caller: Handler) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        error = await failure(caller, url=f"http://ann:geheim@127.0.0.1:{taken.getsockname()[1]}/a?key=geheim")
    assert (error.code, error.retryable) == ("CONNECTION_FAILED", True)
    assert error.message.endswith("/a: no connection: Connection refused")
    assert "geheim" not in f"{error} {error.details}"
    error = await failure(caller, url="http://no-such-host.invalid/a")
    assert "/a: no connection: " in error.message


async def test_certificates_that_cannot_be_read_are_told(
    caller: Handler, web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", "/no/such/file")
    error = await failure(caller, url=web.answer("/a"))
    assert (error.code, "SSL_CERT_FILE" in error.message) == ("CONNECTION_FAILED", True)
    monkeypatch.delenv("SSL_CERT_FILE")
    assert (await call(caller, url=web.answer("/a")))["status"] == 200


async def test_connection_that_breaks_off(caller: Handler, web: Web) -> None:
    for answer in (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc", b"HTTP/1.1 200 OK\r\n", b""):
        error = await failure(caller, url=web.raw("/break", answer))
        assert (error.code, error.retryable) == ("CONNECTION_FAILED", True)
        assert "closed the connection before the end of its answer" in error.message


async def test_what_is_no_http_is_not_asked_for_again(caller: Handler, web: Web) -> None:
    for answer in (b"hello there\r\n\r\n", b"HTTP/1.1 200 OK\r\nX: a\0b\r\n\r\n", b"\x15\x03\x01\x00\x02\x02\x46"):
        error = await failure(caller, url=web.raw("/a", answer), method="POST")
        assert (error.code, error.retryable) == ("INVALID_RESPONSE", False), answer


async def test_calls_at_the_same_time_and_after_close(caller: Handler, web: Web) -> None:
    assert caller.close is not None
    await asyncio.gather(*(call(caller, url=web.answer("/a", body=json.dumps(n))) for n in range(20)))
    await caller.close()
    assert (await call(caller, url=web.answer("/a")))["status"] == 200


# What is wrong with a body changes nothing of what an error status says.


@pytest.mark.parametrize(
    ("headers", "body", "shown"),
    [
        ({"Content_Encoding": "gzip"}, b"<html>oops", "<html>oops"),
        ({"Content_Encoding": "br"}, b"oops", "oops"),
        ({"Content_Encoding": "gzip"}, gzip.compress(b"oops " * 9999, mtime=0)[:-12], ("oops " * 103)[:512]),
        ({"Content_Length": "4"}, b"oopsie", "oops"),
        ({"Content_Length": "100"}, b"oops", "oops"),
        ({"Content_Type": "text/plain; charset=no-such"}, b"o\0ps", "o\N{REPLACEMENT CHARACTER}ps"),
        ({"Content_Type": "text/plain; charset=latin-1"}, "née".encode("latin-1"), "née"),
    ],
)
@pytest.mark.parametrize("status", [404, 500])
async def test_an_error_status_wins_over_its_body(
    caller: Handler, web: Web, status: int, headers: dict[str, str], body: bytes, shown: str
) -> None:
    head = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    error = await failure(
        caller, url=web.raw("/a", f"HTTP/1.1 {status} No\r\nConnection: close\r\n{head}\r\n".encode() + body)
    )
    assert (error.code, error.retryable) == (f"HTTP_STATUS_{status // 100}XX", status == 500)
    assert error.details["body"] == shown


async def test_an_error_status_wins_over_a_body_that_does_not_come(caller: Handler, web: Web) -> None:
    url = web.answer("/drip", 404)
    error = await failure(caller, url=url, timeout=3.0)
    assert (error.code, error.retryable, error.details["body"]) == ("HTTP_STATUS_4XX", False, "slow")


async def test_a_status_beyond_599_is_an_error_of_the_server(caller: Handler, web: Web) -> None:
    for status in (600, 999):
        url = web.raw("/a", b"HTTP/1.1 %d\r\nConnection: close\r\nContent-Length: 1\r\n\r\nx" % status)
        error = await failure(caller, url=url)
        assert (error.code, error.retryable, error.details["status"]) == ("HTTP_STATUS_5XX", True, status)
        for good in (status, str(status), "5xx"):
            assert (await call(caller, url=url, success_codes=[good]))["status"] == status


async def test_a_redirect_to_nowhere_is_a_redirect(caller: Handler, web: Web) -> None:
    error = await failure(caller, url=web.answer("/a", 302, Location="http://[bad"))
    assert error.code == "HTTP_STATUS_3XX"


# What is told of a call


@pytest.mark.parametrize(
    ("query", "shown"),
    [
        ("?page=2&flag&q=a%20b", "?page=2&flag&q=a%20b"),
        ("?access_token=geheim-1&page=2", "?access_token=***&page=2"),
        ("?apiKey=geheim-1&X-Amz-Signature=geheim-2&sig=geheim-3", "?apiKey=***&X-Amz-Signature=***&sig=***"),
        ("?pass%77ord=geheim-1&code=geheim-2", "?pass%77ord=***&code=***"),
        ("?a=1;token=geheim-1;geheim-2", "?a=***"),
        ("?next=https%3A%2F%2Fx%2F%3Fsecret%3Dgeheim-1", "?next=***"),
        ("?keyword=design&author=ann&encode=utf-8", "?keyword=design&author=ann&encode=utf-8"),
    ],
)
async def test_no_secret_of_a_url_is_told(caller: Handler, web: Web, query: str, shown: str) -> None:
    url = web.answer("/orders/7", 500, f"no, not with {query}")
    error = await failure(caller, url=url.replace("http://", "http://ann:geheim-9@") + query)
    place = url.removeprefix("http://")
    assert error.message == f"GET {place}: answered 500 Internal Server Error"
    assert error.details["url"] == url + shown
    assert "geheim" not in str(error.details)


async def test_a_secret_that_an_answer_repeats_is_not_told(caller: Handler, web: Web) -> None:
    url = web.answer("/a", 401, "x" * 505 + " geheim-1 or geheim-2 or geheim-3")
    calls: list[dict[str, Any]] = [
        {"auth": {"bearer": "geheim-1"}, "headers": {"X-Api-Key": "geheim-2"}, "query": {"token": "geheim-3"}},
        {"headers": {"Authorization": "Bearer geheim-1", "Cookie": "geheim-2", "X-Secret": "geheim-3"}},
    ]
    for params in calls:
        error = await failure(caller, url=url, **params)
        assert "gehe" not in f"{error} {error.details}"
        assert error.details["body"].startswith("x" * 505 + " *** o")


async def test_proxies_of_the_environment_are_not_used(
    caller: Handler, web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert (await call(caller, url=web.answer("/a")))["status"] == 200
