"""Secrets that settings of handlers name reach what is called, for the org that calls, and are told nowhere."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import pytest_asyncio

from service.config import Config
from service.engine.chat.endpoints import parse as parse_models
from service.engine.chat.models import Models
from service.engine.egress.egress import Egress
from service.engine.egress.guard import Guard
from service.engine.handlers.ask_model import ask_model
from service.engine.handlers.call_api import call_api
from service.engine.handlers.mcp_tool import mcp_tool
from service.engine.handlers.model import Handler
from service.engine.handlers.send_notification import send_notification
from service.engine.mcp.servers import parse
from service.engine.mcp.sessions import Sessions
from service.engine.secrets import FolderSecrets, Secrets
from service.mail import mail_server
from service.routes import routes_of
from tests.integration.certificates import Authority
from tests.integration.mcp_servers import plain
from tests.integration.model_server import KEY, Reply, serving_model, settings
from tests.integration.post_office import HOST, PASSWORD, USER, serving_mail
from tests.integration.proxies import serving_proxy
from tests.integration.web import CONTEXT, Web, call, failure

ACME, BETA = replace(CONTEXT, org="acme"), replace(CONTEXT, org="beta")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of secrets: that of one org."""
    (tmp_path / "secrets" / "acme").mkdir(parents=True)
    return tmp_path / "secrets"


@pytest.fixture
def secrets(folder: Path) -> Secrets:
    return Secrets([FolderSecrets(folder)])


async def test_the_account_for_email(folder: Path, secrets: Secrets, base: Path) -> None:
    authority = Authority(base)
    async with serving_mail(authority.pair("mail")) as office:
        account: dict[str, Any] = {
            "smtp_username": USER,
            "smtp_password": "${ secret('mail') }",
            "smtp_ca_file": authority.file,
        }
        config = Config(smtp_host=HOST, smtp_port=office.port, smtp_sender="it@example.org", **account)
        sender = send_notification(None, mail_server(config), secrets=secrets)
        letter = {"to": "ann@example.org", "subject": "Hello", "text": "Hello Ann"}
        missing = await failure(sender, BETA, email=letter)
        assert (missing.code, missing.retryable) == ("SECRET_NOT_FOUND", False)
        (folder / "mail").write_text(PASSWORD)
        await call(sender, BETA, email=letter)
        (folder / "acme" / "mail").write_text("wrong-geheim")
        refused = await failure(sender, ACME, email=letter)
        assert refused.code == "EMAIL_AUTHENTICATION_FAILED"
        assert office.logins == [(USER, PASSWORD), (USER, "wrong-geheim")]


async def test_the_account_for_a_proxy(folder: Path, secrets: Secrets, web: Web) -> None:
    with serving_proxy() as gateway:
        named = {"url": f"http://127.0.0.1:{gateway.port}", "username": "me", "password": "${ secret('proxy') }"}
        config = Config(http_proxies=json.dumps({"out": named}))
        egress = Egress(Guard(has_loopback=True), routes=routes_of(config, secrets))
        caller, url = call_api(egress), web.answer("/a")
        missing = await failure(caller, ACME, url=url, proxy="out")
        assert (missing.code, missing.retryable) == ("SECRET_NOT_FOUND", False)
        (folder / "acme" / "proxy").write_text("geheim")
        await call(caller, ACME, url=url, proxy="out")
        # Another secret, another connection: nobody goes on over that of an account that was withdrawn.
        (folder / "acme" / "proxy").write_text("geheimer")
        await call(caller, ACME, url=url, proxy="out")
        assert gateway.authorizations == ["Basic bWU6Z2VoZWlt", "Basic bWU6Z2VoZWltZXI="]
        await egress.close()


@pytest_asyncio.fixture
async def tool(folder: Path, secrets: Secrets, tmp_path: Path) -> AsyncIterator[Handler]:
    """The handler with a program that gives its environment."""
    env = {"TOKEN": "${ secret('crm') }"}
    made = mcp_tool(Sessions(parse(json.dumps({"crm": {**plain(tmp_path), "env": env}})), secrets))
    yield made
    assert made.close is not None
    await made.close()


async def test_what_an_mcp_server_is_given(folder: Path, tool: Handler) -> None:
    asked: dict[str, Any] = {"server": "crm", "tool": "t"}
    missing = await failure(tool, ACME, **asked)
    assert (missing.code, missing.retryable) == ("SECRET_NOT_FOUND", False)
    (folder / "acme" / "crm").write_text("geheim-1")
    (folder / "crm").write_text("of-all-geheim")
    first = (await call(tool, ACME, **asked))["structured"]
    again = (await call(tool, ACME, **asked))["structured"]
    other = (await call(tool, BETA, **asked))["structured"]
    given = [psutil.Process(each["pid"]).environ()["TOKEN"] for each in (first, again, other)]
    assert given == ["geheim-1", "geheim-1", "of-all-geheim"]
    # What it repeats of them is their place.
    assert {each["env"]["TOKEN"] for each in (first, again, other)} == {"${ secret('crm') }"}
    assert first["pid"] == again["pid"] != other["pid"]
    (folder / "acme" / "crm").write_text("geheim-2")
    assert (await call(tool, ACME, **asked))["structured"]["pid"] != first["pid"]
    (folder / "acme" / "crm").write_text("geheim\0")
    broken = await failure(tool, ACME, **asked)
    assert (broken.code, "NUL" in broken.message) == ("CONNECTION_FAILED", True)


async def test_the_key_of_a_model(folder: Path, secrets: Secrets) -> None:
    with serving_model() as server:
        setting = settings(server, key="${ secret('model') }", headers={"X-Team": "${ secret('team') }"})
        asker = ask_model(models=Models(parse_models(setting), secrets))
        asked: dict[str, Any] = {"endpoint": "lab", "model": "small", "prompt": "?"}
        missing = await failure(asker, ACME, **asked)
        assert (missing.code, missing.retryable) == ("SECRET_NOT_FOUND", False)
        (folder / "model").write_text(KEY)
        (folder / "acme" / "team").write_text("of-acme")
        server.says(Reply(["Three"]))
        assert (await call(asker, ACME, **asked))["text"] == "Three"
        assert server.asked[-1].headers["x-team"] == "of-acme"
        assert asker.close is not None
        await asker.close()
