"""Page tokens: what is sent as one, also what the secret itself has signed, is a position of a list or refused."""

from __future__ import annotations

import base64
import hmac
import time
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import msgspec
import pytest

from flowkeep.v1.execution_service_pb2 import ExecutionFilter, ListExecutionsRequest, ListStepsRequest
from persistence.listing import PageKey
from persistence.model import Scope
from service.api.page_tokens import PageTokens
from service.engine.violations import ValidationError

KEY, SCOPE, ID = b"k" * 32, Scope("acme", "ann"), UUID(int=7)
REQUEST = ListExecutionsRequest(filter=ExecutionFilter(workflow="w"))
TOKENS = PageTokens(KEY)
Kind = type[float] | type[datetime] | None


def content(value: Any = None) -> list[Any]:
    """What a token of ours holds."""
    return list(msgspec.msgpack.decode(base64.urlsafe_b64decode(made(value) + "==")[16:]))


def made(value: Any = None) -> str:
    return TOKENS.make(REQUEST, SCOPE, PageKey(value, ID))


def signed(body: Any) -> str:
    raw = body if isinstance(body, bytes) else msgspec.msgpack.encode(body)
    return base64.urlsafe_b64encode(hmac.digest(KEY, raw, "sha256")[:16] + raw).rstrip(b"=").decode()


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (None, None),
        (None, float),
        (1.5, float),
        (0.0, float),
        (None, datetime),
        (datetime(2026, 1, 1, tzinfo=UTC), datetime),
    ],
)
def test_a_position_comes_back(value: Any, kind: Kind) -> None:
    assert TOKENS.read(made(value), REQUEST, SCOPE, kind) == PageKey(value, ID)
    assert TOKENS.read(signed(content(value)), REQUEST, SCOPE, kind) == PageKey(value, ID)


def changed(index: int, value: Any) -> list[Any]:
    whole = content()
    whole[index] = value
    return whole


FORGED: dict[str, tuple[Any, Kind]] = {
    "nothing": (b"", None),
    "noise": (bytes(range(256)), None),
    "no list": ({"version": 1}, None),
    "deep": (b"\x91" * 5_000, None),
    "too short": ([1, 2], None),
    "another version": (changed(0, 2), None),
    "version no number": (changed(0, "1"), None),
    "made in the future": (changed(1, int(time.time()) + 86_400), None),
    "made at the end of numbers": (changed(1, 2**63), None),
    "made no number": (changed(1, 1e308), None),
    "another condition": (changed(2, b"x" * 16), None),
    "condition no bytes": (changed(2, None), None),
    "id no id": (changed(4, "' OR 1=1 --"), None),
    "id none": (changed(4, None), None),
    "a value where there is none": (changed(3, 1.5), None),
    "a time where there is none": (changed(3, datetime(2026, 1, 1, tzinfo=UTC)), None),
    "a number for a time": (changed(3, 1.5), datetime),
    "a time for a number": (changed(3, datetime(2026, 1, 1, tzinfo=UTC)), float),
    "a text for a number": (changed(3, "1.5"), float),
    "NaN": (changed(3, float("nan")), float),
    "infinity": (changed(3, float("inf")), float),
    "a time without zone": (changed(3, "2026-01-01T00:00:00"), datetime),
    "before the calendar": (changed(3, "0001-01-01T00:00:00+14:00"), datetime),
    "behind the calendar": (changed(3, "9999-12-31T23:59:59-12:00"), datetime),
}


@pytest.mark.parametrize(("body", "kind"), FORGED.values(), ids=FORGED)
def test_what_the_secret_signed_and_we_would_not_is_refused(body: Any, kind: Kind) -> None:
    refused(signed(body), kind)


@pytest.mark.parametrize(
    "token", ["x", "=", "====", "é", "\ud800", "A" * 21, "A" * 5_000, made()[:-1], made() + "AA", made().swapcase()]
)
def test_what_is_not_signed_is_refused(token: str) -> None:
    refused(token)


def refused(token: str, kind: Kind = None) -> None:
    with pytest.raises(ValidationError) as error:
        TOKENS.read(token, REQUEST, SCOPE, kind)
    assert [violation.field for violation in error.value.violations] == ["page_token"]


def test_an_empty_filter_is_none() -> None:
    bare, empty = ListExecutionsRequest(), ListExecutionsRequest(filter=ExecutionFilter())
    assert TOKENS.read(TOKENS.make(bare, SCOPE, PageKey(None, ID)), empty, SCOPE) == PageKey(None, ID)


STEPS = ListStepsRequest(execution_id=str(ID), handler="h")


@pytest.mark.parametrize("path", ["a", "fan_out[3].fetch", "x" * 1024, "日本"])
def test_a_path_comes_back(path: str) -> None:
    assert TOKENS.read_path(TOKENS.make_path(STEPS, SCOPE, path), STEPS, SCOPE) == path


@pytest.mark.parametrize("path", [None, 7, b"a", ["a"], datetime(2026, 1, 1, tzinfo=UTC)])
def test_what_is_no_path_is_refused(path: Any) -> None:
    token = TOKENS.make_path(STEPS, SCOPE, "a")
    body = list(msgspec.msgpack.decode(base64.urlsafe_b64decode(token + "==")[16:]))
    assert TOKENS.read_path(signed(body), STEPS, SCOPE) == "a"
    with pytest.raises(ValidationError):
        TOKENS.read_path(signed([*body[:3], path]), STEPS, SCOPE)


def test_a_token_belongs_to_its_caller_filter_and_secret() -> None:
    for tokens, request, scope in (
        (PageTokens(b"other"), REQUEST, SCOPE),
        (TOKENS, ListExecutionsRequest(filter=ExecutionFilter(workflow="v")), SCOPE),
        (TOKENS, REQUEST, Scope("acme", "bob")),
        (TOKENS, REQUEST, Scope("acme")),
        (TOKENS, REQUEST, Scope("other", "ann")),
    ):
        with pytest.raises(ValidationError):
            tokens.read(made(), request, scope)
