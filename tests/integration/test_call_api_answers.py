"""What answers of a real HTTP server become, for `call_api`."""

from __future__ import annotations

import asyncio
import gzip
import zlib
from typing import Any

import pytest

import flowkeep
from service.engine.handlers.model import Handler
from tests.integration.stage import ended, made, step
from tests.integration.web import Web, call, failure
from tests.patience import PATIENCE

GZIPPED = gzip.compress(b"hello", mtime=0)


async def test_json_answer(caller: Handler, web: Web) -> None:
    url = web.answer("/a", body='{"n": 1, "z": null}', Content_Type="application/json", X_Total="7")
    output = await call(caller, url=url)
    assert (output["status"], output["body"]) == (200, {"n": 1, "z": None})
    assert output["headers"]["x-total"] == "7"


@pytest.mark.parametrize(
    ("headers", "body", "response", "expected"),
    [
        ({"Content_Type": "application/problem+json; charset=utf-8"}, "[1]", "auto", [1]),
        ({"Content_Type": "text/plain"}, "[1]", "auto", "[1]"),
        ({"Content_Type": "text/plain"}, "[1]", "json", [1]),
        ({"Content_Type": "application/json"}, "[1]", "text", "[1]"),
        ({"Content_Type": "text/plain; charset=latin-1"}, "é".encode("latin-1"), "auto", "é"),
        ({}, "", "auto", None),
        ({"Content_Type": "application/json"}, b"\xef\xbb\xbf{}", "auto", {}),
        ({"Content_Type": "text/json"}, " [1]\r\n", "auto", [1]),
        ({"Content_Type": "application/json"}, "\r\n", "auto", None),
        ({"Content_Type": "text/plain"}, "\r\n", "auto", "\r\n"),
        ({}, "", "text", ""),
        ({"Content_Type": "application/x-ndjson"}, "[1]\n[2]\n", "auto", "[1]\n[2]\n"),
        # charsets
        ({"Content_Type": 'text/plain; charset="ISO-8859-1"; x=y'}, "é".encode("latin-1"), "auto", "é"),
        ({"Content_Type": "text/plain; Charset = windows-1252"}, "“é”".encode("cp1252"), "auto", "“é”"),
        ({"Content_Type": "text/plain; charset="}, "é", "auto", "é"),
        ({"Content_Type": 'text/plain; charset=""'}, "é", "auto", "é"),
        ({"Content_Type": "text/plain; charset=Shift-JIS"}, "日本".encode("shift_jis"), "auto", "日本"),
        ({"Content_Type": "text/html"}, "é".encode("latin-1"), "auto", "é"),
        ({"Content_Type": "text/plain; charset=utf-8"}, "\ufeffabc", "auto", "abc"),
        ({"Content_Type": "text/plain; charset=utf-16"}, "é".encode("utf-16"), "auto", "é"),
        ({"Content_Type": "text/plain"}, "é".encode("utf-16"), "auto", "é"),
        ({"Content_Type": "application/json; charset=iso-8859-1"}, '["é"]'.encode("latin-1"), "auto", ["é"]),
        ({"Content_Type": "application/json; charset=iso-8859-1"}, '["é"]', "auto", ["é"]),
        ({"Content_Type": "application/json; charset=utf-16"}, '["é"]'.encode("utf-16"), "auto", ["é"]),
        ({"Content_Type": "application/json"}, '["é"]'.encode("utf-32-be"), "auto", ["é"]),
        ({"Content_Type": "application/json; charset=no-such"}, '["é"]', "auto", ["é"]),
        # content codings
        ({"Content_Encoding": "gzip"}, GZIPPED, "auto", "hello"),
        ({"Content_Encoding": "X-GZIP"}, GZIPPED, "auto", "hello"),
        ({"Content_Encoding": "gzip"}, GZIPPED + gzip.compress(b" again", mtime=0) + bytes(100), "auto", "hello again"),
        ({"Content_Encoding": "identity, gzip, gzip"}, gzip.compress(GZIPPED, mtime=0), "auto", "hello"),
        ({"Content_Encoding": "deflate"}, zlib.compress(b"hello"), "auto", "hello"),
        ({"Content_Encoding": "deflate"}, zlib.compress(b"hello")[2:-4], "auto", "hello"),
        ({"Content_Encoding": "identity"}, b"hello", "auto", "hello"),
        ({"Content_Encoding": "gzip"}, b"", "auto", None),
        # bytes
        ({"Content_Type": "image/png"}, b"\x89PNG\0\xff", "base64", "iVBORwD/"),
        ({"Content_Encoding": "gzip"}, GZIPPED, "base64", "aGVsbG8="),
        ({"Content_Type": "application/json"}, b"", "base64", ""),
    ],
)
async def test_reading_of_the_body(
    caller: Handler, web: Web, headers: dict[str, str], body: bytes | str, response: str, expected: Any
) -> None:
    url = web.answer("/a", 200, body, **headers)
    assert (await call(caller, url=url, response=response))["body"] == expected


