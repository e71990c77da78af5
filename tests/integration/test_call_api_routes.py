"""`call_api` by certificates and proxies of the deployment, against real TLS and a real proxy."""

from __future__ import annotations

import json
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from service.config import Config, ConfigError
from service.engine.egress.allowed import Allowed
from service.engine.egress.egress import Egress
from service.engine.egress.guard import Guard
from service.engine.egress.lookups import Lookups
from service.engine.handlers.call_api import call_api
from service.engine.handlers.model import Handler
from service.engine.handlers.send_notification import send_notification
from service.routes import routes_of
from tests.integration.certificates import Authority
from tests.integration.proxies import Gateway, serving_proxy
from tests.integration.web import CONTEXT, Web, call, failure, serving_web

Open = Callable[..., Handler]


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def secure(authority: Authority) -> Iterator[Web]:
    """A server with a certificate that nobody knows, for clients with one of the same authority."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=authority.file)
    context.load_cert_chain(*authority.pair("server"))
    context.verify_mode = ssl.CERT_REQUIRED
    with serving_web(context) as web:
        yield web


@pytest.fixture
def gateway() -> Iterator[Gateway]:
    with serving_proxy() as found:
        yield found


@pytest.fixture
def internal(authority: Authority) -> dict[str, Any]:
    """Certificates as a deployment names them: its own CA, and one to come with."""
    cert, key = authority.pair("client")
    return {"ca_file": str(authority.file), "cert_file": str(cert), "key_file": str(key)}


@pytest_asyncio.fixture
async def opened() -> AsyncIterator[Open]:
    """Gives call_api with certificates and proxies by name; it may call this machine."""
    made: list[Egress] = []

    def new(
        tls: dict[str, Any] | None = None, proxies: dict[str, Any] | None = None, guard: Guard | None = None
    ) -> Handler:
        config = Config(http_tls=json.dumps(tls or {}), http_proxies=json.dumps(proxies or {}))
        made.append(Egress(guard or Guard(has_loopback=True), routes=routes_of(config)))
        return call_api(made[-1])

    yield new
    for each in made:
        await each.close()


def url_of(gateway: Gateway, **more: Any) -> dict[str, Any]:
    """A proxy as settings have it."""
    return {"url": f"http://127.0.0.1:{gateway.port}", **more}


async def test_a_call_trusts_and_shows_the_certificates_that_it_names(
    opened: Open, secure: Web, internal: dict[str, Any]
) -> None:
    caller = opened({"internal": internal, "ca": {"ca_file": internal["ca_file"]}})
    url = secure.answer("/a", body="hello")
    assert (await call(caller, url=url, tls="internal"))["body"] == "hello"
    unknown = await failure(caller, url=url)
    assert (unknown.code, "certificate" in unknown.message.lower()) == ("CONNECTION_FAILED", True)
    # Nobody comes over the connection of somebody else.
    assert (await failure(caller, url=url, tls="ca")).code == "CONNECTION_FAILED"
    assert len(secure.calls) == 1


async def test_certificates_are_for_their_hosts_and_orgs(opened: Open, secure: Web, internal: dict[str, Any]) -> None:
    url = secure.answer("/a")
    tls = {"others": {**internal, "hosts": ["*.example.org"]}, "acmes": {**internal, "orgs": ["acme"]}}
    caller = opened({**tls, "mine": {**internal, "hosts": ["127.0.0.1"], "orgs": ["beta"]}})
    beta = replace(CONTEXT, org="beta")
    assert (await call(caller, beta, url=url, tls="mine"))["status"] == 200
    for name, text in {
        "others": "is not for this host",
        "acmes": "it has mine, others",
        "none": "has no 'none'",
    }.items():
        error = await failure(caller, beta, url=url, tls=name)
        assert (error.code, error.retryable) == ("INVALID_PARAMS", False)
        assert error.message.startswith("tls: ")
        assert text in error.message


async def test_a_redirect_takes_certificates_to_no_other_origin(
    opened: Open, secure: Web, authority: Authority, internal: dict[str, Any]
) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*authority.pair("other"))
    with serving_web(context) as other:
        away = secure.answer("/away", 302, Location=other.answer("/in", body="in"))
        caller = opened({"internal": internal, "both": {**internal, "hosts": ["127.0.0.1"]}})
        # The other side is judged by the usual CAs, which do not know it.
        assert (await failure(caller, url=away, tls="internal", redirects="any")).code == "CONNECTION_FAILED"
        assert other.calls == []
        assert (await call(caller, url=away, tls="both", redirects="any"))["body"] == "in"


async def test_tokens_are_fetched_with_the_certificates_of_the_call(
    opened: Open, secure: Web, internal: dict[str, Any]
) -> None:
    caller = opened({"internal": internal})
    token_url = secure.answer("/token", body='{"access_token": "t1"}', Content_Type="application/json")
    oauth2 = {"token_url": token_url, "client_id": "me", "client_secret": "geheim"}
    await call(caller, url=secure.answer("/a"), tls="internal", auth={"oauth2": oauth2})
    assert [each.path for each in secure.calls] == ["/token", "/a"]
    assert secure.calls[1].headers["authorization"] == "Bearer t1"


def test_certificates_without_tls_are_a_mistake(opened: Open) -> None:
    problems = opened().validate({"url": "http://example.com", "tls": "internal"})
    assert [path for path, _ in problems] == ["tls"]


async def test_a_call_goes_by_the_proxy_that_it_names_and_by_no_other(
    opened: Open, web: Web, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{gateway.port}")
    caller = opened(proxies={"out": url_of(gateway, username="me", password="geheim")})
    url = web.answer("/a", body="hello").replace("127.0.0.1", "localhost")
    assert (await call(caller, url=url))["body"] == "hello"
    assert gateway.asked == []
    assert (await call(caller, url=url, proxy="out"))["body"] == "hello"
    # It is asked for an address that was looked at, not for a name.
    assert gateway.asked == [f"127.0.0.1:{web.url.rpartition(':')[2]}"]
    assert gateway.authorizations == ["Basic bWU6Z2VoZWlt"]
    assert web.calls[1].headers["host"].startswith("localhost:")
    assert "proxy-authorization" not in web.calls[1].headers
    assert (await failure(caller, url=url, proxy="in")).message.startswith("proxy: ")


async def test_tls_goes_through_a_proxy_to_the_other_side(
    opened: Open, secure: Web, gateway: Gateway, internal: dict[str, Any]
) -> None:
    caller = opened({"internal": internal}, {"out": url_of(gateway)})
    url = secure.answer("/a", body="hello")
    assert (await call(caller, url=url, tls="internal", proxy="out"))["body"] == "hello"
    assert len(gateway.asked) == 1


@pytest.mark.parametrize(
    "url", ["http://10.1.2.3/", "http://169.254.169.254/", "http://inside.example/", "http://[::1]/"]
)
async def test_what_is_not_allowed_no_proxy_is_asked_for(opened: Open, gateway: Gateway, url: str) -> None:
    def resolve(host: bytes, port: int) -> Any:
        return (
            [(2, 1, 6, "", ("10.9.9.9", port))] if host == b"inside.example" else [(2, 1, 6, "", ("127.0.0.1", port))]
        )

    caller = opened(proxies={"out": url_of(gateway)}, guard=Guard(Allowed(()), lookups=Lookups(resolve)))
    assert (await failure(caller, url=url, proxy="out")).code == "ADDRESS_NOT_ALLOWED"
    assert gateway.asked == []


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (b"HTTP/1.1 403 No\r\nContent-Length: 6\r\n\r\ngeheim", "the proxy 'out' answered 403 to CONNECT"),
        (b"HTTP/1.1 407 Who\r\n\r\n", "answered 407"),
        (b"HTTP/1.1 200 Go\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", "sent more than its answer"),
        (b"SSH-2.0\r\n\r\n", "answered what is no HTTP"),
        (b"HTTP/1.1 200 Go\r\n", "broke off before its answer"),
        (b"HTTP/1.1 200 Go\r\nX: " + b"x" * 20_000, "too large a head"),
    ],
)
async def test_a_proxy_that_does_not_lead_there_is_told_of(
    opened: Open, web: Web, gateway: Gateway, answer: bytes, text: str
) -> None:
    caller = opened(proxies={"out": url_of(gateway)})
    gateway.answer = answer
    error = await failure(caller, url=web.answer("/a"), proxy="out")
    assert (error.code, error.retryable) == ("CONNECTION_FAILED", True)
    assert text in error.message
    assert "geheim" not in error.message
    assert web.calls == []


async def test_a_proxy_that_is_away_is_told_of(opened: Open, web: Web, gateway: Gateway) -> None:
    caller = opened(proxies={"out": {"url": "http://127.0.0.1:9"}})
    error = await failure(caller, url=web.answer("/a"), proxy="out")
    assert "the proxy 'out' was not reached: Connection refused" in error.message


async def test_webhooks_go_by_the_routes_that_they_name(web: Web, gateway: Gateway) -> None:
    config = Config(http_proxies=json.dumps({"out": url_of(gateway)}))
    egress = Egress(Guard(has_loopback=True), routes=routes_of(config))
    notifier = send_notification(egress)
    await call(notifier, webhook={"url": web.answer("/a"), "json": {}, "proxy": "out"})
    await call(notifier, slack={"url": web.answer("/b"), "text": "Hi", "proxy": "out"})
    assert len(gateway.asked) >= 1
    assert [each.path for each in web.calls] == ["/a", "/b"]
    await egress.close()


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        ({"ca_file": "/nowhere.pem"}, "cannot read /nowhere.pem: No such file"),
        ({"ca_file": __file__}, "holds no certificates in PEM"),
        ({"key_file": "/nowhere.key"}, "cannot read /nowhere.key: No such file"),
        ({"cert_file": "ca"}, "does not fit"),
    ],
)
def test_certificates_that_cannot_be_used_stop_the_start(
    internal: dict[str, Any], changed: dict[str, str], complaint: str
) -> None:
    given = {name: internal["ca_file"] if value == "ca" else value for name, value in changed.items()}
    with pytest.raises(ConfigError, match="FLOWKEEP_HTTP_TLS, internal: ") as caught:
        routes_of(Config(http_tls=json.dumps({"internal": {**internal, **given}})))
    assert complaint in str(caught.value)
