"""What calls of workflows are made to do: URLs that lead inside (H8), and answers that mean no good (H4, H8).

In a URL {port} is that of a canary, which listens on all addresses of this machine, {own} one of these, and {server} is
where the attacked server serves. `right` is the code that the step fails with, empty where it completes.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterable
from typing import Any

from tests.hostile.cases import Case

REFUSED, NO_URL, UNREACHABLE = "ADDRESS_NOT_ALLOWED", "INVALID_PARAMS", "CONNECTION_FAILED"
INVALID, TOO_LARGE, NO_OUTPUT = "INVALID_RESPONSE", "RESPONSE_TOO_LARGE", "INVALID_OUTPUT"
MIB = 1 << 20


def _urls(right: str, *urls: str) -> Iterable[Case]:
    return (Case(url, url, right) for url in urls)


URLS = (
    # Plain, and every spelling of the same
    *_urls(REFUSED, "http://127.0.0.1:{port}/", "http://localhost:{port}/", "http://LOCALHOST:{port}/"),
    *_urls(REFUSED, "http://127.255.255.254:{port}/", "http://0.0.0.0:{port}/", "http://{own}:{port}/"),
    *_urls(REFUSED, "https://127.0.0.1:{port}/", "HTTP://127.0.0.1:{port}/"),
    *_urls(REFUSED, "http://2130706433:{port}/", "http://0x7f000001:{port}/", "http://017700000001:{port}/"),
    *_urls(REFUSED, "http://0x7f.1:{port}/", "http://127.1:{port}/", "http://127.0.1:{port}/", "http://0177.1:{port}/"),
    *_urls(REFUSED, "http://0x7f.0x0.0x0.0x1:{port}/", "http://0:{port}/", "http://0x0:{port}/"),
    *_urls(NO_URL, "http://0177.0.0.1:{port}/", "http://127.0.0.01:{port}/", "http://127.0.0.256:{port}/"),
    *_urls(REFUSED, "http://127\u30020\u30020\u30021:{port}/", "http://127\uff0e0\uff0e0\uff0e1:{port}/"),
    *_urls(NO_URL, "http://\uff11\uff12\uff17.0.0.1:{port}/", "http://\u2460\u2461\u2466.\u24ea.\u24ea.\u2460:{port}/"),
    *_urls(NO_URL, "http://\uff4c\uff4f\uff43\uff41\uff4c\uff48\uff4f\uff53\uff54:{port}/"),
    *_urls(
        NO_URL, "http://\u24db\u24de\u24d2\u24d0\u24db\u24d7\u24de\u24e2\u24e3:{port}/", "http://127%2e0.0.1:{port}/"
    ),
    *_urls(NO_URL, "http://%6c%6f%63%61%6c%68%6f%73%74:{port}/", "http://127.0.0.1%00.example:{port}/"),
    # IPv6, and IPv4 in it
    *_urls(REFUSED, "http://[::1]:{port}/", "http://[::]:{port}/", "http://[0:0:0:0:0:0:0:1]:{port}/"),
    *_urls(REFUSED, "http://[::ffff:127.0.0.1]:{port}/", "http://[::ffff:7f00:1]:{port}/"),
    *_urls(REFUSED, "http://[::127.0.0.1]:{port}/", "http://[::ffff:0:127.0.0.1]:{port}/"),
    *_urls(REFUSED, "http://[64:ff9b::7f00:1]:{port}/", "http://[64:ff9b::169.254.169.254]/"),
    *_urls(REFUSED, "http://[64:ff9b:1::7f00:1]:{port}/", "http://[2002:7f00:1::]:{port}/"),
    *_urls(REFUSED, "http://[2001:0:7f00:1::80ff:fffe]:{port}/", "http://[2606:4700::5efe:7f00:1]:{port}/"),
    *_urls(REFUSED, "http://[fe80::1]:{port}/", "http://[fc00::1]:{port}/", "http://[fec0::1]:{port}/"),
    *_urls(REFUSED, "http://[ff02::1]:{port}/", "http://[::ffff:0.0.0.0]:{port}/"),
    *_urls(REFUSED, "http://[::1%25lo]:{port}/"),
    *_urls(NO_URL, "http://[::1:{port}/", "http://::1:{port}/"),
    # Networks inside, and the metadata of clouds
    *_urls(REFUSED, "http://10.0.0.1/", "http://172.16.0.1/", "http://192.168.0.1/", "http://100.64.0.1/"),
    *_urls(REFUSED, "http://169.254.169.254/latest/meta-data/", "http://169.254.170.2/v2/credentials"),
    *_urls(REFUSED, "http://2852039166/latest/meta-data/", "http://0xa9.0xfe.0xa9.0xfe/", "http://100.100.100.200/"),
    *_urls(REFUSED, "http://[fd00:ec2::254]/latest/meta-data/", "http://168.63.129.16/", "http://192.0.0.192/"),
    *_urls(REFUSED, "http://224.0.0.1/", "http://255.255.255.255/", "http://240.0.0.1/", "http://198.18.0.1/"),
    # What a second parser might read otherwise
    *_urls(REFUSED, "http://public.example@127.0.0.1:{port}/", "http://public.example:80@127.0.0.1:{port}/"),
    *_urls(REFUSED, "http://a@b@127.0.0.1:{port}/", "http://public.example%2f@127.0.0.1:{port}/"),
    *_urls(REFUSED, "http://127.0.0.1:{port}#@public.example/", "http://127.0.0.1:{port}?@public.example/"),
    *_urls(REFUSED, "http://public.example\\@127.0.0.1:{port}/"),
    *_urls(REFUSED, "http://127.0.0.1:{port}\\@[::1]:{port}/"),
    *_urls(NO_URL, "http://127.0.0.1\\.public.example:{port}/"),
    *_urls(NO_URL, "http://public.example\r\nHost: x@127.0.0.1:{port}/", "http://127.0.0.1:{port}\t/"),
    *_urls(NO_URL, "http://127.0.0.1 :{port}/", " http://127.0.0.1:{port}/", "http:///127.0.0.1:{port}/"),
    *_urls(NO_URL, "http:127.0.0.1:{port}", "//127.0.0.1:{port}/", "http://:{port}/", "http://127.0.0.1:99999/"),
    *_urls(
        NO_URL, "file:///etc/passwd", "gopher://127.0.0.1:{port}/_x", "ftp://127.0.0.1:{port}/", "dict://127.0.0.1/"
    ),
    *_urls(NO_URL, "unix:///run/x.sock", "ws://127.0.0.1:{port}/", "javascript:alert(1)", "http+unix://%2frun%2fx/"),
    # The server itself
    *_urls(REFUSED, "http://{server}/", "http://[::ffff:127.0.0.1]:{port}/flowkeep.v1.ExecutionService/Execute"),
)


NAMES = (
    Case("rebinding: public when it is looked at, then inside", ["93.184.215.14", "127.0.0.1"], REFUSED),
    Case("mixed, the public one first", ["93.184.215.14 127.0.0.1"], REFUSED),
    Case("mixed, the public one last", ["10.0.0.1 93.184.215.14"], REFUSED),
    Case("mixed over both families", ["93.184.215.14 ::1"], REFUSED),
    Case("inside", ["127.0.0.1"], REFUSED),
    Case("inside, in IPv6", ["::1"], REFUSED),
    Case("inside, mapped", ["::ffff:127.0.0.1"], REFUSED),
    Case("metadata", ["169.254.169.254"], REFUSED),
    Case("link-local with a scope", ["fe80::1%1"], REFUSED),
    Case("no address", [""], UNREACHABLE),
    Case(
        "500 addresses, the last inside",
        [" ".join(f"93.184.{n // 250}.{n % 250}" for n in range(500)) + " 10.0.0.1"],
        REFUSED,
    ),
)
"""What a name leads to at one look-up after the other; the last call is the one that is judged."""


def _answer(*headers: bytes, body: bytes = b"", status: bytes = b"200 OK") -> bytes:
    return b"HTTP/1.1 " + status + b"\r\n" + b"".join(each + b"\r\n" for each in headers) + b"\r\n" + body


def _json(body: bytes) -> bytes:
    return _answer(b"Content-Type: application/json", b"Connection: close", body=body)


def _packed(coding: bytes, body: bytes) -> bytes:
    return _answer(b"Content-Encoding: " + coding, b"Connection: close", body=body)


def _text(charset: bytes, body: bytes) -> bytes:
    return _answer(b"Content-Type: text/plain; charset=" + charset, b"Connection: close", body=body)


_CHUNKED = b"Transfer-Encoding: chunked"
_DEEP = 100_000
_ZEROS = bytes(64 * MIB)
# What they become is more than an attack may take, in the time that may be held as in memory.
_BOMB = gzip.compress(_ZEROS, 1)
# Python's codecs that are none of text, or take time that grows faster than the length.
_CODECS = (
    "-punycode punycode PUNYCODE p-unycode idna base64 hex quopri uu zip bz2 rot13 utf-7 unicode_escape "
    "raw_unicode_escape undefined mbcs oem utf-8-sig-x hz string-escape __init__ ../../x \u00fc"
)

ANSWERS: tuple[Case, ...] = (
    *(Case(f"charset {n}", _text(n.encode("latin-1"), b"a" * MIB), INVALID) for n in _CODECS.split()),
    Case("charset of 60 KB", _text(b"x" * 60_000, b"a"), INVALID),
    Case("1 MiB of ISO-2022-JP that changes its mind", _text(b"iso-2022-jp", b"\x1b$B\x1b(B" * (MIB // 6)), ""),
    Case("charset, written so that a search is long", _text(b"x" + b"; charset" * 100, b"a"), INVALID),
    # Compressed
    Case("gzip bomb of 64 MiB", _packed(b"gzip", _BOMB), TOO_LARGE),
    Case(
        "the same four times",
        _packed(b"gzip, gzip, gzip, gzip", gzip.compress(gzip.compress(gzip.compress(_BOMB)))),
        TOO_LARGE,
    ),
    Case("compressed five times", _packed(b"gzip," * 5, b"x"), INVALID),
    Case("deflate bomb", _packed(b"deflate", zlib.compress(_ZEROS, 1)), TOO_LARGE),
    Case("gzip members without anything", _packed(b"gzip", gzip.compress(b"") * 100_000), ""),
    Case("deflate streams without anything", _packed(b"deflate", b"\x03\0" * MIB), INVALID),
    Case("gzip with a header that does not end", _packed(b"gzip", b"\x1f\x8b\x08\x08" + b"a" * 2 * MIB), INVALID),
    Case("gzip that is none", _packed(b"gzip", b"\x1f\x8b" + bytes(MIB)), INVALID),
    Case("br bomb", _packed(b"br", b"\xff" * 1000), INVALID),
    Case("zstd", _packed(b"zstd", b"\x28\xb5\x2f\xfd" * 1000), INVALID),
    # JSON
    Case("a list of lists", _json(b"[" + b"[]," * (MIB // 3 - 9) + b"[]]"), NO_OUTPUT),
    Case("a list of numbers", _json(b"[" + b"0," * (MIB // 2 - 9) + b"0]"), NO_OUTPUT),
    Case("100,000 keys", _json(b"{" + b",".join(b'"%d":1' % n for n in range(90_000)) + b"}"), NO_OUTPUT),
    Case("one key 100,000 times", _json(b"{" + b",".join([b'"a":1'] * 100_000) + b"}"), NO_OUTPUT),
    Case("deep", _json(b"[" * _DEEP + b"]" * _DEEP), INVALID),
    Case("wide and deep", _json(b"[" * 900 + b"0," * 200_000 + b"0" + b"]" * 900), NO_OUTPUT),
    Case("deep enough for Python", _json(b"[" * 900 + b"]" * 900), NO_OUTPUT),
    Case("deep, with all else that is allowed", _json(b"[" * 25 + b"]" * 25), NO_OUTPUT),
    Case("without an end", _json(b"[" * 1000), INVALID),
    Case("numbers of 4,299 digits", _json(b"[" + b",".join([b"9" * 4299] * 240) + b"]"), NO_OUTPUT),
    Case("a number of 1 MiB", _json(b"9" * (MIB - 9)), INVALID),
    Case("exponents", _json(b"[1e400, -1e400, 1e-400]"), INVALID),
    Case("half a surrogate pair", _json(b'["\\ud800"]'), INVALID),
    Case("NUL", _json(b'["\\u0000"]'), NO_OUTPUT),
    Case("NaN", _json(b"[NaN]"), INVALID),
    Case("backslashes and commas in one text", _json(b'["' + b"\\\\" * 250_000 + b",,,," * 50_000 + b'"]'), NO_OUTPUT),
    Case("a text without an end", _json(b"[" + b"[]," * 6_000 + b'"' + b'\\"' * 500_000), INVALID),
    Case("what closes and was never open", _json(b'["' + b"," * 10_001 + b'"' + b"]" * 10**6), INVALID),
    Case("texts without commas", _json(b'["' + b"," * 10_001 + b'"' + b'"a"' * 340_000), INVALID),
    Case("quotes", _json(b'["' + b"," * 10_001 + b'"' * 10**6), INVALID),
    Case("a list of texts", _json(b"[" + b'"",' * (MIB // 3 - 9) + b'""]'), NO_OUTPUT),
    # Heads, chunks and trailers
    Case("interim answers", b"HTTP/1.1 100 \r\n\r\n" * 100_000, INVALID),
    Case("early hints that do not end", b"HTTP/1.1 103 \r\nLink: " + b"</a>" * 9000 + b"\r\n" * MIB, INVALID),
    Case("another protocol that nobody asked for", _answer(status=b"101 Switching Protocols"), INVALID),
    Case("20,000 headers", _answer(*[b"a:b"] * 20_000), INVALID),
    Case("headers of 100 MiB", [b"HTTP/1.1 200 OK\r\n"] + [b"X: " + b"a" * 60_000 + b"\r\n"] * 1_700, INVALID),
    Case("a header of 100 MiB", [b"HTTP/1.1 200 OK\r\nX: "] + [b"a" * 65_536] * 1_600, INVALID),
    Case("a status line of 100 MiB", [b"HTTP/1.1 200 "] + [b"a" * 65_536] * 1_600, INVALID),
    Case("chunks of a byte", _answer(_CHUNKED, body=b"1\r\nx\r\n" * 200_000 + b"0\r\n\r\n"), INVALID),
    Case("chunks with a long extension", _answer(_CHUNKED, body=b"1;" + b"a" * MIB), INVALID),
    Case("a chunk of 2^64 bytes", _answer(_CHUNKED, body=b"f" * 16 + b"\r\n" + b"x" * 2 * MIB), TOO_LARGE),
    Case("a chunk of a negative length", _answer(_CHUNKED, body=b"-1\r\nx\r\n0\r\n\r\n"), INVALID),
    Case(
        "trailers of 100 MiB", [_answer(_CHUNKED, body=b"0\r\n"), *[b"X: " + b"a" * 60_000 + b"\r\n"] * 1_700], INVALID
    ),
    Case("20,000 trailers", _answer(_CHUNKED, body=b"0\r\n" + b"a:\r\n" * 20_000 + b"\r\n"), INVALID),
    Case("a negative length", _answer(b"Content-Length: -1"), INVALID),
    Case("two lengths", _answer(b"Content-Length: 1", b"Content-Length: 2", body=b"xx"), INVALID),
    Case("a length of 5,000 digits", _answer(b"Content-Length: " + b"9" * 5_000, body=b"x"), INVALID),
    Case("length and chunks", _answer(_CHUNKED, b"Content-Length: 3", body=b"1\r\nx\r\n0\r\n\r\n"), ""),
    Case("NUL in a header", _answer(b"X: a\0b"), INVALID),
    Case("folded headers", _answer(b"X: a\r\n b", b"Content-Length: 0"), ""),
    Case("no HTTP", b"220 mail.example ESMTP\r\n\r\n", INVALID),
    Case("HTTP/2", b"\0\0\x12\x04\0\0\0\0\0" + b"\0" * 1000, INVALID),
    Case("HTTP/9.9", b"HTTP/9.9 200 OK\r\n\r\n", ""),
    Case("nothing", b"", UNREACHABLE),
    Case("half a head", b"HTTP/1.1 200 OK\r\nX: ", UNREACHABLE),
    Case("half a body", _answer(b"Content-Length: 9", body=b"x"), UNREACHABLE),
    # Bodies without an end
    Case("a body of 1 GiB", [_answer(b"Content-Length: 1073741824"), *[b"x" * 65_536] * 1_600], TOO_LARGE),
    Case("a body without an end", [_answer(b"Connection: close"), *[b"x" * 65_536] * 1_600], TOO_LARGE),
    Case("chunks without an end", [_answer(_CHUNKED), *[b"10000\r\n" + b"x" * 65_536 + b"\r\n"] * 1_600], TOO_LARGE),
    Case(
        "an error with a body without an end", [_answer(status=b"500 No"), *[b"x" * 65_536] * 1_600], "HTTP_STATUS_5XX"
    ),
    Case(
        "a redirect inside",
        _answer(b"Location: http://127.0.0.1:1/", b"Content-Length: 0", status=b"302 Found"),
        "HTTP_STATUS_3XX",
    ),
    Case(
        "a redirect of 60 KB",
        _answer(b"Location: //" + b"a" * 60_000, b"Content-Length: 0", status=b"301 X"),
        "HTTP_STATUS_3XX",
    ),
    Case(
        "a pause in words",
        _answer(b"Retry-After: " + b"9" * 60_000, b"Content-Length: 0", status=b"503 X"),
        "HTTP_STATUS_5XX",
    ),
    Case(
        "a date of 60 KB",
        _answer(b"Retry-After: Thu, " + b"1 " * 30_000, b"Content-Length: 0", status=b"429 X"),
        "HTTP_STATUS_4XX",
    ),
)
"""Bytes, or pieces of them that are sent as long as they are taken; then the connection is closed."""

PARAMS: tuple[Case, ...] = (
    Case("a query without a name", {"query": {"x": "a" * 60_000}}, ""),
    Case("a query of 10,000 parts", {"query": {"a": ["1"] * 9_000}}, ""),
    Case("a query of secrets", {"query": {"token": ["1234567"] * 4_000}}, ""),
    Case("a query of escapes", {"query": {"x": "%25" * 7_000}}, ""),
    Case("a query that is too long", {"query": {"x": "a" * 100_000}}, NO_URL),
    Case("a form of 200 KB", {"method": "POST", "form": {"x": "\u00fc" * 90_000}}, ""),
    Case("a header of 200 KB", {"headers": {"X": "a" * 200_000}}, ""),
)
"""Params beside the URL of a server that answers at once."""


def pieces(given: Any) -> list[bytes]:
    """Return an answer as what is sent."""
    return [given] if isinstance(given, bytes) else given
