"""FAULTS H4: inputs changed at random, by a seed, are read or refused, in little time."""

import asyncio
import base64
import gzip
import re
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from google.protobuf.message_factory import GetMessageClass

import flowkeep
from service.cli.reading.document import TextError, UnreadableError
from service.cli.reading.json_text import parse_json
from service.cli.reading.yaml_text import parse_yaml
from service.engine.expressions import ExpressionError, compile_value
from service.engine.handlers import http_params
from tests.hostile.attacked import Attacked, token
from tests.hostile.fuzzing import mutations
from tests.integration.calls import METHODS, NOBODYS, name_of, valid
from tests.integration.stage import step
from tests.integration.web import Web
from tests.work import at_most

State = flowkeep.Execution
SEED = 13
LONGEST = 0.1
"""Seconds of work that a small input may take."""

DEFINITE = {
    "OK",
    "INVALID_ARGUMENT",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "FAILED_PRECONDITION",
    "OUT_OF_RANGE",
}
"""What a request that was changed may be answered with."""

SCOPE = {"input": {"a": [1, {"b": "c"}], "t": "2030-01-31T09:00:00Z"}, "vars": {"x": 1.5}}


def expression(text: str) -> None:
    compile_value(text, frozenset(SCOPE)).evaluate(SCOPE)


def url(text: str) -> None:
    list(http_params.check({"url": text, "method": "GET"}))


DEFINITION = b"""{"name": "n", "steps": [{"id": "a", "handler": "transform", "params": {"value": ["\\u00e9", null]},
"depends_on": ["b"], "condition": "input.a > 1", "timeout": "1h", "retry_policy": {"max_attempts": 3}}],
"output": {"x": "${ a }"}}"""
DOCUMENT = b"""
name: n
steps:
  - id: a
    params: {url: 'x', n: 1e5, d: 2030-01-31, t: !!str 5}
    script: |
      a
"""

TARGETS: dict[str, tuple[Callable[[str], object], tuple[type[Exception], ...], list[bytes]]] = {
    "JSON": (parse_json, (UnreadableError, TextError), [DEFINITION, b'[1e5, -0.0, "\\ud83d\\ude00", {"a": {}}]']),
    "YAML": (
        lambda text: list(parse_yaml(text)),
        (UnreadableError, TextError),
        [
            DOCUMENT,
            b"a: &x [1, 2]\nb: *x\n---\n? c\n: d\n",
        ],
    ),
    "expressions": (
        expression,
        (ExpressionError,),
        [
            b"input.a.map(x, x).size() + 1 > 2 ? 'a' : 'b'",
            b"[1, 2, 3].filter(i, i % 2 == 0).map(i, {'k': i, 'l': [i]})",
            b"input.t.matches('^[0-9]+-.*$') && timestamp(input.t) < timestamp('2031-01-01T00:00:00Z')",
            b"has(input.a) || vars.x * 1e300 > -2.5 && 'abc'.upperAscii().size() == 3u",
            b"string(input.a[1].b) + b'abc'.size().string()",
        ],
    ),
    "URLs": (
        url,
        (),
        [
            b"https://user:pass@example.com:8443/a/%c3%a9?q=1&q=2#f",
            b"http://[::1%25eth0]/",
            b"http://xn--bcher-kva.example/",
        ],
    ),
}


@pytest.mark.parametrize("name", TARGETS)
def test_readers_of_texts(name: str):
    read, expected, corpus = TARGETS[name]
    for raw in mutations(corpus, 600, SEED):
        text = raw.decode(errors="replace")
        try:
            with at_most(LONGEST), suppress(*expected):
                read(text)
        except BaseException as error:
            error.add_note(f"of {text!r}")
            raise


