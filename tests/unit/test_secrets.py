"""Secrets by reference: where their places are in a template, and what is put into them."""

from __future__ import annotations

import html
import json
import re
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx2
import pytest

from service.config import Config, ConfigError
from service.engine.expressions import ExpressionError, Template
from service.engine.expressions.secret import fill
from service.engine.failure import MAX_MESSAGE, Failure
from service.engine.handlers.failures import MAX_CODE
from service.engine.handlers.model import Handler, HandlerError
from service.engine.payload import MAX_PAYLOAD_BYTES
from service.engine.running.output import MAX_OUTPUT
from service.engine.running.revealing import Revealing
from service.engine.secrets import EnvironmentSecrets, FolderSecrets, Hiding, SecretNotFoundError, Secrets
from service.engine.secrets.store import LARGEST, SecretsUnavailableError
from service.engine.violations import ValidationError
from service.secrets import secrets_of
from tests.folders import new_folder

PLACE = "${ secret('k') }"
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
    assert await revealing.hidden({value: [f"is {value}", 5, None, "pass+word%2F%221%27%C3%A4"]}) == {
        place: [f"is {place}", 5, None, place]
    }
    failure = await revealing.hidden_failure(Failure("X", f"no {value}", {"was": value}, stack_trace=f"E({value!r})"))
    assert (failure.message, failure.details) == (f"no {place}", {"was": place})
    assert "pass word" not in failure.stack_trace
    shown: list[Any] = []
    revealing.hiding_in_outputs(shown.append)(f"{value}{'.' * MAX_OUTPUT}")
    assert shown.pop() == "." * MAX_OUTPUT  # of what nobody is shown nothing is looked at
    revealing.hiding_in_outputs(shown.append)(f"<{value}>")
    revealing.hiding_in_reports(lambda percent, message: shown.append((percent, message)))(5, value)
    assert shown == [f"<{place}>", (5, place)]


def behind(before: str) -> Callable[[str], str]:
    return lambda value: b64encode(f"{before}{value}{before}".encode()).decode()