@pytest.mark.parametrize(
    ("headers", "body", "response", "said"),
    [
        ({"Content_Type": "application/json"}, "{not json", "auto", "not JSON"),
        ({"Content_Type": "text/html"}, "<html>", "json", "not JSON"),
        ({}, "", "json", "is empty"),
        ({"Content_Type": "image/png"}, b"\x89PNG\r\n\x1a\n\xff\xfe", "auto", "response: base64"),
        ({"Content_Type": "text/plain"}, b"a\0b", "auto", "binary"),
        ({"Content_Type": "text/plain; charset=punycode"}, b"abc", "auto", "unknown charset"),
        ({"Content_Type": "text/plain; charset=no-such"}, b"\xff", "auto", "unknown charset"),
        ({"Content_Type": "application/json"}, "[" * 100_000, "auto", "too deep"),
        ({"Content_Type": "application/json"}, "[1]\n[2]\n", "auto", "ask for response: text"),
        ({"Content_Type": "application/json"}, "[NaN]", "auto", "not JSON"),
        ({"Content_Type": "application/json"}, "[1e400]", "auto", "not JSON"),
        ({"Content_Type": "application/json"}, '["é"]'.encode("latin-1"), "auto", "not in UTF-8"),
        ({"Content_Type": "application/json"}, " ", "json", "is empty"),
        ({"Content_Type": "text/plain; charset=-punycode"}, b"abc", "auto", "unknown charset"),
        ({"Content_Type": "text/plain; charset*=punycode''abc"}, b"\xff\0", "auto", "binary"),
        ({"Content_Type": "text/plain; charset=unicode_escape"}, b"abc", "auto", "unknown charset"),
        ({"Content_Type": "text/plain; charset=utf-7"}, b"abc", "auto", "unknown charset"),
        ({"Content_Type": "text/plain; charset=" + "x" * 9000}, b"abc", "auto", "unknown charset"),
        ({"Content_Type": "text/plain; charset=utf-8"}, "é".encode("latin-1"), "auto", "not text in utf-8"),
        ({"Content_Encoding": "gzip"}, b"this is no gzip", "auto", "content-encoding"),
        ({"Content_Encoding": "gzip"}, GZIPPED[:-5], "auto", "cut off"),
        ({"Content_Encoding": "gzip"}, GZIPPED + GZIPPED[:-5], "base64", "cut off"),
        ({"Content_Encoding": "gzip"}, GZIPPED[:-8] + bytes(8), "auto", "content-encoding"),
        ({"Content_Encoding": "gzip"}, GZIPPED + b"more", "auto", "content-encoding"),
        ({"Content_Encoding": "deflate"}, zlib.compress(b"hello")[:-6], "auto", "cut off"),
        ({"Content_Encoding": "br"}, b"hello", "auto", "'br', which was not asked for; gzip, deflate can be read"),
        ({"Content_Encoding": "zstd"}, b"hello", "base64", "'zstd'"),
        ({"Content_Encoding": ", ".join(["gzip"] * 5)}, b"hello", "auto", "5 times"),
    ],
)
async def test_answer_that_is_not_what_was_asked_for(
    caller: Handler, web: Web, headers: dict[str, str], body: bytes | str, response: str, said: str
) -> None:
    url = web.answer("/a", 200, body, **headers)
    error = await failure(caller, url=url, response=response, method="POST")
    assert (error.code, error.retryable) == ("INVALID_RESPONSE", False)
    assert said in error.message
    assert {name: error.details[name] for name in ("method", "url", "status")} == {
        "method": "POST",
        "url": url,
        "status": 200,
    }