@pytest.mark.parametrize("path", METHODS, ids=name_of)
async def test_requests(attacked: Attacked, path: str):
    name = f"fuzzed_{name_of(path)}"  # of its own: it may be paused
    async with attacked.client() as client:
        await client.apply([{"name": name, "steps": [step("a", "transform", value=1)]}])
        execution_id = (await client.execute(name, wait=True)).execution_id
    request = valid(path, name, execution_id, "a")
    full = GetMessageClass(METHODS[path].input_type)()
    full.CopyFrom(request)
    for field in full.DESCRIPTOR.fields:
        if field.type == field.TYPE_STRING and field.is_repeated:
            getattr(full, field.name).append("tag")
        elif field.type == field.TYPE_BOOL and field.name not in ("wait", "force"):
            setattr(full, field.name, True)
    corpus = [request.SerializeToString(), full.SerializeToString(), valid(path, "x", NOBODYS).SerializeToString()]
    for raw in mutations(corpus, 40, SEED):
        async with attacked.case(raw.hex()):
            assert (await attacked.send(path, raw)).code in DEFINITE


def parts(token_text: str) -> list[bytes] | None:
    """The three parts of a token, None where they cannot be read; the last bits of a part may differ."""
    try:
        return [base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)) for part in token_text.split(".")]
    except ValueError:
        return None


async def test_tokens(attacked: Attacked):
    good = [token(), token("polite", "ann")]
    answers = set()
    for raw in mutations([each.encode() for each in good], 200, SEED):
        text = re.sub(r"[^\x21-\x7e]", "", raw.decode("latin-1"))
        if text and parts(text) not in [parts(each) for each in good]:
            answer = await attacked.send("/flowkeep.v1.WorkflowService/ListHandlers", b"", who=text)
            answers.add((answer.code, answer.reason))
    assert answers == {("UNAUTHENTICATED", "INVALID_TOKEN")}


@pytest.mark.parametrize("name", ["ListWorkflows", "ListExecutions", "ListSteps"])
async def test_page_tokens(attacked: Attacked, name: str):
    (path,) = (each for each in METHODS if name_of(each) == name)
    answer_type: Any = GetMessageClass(METHODS[path].output_type)
    request: Any = GetMessageClass(METHODS[path].input_type)
    steps = [step(each, "transform", value=1) for each in "ab"]
    async with attacked.client() as client:
        names = [f"w{time.time_ns()}-{number}" for number in range(2)]
        await client.apply([{"name": name, "steps": steps} for name in names])
        started, _ = [await client.execute(name) for name in names]
    of = {"execution_id": started.execution_id} if name == "ListSteps" else {}
    page = answer_type.FromString((await attacked.send(path, request(page_size=1, **of))).body)
    good = page.next_page_token
    assert good
    for raw in mutations([good.encode()], 100, SEED):
        text = raw.decode("latin-1")
        if text in ("", good):
            continue
        async with attacked.case(text):
            answer = await attacked.send(path, request(page_token=text, **of))
            assert answer.fields == ["page_token"], str(answer)


ANSWERS = [
    b'HTTP/1.1 200 OK\r\nContent-Type: application/json; charset=utf-8\r\nContent-Length: 17\r\n\r\n{"a": [1.5, null]}',
    b"HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=latin-1\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"3\r\nabc\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nConnection: close\r\n\r\n" + gzip.compress(b"a" * 100),
    b"HTTP/1.1 503 Busy\r\nRetry-After: Wed, 21 Oct 2030 07:28:00 GMT\r\nContent-Length: 0\r\n\r\n",
]


async def test_answers_of_http_servers(attacked: Attacked, web: Web):
    request = {"url": "${ input.url }", "response": "${ input.response }"}
    answers = list(mutations(ANSWERS, 120, SEED))
    async with attacked.client() as client:
        await client.apply([{"name": "calls", "steps": [step("call", "call_api", timeout="1s", **request)]}])

        async def called(number: int) -> None:
            inputs = {"url": web.raw(f"/{number}", answers[number]), "response": ("json", "text")[number % 2]}
            done = await client.execute("calls", inputs, wait=True)
            assert done.state in (State.STATE_COMPLETED, State.STATE_FAILED), answers[number]
            assert "INTERNAL" not in str(done.failure), f"{answers[number]!r} {done.failure}"

        for first in range(0, len(answers), 40):
            await asyncio.gather(*(called(number) for number in range(first, first + 40)))
