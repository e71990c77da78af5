"""The built-in handlers that need no other server."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.attempts import problems

# --- wait


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"duration": 1, "until": "2026-01-01T00:00:00Z"},
        {"duration": "soon"},
        {"duration": ""},
        {"duration": "P"},
        {"duration": "PT"},
        {"duration": "1M"},
        {"duration": "P1Y"},
        {"duration": "30m1h"},
        {"duration": -1},
        {"duration": "4000d"},
        {"duration": True},
        {"until": "2026-01-01"},
        {"until": "2026-01-01T00:00:00"},
        {"until": "2026-02-30T00:00:00Z"},
        {"until": "0001-01-01T00:00:00+14:00"},
        {"until": 5},
        {"for": 5},
    ],
)
def test_wait_refuses(params: dict[str, Any]) -> None:
    assert problems("wait", params)


# --- condition


@pytest.mark.parametrize(
    ("params", "path"),
    [
        ({}, ""),
        ({"outcomes": []}, "outcomes"),
        ({"outcomes": [{"name": "none", "when": "true"}]}, "outcomes[0].name"),
        ({"outcomes": [{"name": "a"}, {"name": "b", "when": "true"}]}, "outcomes[0].when"),
        ({"outcomes": [{"name": "a", "when": "true"}, {"name": "a"}]}, "outcomes[1].name"),
        ({"outcomes": [{"when": "true"}]}, "outcomes[0].name"),
    ],
)
def test_condition_refuses(params: dict[str, Any], path: str) -> None:
    assert [found for found, _ in problems("condition", params)] == [path]


# --- transform


def test_transform_takes_exactly_one() -> None:
    expected = [("", "must have exactly one of expression, value")]
    assert problems("transform", {}) == expected
    assert problems("transform", {"value": 1, "expression": "1"}) == expected


# --- call_api, before any call

OAUTH2 = {"token_url": "http://h/token", "client_id": "ann", "client_secret": "geheim"}


@pytest.mark.parametrize(
    ("params", "path"),
    [
        ({}, "url"),
        ({"url": "ftp://host/a"}, "url"),
        ({"url": "host/a"}, "url"),
        ({"url": "http://"}, "url"),
        ({"url": "http://h:99999999/"}, "url"),
        ({"url": "http://h/", "method": "post"}, "method"),
        ({"url": "http://h/", "json": 1, "text": "x"}, "text"),
        ({"url": "http://h/", "text": "x", "bytes": {"base64": ""}}, "bytes"),
        ({"url": "http://h/", "form": {}, "multipart": [{"name": "a", "text": "x"}]}, "multipart"),
        ({"url": "http://h/", "bytes": {"base64": "a"}}, "bytes.base64"),
        ({"url": "http://h/", "bytes": {"base64": "_-8="}}, "bytes.base64"),
        ({"url": "http://h/", "bytes": {"base64": "", "content_type": "a\r\nb"}}, "bytes.content_type"),
        (
            {"url": "http://h/", "bytes": {"base64": "", "content_type": "a/b"}, "headers": {"content-type": "c/d"}},
            'headers["content-type"]',
        ),
        ({"url": "http://h/", "multipart": []}, "multipart"),
        ({"url": "http://h/", "multipart": [{"name": "a"}]}, "multipart[0]"),
        ({"url": "http://h/", "multipart": [{"name": "a", "text": "x", "base64": ""}]}, "multipart[0]"),
        ({"url": "http://h/", "multipart": [{"name": "a", "base64": "?"}]}, "multipart[0].base64"),
        (
            {"url": "http://h/", "multipart": [{"name": "a", "text": "", "content_type": "grün"}]},
            "multipart[0].content_type",
        ),
        (
            {"url": "http://h/", "multipart": [{"name": "a", "text": ""}], "headers": {"Content-Type": "x/y"}},
            'headers["Content-Type"]',
        ),
        ({"url": "http://h/", "headers": {"Idempotency-Key": "x"}}, 'headers["Idempotency-Key"]'),
        ({"url": "http://h/", "headers": {"Authorization": "x"}, "auth": {"bearer": "x"}}, "headers.Authorization"),
        ({"url": "http://ann:pw@h/", "auth": {"bearer": "x"}}, "url"),
        ({"url": "http://ann:pw@h/", "headers": {"authorization": "x"}}, "url"),
        ({"url": "http://[h/"}, "url"),
        ({"url": "http://h/a\n"}, "url"),
        *(({"url": "http://h/", "headers": {name: "x"}}, f'headers["{name}"]') for name in ("X A", "X:", "X-A ")),
        ({"url": "http://h/", "headers": {"": "x"}}, 'headers[""]'),
        ({"url": "http://h/", "headers": {"Grüße": "x"}}, "headers.Grüße"),
        *(
            ({"url": "http://h/", "headers": {"X-A": value}}, 'headers["X-A"]')
            for value in ("a\r\nX-B: b", "a\n", "a\0", "grüße", " a", "a ", "\x7f")
        ),
        ({"url": "http://h/", "headers": {"X-A": "1", "x-a": "2"}}, 'headers["x-a"]'),
        ({"url": "http://h/", "auth": {"bearer": "x\n"}}, "auth.bearer"),
        ({"url": "http://h/", "auth": {"basic": {"username": "a:b", "password": "x"}}}, "auth.basic.username"),
        ({"url": "http://h/", "auth": {}}, "auth"),
        ({"url": "http://h/", "auth": {"api_key": {"value": "x"}}}, "auth.api_key"),
        ({"url": "http://h/", "auth": {"api_key": {"value": "x", "header": "A", "query": "a"}}}, "auth.api_key"),
        ({"url": "http://h/", "auth": {"api_key": {"value": "x", "header": "A B"}}}, "auth.api_key.header"),
        ({"url": "http://h/", "auth": {"api_key": {"value": "x", "header": "Connection"}}}, "auth.api_key.header"),
        ({"url": "http://h/", "auth": {"api_key": {"value": "x\n", "header": "A"}}}, "auth.api_key.value"),
        (
            {"url": "http://h/", "headers": {"x-k": "1"}, "auth": {"api_key": {"value": "x", "header": "X-K"}}},
            "auth.api_key.header",
        ),
        *(
            ({"url": "http://h/", "auth": {"oauth2": {**OAUTH2, **wrong}}}, f"auth.oauth2.{path}")
            for wrong, path in (
                ({"token_url": "ftp://h/"}, "token_url"),
                ({"token_url": "http://ann:pw@h/"}, "token_url"),
                ({"scopes": ["a b"]}, "scopes[0]"),
                ({"client_auth": "header"}, "client_auth"),
            )
        ),
        ({"url": "http://h/", "auth": {"oauth2": OAUTH2, "bearer": "x"}}, "auth"),
        ({"url": "http://h/", "auth": {"basic": {"username": "x"}}}, "auth.basic.password"),
        ({"url": "http://h/", "success_codes": [99]}, "success_codes[0]"),
        ({"url": "http://h/", "success_codes": ["2x"]}, "success_codes[0]"),
        ({"url": "http://h/", "success_codes": ["6xx"]}, "success_codes[0]"),
        *(({"url": "http://h/", "timeout": timeout}, "timeout") for timeout in (0, "0s", "2", "soon", -1, "-1s", 1e9)),
        ({"url": "http://h/", "response_headers": ["a b"]}, "response_headers[0]"),
        ({"url": "http://h/", "response_headers": ["etag", "Set-Cookie"]}, "response_headers[1]"),
        ({"url": "http://h/", "method": "POST", "pages": {"next": "null", "items": "[]"}}, "method"),
        ({"url": "http://h/", "response": "none", "pages": {"next": "null", "items": "[]"}}, "response"),
        ({"url": "http://h/", "response": "events", "pages": {"next": "null", "items": "[]"}}, "response"),
        ({"url": "http://h/", "pages": {"items": "[]"}}, "pages.next"),
        ({"url": "http://h/", "pages": {"next": "null", "items": "[]", "limit": 101}}, "pages.limit"),
        ({"url": "http://h/", "redirects": True}, "redirects"),
        ({"url": "http://h/", "big_integers": True}, "big_integers"),
        ({"url": "http://h/", "max_response_bytes": 2_000_000}, "max_response_bytes"),
        ({"url": "http://h/", "heders": {}}, "heders"),
    ],
)
def test_call_api_refuses(params: dict[str, Any], path: str) -> None:
    assert [found for found, _ in problems("call_api", params)] == [path]


# --- send_notification, before anything is sent

EMAIL = {"to": "ann@example.org", "subject": "Hello", "text": "x"}
SLACK = {"url": "https://hooks.example.org/x", "text": "x"}
IN_APP = {"to": "ann", "title": "Hello"}


@pytest.mark.parametrize(
    ("params", "path"),
    [
        ({}, ""),
        ({"email": EMAIL, "slack": SLACK}, ""),
        ({"sms": {}}, "sms"),
        ({"email": {"subject": "x", "text": "x"}}, "email"),
        ({"email": {"to": "ann@example.org", "subject": "x"}}, "email"),
        ({"email": {**EMAIL, "from": "eve@example.org"}}, "email.from"),
        ({"email": {**EMAIL, "subject": "x\r\nBcc: eve@example.org"}}, "email.subject"),
        ({"email": {**EMAIL, "to": "Ann\nBcc: <eve@example.org>"}}, "email.to"),
        ({"email": {**EMAIL, "cc": ["bo@example.org", "bo"]}}, "email.cc[1]"),
        ({"email": {**EMAIL, "reply_to": "bo@example.org\n"}}, "email.reply_to"),
        ({"email": {**EMAIL, "bcc": ["bo@example.org"] * 51}}, "email.bcc"),
        ({"email": {**EMAIL, "bcc": ["bo@example.org"] * 50}}, "email"),
        ({"email": {**EMAIL, "text": "x" * 200_001}}, "email.text"),
        ({"slack": {"url": SLACK["url"]}}, "slack"),
        ({"slack": {"text": "x"}}, "slack.url"),
        ({"slack": {**SLACK, "url": "hooks.example.org"}}, "slack.url"),
        ({"webhook": {"url": SLACK["url"]}}, "webhook.json"),
        ({"webhook": {"url": SLACK["url"], "json": 1, "auth": {"oauth2": OAUTH2}}}, "webhook.auth.oauth2"),
        ({"webhook": {"url": SLACK["url"], "json": 1, "headers": {"Idempotency-Key": "x"}}}, "webhook.headers"),
        ({"in_app": {"title": "Hello"}}, "in_app"),
        ({"in_app": {**IN_APP, "to": ["ann"] * 26, "groups": ["clerks"] * 25}}, "in_app"),
        ({"in_app": {**IN_APP, "groups": ["one\nline"]}}, "in_app.groups"),
        ({"in_app": {**IN_APP, "to": []}}, "in_app.to"),
        ({"in_app": {**IN_APP, "to": ["ann"] * 51}}, "in_app.to"),
        ({"in_app": {**IN_APP, "to": ["ann", "bo\nb"]}}, "in_app.to[1]"),
        ({"in_app": {**IN_APP, "title": "Hello\nthere"}}, "in_app.title"),
        ({"in_app": {**IN_APP, "link": "javascript:alert(1)"}}, "in_app.link"),
        ({"in_app": {**IN_APP, "link": "//eve.example.org"}}, "in_app.link"),
        ({"in_app": {**IN_APP, "link": "/\\eve.example.org"}}, "in_app.link"),
        ({"in_app": {**IN_APP, "data": {"x": "x" * 8_192}}}, "in_app.data"),
        ({"in_app": {**IN_APP, "severity": "fatal"}}, "in_app.severity"),
        ({"in_app": {**IN_APP, "data": {"x": ["${ secret('crm') }"]}}}, "in_app"),
    ],
)
def test_send_notification_refuses(params: dict[str, Any], path: str) -> None:
    ((found, message),) = problems("send_notification", params)
    assert found.startswith(path)
    assert "eve" not in message


@pytest.mark.parametrize(
    "params",
    [
        {"email": EMAIL},
        {"email": {"bcc": ["bo@example.org"] * 50, "subject": "x", "html": "<p>"}},
        {"slack": SLACK},
        {"webhook": {"url": SLACK["url"], "json": None}},
        {"in_app": {**IN_APP, "to": ["ann", "bo"], "text": "a\nb", "link": "/orders/7", "severity": "warning"}},
        {"in_app": {**IN_APP, "link": "https://shop.example.org/orders/7?x=1#y", "data": {"order": 7}}},
    ],
)
def test_send_notification_takes(params: dict[str, Any]) -> None:
    assert problems("send_notification", params) == []
