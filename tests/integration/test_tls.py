"""TLS: what a server shows, what it asks for, and how a caller hears what is wrong with either."""

from __future__ import annotations

import asyncio
from pathlib import Path

import grpc
import pytest
import typer
from grpc_health.v1 import health_pb2, health_pb2_grpc

import flowkeep
from flowkeep.v1.workflow_service_pb2 import ListHandlersRequest
from flowkeep.v1.workflow_service_pb2_grpc import WorkflowServiceStub
from service.cli.connection import Connection
from service.config import ConfigError
from service.server import SERVICES
from tests.e2e.process import Outcome
from tests.e2e.process import flowkeep as flowkeep_command
from tests.folders import new_folder
from tests.integration.certificates import Authority
from tests.integration.stage import refusal
from tests.patience import PATIENCE
from tests.tokens import jwks

Health = health_pb2.HealthCheckResponse


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


async def test_a_server_with_tls(serve, authority):
    served = await serve(**authority.served())
    async with flowkeep.Client(served.target, tls=grpc.ssl_channel_credentials(authority.file.read_bytes())) as client:
        assert await client.list_handlers()
    for tls in (False, True):
        async with flowkeep.Client(served.target, tls=tls, timeout=3.0) as client:
            with pytest.raises(flowkeep.UnavailableError):
                await client.list_handlers()


async def test_a_server_behind_a_proxy_that_terminates_tls(serve, tmp_path):
    path = tmp_path / "keys"
    path.write_text(jwks())
    for listen in ("0.0.0.0:0", "[::]:0"):
        assert (await serve(listen=listen, jwt_jwks=str(path), tls_terminated_by_proxy=True)).target
        with pytest.raises(ConfigError, match="tokens would travel unencrypted: set FLOWKEEP_TLS_CERT_FILE and"):
            await serve(listen=listen, jwt_jwks=str(path))


async def handlers(*arguments: str, target: str) -> Outcome:
    """What becomes of `flowkeep handlers`, again and again where a busy machine needs longer than it waits."""
    async with asyncio.timeout(2 * PATIENCE):
        while True:
            outcome = await flowkeep_command(*arguments, "handlers", target=target)
            if not any(text in outcome.err for text in ("did not answer in time", "no server answers")):
                return outcome


async def said(*arguments: str, target: str) -> str:
    """The one line that `flowkeep handlers` ends with."""
    outcome = await handlers(*arguments, target=target)
    assert (outcome.code, outcome.out) == (4, ""), outcome
    assert "Traceback" not in outcome.err
    (line,) = outcome.err.splitlines()  # and none of gRPC's own
    return line.removeprefix("Error: ")


async def test_a_caller_without_tls_hears_of_it(serve, authority):
    target = (await serve(**authority.served())).target
    line = await said(target=target)
    assert line.startswith(
        f"the server at {target} speaks TLS and shows the certificate CN=server for localhost, 127.0"
    )
    assert "by CN=authority, valid until" in line
    assert "add --tls, and --ca FILE" in line


async def test_a_caller_with_tls_hears_that_the_server_has_none(serve, authority):
    target = (await serve()).target
    assert "does not speak TLS: leave --tls" in await said("--ca", str(authority.file), target=target)


async def test_a_caller_hears_why_a_certificate_is_not_trusted(serve, authority, tmp_path):
    other = Authority(tmp_path, "another")
    fine = (await serve(**authority.served())).target
    expired = (await serve(**authority.served("old", days=-1.0))).target
    elsewhere = (await serve(**authority.served("far", "db.example"))).target
    lines = await asyncio.gather(
        said("--ca", str(other.file), target=fine),
        said("--tls", target=fine),
        said("--ca", str(authority.file), target=expired),
        said("--ca", str(authority.file), target=elsewhere),
    )
    for line, *words in zip(
        lines,
        ("CN=server", "CN=server", "CN=old", "CN=far for db.example"),
        ("valid until", "by CN=authority", "expired on", "valid until"),
        (
            f"comes from no authority of {other.file}",
            "that gRPC brings: name yours by --ca FILE",
            "has expired",
            "is not for 127.0.0.1: name the server as its certificate does",
        ),
        strict=True,
    ):
        assert line.startswith("TLS: the certificate ")
        assert all(word in line for word in words), line