async def test_a_post_with_an_answer_that_cannot_be_taken_is_sent_once(client: flowkeep.Client, web: Web) -> None:
    answers = (("image/png", b"\x89PNG\xff"), ("text/plain", b"x" * 300_000), ("application/json", b"[1e18]"))
    for n, (kind, body) in enumerate(answers, 1):
        url = web.answer("/a", 200, body, Content_Type=kind)
        retry = {"max_attempts": 3, "initial_interval": 0.01}
        name = await made(client, step("a", "call_api", url=url, method="POST", retry_policy=retry))
        execution = await ended(client, (await client.execute(name)).execution_id)
        assert execution.steps[0].failure.details["url"] == url
        assert len(web.calls) == n, kind


@pytest.mark.parametrize("response", ["auto", "json", "text", "base64", "none"])
async def test_what_has_no_body_has_none_in_every_mode(caller: Handler, web: Web, response: str) -> None:
    headers = {"Content_Type": "application/json", "Content_Encoding": "gzip"}
    for status in (204, 205, 304):
        url = web.raw(
            "/a", b"HTTP/1.1 %d No\r\nContent-Encoding: gzip\r\nConnection: close\r\nContent-Length: 0\r\n\r\n" % status
        )
        output = await call(caller, url=url, response=response, method="DELETE", success_codes=["2xx", 304])
        assert (output["status"], output["body"]) == (status, None)
    output = await call(caller, url=web.answer("/b", 200, "no gzip", **headers), response=response, method="HEAD")
    assert output["body"] is None


async def test_many_small_members_do_not_hold_up_the_others(caller: Handler, web: Web) -> None:
    """Each takes its own time, and not that of all that come after it."""
    url = web.answer("/a", body=gzip.compress(b"") * 100_000 + GZIPPED, Content_Encoding="gzip")
    async with asyncio.timeout(PATIENCE):
        assert (await call(caller, url=url, max_response_bytes=1 << 20))["body"] == "hello"


async def test_body_over_the_cap(caller: Handler, web: Web) -> None:
    url = web.answer("/a", body=b"x" * 1001, Content_Type="text/plain")
    assert (await call(caller, url=url, max_response_bytes=1001))["body"] == "x" * 1001
    error = await failure(caller, url=url, max_response_bytes=1000)
    assert (error.code, error.retryable) == ("RESPONSE_TOO_LARGE", False)


async def test_cap_counts_what_compression_hides(caller: Handler, web: Web) -> None:
    bomb = gzip.compress(bytes(64 << 20), mtime=0)
    error = await failure(caller, url=web.answer("/a", body=bomb, Content_Encoding="gzip"))
    assert error.code == "RESPONSE_TOO_LARGE"


async def test_compressed_data_that_never_grows_is_bounded_too(caller: Handler, web: Web) -> None:
    nothing = gzip.compress(b"", mtime=0) * 10_000
    error = await failure(caller, url=web.answer("/a", body=nothing, Content_Encoding="gzip"), max_response_bytes=10)
    assert (error.code, error.retryable) == ("RESPONSE_TOO_LARGE", False)


