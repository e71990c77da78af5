"""Credentials in plain text are warned of, and nothing else is."""

from __future__ import annotations

import re
from typing import Annotated, Any

import pytest
from pydantic import BaseModel, Field, SecretStr

from flowkeep.handlers import handler
from service.calls.call_grpc import call_grpc
from service.calls.channels import Channels
from service.engine.egress.guard import Guard
from service.engine.handlers.credentials import NAMES
from service.engine.handlers.functions import compiled
from service.engine.handlers.model import declarations
from service.engine.handlers.registry import Registry
from service.engine.plain_secrets import MOST, plain_secrets
from service.engine.slices import in_one_go
from tests.folders import ROOT
from tests.unit.documents import step, workflow, wrong

VALUE = "sk-3f9b7c51-geheim"
URL = "https://example.com"
CATALOG = Registry.with_builtins()
CATALOG.register(call_grpc(Channels(Guard())))


class Login(BaseModel):
    password: SecretStr
    pin: Annotated[str, Field(json_schema_extra={"writeOnly": True})] = ""


@handler("log_in")
async def log_in(logins: list[Login], other: Login | None = None) -> None: ...


def warned(document: dict[str, Any], catalog: Registry = CATALOG) -> list[str]:
    """The fields of a sound definition that are warned of."""
    assert wrong(document, catalog) == []
    found = in_one_go(plain_secrets(document, catalog))
    assert all(each.code == "PLAIN_SECRET" and VALUE not in str(each) for each in found)
    return [each.field for each in found]


def of(handler_name: str, **params: Any) -> list[str]:
    """The params of a step that are warned of."""
    fields = warned(workflow(step(handler=handler_name, params=params)))
    return [field.removeprefix("steps[0].params.") for field in fields]


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({"auth": {"bearer": VALUE}}, ["auth.bearer"]),
        ({"auth": {"basic": {"username": "me", "password": VALUE}}}, ["auth.basic.password"]),
        ({"auth": {"api_key": {"value": VALUE, "header": "X-Key"}}}, ["auth.api_key.value"]),
        (
            {"auth": {"oauth2": {"token_url": URL, "client_id": "me", "client_secret": VALUE}}},
            ["auth.oauth2.client_secret"],
        ),
        ({"headers": {"authorization": f"Bearer {VALUE}"}}, ["headers.authorization"]),
        ({"headers": {"X-Goog-Api-Key": VALUE, "Accept": "text/plain"}}, ['headers["X-Goog-Api-Key"]']),
        ({"headers": {"X-Session": "Bearer abc"}}, ['headers["X-Session"]']),
        ({"query": {"apiKey": VALUE, "q": "x"}}, ["query.apiKey"]),
        ({"json": {"logins": [{"user": "me", "password": VALUE}]}, "method": "POST"}, ["json.logins[0].password"]),
    ],
)
def test_what_call_api_is_warned_of(params: dict[str, Any], expected: list[str]) -> None:
    assert of("call_api", url=URL, **params) == expected


@pytest.mark.parametrize("url", [f"https://me:{VALUE}@example.com", f"{URL}/?access_token={VALUE}"])
def test_a_url_with_a_credential_is_warned_of(url: str) -> None:
    assert of("call_api", url=url) == ["url"]


def test_what_the_other_handlers_are_warned_of() -> None:
    assert of("send_notification", slack={"url": f"{URL}/services/T0/{VALUE}", "text": "Hi"}) == ["slack.url"]
    webhook = {"url": URL, "json": {}, "auth": {"bearer": VALUE}, "headers": {"Cookie": VALUE}}
    assert of("send_notification", webhook=webhook) == ["webhook.auth.bearer", "webhook.headers.Cookie"]
    assert of("mcp_tool", server="crm", tool="find", arguments={"api_key": VALUE}) == ["arguments.api_key"]
    asked = {"url": URL, "model": "m", "prompt": "?", "api_key": VALUE, "headers": {"X-Auth-Token": VALUE}}
    assert of("ask_model", **asked) == ["api_key", 'headers["X-Auth-Token"]']
    called = {"target": "example.com:443", "method": "a.B/C", "message": {"clientSecret": VALUE}}
    assert of("call_grpc", **called, metadata={"x-auth-token": VALUE}) == [
        "message.clientSecret",
        'metadata["x-auth-token"]',
    ]


@pytest.mark.parametrize("bearer", ["${ secret('crm') }", "pre ${ secret('crm') }", "${ input.token }"])
def test_templates_are_not_warned_of(bearer: str) -> None:
    assert of("call_api", url=URL, auth={"bearer": bearer}) == []


def test_what_is_named_like_a_secret_and_is_none_is_not_warned_of() -> None:
    assert of("call_api", url=f"{URL}/?page_token=2", headers={"X-Session-Kind": "short"}, json={"max_tokens": 5}) == []


def test_steps_in_blocks_are_warned_of() -> None:
    call = step("call", handler="call_api", params={"url": URL, "auth": {"bearer": VALUE}})
    each = {"id": "each", "for_each": {"items": "input.xs", "steps": [step("first"), call]}}
    assert warned(workflow(step(), each)) == ["steps[1].for_each.steps[1].params.auth.bearer"]


def test_params_that_types_say_are_secret_are_warned_of() -> None:
    catalog = Registry(compiled(each) for each in declarations(log_in))
    params = {"logins": [{"password": VALUE}], "other": {"password": "${ input.p }", "pin": VALUE}}
    fields = warned(workflow(step(handler="log_in", params=params)), catalog)
    assert fields == ["steps[0].params.logins[0].password", "steps[0].params.other.pin"]


def test_warnings_are_bounded() -> None:
    query = {f"k{n}": {"token": VALUE} for n in range(MOST + 1)}
    assert len(of("call_api", url=URL, json=query)) == MOST


def test_the_proto_lists_the_names() -> None:
    text = (ROOT / "protos" / "flowkeep" / "v1" / "workflow_service.proto").read_text()
    listed = re.sub(r"\s*//\s*", " ", text.partition("case and `-` and `_` left out:")[2].partition(";")[0])
    assert {each.strip() for each in listed.split(",")} == NAMES
