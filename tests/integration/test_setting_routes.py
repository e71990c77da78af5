"""Models and MCP servers by certificates and proxies of the deployment, against real TLS and a real proxy."""

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
from service.engine.egress.egress import Egress
from service.engine.egress.guard import Guard
from service.engine.handlers.ask_model import ask_model
from service.engine.handlers.mcp_tool import mcp_tool
from service.engine.handlers.model import Handler
from service.models import models_of, sessions_of
from service.routes import routes_of
from service.secrets import secrets_of
from tests.integration.certificates import Authority
from tests.integration.proxies import Gateway, serving_proxy
from tests.integration.web import CONTEXT, Answer, Call, Web, call, failure, serving_web

QUESTION: dict[str, Any] = {"model": "small", "prompt": "How many?"}
COMPLETION = {"choices": [{"message": {"role": "assistant", "content": "Three"}, "finish_reason": "stop"}]}
RESULTS: dict[str, Any] = {
    "initialize": {"protocolVersion": "2025-06-18", "capabilities": {}, "serverInfo": {"name": "x", "version": "1"}},
    "tools/list": {"tools": [{"name": "t", "inputSchema": {"type": "object"}}]},
    "tools/call": {"content": [{"type": "text", "text": "Three"}]},
}

Open = Callable[..., tuple[Handler, Handler]]


def speak(asked: Call) -> Answer:
    """Answer as an MCP server does."""
    message = json.loads(asked.body or b"{}")
    if message.get("method") not in RESULTS:
        return 202 if asked.method == "POST" else 405, {}, b""
    document = {"jsonrpc": "2.0", "id": message["id"], "result": RESULTS[message["method"]]}
    return 200, {"Content-Type": "application/json"}, json.dumps(document).encode()


def both(web: Web) -> Web:
    """Have a server answer as one of chat completions and one of MCP."""
    web.answer("/v1/chat/completions", body=json.dumps(COMPLETION), Content_Type="application/json")
    web.by("/mcp", speak)
    return web


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
        yield both(web)


@pytest.fixture
def internal(authority: Authority) -> dict[str, Any]:
    cert, key = authority.pair("client")
    return {"ca_file": str(authority.file), "cert_file": str(cert), "key_file": str(key)}


@pytest.fixture
def gateway() -> Iterator[Gateway]:
    with serving_proxy() as found:
        yield found


def settings(
    web: Web, certificates: Any = None, proxies: Any = None, secrets: Path | None = None, **way: Any
) -> Config:
    """Settings of a deployment whose model and MCP server are to be called in a way."""
    return Config(
        http_tls=json.dumps(certificates or {}),
        http_proxies=json.dumps(proxies or {}),
        models=json.dumps({"lab": {"url": f"{web.url}/v1", **way}}),
        mcp_servers=json.dumps({"lab": {"url": f"{web.url}/mcp", **way}}),
        secrets_dir=secrets,
    )


@pytest_asyncio.fixture
async def opened() -> AsyncIterator[Open]:
    """Gives ask_model and mcp_tool of a deployment, whose workflows may call this machine."""
    made: list[Handler] = []

    def new(config: Config) -> tuple[Handler, Handler]:
        secrets = secrets_of(config)
        egress = Egress(Guard(has_loopback=True), routes=routes_of(config, secrets))
        asker = ask_model(egress, models_of(config, secrets, egress.routes))
        caller = mcp_tool(sessions_of(config, secrets, egress.routes))
        made.extend((asker, caller))
        return asker, caller

    yield new
    for each in made:
        assert each.close is not None
        await each.close()


async def said(asker: Handler, caller: Handler) -> list[str]:
    """What the model and the tool say."""
    answer = await call(asker, endpoint="lab", **QUESTION)
    given = await call(caller, server="lab", tool="t")
    return [answer["text"], given["content"][0]["text"]]


async def failed(asker: Handler, caller: Handler, org: str = "acme") -> list[tuple[str, bool, str]]:
    """How the question and the call fail."""
    context = replace(CONTEXT, org=org)
    errors = [
        await failure(asker, context, endpoint="lab", **QUESTION),
        await failure(caller, context, server="lab", tool="t"),
    ]
    return [(error.code, error.retryable, str(error)) for error in errors]