async def test_big_integers(caller: Handler, web: Web) -> None:
    body = '{"ids": [1234567890123456789, -9007199254740993, 12345678901234567890123], "n": 7, "ok": true, "x": 0.5}'
    url = web.answer("/a", body=body, Content_Type="application/json")
    error = await failure(caller, url=url, method="POST")
    assert (error.code, error.retryable) == ("INVALID_OUTPUT", False)
    assert "output.body.ids[0] is a whole number beyond 2^53" in error.message
    assert "big_integers: text" in error.message
    assert error.details["body"] == body
    output = await call(caller, url=url, big_integers="text")
    digits = ["1234567890123456789", "-9007199254740993", "12345678901234567890123"]
    assert output["body"] == {"ids": digits, "n": 7, "ok": True, "x": 0.5}


@pytest.mark.parametrize("body", ['"\\u0000"', "[" * 30 + "]" * 30, '{"a\\u0000": 12345678901234567}'])
async def test_what_cannot_be_kept_fails_once(caller: Handler, web: Web, body: str) -> None:
    error = await failure(caller, url=web.answer("/a", body=body, Content_Type="application/json"), method="POST")
    assert (error.code, error.retryable) == ("INVALID_OUTPUT", False)
    assert "big_integers" not in error.message


async def test_headers_of_one_name_and_beyond_ascii(caller: Handler, web: Web) -> None:
    head = "X-A: 1\r\nX-A: 2\r\nX-Name: é\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2".encode("latin-1")
    output = await call(caller, url=web.raw("/a", b"HTTP/1.1 200\r\n%b\r\n\r\n" % head))
    assert output["headers"] == {"x-a": "1, 2", "x-name": "é"}


@pytest.mark.parametrize(
    ("names", "given"),
    [
        (["ETag", "x-none"], {"etag": '"1"'}),
        (["x-a"], {"x-a": "1, 2"}),
        ([], {}),
        (None, {"etag": '"1"', "x-a": "1, 2", "content-length": "0"}),
    ],
)
async def test_headers_that_are_asked_for(
    caller: Handler, web: Web, names: list[str] | None, given: dict[str, str]
) -> None:
    head = b'ETag: "1"\r\nX-A: 1\r\nX-A: 2\r\nSet-Cookie: a=1\r\nContent-Length: 0'
    params: dict[str, Any] = {} if names is None else {"response_headers": names}
    output = await call(caller, url=web.raw("/a", b"HTTP/1.1 200\r\n%b\r\n\r\n" % head), **params)
    assert output["headers"] == given


async def test_body_that_nobody_wants_may_be_anything(caller: Handler, web: Web) -> None:
    """It is not read to its end, and the status counts as ever."""
    url = web.answer("/a", body=b"\0\xff" * 2_000_000, Content_Type="application/json", Content_Encoding="br")
    assert (await call(caller, url=url, response="none"))["body"] is None
    assert (await call(caller, url=web.answer("/drip"), response="none", timeout=PATIENCE))["status"] == 200
    assert (await failure(caller, url=web.answer("/b", 404), response="none")).code == "HTTP_STATUS_4XX"


async def test_what_comes_before_the_answer_is_passed_over(caller: Handler, web: Web) -> None:
    early = b"HTTP/1.1 103 Early Hints\r\nLink: </s.css>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n"
    assert (await call(caller, url=web.raw("/a", early + b"HTTP/1.0 200 OK\r\n\r\nyes")))["body"] == "yes"


async def test_only_what_can_be_read_is_asked_for(caller: Handler, web: Web) -> None:
    await call(caller, url=web.answer("/a"))
    await call(caller, url=web.answer("/a"), headers={"accept-encoding": "identity"})
    assert [c.headers["accept-encoding"] for c in web.calls] == ["gzip, deflate", "identity"]
