"""E-mail of `send_notification`, by a real SMTP server."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from service.config import Config
from service.engine.handlers import send_notification as module
from service.engine.handlers import smtp
from service.engine.handlers.model import Handler
from service.engine.handlers.send_notification import send_notification
from service.mail import mail_server
from tests.integration.certificates import Authority
from tests.integration.post_office import HOST, PASSWORD, USER, PostOffice, serving_mail
from tests.integration.web import CONTEXT, call, failure
from tests.patience import PATIENCE

SENDER = "Flowkeep <it@example.org>"
LETTER: dict[str, Any] = {"to": "ann@example.org", "subject": "Hello", "text": "Hello Ann"}


@pytest.fixture
def authority(base: Path) -> Authority:
    return Authority(base)


@pytest_asyncio.fixture
async def office(authority: Authority) -> AsyncIterator[PostOffice]:
    """A server with STARTTLS and a login."""
    async with serving_mail(authority.pair("mail")) as office:
        yield office


def notifier(office: PostOffice, **settings: Any) -> Handler:
    """The handler of a deployment with this server."""
    found = {"smtp_host": HOST, "smtp_port": office.port, "smtp_sender": SENDER, **settings}
    return send_notification(None, mail_server(Config(**found)))


@pytest.fixture
def sender(office: PostOffice, authority: Authority) -> Handler:
    """The handler that knows the server's certificate and login."""
    return notifier(office, smtp_ca_file=authority.file, smtp_username=USER, smtp_password=PASSWORD)


async def test_an_email_arrives_as_it_was_written(sender: Handler, office: PostOffice) -> None:
    output = await call(
        sender,
        email={
            "to": ["Ann Lee <ann@Example.org>", '"Müller, Jörg" <joerg@example.org>'],
            "cc": "cy@example.org",
            "bcc": ["bo@example.org", "ann@example.org"],
            "reply_to": "desk@example.org",
            "subject": "Größe: 7 Bestellungen",
            "text": "Grüße\n.\n..\nEnde",
            "html": "<p>Grüße</p>",
        },
    )
    everyone = ["ann@example.org", "joerg@example.org", "cy@example.org", "bo@example.org"]
    token = f"<{CONTEXT.idempotency_token}@example.org>"
    assert output == {"channel": "email", "message_id": token, "accepted": everyone, "refused": []}
    (taken,) = office.taken
    assert (taken.sender, taken.recipients) == ("it@example.org", everyone)
    message = taken.message
    assert [(each.display_name, each.addr_spec) for each in message["To"].addresses] == [
        ("Ann Lee", "ann@example.org"),
        ("Müller, Jörg", "joerg@example.org"),
    ]
    assert (message["From"], message["Cc"], message["Reply-To"]) == (SENDER, "cy@example.org", "desk@example.org")
    assert (message["Subject"], message["Message-ID"]) == ("Größe: 7 Bestellungen", token)
    assert message["Auto-Submitted"] == "auto-generated"
    assert b"bo@example.org" not in taken.content
    bodies = [message.get_body([kind]) for kind in ("plain", "html")]
    texts = [body.get_content().replace("\r\n", "\n") for body in bodies if body is not None]
    assert texts == ["Grüße\n.\n..\nEnde", "<p>Grüße</p>"]


async def test_st5_repeats_can_be_told_by_id_and_key(sender: Handler, office: PostOffice) -> None:
    for attempt in (1, 2):
        await call(sender, replace(CONTEXT, attempt=attempt), email=LETTER)
    messages = [taken.message for taken in office.taken]
    assert {(each["Message-ID"], each["Idempotency-Key"]) for each in messages} == {
        ("<token-of-the-step@example.org>", "token-of-the-step")
    }
    assert len(messages) == 2


async def test_implicit_tls(authority: Authority) -> None:
    async with serving_mail(authority.pair("mail"), is_implicit=True) as office:
        handler = notifier(office, smtp_tls="implicit", smtp_ca_file=authority.file)
        assert (await call(handler, email=LETTER))["accepted"] == ["ann@example.org"]
    assert len(office.taken) == 1


async def test_without_tls_on_this_machine() -> None:
    async with serving_mail() as office:
        await call(notifier(office, smtp_tls="none"), email={**LETTER, "text": "a\n.b\r\n.\r\n"})
    assert office.taken[0].message.get_content() == "a\r\n.b\r\n.\r\n"


async def test_a_certificate_of_somebody_else_is_sent_nothing(office: PostOffice, base: Path) -> None:
    other = Authority(base, "other").file
    handler = notifier(office, smtp_ca_file=other, smtp_username=USER, smtp_password=PASSWORD)
    error = await failure(handler, email=LETTER)
    assert (error.code, error.retryable) == ("CONNECTION_FAILED", True)
    assert "its certificate is not accepted: " in error.message
    assert not office.logins


async def test_no_password_goes_unencrypted(authority: Authority) -> None:
    async with serving_mail() as office:
        handler = notifier(office, smtp_ca_file=authority.file, smtp_username=USER, smtp_password=PASSWORD)
        error = await failure(handler, email=LETTER)
    assert (error.code, error.message) == (
        "CONNECTION_FAILED",
        "the SMTP server offers no STARTTLS, which FLOWKEEP_SMTP_TLS asks for",
    )
    assert not office.logins


async def test_a_wrong_password_is_tried_once_and_not_told(office: PostOffice, authority: Authority) -> None:
    handler = notifier(office, smtp_ca_file=authority.file, smtp_username=USER, smtp_password="geheim-falsch")
    error = await failure(handler, email=LETTER)
    assert (error.code, error.retryable, error.details) == ("EMAIL_AUTHENTICATION_FAILED", False, {"status": 535})
    assert office.logins == [(USER, "geheim-falsch")]
    assert "geheim" not in f"{error} {error.details}"