async def test_the_certificates_that_the_settings_name_are_trusted_and_shown(
    opened: Open, secure: Web, internal: dict[str, Any]
) -> None:
    assert await said(*opened(settings(secure, {"internal": internal}, tls="internal"))) == ["Three", "Three"]
    for code, retryable, text in await failed(*opened(settings(secure))):
        assert (code, retryable, "certificate" in text.lower()) == ("CONNECTION_FAILED", True, True)


async def test_certificates_are_for_their_orgs(opened: Open, secure: Web, internal: dict[str, Any]) -> None:
    ours = opened(settings(secure, {"internal": {**internal, "orgs": ["acme"]}}, tls="internal"))
    assert await said(*ours) == ["Three", "Three"]
    for code, retryable, text in await failed(*ours, org="beta"):
        assert (code, retryable) == ("NOT_CONFIGURED", False)
        assert "FLOWKEEP_HTTP_TLS has no 'internal' for the org" in text


async def test_the_proxy_that_the_settings_name_is_asked_for_the_address(
    opened: Open, web: Web, gateway: Gateway, tmp_path: Path
) -> None:
    (tmp_path / "proxy").write_text("geheim")
    (tmp_path / "acme").mkdir()
    out = {"url": f"http://127.0.0.1:{gateway.port}", "username": "me", "password": "${ secret('proxy') }"}
    both(web)
    named = replace(web, url=web.url.replace("127.0.0.1", "localhost"))
    handlers = opened(settings(named, proxies={"out": out}, secrets=tmp_path, proxy="out"))
    assert await said(*handlers) == ["Three", "Three"]
    assert {each.rpartition(":")[0] for each in gateway.asked} <= {"127.0.0.1", "[::1]"}
    assert len(gateway.asked) >= 2
    assert set(gateway.authorizations) == {"Basic bWU6Z2VoZWlt"}
    (tmp_path / "proxy").unlink()
    assert [code for code, _, _ in await failed(*handlers)] == ["SECRET_NOT_FOUND"] * 2


async def test_a_step_that_names_a_url_may_name_certificates_and_proxy(
    opened: Open, secure: Web, internal: dict[str, Any], gateway: Gateway
) -> None:
    proxies = {"out": {"url": f"http://127.0.0.1:{gateway.port}"}}
    asker, _ = opened(settings(secure, {"internal": internal}, proxies))
    way: dict[str, Any] = {"url": f"{secure.url}/v1", "tls": "internal"}
    assert (await call(asker, **way, proxy="out", **QUESTION))["text"] == "Three"
    assert gateway.asked == [secure.url.removeprefix("https://")]
    error = await failure(asker, **{**way, "tls": "other"}, **QUESTION)
    assert (error.code, "it has internal" in error.message) == ("INVALID_PARAMS", True)
    problems = asker.validate({"endpoint": "lab", "tls": "internal", **QUESTION})
    assert [path for path, _ in problems] == ["tls"]


@pytest.mark.parametrize(
    ("way", "complaint"),
    [
        ({"tls": "none"}, "lab.tls: the server's setting FLOWKEEP_HTTP_TLS has no 'none'; it has others"),
        ({"proxy": "none"}, "lab.proxy: the server's setting FLOWKEEP_HTTP_PROXIES has no 'none'; it has none"),
        ({"tls": "others"}, "lab.tls: 'others' is not for this host"),
    ],
)
def test_a_name_that_there_is_not_stops_the_start(
    secure: Web, internal: dict[str, Any], way: dict[str, Any], complaint: str
) -> None:
    config = settings(secure, {"others": {**internal, "hosts": ["*.example.org"]}}, **way)
    for made, setting in ((models_of, "FLOWKEEP_MODELS"), (sessions_of, "FLOWKEEP_MCP_SERVERS")):
        with pytest.raises(ConfigError) as caught:
            made(config, None, routes_of(config))
        assert str(caught.value).startswith(f"{setting}: {complaint}")


@pytest.mark.parametrize(
    ("way", "complaint"),
    [({"tls": "internal"}, "has no effect on a URL with http://"), ({"proxy": 1}, "must be a name of FLOWKEEP_HTTP_")],
)
def test_what_is_written_wrong_is_told(web: Web, way: dict[str, Any], complaint: str) -> None:
    for setting in ("models", "mcp_servers"):
        with pytest.raises(ValueError, match=complaint):
            given: dict[str, Any] = {setting: json.dumps({"lab": {"url": web.url, **way}})}
            Config(**given)