async def test_a_caller_hears_that_a_server_wants_a_certificate(serve, authority, tmp_path):
    target = (await serve(**authority.served(), tls_client_ca_file=authority.file)).target
    trusted = ("--ca", str(authority.file))
    cert, key = Authority(tmp_path, "another").pair("stranger")
    asked, refused = await asyncio.gather(
        said(*trusted, target=target), said(*trusted, "--cert", str(cert), "--key", str(key), target=target)
    )
    assert "asks for a certificate of yours: name it by --cert" in asked
    assert "does not accept your certificate CN=stranger" in refused

    cert, key = authority.pair("friend")
    outcome = await handlers(*trusted, "--cert", str(cert), "--key", str(key), target=target)
    assert (outcome.code, outcome.err) == (0, "")


def wrong_files(authority: Authority, folder: Path) -> dict[str, tuple[Path, Path, str]]:
    """Certificates and keys that do not serve, and what is to be said of them."""
    cert, key = authority.pair("mine")
    _, other = authority.pair("other")
    empty = folder / "empty.pem"
    empty.touch()
    return {
        "other key": (cert, other, f"the private key in {other} does not fit the certificate CN=mine"),
        "no certificate": (empty, key, f"{empty} holds no certificate in PEM"),
        "swapped": (key, cert, f"{key} holds no certificate in PEM"),
        "no key": (cert, empty, f"{empty} holds no private key in PEM"),
        "absent": (cert, folder / "absent", f"cannot read {folder / 'absent'}: No such file"),
    }


@pytest.mark.parametrize("wrong", ["other key", "no certificate", "swapped", "no key", "absent"])
async def test_files_that_do_not_serve_are_refused(serve, authority, tmp_path, wrong):
    cert, key, complaint = wrong_files(authority, tmp_path)[wrong]
    with pytest.raises(ConfigError) as refused:
        await serve(tls_cert_file=cert, tls_key_file=key)
    assert str(refused.value).startswith("TLS: FLOWKEEP_TLS_CERT_FILE")
    assert complaint in str(refused.value)
    with pytest.raises(typer.BadParameter, match="TLS: ") as misused:
        Connection(cert=cert, key=key).credentials()
    assert complaint in str(misused.value)


async def test_an_authority_that_is_none_is_refused(serve, authority):
    settings = authority.served()
    key = settings["tls_key_file"]
    with pytest.raises(ConfigError, match=f"TLS: FLOWKEEP_TLS_CLIENT_CA_FILE: {key} holds no certificate"):
        await serve(**settings, tls_client_ca_file=key)
    with pytest.raises(typer.BadParameter, match=f"TLS: {key} holds no certificate"):
        Connection(ca=key).credentials()


async def test_health_can_be_had_without_tls_and_without_anything_else(serve, authority):
    with new_folder() as folder:
        target = f"unix:{folder}/health"
        served = await serve(health_listen=target, **authority.served())
        async with grpc.aio.insecure_channel(target) as channel:
            health = health_pb2_grpc.HealthStub(channel)
            for service in ("", *SERVICES):
                assert (await health.Check(health_pb2.HealthCheckRequest(service=service))).status == Health.SERVING
            states = aiter(health.Watch(health_pb2.HealthCheckRequest()))
            assert (await anext(states)).status == Health.SERVING
            error = await refusal(WorkflowServiceStub(channel).ListHandlers(ListHandlersRequest()))
            assert error.code is grpc.StatusCode.UNIMPLEMENTED
            last = asyncio.ensure_future(anext(states))  # gRPC drops what is not read when the connection breaks
            await served.stop()
            assert (await last).status == Health.NOT_SERVING
