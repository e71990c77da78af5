"""What a step may say to `call_grpc`, before any call."""

from __future__ import annotations

from base64 import b64encode
from typing import Any

import pytest

from service.calls.call_grpc import call_grpc
from service.calls.channels import Channels
from service.calls.params import MAX_DESCRIPTOR_SET, MAX_METADATA
from service.calls.targets import Target, target
from service.engine.egress.guard import Guard

HANDLER = call_grpc(Channels(Guard()))
RIGHT = {"target": "orders.internal:443", "method": "shop.v1.Orders/Get"}


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"target": "dns:///orders.internal:443"},
        {"target": "https://orders.internal"},
        {"target": "http://[::1]:50051", "tls": False},
        {"target": "127.0.0.1:50051", "tls": False, "authority": "orders.internal:443"},
        {"method": "Orders/Get", "message": {"a": [1, None]}, "timeout": "2s", "max_messages": 1000},
        {"metadata": {"Authorization": "Bearer x", "trace-bin": "AAE=", "n": 1, "on": True}},
        {"descriptor_set": b64encode(b"x" * MAX_DESCRIPTOR_SET).decode()},
    ],
)
def test_takes(params: dict[str, Any]) -> None:
    assert HANDLER.validate({**RIGHT, **params}) == []


@pytest.mark.parametrize(
    ("params", "path"),
    [
        ({"target": "orders.internal"}, "target"),
        ({"target": "orders.internal:0"}, "target"),
        ({"target": "orders.internal:65536"}, "target"),
        ({"target": "unix:///var/run/docker.sock"}, "target"),
        ({"target": "dns://9.9.9.9/orders.internal:443"}, "target"),
        ({"target": "ipv4:127.0.0.1:443,10.0.0.1:443"}, "target"),
        ({"target": "xds:///orders"}, "target"),
        ({"target": "https://ann:pw@orders.internal"}, "target"),
        ({"target": "https://orders.internal/path"}, "target"),
        ({"target": "https://orders.internal", "tls": False}, "target"),
        ({"target": "http://orders.internal", "tls": True}, "target"),
        ({"target": "a b:443"}, "target"),
        ({"method": "shop.v1.Orders.Get"}, "method"),
        ({"method": "/shop.v1.Orders/Get"}, "method"),
        ({"method": "shop.v1.Orders/Get/x"}, "method"),
        ({"method": "shop..Orders/Get"}, "method"),
        ({"authority": "a/b"}, "authority"),
        ({"authority": "a\r\nb"}, "authority"),
        ({"timeout": 0}, "timeout"),
        ({"timeout": "0s"}, "timeout"),
        ({"timeout": "soon"}, "timeout"),
        ({"max_messages": 0}, "max_messages"),
        ({"max_messages": 1001}, "max_messages"),
        ({"metadata": {"a b": "x"}}, 'metadata["a b"]'),
        ({"metadata": {":path": "x"}}, 'metadata[":path"]'),
        ({"metadata": {"grpc-timeout": "1S"}}, "metadata.grpc-timeout"),
        ({"metadata": {"Idempotency-Key": "x"}}, "metadata.Idempotency-Key"),
        ({"metadata": {"x-flowkeep-attempt": "1"}}, "metadata.x-flowkeep-attempt"),
        ({"metadata": {"te": "x"}}, "metadata.te"),
        ({"metadata": {"a": "é"}}, "metadata.a"),
        ({"metadata": {"a": "x\r\ny"}}, "metadata.a"),
        ({"metadata": {"a": " x"}}, "metadata.a"),
        ({"metadata": {"a-bin": "no base64!"}}, "metadata.a-bin"),
        ({"metadata": {"a": "x", "A": "y"}}, "metadata.A"),
        ({"metadata": {"a": "x" * MAX_METADATA}}, "metadata"),
        ({"descriptor_set": "no base64!"}, "descriptor_set"),
        ({"descriptor_set": b64encode(b"x" * (MAX_DESCRIPTOR_SET + 1)).decode()}, "descriptor_set"),
        ({"json": {}}, "json"),
    ],
)
def test_refuses(params: dict[str, Any], path: str) -> None:
    assert [_plain(place) for place, _ in HANDLER.validate({**RIGHT, **params})] == [_plain(path)]


def _plain(path: str) -> str:
    return path.replace('["', ".").replace('"]', "")


def test_templates_are_not_judged() -> None:
    params = {name: "${ input.it }" for name in ("target", "method", "tls", "timeout", "descriptor_set", "metadata")}
    assert HANDLER.problems(params, [(name,) for name in params]) == []


@pytest.mark.parametrize(
    ("written", "tls", "expected"),
    [
        ("h:1", None, Target("h", 1, True, "h:1")),
        ("h:1", False, Target("h", 1, False, "h:1")),
        ("dns:h:1", True, Target("h", 1, True, "h:1")),
        ("https://h", None, Target("h", 443, True, "h:443")),
        ("http://h", None, Target("h", 80, False, "h:80")),
        ("[::1]:1", None, Target("::1", 1, True, "[::1]:1")),
        ("https://h", "internal", Target("h", 443, True, "h:443", "internal")),
    ],
)
def test_target(written: str, tls: bool | str | None, expected: Target) -> None:
    assert target(written, tls) == expected
