"""Bodies that `call_api` sends as bytes and in parts, as a real HTTP server gets them."""

from __future__ import annotations

import email
import email.policy
from base64 import b64encode
from dataclasses import replace
from email.message import EmailMessage
from typing import Any

import pytest

from service.engine.handlers.model import Handler
from tests.integration.web import CONTEXT, Call, Web, call

RAW = bytes(range(256))
ENCODED = b64encode(RAW).decode()


def parts_of(sent: Call) -> list[EmailMessage]:
    """The parts of a body as the standard library reads them."""
    head = f"Content-Type: {sent.headers['content-type']}\r\n\r\n".encode()
    message = email.message_from_bytes(head + sent.body, policy=email.policy.HTTP.clone(utf8=True))
    assert not message.defects
    return [part for part in message.iter_parts() if isinstance(part, EmailMessage)]


@pytest.mark.parametrize(
    ("given", "headers", "kind"),
    [
        ({"base64": ENCODED}, {}, "application/octet-stream"),
        ({"base64": ENCODED, "content_type": "image/png"}, {}, "image/png"),
        ({"base64": ENCODED}, {"content-type": "image/gif"}, "image/gif"),
        ({"base64": "\n".join(ENCODED[at : at + 76] for at in range(0, len(ENCODED), 76))}, {}, None),
    ],
)
async def test_base64_is_sent_as_the_bytes_that_it_stands_for(
    caller: Handler, web: Web, given: dict[str, Any], headers: dict[str, str], kind: str | None
) -> None:
    await call(caller, url=web.answer("/a"), method="PUT", bytes=given, headers=headers)
    assert (web.calls[0].headers["content-type"], web.calls[0].body) == (kind or "application/octet-stream", RAW)


async def test_fields_and_files_are_sent_in_their_order(caller: Handler, web: Web) -> None:
    parts = [
        {"name": "size", "text": 7},
        {"name": "tag", "text": "grüße\r\n--"},
        {"name": "tag", "text": True, "content_type": "text/x-flag"},
        {"name": 'a"b\r\nX-Evil: 1', "filename": 'ü"\n.txt', "text": "plain"},
        {"name": "file", "filename": "raw", "base64": ENCODED},
        {"name": "file", "filename": "a.png", "base64": ENCODED, "content_type": "image/png"},
    ]
    await call(caller, url=web.answer("/a"), method="POST", multipart=parts)
    found = [
        (
            part.get_param("name", header="content-disposition"),
            part.get_filename(),
            part["content-type"],
            part.get_payload(decode=True),
        )
        for part in parts_of(web.calls[0])
    ]
    assert found == [
        ("size", None, None, b"7"),
        ("tag", None, None, "grüße\r\n--".encode()),
        ("tag", None, "text/x-flag", b"true"),
        ("a%22b%0D%0AX-Evil: 1", "ü%22%0A.txt", 'text/plain; charset="utf-8"', b"plain"),
        ("file", "raw", "application/octet-stream", RAW),
        ("file", "a.png", "image/png", RAW),
    ]


async def test_parts_are_the_same_in_each_attempt_and_others_in_other_steps(caller: Handler, web: Web) -> None:
    parts = [{"name": "a", "text": "b"}]
    for attempt, token in ((1, "one"), (2, "one"), (1, "two")):
        context = replace(CONTEXT, attempt=attempt, idempotency_token=token)
        await call(caller, context, url=web.answer("/a"), method="POST", multipart=parts)
    first, again, other = (sent.body for sent in web.calls)
    assert first == again != other
