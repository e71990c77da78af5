"""The e-mail that the params of a step ask for."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from email.message import Message
from email.mime.multipart import MIMEMultipart
from email.mime.text import MIMEText
from email.policy import compat32
from email.utils import format_datetime
from typing import Any

from service.engine.handlers.email_addresses import LINE_FOLD, Mailbox, mailbox, shown

# No policy of the standard library may fold headers (LIBRARIES E4).
_POLICY = compat32.clone(linesep="\r\n", max_line_length=None)
_LINE_END = re.compile("\r\n|\r|\n")
# RFC 5322, 2.1.1.
_LONGEST_LINE = 998
# To look for the ends and the points of a quarter of a million short lines would hold the event loop for 0.1 s.
_LONGEST_PLAIN = 16 << 10


@dataclass(frozen=True, slots=True)
class Email:
    """An e-mail as it goes to a server: who is told to it as sender and recipients, each once; and all that is sent."""

    message_id: str
    sender: str
    recipients: tuple[str, ...]
    content: bytes


def compose(wanted: Mapping[str, Any], sender: Mailbox, key: str, now: datetime) -> Email:
    """Return the e-mail of params without a fault. Equal keys give equal ids, by which receivers tell repeats.

    It takes up to 0.2 s: not for the event loop.
    """
    to, cc, bcc, reply_to = (_mailboxes(wanted.get(field, [])) for field in ("to", "cc", "bcc", "reply_to"))
    message, message_id = _body(wanted), f"<{key}@{sender.domain}>"
    message["From"] = sender.header
    message["To"] = _listed(to) if to or cc else "undisclosed-recipients:;"
    for name, others in (("Cc", cc), ("Reply-To", reply_to)):
        if others:
            message[name] = _listed(others)
    message["Subject"] = shown(wanted["subject"], "Subject")
    message["Date"] = format_datetime(now)
    message["Message-ID"] = message_id
    message["Idempotency-Key"] = key
    message["Auto-Submitted"] = "auto-generated"  # so that nobody's absence is told of (RFC 3834)
    recipients = tuple(dict.fromkeys(each.address for each in (*to, *cc, *bcc)))
    return Email(message_id, sender.address, recipients, message.as_bytes(policy=_POLICY))


def _mailboxes(given: str | Sequence[str]) -> list[Mailbox]:
    return [mailbox(text) for text in ([given] if isinstance(given, str) else given)]


def _listed(mailboxes: Sequence[Mailbox]) -> str:
    return f",{LINE_FOLD}".join(each.header for each in mailboxes)


def _body(wanted: Mapping[str, Any]) -> Message[Any, Any]:
    parts = [_part(wanted[field], kind) for field, kind in (("text", "plain"), ("html", "html")) if field in wanted]
    return parts[0] if len(parts) == 1 else MIMEMultipart("alternative", _subparts=parts)


def _part(text: str, kind: str) -> MIMEText:
    """Return a text in a form that every server takes: as it is, if short, in ASCII and short lines; else base64."""
    lines = _LINE_END.split(text)
    is_short = text.isascii() and len(text) <= _LONGEST_PLAIN and max(map(len, lines)) <= _LONGEST_LINE
    return MIMEText("\r\n".join(lines), kind, "us-ascii" if is_short else "utf-8")