FORMS: dict[str, Callable[[str], str]] = {
    "base64": behind(""),
    "base64 behind one": behind("a"),
    "base64 behind two": behind("ab"),
    "base64 behind three": behind("abc"),
    "base64 of URLs": lambda value: urlsafe_b64encode(value.encode()).decode(),
    "URL in small letters": lambda value: re.sub("%..", lambda found: found[0].lower(), quote(value)),
    "path": lambda value: str(httpx2.URL(f"https://example.org/x{value}x")),
    "query": lambda value: str(httpx2.URL(f"https://example.org/?q=x{value}x")),
    "JSON in ASCII": json.dumps,
    "JSON of PHP": lambda value: json.dumps(value).replace("/", "\\/"),
    "bytes": lambda value: repr(value.encode()),
    "both quotes": lambda value: repr(f'{value} and "'),
    "HTML": html.escape,
    "a header": lambda value: value.encode().decode("latin-1"),
    "without the spaces around it": str.strip,
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_a_secret_is_found_however_it_is_written(form: Callable[[str], str]) -> None:
    value = " it's/\u00e4>{`~@GEHEIM "
    written = form(value)
    assert PLACE in Hiding({"k": value}).hidden(f"<{written}>")
    assert PLACE not in Hiding({"k": "another"}).hidden(f"<{written}>")


def test_of_a_url_that_is_a_secret_what_is_told_without_the_rest_is_found_too() -> None:
    hiding = Hiding({"k": "https://bot:geheim@Hooks.example.org/T0/B1?sig=abcdef"})
    for part in ("POST hooks.example.org/T0/B1: answered 403", "geheim", "?sig=abcdef"):
        assert PLACE in hiding.hidden(part)
    assert hiding.hidden("hooks.example.org") == "hooks.example.org"


def test_of_base64_that_is_a_secret_the_text_is_found_that_is_sent() -> None:
    assert Hiding({"k": "Z2hlaW0vZ2VoZWlt"}).hidden("got gheim/geheim") == f"got {PLACE}"


def test_a_secret_of_digits_is_found_as_a_number() -> None:
    assert Hiding({"k": "4711081500"}).hidden([4711081500, 47, True, None]) == [PLACE, 47, True, None]


def test_a_text_that_was_cut_inside_a_secret_does_not_keep_the_half() -> None:
    hiding = Hiding({"k": "abcdefghijkl"})
    assert hiding.hidden_if_cut(["the key abcdefghi", "efghijkl is wrong", "abcdefghijkl"]) == [
        f"the key {PLACE}",
        f"{PLACE} is wrong",
        PLACE,
    ]
    assert hiding.hidden_if_cut("hijkl is abcde") == "hijkl is abcde"


def test_what_reads_like_a_secret_in_the_name_of_one_is_not_replaced_again() -> None:
    """Else a few of them would make a text of any length."""
    names = [f"{letter}secretsecret" for letter in "abcdefgh"]
    assert Hiding(dict.fromkeys(names, "secret")).hidden("a secret") == "a ${ secret('hsecretsecret') }"
    two = Hiding({"password": "geheim", "other": "password"})
    assert two.hidden("geheim and password") == "${ secret('password') } and ${ secret('other') }"


def test_a_step_names_no_more_secrets_than_can_be_asked_for() -> None:
    parsed([f"${{ secret('k{number}') }}" for number in range(16)])
    with pytest.raises(ValidationError, match="params: names more than 16 secrets"):
        parsed([f"${{ secret('k{number}') }}" for number in range(17)])
    with pytest.raises(ValidationError, match="has more than 256 expressions"):
        parsed(["${ secret('k') }"] * 257)


@pytest.mark.parametrize("value", ["x" * 60_000, "a\0b"])
async def test_params_are_no_larger_for_their_secrets(value: str, tmp_path: Path) -> None:
    (tmp_path / "acme").mkdir()
    (tmp_path / "acme" / "k").write_text(value)
    template = parsed(["${ secret('k') }"] * 5)
    with pytest.raises(HandlerError, match="with their secrets filled in") as raised:
        await Revealing(Secrets([FolderSecrets(tmp_path)]), "acme", template).filled(
            Handler("h", run, params_schema={}), rendered(template)
        )
    assert raised.value.code == "INVALID_PARAMS"


async def test_bytes_that_are_no_text_are_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python has halves of surrogate pairs for them, and an error that holds the whole text."""
    monkeypatch.setenv("OF_TEST", "geheim\udcff")
    with pytest.raises(SecretsUnavailableError, match="no UTF-8"):
        await Secrets([EnvironmentSecrets({"acme": {"k": "OF_TEST"}})]).find("acme", ["k"])


async def test_files_are_found_as_kubernetes_mounts_them(tmp_path: Path) -> None:
    (tmp_path / "acme" / "..2026").mkdir(parents=True)
    (tmp_path / "acme" / "..2026" / "k").write_text("geheim")
    (tmp_path / "acme" / "..data").symlink_to("..2026")
    (tmp_path / "acme" / "k").symlink_to("..data/k")
    assert await Secrets([FolderSecrets(tmp_path)]).find("acme", ["k"]) == {"k": "geheim"}


@pytest.mark.parametrize("path", ["secret/data/{name}", "secret/{org}-{name}", "secret/data/x{org}/{name}", "{org}"])
def test_the_path_of_vault_keeps_orgs_apart(path: str, tmp_path: Path) -> None:
    """Those of {org}-{name} do not: `b-c` of the org `a` and `c` of `a-b` are one."""
    with pytest.raises(ConfigError, match="each between slashes"):
        secrets_of(Config(vault_url="https://v", vault_token_file=tmp_path / "token", vault_path=path))


@pytest.mark.parametrize("name", ["", "crm token", ".crm", "a/b", "k" * 129])
def test_names_that_no_workflow_can_write_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="FLOWKEEP_SECRETS_ENVIRONMENT: no workflow can name the secret"):
        secrets_of(Config(secrets_environment={"acme": {"crm": "CRM", name: "X"}}))


def test_cas_that_cannot_be_read_stop_the_start(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("hvs.token")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none"))
    with pytest.raises(ConfigError, match="SSL_CERT_FILE: the CAs for FLOWKEEP_VAULT_URL cannot be read: No such file"):
        secrets_of(Config(vault_url="https://v", vault_token_file=tmp_path / "token"))


async def test_a_failure_is_no_larger_for_the_places_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OF_TEST", "geheim")
    template = parsed({"key": f"${{ secret('{'k' * 100}') }}"})
    revealing = Revealing(Secrets([EnvironmentSecrets({"acme": {"k" * 100: "OF_TEST"}})]), "acme", template)
    await revealing.filled(Handler("h", run), rendered(template))
    text = "geheim" * 2_000
    failure = await revealing.hidden_failure(
        Failure(text[:120], text[:2_000], {"a": text, "b": text}, stack_trace=text)
    )
    assert (len(failure.code), len(failure.message), len(failure.stack_trace)) == (MAX_CODE, MAX_MESSAGE, 16_384)
    assert len(json.dumps(failure.details)) < MAX_PAYLOAD_BYTES and "geheim" not in str(failure)


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
