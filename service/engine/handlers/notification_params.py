"""What a step may say to `send_notification`: the schema of its params, and what a schema cannot say of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from service.engine.handlers import http_params
from service.engine.handlers.email_addresses import fault_of_line, mailbox
from service.engine.schema import Problem
from service.engine.schema_places import Path

MAX_RECIPIENTS = 50
_RECIPIENTS = ("to", "cc", "bcc")
_OF_A_CALL = ("url", "headers", "auth")

_MAILBOX = {"type": "string", "minLength": 1, "maxLength": 400}
_TEXT = {"type": "string", "minLength": 1, "maxLength": 200_000}


def _mailboxes(description: str, most: int = MAX_RECIPIENTS) -> dict[str, Any]:
    each = {**_MAILBOX, "type": ["string", "array"], "items": _MAILBOX, "minItems": 1, "maxItems": most}
    return {"description": description, **each}


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
            url=_URL,
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
        ),
        "webhook": _channel(
            "JSON by POST to any URL.",
            ["url", "json"],
            url=_URL,
            json={"description": "The body."},
            headers=_CALL["headers"],
            auth=_AUTH,
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
        for path, message in _check_email(wanted) if channel == "email" else _check_call(channel, wanted):
            yield Problem((channel, *path), message)


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


def _check_call(channel: str, wanted: Mapping[str, Any]) -> Iterator[tuple[Path, str]]:
    for problem in http_params.check({field: wanted[field] for field in _OF_A_CALL if field in wanted}):
        yield problem.path, problem.message
    if channel == "slack" and "text" not in wanted and "blocks" not in wanted:
        yield (), "has no body: give text, blocks or both"


def _listed(field: str, given: str | Sequence[str]) -> list[tuple[Path, str]]:
    """Return each text of a field, by its path."""
    return [((field,), given)] if isinstance(given, str) else [((field, n), text) for n, text in enumerate(given)]
