"""Keys of a provider that is reached over HTTP: slow, wrong, gone and rotated; and who is told of it."""

from __future__ import annotations

import asyncio
import gzip
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import structlog
from cryptography.hazmat.primitives.asymmetric import rsa

from service.api import keys
from service.api.claims import RefusedTokenError
from service.api.keys import JwksKeys, KeysUnavailableError
from service.cli.checkup import examine
from service.config import Config
from tests.integration.calls import call
from tests.integration.conftest import Serve
from tests.integration.stage import Served, eventually
from tests.integration.web import Web
from tests.patience import PATIENCE
from tests.tokens import OTHER_KEY, claims, jwks, public_jwk, signed

WEAK_KEY = rsa.generate_private_key(public_exponent=65537, key_size=1024)  # noqa: S505 - refused
TWO = jwks(public_jwk(kid="one"), public_jwk(OTHER_KEY, kid="two"))


@asynccontextmanager
async def source(url: str) -> AsyncIterator[JwksKeys]:
    found = JwksKeys(url, "RS256")
    yield found
    await found.close()


async def knows(found: JwksKeys, *key_ids: str | None) -> list[int]:
    """How many keys there are for each of these ids."""
    counts = []
    for key_id in key_ids:
        try:
            counts.append(len(await found.keys(key_id)))
        except RefusedTokenError:
            counts.append(0)
    return counts


async def answer_to(served: Served, token: str) -> Any:
    metadata = (("authorization", f"Bearer {token}"),)
    return await call(served.channel, "/flowkeep.v1.WorkflowService/ListHandlers", b"", metadata)


async def test_keys_that_cannot_be_had_are_told_at_the_start_and_are_no_fault_of_the_caller(
    serve: Serve, web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keys, "PAUSE", 0.0)
    url = web.answer("/jwks", 503, "closed for today").replace("http://", "http://ann:geheim@")
    with structlog.testing.capture_logs() as logged:
        served = await serve(jwt_jwks=f"{url}?key=geheim")
        for token in (signed(claims()), signed(claims(), OTHER_KEY), signed(claims(), kid=None)):
            answer = await answer_to(served, token)
            assert (answer.code, answer.reason) == ("UNAVAILABLE", "IDENTITY_UNAVAILABLE")
            assert answer.error.retry_after == 5.0
        # What is no token at all is the caller's fault.
        assert (await answer_to(served, "noise")).code == "UNAUTHENTICATED"
    told = next(entry for entry in logged if entry["event"].startswith("keys of tokens cannot be had"))
    assert (told["log_level"], told["error"]) == ("error", "answered 503 Service Unavailable")
    assert logged.index(told) < next(n for n, entry in enumerate(logged) if entry["event"] == "call")
    assert "geheim" not in str(logged)

    web.answer("/jwks", body=jwks())
    assert (await answer_to(served, signed(claims(permissions=["workflows.read"])))).code == "OK"


@pytest.mark.parametrize(("listen", "peer"), [("127.0.0.1:0", "ipv4:127.0.0.1:"), ("[::1]:0", "ipv6:[::1]:")])
async def test_why_a_token_is_refused_is_in_the_log_and_not_in_the_answer(
    serve: Serve, web: Web, listen: str, peer: str
) -> None:
    served = await serve(jwt_jwks=web.answer("/jwks", body=jwks()), jwt_audience="flowkeep", listen=listen)
    with structlog.testing.capture_logs(processors=[structlog.contextvars.merge_contextvars]) as logged:
        answer = await answer_to(served, signed(claims(aud="elsewhere")))
    assert (answer.code, answer.error.message) == ("UNAUTHENTICATED", "the token is not valid")
    assert answer.error.metadata == {}
    (entry,) = (entry for entry in logged if entry["event"] == "token refused")
    assert (entry["claim"], entry["expected"], entry["found"]) == ("aud", "flowkeep", "elsewhere")
    assert entry["kid"] == "one"
    assert entry["peer"].startswith(peer)


@pytest.mark.parametrize(
    ("status", "headers", "body", "said"),
    [
        (404, {}, "", "answered 404"),
        (302, {"Location": "/elsewhere"}, "", "answered 302"),
        (200, {}, "<html>", "is not JSON"),
        (200, {}, '{"keys": []}', "none of its 0 keys"),
        (200, {}, b"\xff\xfe", "is not JSON"),
        (200, {}, b" " * (600 << 10), "more than 524288 bytes"),
        (200, {"Content_Encoding": "gzip"}, gzip.compress(bytes(64 << 20), 1), "more than 524288 bytes"),
        (200, {"Content_Encoding": "gzip"}, b"no gzip", "DecodingError"),
    ],
)
async def test_an_answer_that_is_no_jwks(
    web: Web, status: int, headers: dict[str, str], body: bytes | str, said: str
) -> None:
    async with source(web.answer("/jwks", status, body, **headers)) as found:
        with pytest.raises(ValueError, match=said):
            await found.look()
        with pytest.raises(KeysUnavailableError):
            await found.keys("one")


