"""Where `call_grpc` connects to, and what becomes of its channels."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest

from service.calls import channels as channels_module
from service.calls.call_grpc import call_grpc
from service.calls.channels import Channels
from service.config import Config
from service.engine.egress.allowed import Allowed
from service.engine.egress.guard import Guard
from service.engine.egress.lookups import Lookups
from service.engine.handlers.model import Handler
from service.routes import routes_of
from tests.integration.callee import (
    GET,
    V1,
    Callee,
    descriptor_set,
    relayed,
    serving_orders,
    to,
)
from tests.integration.certificates import Authority
from tests.integration.conftest import OpenGrpc
from tests.integration.stage import eventually
from tests.integration.web import CONTEXT, call, failure
from tests.patience import PATIENCE


async def test_orgs_share_neither_descriptors_nor_connections(grpc_caller: Handler, callee: Callee) -> None:
    await call(grpc_caller, **to(callee))
    await call(grpc_caller, **to(callee))
    await call(grpc_caller, replace(CONTEXT, org="umbrella"), **to(callee))
    assert callee.asked == [V1, V1]
    first, second, others = (each.peer for each in callee.calls)
    assert first == second != others


@pytest.mark.parametrize("authority", ["orders.internal", ""])
async def test_authority(grpc_caller: Handler, callee: Callee, authority: str) -> None:
    async with relayed(callee.target) as relay:
        more = {"authority": authority} if authority else {}
        params: dict[str, Any] = {"tls": False, "method": GET, "descriptor_set": descriptor_set(), **more}
        await call(grpc_caller, target=f"dns:///{relay.target}", **params)
        assert relay.headers[":authority"] == (authority or relay.target)


@pytest.mark.parametrize(
    "target", ["169.254.169.254:80", "10.0.0.1:443", "[::1]:50051", "metadata.google.internal:443", "127.0.0.1:50051"]
)
async def test_p23_address_that_is_not_public_is_refused(open_grpc: OpenGrpc, target: str) -> None:
    def resolve(host: bytes, port: int) -> list[tuple[Any, ...]]:
        return [(0, 0, 0, "", ("93.184.215.14", port))]

    error = await failure(open_grpc(Guard(lookups=Lookups(resolve))), target=target, method=GET)
    assert (error.code, error.retryable) == ("ADDRESS_NOT_ALLOWED", False)


async def test_p23_name_is_looked_up_once_and_its_address_called(open_grpc: OpenGrpc, callee: Callee) -> None:
    asked: list[bytes] = []

    def resolve(host: bytes, port: int) -> list[tuple[Any, ...]]:
        asked.append(host)
        address = "127.0.0.1" if len(asked) == 1 else "169.254.169.254"
        return [(0, 0, 0, "", (address, port))]

    caller = open_grpc(Guard(Allowed(["orders.internal"]), lookups=Lookups(resolve)))
    port = callee.target.rpartition(":")[2]
    for _ in range(2):
        await call(caller, target=f"dns:///orders.internal:{port}", tls=False, method=GET)
    assert asked == [b"orders.internal"]


async def test_environment_names_no_proxy(
    grpc_caller: Handler, callee: Callee, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "https_proxy", "grpc_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert await call(grpc_caller, **to(callee))


async def test_server_that_is_not_there_is_looked_for_anew(grpc_caller: Handler) -> None:
    async with serving_orders(V1) as callee:
        await call(grpc_caller, **to(callee))
    for more in ({}, {"descriptor_set": descriptor_set()}):
        error = await failure(grpc_caller, **to(callee, **more))
        assert (error.code, error.retryable) == ("CONNECTION_FAILED", True)
        assert "ipv4" not in error.message


async def test_calls_at_the_same_time_share_a_connection(open_grpc: OpenGrpc, callee: Callee) -> None:
    caller = open_grpc(Guard(Allowed(["localhost"])))
    target = f"localhost:{callee.target.rpartition(':')[2]}"
    params: dict[str, Any] = {"target": target, "tls": False, "method": GET, "descriptor_set": descriptor_set()}
    await asyncio.gather(*(call(caller, **params) for _ in range(5)))
    assert len({each.peer for each in callee.calls}) == 1


async def test_next_address_is_tried_whatever_its_kind(open_grpc: OpenGrpc, callee: Callee) -> None:
    def resolve(host: bytes, port: int) -> list[tuple[Any, ...]]:
        return [(0, 0, 0, "", (address, port)) for address in ("127.0.0.2", "::1", "127.0.0.1")]

    caller = open_grpc(Guard(Allowed(["orders.internal"]), lookups=Lookups(resolve)))
    assert await call(caller, **{**to(callee), "target": f"orders.internal:{callee.target.rpartition(':')[2]}"})


async def test_host_that_was_not_reached_is_looked_up_again(open_grpc: OpenGrpc, callee: Callee) -> None:
    asked: list[bytes] = []

    def resolve(host: bytes, port: int) -> list[tuple[Any, ...]]:
        asked.append(host)
        return [(0, 0, 0, "", ("127.0.0.2" if len(asked) == 1 else "127.0.0.1", port))]

    caller = open_grpc(Guard(Allowed(["orders.internal"]), lookups=Lookups(resolve)))
    target = f"orders.internal:{callee.target.rpartition(':')[2]}"
    params: dict[str, Any] = {"target": target, "tls": False, "method": GET, "descriptor_set": descriptor_set()}
    assert (await failure(caller, **params)).code == "CONNECTION_FAILED"
    assert await call(caller, **params)
    assert len(asked) == 2


async def test_connection_that_breaks_off_in_a_call(grpc_caller: Handler, callee: Callee) -> None:
    async with relayed(callee.target) as relay:
        params: dict[str, Any] = {**to(callee, message={"order_id": "hang"}), "target": relay.target}
        running = asyncio.create_task(failure(grpc_caller, **params))
        async with asyncio.timeout(PATIENCE):
            await callee.begun.wait()
            relay.cut()
            error = await running
    assert (error.code, error.retryable) == ("CONNECTION_FAILED", True)
    assert "the connection broke off" in error.message


async def test_host_is_looked_up_again_after_a_while(
    open_grpc: OpenGrpc, callee: Callee, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bytes] = []

    def resolve(host: bytes, port: int) -> list[tuple[Any, ...]]:
        asked.append(host)
        return [(0, 0, 0, "", ("127.0.0.1", port))]

    monkeypatch.setattr(channels_module, "LONGEST", -1.0)
    caller = open_grpc(Guard(Allowed(["orders.internal"]), lookups=Lookups(resolve)))
    port = callee.target.rpartition(":")[2]
    for _ in range(2):
        await call(caller, target=f"orders.internal:{port}", tls=False, method=GET, descriptor_set=descriptor_set())
    assert len(asked) == 2


async def test_connection_that_breaks_off(grpc_caller: Handler) -> None:
    def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with await asyncio.start_server(hang_up, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        error = await failure(grpc_caller, target=f"127.0.0.1:{port}", tls=False, method=GET)
    assert (error.code, error.retryable) == ("CONNECTION_FAILED", True)


async def test_tls_with_the_certificate_of_the_host(
    open_grpc: OpenGrpc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = Authority(tmp_path)
    certificate, key = authority.pair("server", "orders.internal")
    credentials = grpc.ssl_server_credentials([(key.read_bytes(), certificate.read_bytes())])
    async with serving_orders(V1, credentials=credentials) as callee:
        params: dict[str, Any] = {"target": callee.target, "method": GET}
        assert (await failure(open_grpc(), **params)).code == "CONNECTION_FAILED", "nobody knows the authority"
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
        assert (await failure(open_grpc(), **params)).code == "CONNECTION_FAILED", "it is of another host"
        assert await call(open_grpc(), **params, authority="orders.internal")
    certificate, key = authority.pair("of_the_address", "127.0.0.1")
    credentials = grpc.ssl_server_credentials([(key.read_bytes(), certificate.read_bytes())])
    async with serving_orders(V1, credentials=credentials) as callee:
        assert await call(open_grpc(), target=callee.target, method=GET)


async def test_tls_with_certificates_of_the_deployment(open_grpc: OpenGrpc, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    (certificate, key), (own, own_key) = authority.pair("server"), authority.pair("client")
    credentials = grpc.ssl_server_credentials(
        [(key.read_bytes(), certificate.read_bytes())], authority.file.read_bytes(), require_client_auth=True
    )
    ca = {"ca_file": str(authority.file)}
    internal = {**ca, "cert_file": str(own), "key_file": str(own_key)}
    tls = {"ca": ca, "internal": internal, "others": {**internal, "hosts": ["*.internal"]}}
    caller = open_grpc(routes=routes_of(Config(http_tls=json.dumps(tls))))
    async with serving_orders(V1, credentials=credentials) as callee:
        params: dict[str, Any] = {"target": callee.target, "method": GET}
        assert await call(caller, **params, tls="internal")
        for name in ("ca", True):
            assert (await failure(caller, **params, tls=name)).code == "CONNECTION_FAILED"
        for name, text in {"others": "is not for this host", "none": "it has ca, internal, others"}.items():
            error = await failure(caller, **params, tls=name)
            assert (error.code, error.retryable) == ("INVALID_PARAMS", False)
            assert text in error.message
    assert [path for path, _ in caller.validate({"target": "http://h", "method": GET, "tls": "internal"})] == ["target"]


async def test_channels_are_closed_when_idle_and_bounded(callee: Callee, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channels_module, "IDLE_CHANNELS_OF_ONE_ORG", 2)
    monkeypatch.setattr(channels_module, "IDLE", 0.0)
    channels = Channels(Guard(has_loopback=True))
    caller = call_grpc(channels)
    for number in range(4):
        await call(caller, **to(callee, authority=f"host{number}"))
    assert len(channels) == 2
    tending = asyncio.create_task(channels.tend())

    async def are_closed() -> bool:
        return not len(channels)

    await eventually(are_closed)
    tending.cancel()
    assert caller.close is not None
    await caller.close()
