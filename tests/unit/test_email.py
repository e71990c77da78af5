"""Addresses of e-mail, and the e-mail that is made of params."""

from __future__ import annotations

import email
import email.policy
from email.header import decode_header, make_header
from email.message import EmailMessage
from email.utils import getaddresses
from typing import Any

import pytest

from service.engine.handlers.email_addresses import Mailbox, mailbox
from service.engine.handlers.email_message import Email, compose
from tests.unit.attempts import NOW

SENDER = Mailbox("Flowkeep", "it@example.org")
EVERYONE = [f"ann{n}@example.org" for n in range(50)]


def composed(**wanted: Any) -> Email:
    given = {"to": "ann@example.org", "subject": "Hello", "text": "x", **wanted}
    return compose({name: value for name, value in given.items() if value is not None}, SENDER, "key", NOW)


def read(made: Email) -> EmailMessage:
    return email.message_from_bytes(made.content, policy=email.policy.default)


@pytest.mark.parametrize(
    ("text", "name", "address"),
    [
        ("ann@example.org", "", "ann@example.org"),
        (" Ann@EXAMPLE.org ", "", "Ann@example.org"),
        ("<ann@localhost>", "", "ann@localhost"),
        ("Ann Lee <ann+x.y@mail.example.org>", "Ann Lee", "ann+x.y@mail.example.org"),
        (r'"Lee, \"A\"" <ann@example.org>', 'Lee, "A"', "ann@example.org"),
        ("Jörg, der Müller <j@xn--mnchen-3ya.example>", "Jörg, der Müller", "j@xn--mnchen-3ya.example"),
    ],
)
def test_an_address_is_read(text: str, name: str, address: str) -> None:
    assert mailbox(text) == Mailbox(name, address)


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("", "write it as ann@example.org"),
        ("ann", "write it as ann@example.org"),
        ("@example.org", "write it as"),
        ("ann@", "write it as"),
        ("a..b@example.org", "write it as"),
        ("ann@-x.org", "write it as"),
        ("ann lee@example.org", "write it as"),
        ("ann@[127.0.0.1]", "write it as"),
        ("ann@example.org> SIZE=1", "write it as"),
        ("Ann <ann@example.org> <bo@example.org>", "a list of texts"),
        ("ann@example.org, bo@example.org", "a list of texts"),
        ("ann@münchen.example", "xn--"),
        ("jörg@example.org", "beyond ASCII"),
        (f"{'a' * 65}@example.org", "more than 64"),
        (f"a@{'b' * 60}.{'c' * 60}.{'d' * 60}.{'e' * 60}.{'f' * 20}", "254 in all"),
        (f"{'n' * 129} <ann@example.org>", "more than 128"),
        *(
            (f"Ann{end}Bcc: mallory@example.org <ann@example.org>", "a line end")
            for end in ("\r\n", "\n", "\r", "\v", "\f", "\x1c", "\x85", "\u2028", "\u2029", "\x00")
        ),
        ("ann@example.org\r\nRCPT TO:<mallory@example.org>", "a line end"),
    ],
)
def test_what_is_no_address_is_refused_without_being_repeated(text: str, right: str) -> None:
    with pytest.raises(ValueError, match=r"has|must|is no") as caught:
        mailbox(text)
    assert right in str(caught.value)
    assert "mallory" not in str(caught.value)


@pytest.mark.parametrize("name", ["Müller, Jörg", 'A "B" (c) <', "=?utf-8?q?=0ABcc=3A_eve?=", "😀" * 128, "a, b; c@d"])
def test_fifty_recipients_are_read_as_they_were_written(name: str) -> None:
    shown = name.replace("<", "")
    quoted = shown.replace('"', '\\"')
    made = composed(to=[f'"{quoted}" <{each}>' for each in EVERYONE])
    # Not by the newer reader of the standard library, which sees spaces between the pieces of a long name.
    found = getaddresses([email.message_from_bytes(made.content)["To"]])
    names = [str(make_header(decode_header(name))) for name, _ in found]
    assert list(zip(names, [address for _, address in found], strict=True)) == [(shown, each) for each in EVERYONE]
    assert max(map(len, made.content.split(b"\r\n"))) <= 998


@pytest.mark.parametrize(
    "subject", ["Hello", "x" * 500, "ü" * 500, "a, " * 100 + "b", "=?utf-8?q?=0ABcc=3A_eve?=", "😀 x" * 99]
)
def test_a_subject_is_one_header(subject: str) -> None:
    message = read(composed(subject=subject))
    assert message["Subject"] == subject
    assert "Bcc" not in message


@pytest.mark.parametrize(
    "text", ["", "a\nb", "a\r\rb", "x" * 999, "ü\n" * 9, ".\n.\r\n.\r\n", "From me\n", "a\n" * 9_000, "\x01\t \n"]
)
def test_a_text_is_read_as_it_was_written(text: str) -> None:
    made = composed(text=text or None, html=f"<p>{text}")
    bodies = [body for kind in ("plain", "html") if (body := read(made).get_body([kind]))]
    found = [body.get_content().replace("\r\n", "\n") for body in bodies]
    right = text.replace("\r\n", "\n").replace("\r", "\n")
    assert found == [*([right] if text else []), f"<p>{right}"]
    assert all(len(line) <= 998 and b"\r" not in line and b"\n" not in line for line in made.content.split(b"\r\n"))


def test_who_gets_it_in_secret_is_not_named() -> None:
    made = composed(to=None, bcc=EVERYONE)
    assert made.recipients == tuple(EVERYONE)
    assert b"ann" not in made.content
    assert read(made)["To"] == "undisclosed-recipients:;"


def test_a_recipient_is_sent_to_once() -> None:
    assert composed(cc=["Ann <ann@EXAMPLE.org>", "bo@example.org"]).recipients == ("ann@example.org", "bo@example.org")