async def test_a_provider_that_dribbles_is_waited_for_once(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "FETCH", 2.0)  # the provider has to be reached meanwhile
    web.answer("/dribble")
    async with source(web.url + "/dribble") as found:
        answers = await asyncio.gather(*(found.keys("one") for _ in range(20)), return_exceptions=True)
        assert {type(each) for each in answers} == {KeysUnavailableError}
        assert len(web.calls) == 1


async def test_a_caller_that_leaves_does_not_end_the_reading_for_others(web: Web) -> None:
    url = web.answer("/hang", body=jwks())
    async with source(url) as found:
        first = asyncio.create_task(found.keys("one"))
        second = asyncio.create_task(found.keys("one"))
        await eventually(lambda: asyncio.sleep(0, bool(web.calls)))
        first.cancel()
        web.release.set()
        assert len(await second) == 1
        assert len(web.calls) == 1


async def test_keys_that_are_rotated(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    async with source(web.answer("/jwks", body=jwks(public_jwk(kid="one")))) as found:
        assert await knows(found, "one", "two", None) == [1, 0, 1]
        web.answer("/jwks", body=TWO)
        assert await knows(found, *["two"] * 20) == [0] * 20
        assert len(web.calls) == 1  # not sooner than after a pause, whatever is asked for
        monkeypatch.setattr(keys, "PAUSE", 0.0)
        assert await knows(found, "two", "one", None) == [1, 1, 2]
        assert len(web.calls) == 2
        web.answer("/jwks", body=jwks(public_jwk(OTHER_KEY, kid="two")))
        assert await knows(found, "one") == [1]
        monkeypatch.setattr(keys, "REFRESH", 0.0)
        assert await knows(found, "one") == [0]


@pytest.mark.parametrize(("status", "body"), [(200, "gone"), (200, '{"keys": {}}'), (503, TWO), (302, TWO)])
async def test_old_keys_are_good_for_a_while_when_no_new_ones_can_be_had(
    web: Web, monkeypatch: pytest.MonkeyPatch, status: int, body: str
) -> None:
    for name in ("PAUSE", "REFRESH"):
        monkeypatch.setattr(keys, name, 0.0)
    async with source(web.answer("/jwks", body=TWO)) as found:
        assert await knows(found, "one") == [1]
        web.answer("/jwks", status, body)
        assert await knows(found, "one", "two") == [1, 1]
        with pytest.raises(KeysUnavailableError):  # it may be a new one
            await found.keys("three")
        monkeypatch.setattr(keys, "KEEP", 0.0)
        with pytest.raises(KeysUnavailableError):
            await found.keys("one")


@pytest.mark.parametrize("body", ['{"keys": []}', jwks(public_jwk(use="enc")), jwks(public_jwk(WEAK_KEY))])
async def test_a_set_without_a_key_withdraws_those_there_were(
    web: Web, monkeypatch: pytest.MonkeyPatch, body: str
) -> None:
    monkeypatch.setattr(keys, "REFRESH", 0.0)
    async with source(web.answer("/jwks", body=TWO)) as found:
        assert await knows(found, "one") == [1]
        monkeypatch.setattr(keys, "PAUSE", 0.0)
        web.answer("/jwks", body=body)
        for key_id in ("one", "two", None):
            with pytest.raises(KeysUnavailableError):
                await found.keys(key_id)
        web.answer("/jwks", body=TWO)
        assert await knows(found, "one", "two") == [1, 1]


async def test_invented_key_ids_make_no_burden_for_the_provider(
    serve: Serve, web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.monotonic()
    monkeypatch.setattr(keys, "monotonic", lambda: now)
    served = await serve(jwt_jwks=web.answer("/jwks", body=jwks()))
    for seconds in range(0, 120, 2):
        now += 2
        answers = [await answer_to(served, signed(claims(), kid=f"{seconds} {each}")) for each in range(3)]
        assert {(each.code, each.error.message) for each in answers} == {("UNAUTHENTICATED", "the token is not valid")}
        assert len(web.calls) <= 1 + seconds / 30
    assert len(web.calls) == 4


async def test_who_knows_its_key_does_not_wait_long_for_new_ones(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in (("PAUSE", 0.0), ("REFRESH", 0.0), ("PATIENCE", 0.05), ("FETCH", PATIENCE)):
        monkeypatch.setattr(keys, name, seconds)
    async with source(web.answer("/jwks", body=jwks())) as found:
        assert await knows(found, "one") == [1]
        found.source = web.url + "/hang"
        async with asyncio.timeout(PATIENCE / 4):  # the provider hangs for longer
            assert await knows(found, *["one"] * 20) == [1] * 20


async def test_the_doctor_fetches_the_keys(web: Web, database_dsn: str) -> None:
    for answer, verdict, said in (
        ((200, TWO), "ok", "has the keys one, two"),
        (
            (200, '{"keys": []}'),
            "fail",
            "none of its 0 keys is one to verify RS256 with; calls would answer UNAVAILABLE",
        ),
        ((503, ""), "fail", "answered 503"),
    ):
        config = Config(jwt_jwks=web.answer("/jwks", *answer), database_url=database_dsn)
        findings = [each.as_json() for each in await asyncio.to_thread(examine, config)]
        (found,) = (each for each in findings if each["subject"] == "identity")
        assert found["verdict"] == verdict
        assert said in found["text"]