async def test_a_server_that_asks_for_a_login(office: PostOffice, authority: Authority) -> None:
    error = await failure(notifier(office, smtp_ca_file=authority.file), email=LETTER)
    assert (error.code, error.retryable, error.details["status"]) == ("EMAIL_AUTHENTICATION_FAILED", False, 530)


@pytest.mark.parametrize("command", ["MAIL", "DATA", "ann@example.org"])
@pytest.mark.parametrize(
    ("status", "code", "retryable"),
    [(421, "EMAIL_DEFERRED", True), (451, "EMAIL_DEFERRED", True), (554, "EMAIL_REJECTED", False)],
)
async def test_an_answer_says_whether_a_retry_helps(
    sender: Handler, office: PostOffice, command: str, status: int, code: str, retryable: bool
) -> None:
    office.answers[command] = f"{status} not like this"
    error = await failure(sender, email=LETTER)
    assert (error.code, error.retryable, error.details["status"]) == (code, retryable, status)
    assert f"{status} not like this" in error.message
    refused = [{"address": "ann@example.org", "status": status, "message": "not like this"}] if "@" in command else []
    assert error.details["refused"] == refused


async def test_refused_recipients_do_not_keep_it_from_the_others(sender: Handler, office: PostOffice) -> None:
    office.answers |= {"no@example.org": "550 5.1.1 unknown", "full@example.org": "452 full"}
    output = await call(sender, email={**LETTER, "cc": ["no@example.org", "full@example.org"]})
    assert output["accepted"] == office.taken[0].recipients == ["ann@example.org"]
    assert output["refused"] == [
        {"address": "no@example.org", "status": 550, "message": "5.1.1 unknown"},
        {"address": "full@example.org", "status": 452, "message": "full"},
    ]


async def test_who_was_refused_is_told_when_the_content_is(sender: Handler, office: PostOffice) -> None:
    office.answers |= {"no@example.org": "550 unknown", "DATA": "554 spam"}
    error = await failure(sender, email={**LETTER, "cc": "no@example.org"})
    assert (error.code, error.details["status"]) == ("EMAIL_REJECTED", 554)
    assert error.details["refused"] == [{"address": "no@example.org", "status": 550, "message": "unknown"}]


async def test_one_of_all_refused_that_may_be_taken_later_is_worth_a_retry(sender: Handler, office: PostOffice) -> None:
    office.answers |= {"ann@example.org": "550 unknown", "full@example.org": "452 full"}
    error = await failure(sender, email={**LETTER, "cc": "full@example.org"})
    assert (error.code, error.retryable, error.details["status"]) == ("EMAIL_DEFERRED", True, 452)
    assert [each["address"] for each in error.details["refused"]] == ["ann@example.org", "full@example.org"]


async def test_a_server_that_is_away(sender: Handler, office: PostOffice) -> None:
    handler = notifier(replace(office, port=1), smtp_username=USER, smtp_password=PASSWORD)
    error = await failure(handler, email=LETTER)
    assert (error.code, error.retryable) == ("CONNECTION_FAILED", True)
    assert error.message == "the SMTP server was not reached: Connection refused"


@pytest.mark.parametrize("said", [b"", b"SSH-2.0-x\r\n", b"220 hello\r\n", b"220 hello\r\n999 what\r\n", b"x" * 50_000])
async def test_what_is_no_smtp_server(said: bytes) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(said)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, HOST, 0) as server:
        port = server.sockets[0].getsockname()[1]
        error = await failure(notifier(PostOffice(port), smtp_tls="none"), email=LETTER)
    assert (error.code, error.retryable) == ("CONNECTION_FAILED", True)


async def test_a_server_that_says_nothing_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smtp, "ANSWER_SECONDS", 0.01)
    with socket.create_server((HOST, 0)) as silent:
        error = await failure(notifier(PostOffice(silent.getsockname()[1]), smtp_tls="none"), email=LETTER)
    assert (error.code, error.retryable) == ("CONNECTION_FAILED", True)
    assert error.message == "the SMTP server was not reached: no answer in time"


async def test_a_cancel_closes_the_connection(sender: Handler, office: PostOffice) -> None:
    sending = asyncio.create_task(call(sender, email={**LETTER, "to": "hang@example.org"}))
    async with asyncio.timeout(PATIENCE):
        await office.reached.wait()
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        await office.left.wait()
    assert not office.taken


async def test_an_org_that_has_all_its_connections_keeps_no_other_waiting(
    office: PostOffice, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CONNECTIONS_OF_ONE_ORG", 1)
    handler = notifier(office, smtp_ca_file=authority.file, smtp_username=USER, smtp_password=PASSWORD)
    async with asyncio.timeout(PATIENCE):
        hanging = asyncio.create_task(call(handler, email={**LETTER, "to": "hang@example.org"}))
        await office.reached.wait()
        waiting = asyncio.create_task(call(handler, email={**LETTER, "to": "later@example.org"}))
        for _ in range(3):
            await call(handler, replace(CONTEXT, org="other"), email=LETTER)
        hanging.cancel()
        await waiting
    assert [taken.recipients for taken in office.taken] == [["ann@example.org"]] * 3 + [["later@example.org"]]


async def test_a_deployment_without_a_server_says_what_is_missing() -> None:
    error = await failure(send_notification(), email=LETTER)
    assert (error.code, error.retryable) == ("NOT_CONFIGURED", False)
    assert "FLOWKEEP_SMTP_HOST" in error.message
