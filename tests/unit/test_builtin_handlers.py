"""The built-in handlers that need no other server."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from flowkeep.handlers import HandlerError, Suspend
from tests.unit.attempts import NOW, builtin, problems

# --- wait


@pytest.mark.parametrize(
    ("duration", "seconds"),
    [
        (90, 90.0),
        (0.5, 0.5),
        ("45s", 45.0),
        ("1h30m", 5400.0),
        ("7d", 604800.0),
        ("1w2d", 777600.0),
        ("1.5h", 5400.0),
        ("250ms", 0.25),
        ("PT5M", 300.0),
        ("P1DT2H", 93600.0),
        ("P2W", 1209600.0),
        ("PT0.5S", 0.5),
    ],
)
async def test_wait_for_a_duration(duration: Any, seconds: float) -> None:
    answer = await builtin("wait", {"duration": duration})
    end = NOW + timedelta(seconds=seconds)
    assert isinstance(answer, Suspend)
    assert answer.until == end
    assert answer.output == {"waited_until": end.isoformat().replace("+00:00", "Z")}


@pytest.mark.parametrize("until", ["2026-01-01T01:00:00Z", "2026-01-01T02:00:00+01:00", "2026-01-01t01:00:00.000z"])
async def test_wait_until(until: str) -> None:
    answer = await builtin("wait", {"until": until})
    assert answer.until == NOW + timedelta(hours=1)


@pytest.mark.parametrize("params", [{"until": "2020-01-01T00:00:00Z"}, {"duration": 0}, {"duration": "0s"}])
async def test_wait_for_the_past_ends_at_once(params: dict[str, Any]) -> None:
    assert set(await builtin("wait", params)) == {"waited_until"}


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"duration": 1, "until": "2026-01-01T00:00:00Z"},
        {"duration": "soon"},
        {"duration": ""},
        {"duration": "P"},
        {"duration": "PT"},
        {"duration": "1M"},
        {"duration": "P1Y"},
        {"duration": "30m1h"},
        {"duration": -1},
        {"duration": "4000d"},
        {"duration": True},
        {"until": "2026-01-01"},
        {"until": "2026-01-01T00:00:00"},
        {"until": "2026-02-30T00:00:00Z"},
        {"until": "0001-01-01T00:00:00+14:00"},
        {"until": 5},
        {"for": 5},
    ],
)
def test_wait_refuses(params: dict[str, Any]) -> None:
    assert problems("wait", params)


async def test_wait_of_more_than_ten_years() -> None:
    with pytest.raises(HandlerError, match="INVALID_PARAMS: until is more than 10 years away"):
        await builtin("wait", {"until": "2036-06-01T00:00:00Z"})


# --- condition


async def test_condition_with_an_expression() -> None:
    for n, outcome in ((2, "true"), (0, "false")):
        answer = await builtin("condition", {"expression": "input.n > 1"}, input={"n": n})
        assert answer == {"outcome": outcome, "matched": n > 1}


@pytest.mark.parametrize(("n", "outcome"), [(50, "big"), (5, "small"), (-1, "odd")])
async def test_condition_takes_the_first_outcome_that_holds(n: int, outcome: str) -> None:
    outcomes = [{"name": "big", "when": "input.n > 10"}, {"name": "small", "when": "input.n > 0"}, {"name": "odd"}]
    assert await builtin("condition", {"outcomes": outcomes}, input={"n": n}) == {"outcome": outcome, "matched": True}


async def test_condition_without_any_outcome() -> None:
    params = {"outcomes": [{"name": "big", "when": "input.n > 10"}]}
    assert await builtin("condition", params, input={"n": 1}) == {"outcome": "none", "matched": False}


@pytest.mark.parametrize("expression", ["input.absent", "input.n"])
async def test_condition_that_has_no_answer_fails(expression: str) -> None:
    with pytest.raises(HandlerError) as caught:
        await builtin("condition", {"expression": expression}, input={"n": 1})
    assert (caught.value.code, caught.value.retryable) == ("EXPRESSION_ERROR", False)


@pytest.mark.parametrize(
    ("params", "path"),
    [
        ({}, ""),
        ({"outcomes": []}, "outcomes"),
        ({"outcomes": [{"name": "none", "when": "true"}]}, "outcomes[0].name"),
        ({"outcomes": [{"name": "a"}, {"name": "b", "when": "true"}]}, "outcomes[0].when"),
        ({"outcomes": [{"name": "a", "when": "true"}, {"name": "a"}]}, "outcomes[1].name"),
        ({"outcomes": [{"when": "true"}]}, "outcomes[0].name"),
    ],
)
def test_condition_refuses(params: dict[str, Any], path: str) -> None:
    assert [found for found, _ in problems("condition", params)] == [path]


# --- transform


async def test_transform() -> None:
    params = {"expression": "input.xs.filter(x, x > 1).map(x, {'n': x})"}
    assert await builtin("transform", params, input={"xs": [1, 2, 3]}) == [{"n": 2}, {"n": 3}]
    assert await builtin("transform", {"value": {"a": [None]}}) == {"a": [None]}


async def test_transform_that_has_no_value() -> None:
    with pytest.raises(HandlerError, match="EXPRESSION_ERROR"):
        await builtin("transform", {"expression": "input.absent.x"})


def test_transform_takes_exactly_one() -> None:
    expected = [("", "must have exactly one of expression, value")]
    assert problems("transform", {}) == expected
    assert problems("transform", {"value": 1, "expression": "1"}) == expected


# --- call_api, before any call


@pytest.mark.parametrize(
    ("params", "path"),
    [
        ({}, "url"),
        ({"url": "ftp://host/a"}, "url"),
        ({"url": "host/a"}, "url"),
        ({"url": "http://"}, "url"),
        ({"url": "http://h:99999999/"}, "url"),
        ({"url": "http://h/", "method": "post"}, "method"),
        ({"url": "http://h/", "json": 1, "text": "x"}, "text"),
        ({"url": "http://h/", "headers": {"Idempotency-Key": "x"}}, 'headers["Idempotency-Key"]'),
        ({"url": "http://h/", "headers": {"Authorization": "x"}, "auth": {"bearer": "x"}}, "headers.Authorization"),
        ({"url": "http://ann:pw@h/", "auth": {"bearer": "x"}}, "url"),
        ({"url": "http://ann:pw@h/", "headers": {"authorization": "x"}}, "url"),
        ({"url": "http://[h/"}, "url"),
        ({"url": "http://h/a\n"}, "url"),
        *(({"url": "http://h/", "headers": {name: "x"}}, f'headers["{name}"]') for name in ("X A", "X:", "X-A ")),
        ({"url": "http://h/", "headers": {"": "x"}}, 'headers[""]'),
        ({"url": "http://h/", "headers": {"Grüße": "x"}}, "headers.Grüße"),
        *(
            ({"url": "http://h/", "headers": {"X-A": value}}, 'headers["X-A"]')
            for value in ("a\r\nX-B: b", "a\n", "a\0", "grüße", " a", "a ", "\x7f")
        ),
        ({"url": "http://h/", "headers": {"X-A": "1", "x-a": "2"}}, 'headers["x-a"]'),
        ({"url": "http://h/", "auth": {"bearer": "x\n"}}, "auth.bearer"),
        ({"url": "http://h/", "auth": {"basic": {"username": "a:b", "password": "x"}}}, "auth.basic.username"),
        ({"url": "http://h/", "auth": {}}, "auth"),
        ({"url": "http://h/", "auth": {"basic": {"username": "x"}}}, "auth.basic.password"),
        ({"url": "http://h/", "success_codes": [99]}, "success_codes[0]"),
        ({"url": "http://h/", "success_codes": ["2x"]}, "success_codes[0]"),
        ({"url": "http://h/", "success_codes": ["6xx"]}, "success_codes[0]"),
        *(({"url": "http://h/", "timeout": timeout}, "timeout") for timeout in (0, "0s", "2", "soon", -1, "-1s", 1e9)),
        ({"url": "http://h/", "big_integers": True}, "big_integers"),
        ({"url": "http://h/", "max_response_bytes": 2_000_000}, "max_response_bytes"),
        ({"url": "http://h/", "heders": {}}, "heders"),
    ],
)
def test_call_api_refuses(params: dict[str, Any], path: str) -> None:
    assert [found for found, _ in problems("call_api", params)] == [path]
