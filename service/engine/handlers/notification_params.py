"""What a step may say to `send_notification`: the schema of its params, and what a schema cannot say of them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from persistence.user_notifications import LONGEST_LINK, LONGEST_TEXT, LONGEST_TITLE, Severity
from service.engine.handlers import http_params
from service.engine.handlers.email_addresses import fault_of_line, mailbox
from service.engine.schema import Problem
from service.engine.schema_places import Path

MAX_RECIPIENTS = 50
MAX_DATA = 8 << 10
"""Bytes of the data of an in-app notification, as JSON."""

_RECIPIENTS = ("to", "cc", "bcc")
IN_APP_RECIPIENTS = {"to": "subject", "groups": "group"}
_OF_A_CALL = ("url", "headers", "auth", "tls", "proxy")

_LINK = re.compile(r"https?://[^\s\\]+\Z|/(?![/\\])[^\s\\]*\Z", re.IGNORECASE)

_SECRET = re.compile(r"\$\{\s*secret\s*\(")

_MAILBOX = {"type": "string", "minLength": 1, "maxLength": 400}
_TEXT = {"type": "string", "minLength": 1, "maxLength": 200_000}
_NAME = {"type": "string", "minLength": 1, "maxLength": 256}


def _mailboxes(description: str, most: int = MAX_RECIPIENTS) -> dict[str, Any]:
    each = {**_MAILBOX, "type": ["string", "array"], "items": _MAILBOX, "minItems": 1, "maxItems": most}
    return {"description": description, **each}


def _names(description: str) -> dict[str, Any]:
    several = {"type": ["string", "array"], "items": _NAME, "minItems": 1, "maxItems": MAX_RECIPIENTS}
    return {"description": description, **_NAME, **several}


def _channel(description: str, required: Sequence[str], **properties: Any) -> dict[str, Any]:
    return {
        "description": description,
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }


_CALL = http_params.PARAMS["properties"]
_URL = {
    **_CALL["url"],
    "description": "Where to, http or https. Failures name its host alone; readers of the workflow see all of it.",
}
# A token that is to be fetched first is for call_api.
_WAYS = {name: schema for name, schema in _CALL["auth"]["properties"].items() if name != "oauth2"}
_AUTH = {
    **_CALL["auth"],
    "description": "How the call shows who it is: a bearer token, a user with a password, or an API key.",
    "properties": _WAYS,
}
PARAMS: dict[str, Any] = {
    "type": "object",
    "properties": {
        "email": _channel(
            "An e-mail, by the SMTP server that the deployment has in its settings, and from its sender.",
            ["subject"],
            to=_mailboxes("ann@example.org, Ann Lee <ann@example.org>, or a list; with cc and bcc at most 50 in all."),
            cc=_mailboxes("As to."),
            bcc=_mailboxes("As to; the others are not told."),
            reply_to=_mailboxes("Where answers go, as to.", 10),
            subject={"description": "One line.", "type": "string", "minLength": 1, "maxLength": 500},
            text={"description": "The plain text. At least one of text and html.", **_TEXT},
            html={"description": "The HTML; beside text, readers show what they can.", **_TEXT},
        ),
        "slack": _channel(
            "A message to an incoming webhook of Slack, or of what takes the same (Mattermost, Rocket.Chat).",
            ["url"],
            url={**_URL, "writeOnly": True},
            text={
                "description": "The text, or with blocks what is shown in their place. At least one of the two.",
                "type": "string",
                "minLength": 1,
                "maxLength": 40_000,
            },
            blocks={
                "description": "Blocks as Slack has them.",
                "type": "array",
                "minItems": 1,
                "maxItems": 50,
                "items": {"type": "object"},
            },
            proxy=_CALL["proxy"],
        ),
        "webhook": _channel(
            "JSON by POST to any URL.",
            ["url", "json"],
            url=_URL,
            json={"description": "The body."},
            headers=_CALL["headers"],
            auth=_AUTH,
            tls=_CALL["tls"],
            proxy=_CALL["proxy"],
        ),
        "in_app": _channel(
            "A notification inside of your applications, which read it by NotificationService.",
            ["title"],
            to=_names(
                "Who sees it: a subject of the org, as tokens name it, or a list; with groups at most 50 in all."
            ),
            groups=_names("Whose members see it, as tokens name groups: one, or a list."),
            title={"description": "One line.", "type": "string", "minLength": 1, "maxLength": LONGEST_TITLE},
            text={"description": "What else there is to say.", "type": "string", "maxLength": LONGEST_TEXT},
            link={
                "description": "Where it leads: an http or https URL, or a path that begins with one /.",
                "type": "string",
                "minLength": 1,
                "maxLength": LONGEST_LINK,
            },
            data={"description": "What a program may want to know, at most 8 KiB as JSON.", "type": "object"},
            severity={
                "description": "How much it matters.",
                "type": "string",
                "enum": [each.lower() for each in Severity],
                "default": "info",
            },
        ),
    },
    "minProperties": 1,
    "maxProperties": 1,
    "additionalProperties": False,
}


def check(params: Mapping[str, Any]) -> Iterator[Problem]:
    """Find what the schema cannot say; a template stands for a string that may yet become right."""
    channel, wanted = next(iter(params.items()))
    if isinstance(wanted, Mapping):
        for path, message in _check_channel(channel, wanted):
            yield Problem((channel, *path), message)


def credentials(params: Mapping[str, Any]) -> Iterator[Path]:
    """Return where else than in `auth`, and in the URL of Slack, a notification has credentials."""
    webhook = params.get("webhook")
    for path in http_params.credentials(webhook) if isinstance(webhook, Mapping) else ():
        yield ("webhook", *path)


def _check_channel(channel: str, wanted: Mapping[str, Any]) -> Iterator[tuple[Path, str]]:
    match channel:
        case "email":
            yield from _check_email(wanted)
        case "in_app":
            yield from _check_in_app(wanted)
        case _:
            yield from _check_call(channel, wanted)


def _check_email(wanted: Mapping[str, Any]) -> Iterator[tuple[Path, str]]:
    for field in (*_RECIPIENTS, "reply_to"):
        for path, text in _listed(field, wanted.get(field, [])):
            try:
                mailbox(text)
            except ValueError as error:
                yield path, str(error)
    count = sum(len(_listed(field, wanted.get(field, []))) for field in _RECIPIENTS)
    if not count:
        yield (), "has no recipient: give to, cc or bcc"
    elif count > MAX_RECIPIENTS:
        yield (), f"has {count} recipients in to, cc and bcc; {MAX_RECIPIENTS} are the most"
    if fault := fault_of_line(wanted["subject"]):
        yield ("subject",), fault
    if "text" not in wanted and "html" not in wanted:
        yield (), "has no body: give text, html or both"


def _check_in_app(wanted: Mapping[str, Any]) -> Iterator[tuple[Path, str]]:
    if _names_secret(wanted):
        yield (), "must name no secret: what is sent is kept in the database, and shown to people"
    named = [each for field in IN_APP_RECIPIENTS for each in _listed(field, wanted.get(field, []))]
    for path, name in named:
        if not name.isprintable():
            yield path, f"holds characters that no name of a {IN_APP_RECIPIENTS[str(path[0])]} has, such as a line end"
    if not named:
        yield (), "has no recipient: give to or groups"
    elif len(named) > MAX_RECIPIENTS:
        yield (), f"has {len(named)} recipients in to and groups; {MAX_RECIPIENTS} are the most"
    if fault_of_line(wanted["title"]):
        yield ("title",), "has a line end or another control character; what has more than one line belongs into text"
    # Who shows it makes a link of it: nothing that a browser would run.
    if not _LINK.match(wanted.get("link", "/")):
        yield ("link",), "must begin with https:// or http://, or with one / for a path of your application"
    if (size := len(msgspec.json.encode(wanted.get("data", {})))) > MAX_DATA:
        yield ("data",), f"has {size:,} bytes as JSON; {MAX_DATA:,} are the most"


def _names_secret(value: Any) -> bool:
    """Whether a text anywhere reads as if a secret belonged into it."""
    match value:
        case str():
            return _SECRET.search(value) is not None
        case Mapping():
            return any(map(_names_secret, value.values()))
        case list() | tuple():
            return any(map(_names_secret, value))
        case _:
            return False


def _check_call(channel: str, wanted: Mapping[str, Any]) -> Iterator[tuple[Path, str]]:
    for problem in http_params.check({field: wanted[field] for field in _OF_A_CALL if field in wanted}):
        yield problem.path, problem.message
    if channel == "slack" and "text" not in wanted and "blocks" not in wanted:
        yield (), "has no body: give text, blocks or both"


def _listed(field: str, given: str | Sequence[str]) -> list[tuple[Path, str]]:
    """Return each text of a field, by its path."""
    return [((field,), given)] if isinstance(given, str) else [((field, n), text) for n, text in enumerate(given)]
