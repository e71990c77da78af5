"""Secrets that settings of handlers name: which count, whose they are, and what stops the start."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from service.config import Config, ConfigError
from service.engine.mcp.servers import parse, texts_of
from service.engine.secrets import EnvironmentSecrets, FolderSecrets, SecretNotFoundError, Secrets, setting
from service.secrets import secrets_of

PLACE = "${ secret('k') }"


@pytest.fixture
def secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Secrets:
    """Two providers; `k` is the deployment's and one org's own, `shared` the deployment's alone."""
    monkeypatch.setenv("OF_TEST", "from-the-environment")
    (tmp_path / "acme").mkdir()
    (tmp_path / "acme" / "k").write_text("of-acme")
    (tmp_path / "shared").write_text("of-all\n")
    return Secrets([EnvironmentSecrets({"*": {"k": "OF_TEST"}}), FolderSecrets(tmp_path)])


@pytest.mark.parametrize(
    ("org", "text", "expected"),
    [
        ("acme", f"Bearer {PLACE}", "Bearer of-acme"),
        ("beta", '${secret("k")}', "from-the-environment"),
        ("beta", "${ secret('shared') }/${ secret('k') }", "of-all/from-the-environment"),
        ("beta", "$x ${y} $$ {secret('k')}", "$x ${y} $$ {secret('k')}"),
    ],
)
async def test_an_org_has_its_own_and_else_those_of_the_deployment(
    secrets: Secrets, org: str, text: str, expected: str
) -> None:
    assert (await setting.find(secrets, org, [text])).filled(text) == expected


@pytest.mark.parametrize("org", ["beta", "*"])
async def test_workflows_get_none_of_the_deployment(secrets: Secrets, org: str) -> None:
    for name in ("shared", "k", "acme"):
        with pytest.raises(SecretNotFoundError):
            await secrets.find(org, [name])


async def test_a_folder_of_an_org_is_no_secret(secrets: Secrets) -> None:
    with pytest.raises(SecretNotFoundError):
        await secrets.find_for_setting("beta", ["acme"])


def test_what_is_found_is_not_shown() -> None:
    assert "geheim" not in repr(setting.Found({"k": "geheim"}))


SMTP: dict[str, Any] = {"smtp_host": "mail.example.org", "smtp_sender": "it@example.org", "smtp_username": "it"}


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("FLOWKEEP_SMTP_PASSWORD", {**SMTP, "smtp_password": "PLACE"}),
        ("FLOWKEEP_SMTP_USERNAME", {**SMTP, "smtp_username": "PLACE", "smtp_password": "x"}),
        (
            "FLOWKEEP_HTTP_PROXIES",
            {"http_proxies": json.dumps({"out": {"url": "http://p:1", "username": "me", "password": "PLACE"}})},
        ),
        ("FLOWKEEP_MCP_SERVERS", {"mcp_servers": json.dumps({"a": {"command": "x", "env": {"T": "PLACE"}}})}),
        ("FLOWKEEP_MCP_SERVERS", {"mcp_servers": json.dumps({"a": {"url": "http://x", "headers": {"T": "PLACE"}}})}),
        ("FLOWKEEP_MODELS", {"models": json.dumps({"a": {"url": "http://x/v1", "key": "PLACE"}})}),
    ],
)
def test_settings_that_name_secrets_need_to_be_right(name: str, settings: dict[str, Any], tmp_path: Path) -> None:
    def given(place: str) -> dict[str, Any]:
        return {key: str(value).replace("PLACE", place) for key, value in settings.items()}

    with pytest.raises(ConfigError, match=f"{name} names a secret, and there is nowhere to look for it"):
        secrets_of(Config(**given(PLACE)))
    with pytest.raises(ConfigError, match=rf"{name}: a secret is named as \$"):
        secrets_of(Config(**given("${ secret(k) }"), secrets_dir=tmp_path))
    secrets_of(Config(**given(PLACE), secrets_dir=tmp_path))


def test_only_what_an_mcp_server_is_given_may_name_secrets() -> None:
    servers = parse(json.dumps({"a": {"command": "x", "args": [PLACE], "env": {"T": PLACE}}}))
    assert list(texts_of(servers["a"])) == [PLACE]
