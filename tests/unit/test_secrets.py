"""Secrets by reference: where their places are in a template, and what is put into them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from service.config import Config, ConfigError
from service.engine.expressions import ExpressionError, Template
from service.engine.expressions.secret import fill
from service.engine.failure import Failure
from service.engine.handlers.model import Handler, HandlerError
from service.engine.running.revealing import Revealing
from service.engine.secrets import EnvironmentSecrets, FolderSecrets, SecretNotFoundError, Secrets
from service.engine.secrets.store import LARGEST, SecretsUnavailableError
from service.engine.violations import ValidationError
from service.secrets import secrets_of
from tests.folders import new_folder

NAMES = frozenset({"input"})
FOUND = {"api.token": "s3cr3t/+ä", "k": "key\"of'all"}


def parsed(value: Any) -> Template:
    return Template.parse(value, NAMES, may_hold_secrets=True)


def rendered(template: Template, **given: Any) -> Any:
    return template.render({"input": given})


def test_what_is_recorded_shows_the_places_and_at_the_call_they_are_filled() -> None:
    template = parsed(
        {
            "auth": {"bearer": "${ secret('api.token') }"},
            "list": ["a", '${secret("k")}'],
            "text": "Key ${ secret('k') } of ${ input.user }, $${ input.user }",
        }
    )
    recorded = rendered(template, user="bob")
    assert recorded == {
        "auth": {"bearer": "${ secret('api.token') }"},
        "list": ["a", "${ secret('k') }"],
        "text": "Key ${ secret('k') } of bob, ${ input.user }",
    }
    assert fill(recorded, template.secrets, FOUND) == {
        "auth": {"bearer": FOUND["api.token"]},
        "list": ["a", FOUND["k"]],
        "text": f"Key {FOUND['k']} of bob, ${{ input.user }}",
    }


def test_what_merely_reads_like_a_place_is_none() -> None:
    """Neither what an input holds, nor a secret whose value reads like the place of another."""
    template = parsed({"mine": "${ secret('k') }", "other": "${ input.text }", "literal": "$${ secret('k') }"})
    recorded = rendered(template, text="${ secret('k') }")
    assert recorded["mine"] == recorded["other"] == recorded["literal"]
    values = {"k": "${ secret('api.token') }", "api.token": "no"}
    assert fill(recorded, template.secrets, values) == {
        "mine": "${ secret('api.token') }",
        "other": "${ secret('k') }",
        "literal": "${ secret('k') }",
    }


@pytest.mark.parametrize(
    ("text", "given"),
    [
        ("${ secret('k') } ${ input.text }", "${ secret('api.token') }"),
        ("${ input.text }k') } ${ secret('k') }", "${ secret('"),
        ("$${ secret('k') } ${ secret('k') }", ""),
    ],
)
def test_beside_a_secret_nothing_else_may_read_like_one(text: str, given: str) -> None:
    with pytest.raises(ExpressionError, match="reads like the name of one"):
        rendered(parsed(text), text=given)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("${ secret('a/b') }", "takes the name of a secret"),
        ("${ secret('../a') }", "takes the name of a secret"),
        ("${ secret(input.name) }", "takes the name of a secret"),
        ("${ secret('a') + 'b' }", "takes the name of a secret"),
        ("${ 'Bearer ' + secret('a') }", "a template of its own"),
    ],
)
def test_a_secret_is_named_as_it_stands_and_alone(text: str, why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        parsed(text)


def test_elsewhere_than_in_params_there_are_none() -> None:
    with pytest.raises(ValidationError, match="only the params of a step that calls a handler"):
        Template.parse("${ secret('a') }", NAMES, "output")


async def run(params: Any, context: Any) -> None:
    """Nothing is called here."""


SCHEMA = {"type": "object", "properties": {"key": {"type": "string", "pattern": "^sk-[a-z]+$"}}}


async def test_filled_params_are_judged_and_a_fault_tells_nothing_of_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OF_TEST", "sk-GEHEIM")
    secrets = Secrets([EnvironmentSecrets({"acme": {"k": "OF_TEST"}})])
    template = parsed({"key": "${ secret('k') }"})
    recorded, handler = rendered(template), Handler("h", run, params_schema=SCHEMA)
    revealing = Revealing(secrets, "acme", template)
    assert handler.validate(recorded, revealing.paths) == []
    with pytest.raises(HandlerError) as raised:
        await revealing.filled(handler, recorded)
    assert (raised.value.code, raised.value.retryable) == ("INVALID_PARAMS", False)
    assert "GEHEIM" not in raised.value.message and raised.value.message.startswith("key: ")
    monkeypatch.setenv("OF_TEST", "sk-geheim")
    assert await revealing.filled(handler, recorded) == {"key": "sk-geheim"}


async def test_what_comes_back_has_the_place_instead_of_the_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    value = "pass word/\"1'ä"
    monkeypatch.setenv("OF_TEST", value)
    template = parsed({"key": "${ secret('k') }"})
    revealing = Revealing(Secrets([EnvironmentSecrets({"acme": {"k": "OF_TEST"}})]), "acme", template)
    await revealing.filled(Handler("h", run), rendered(template))
    place = "${ secret('k') }"
    assert revealing.hidden({value: [f"is {value}", 5, None, "pass+word%2F%221%27%C3%A4"]}) == {
        place: [f"is {place}", 5, None, place]
    }
    failure = revealing.hidden_failure(Failure("X", f"no {value}", {"was": value}, stack_trace=f"E({value!r})"))
    assert (failure.message, failure.details) == (f"no {place}", {"was": place})
    assert "pass word" not in failure.stack_trace
    shown: list[Any] = []
    revealing.hiding_in_outputs(shown.append)(f"<{value}>")
    revealing.hiding_in_reports(lambda percent, message: shown.append((percent, message)))(5, value)
    assert shown == [f"<{place}>", (5, place)]


async def test_an_org_sees_its_own_secrets_and_no_other_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OF_TEST", "acme's")
    secrets = Secrets([EnvironmentSecrets({"acme": {"token": "OF_TEST"}})])
    assert await secrets.find("acme", ["token"]) == {"token": "acme's"}
    for org, name in (("other", "token"), ("acme", "OF_TEST"), ("acme", "PATH")):
        with pytest.raises(SecretNotFoundError, match="it was looked for in the environment"):
            await secrets.find(org, [name])


async def test_files_are_secrets_of_the_org_whose_folder_they_are_in() -> None:
    with new_folder() as folder:
        for org, name, content in (("acme", "token", b"acme's\n"), ("acme", "bad", b"\xff"), ("b", "token", b"b's")):
            (folder / org).mkdir(exist_ok=True)
            (folder / org / name).write_bytes(content)
        (folder / "acme" / "large").write_bytes(b"x" * (LARGEST + 1))
        (folder / "acme" / "empty").write_bytes(b"\n")
        secrets = Secrets([FolderSecrets(folder)])
        assert await secrets.find("acme", ["token"]) == {"token": "acme's"}
        assert await secrets.find("b", ["token"]) == {"token": "b's"}
        for org in ("c", "..", "acme/../b", "a\0b"):
            with pytest.raises(SecretNotFoundError):
                await secrets.find(org, ["token"])
        for name in ("bad", "large", "empty"):
            with pytest.raises(SecretsUnavailableError):
                await secrets.find("acme", [name])


async def test_the_first_provider_that_has_a_secret_gives_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("OF_TEST", "first")
    (tmp_path / "acme").mkdir()
    for name in ("one", "two"):
        (tmp_path / "acme" / name).write_text("second")
    secrets = Secrets([EnvironmentSecrets({"acme": {"one": "OF_TEST"}}), FolderSecrets(tmp_path)])
    assert await secrets.find("acme", ["two", "one"]) == {"one": "first", "two": "second"}


async def test_without_a_provider_it_is_said_that_there_is_none() -> None:
    with pytest.raises(SecretNotFoundError, match="the server has no provider of secrets"):
        await Secrets().find("acme", ["token"])


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"secrets_dir": Path("/none")}, "FLOWKEEP_SECRETS_DIR=/none: there is no such folder"),
        ({"vault_url": "https://vault:8200"}, "belong together"),
        ({"vault_token_file": Path("/none")}, "belong together"),
        ({"vault_url": "vault:8200", "vault_token_file": Path("/none")}, "must begin with https://"),
        (
            {"vault_url": "https://v", "vault_token_file": Path("/none")},
            "FLOWKEEP_VAULT_TOKEN_FILE=/none: No such file",
        ),
        (
            {"vault_url": "https://v", "vault_token_file": Path("/none"), "vault_path": "secret/data/{name}"},
            "must hold {org}, so that no org reads another's secrets",
        ),
    ],
)
def test_settings_that_lead_nowhere_stop_the_start(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(words)):
        secrets_of(Config(**settings))
