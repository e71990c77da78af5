"""The handler `send_notification`: tells people, or other systems, by e-mail, by a webhook or in their applications."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any, Protocol

from persistence.errors import PersistenceError, QueueFullError, UnavailableError
from persistence.user_notifications import NewNotification, Severity, group, subject
from service.engine.egress.egress import Egress
from service.engine.egress.guard import Guard
from service.engine.egress.places import Places
from service.engine.failure import INVALID_PARAMS, NOT_CONFIGURED, SECRET_NOT_FOUND, SECRETS_UNAVAILABLE
from service.engine.handlers.email_message import compose
from service.engine.handlers.model import Effect, Handler, HandlerError, StepContext
from service.engine.handlers.notification_params import IN_APP_RECIPIENTS, PARAMS, check, credentials
from service.engine.handlers.smtp import MailServer, deliver
from service.engine.handlers.webhook import post
from service.engine.secrets import SecretNotFoundError, Secrets, SecretsUnavailableError, setting

DESCRIPTION = """\
Sends one notification, by one of the channels `email`, `slack` (an incoming webhook), `webhook` (JSON by POST) and
`in_app` (read by NotificationService and `flowkeep notifications`).

Gives {channel: "email", message_id, accepted, refused}, {channel, status} of a webhook, or {channel: "in_app", seq}. An
e-mail goes to those that the SMTP server takes; `refused` lists the others as {address, status, message}. Bodies of
answers are not looked at.

A step that is tried again repeats what the receiver may have got already, with the same Message-ID and the same
Idempotency-Key, a header of e-mails and calls alike. An e-mail that some have got is not sent to the others again. One
in-app notification is there however often the step is tried. It is kept for 30 days, and of each subject and group the
newest 1,000; that there is such a one is not looked at, since tokens alone name them.
The SMTP server has 30 s for each answer, 120 s for that to the content; 20 e-mails, 10 of one org, are sent at a time.
An e-mail has at most 50 recipients, and 200,000 characters each of text and HTML.
Webhooks are called at public addresses only, unless the server's setting FLOWKEEP_HTTP_ALLOW names others. Redirects
are not followed. An answer that has begun must have its status and headers there within 30 s.

Fails with these codes. Those of e-mail have the `status` of the server in their details, and `refused`:
EMAIL_DEFERRED: the SMTP server takes it from nobody or for nobody now (4xx). Retried.
EMAIL_REJECTED: the SMTP server refuses it (5xx): its sender, each of its recipients, or what it says. Not retried.
EMAIL_AUTHENTICATION_FAILED: the SMTP server does not take the account of the settings, or asks for one. Not retried.
NOT_CONFIGURED: the server's settings name no SMTP server. Not retried.
CONNECTION_FAILED: no connection, or none up to the end of the answer, not in time, or without TLS. Retried.
HTTP_STATUS_2XX to HTTP_STATUS_5XX, ADDRESS_NOT_ALLOWED, INVALID_RESPONSE: of webhooks, as call_api has them; details
hold no more of the URL than its host.
NOTIFICATION_NOT_KEPT: the database did not take an in-app notification now. Retried.
INVALID_PARAMS: params that are wrong once their templates are filled in. Not retried."""

NOTIFICATION_NOT_KEPT = "NOTIFICATION_NOT_KEPT"

CONNECTIONS, CONNECTIONS_OF_ONE_ORG = 20, 10
"""To the SMTP server at a time; more wait. Servers refuse clients that have many."""


class InApp(Protocol):
    """Keeps in-app notifications."""

    async def send(self, new: NewNotification) -> int:
        """Keep a notification, once for its token, and return its number. Raises PersistenceError."""
        ...


def send_notification(
    egress: Egress | None = None,
    mail_server: MailServer | None = None,
    in_app: InApp | None = None,
    secrets: Secrets | None = None,
) -> Handler:
    """Return the handler. Webhooks are called by `egress`, by default at public addresses only.

    Username and password of the mail server may name `secrets`.
    """
    egress = egress or Egress(Guard())
    return Handler(
        name="send_notification",
        description=DESCRIPTION,
        params_schema=PARAMS,
        effect=Effect.EXTERNAL,
        run=_Notifier(egress, mail_server, in_app, secrets or Secrets()).run,
        check=check,
        credentials=credentials,
        close=egress.close,
    )


class _Notifier:
    """Sends notifications."""

    def __init__(self, egress: Egress, mail_server: MailServer | None, in_app: InApp | None, secrets: Secrets) -> None:
        self._egress = egress
        self._mail_server = mail_server
        self._in_app = in_app
        self._secrets = secrets
        self._places = Places(CONNECTIONS, CONNECTIONS_OF_ONE_ORG)

    async def run(self, params: Mapping[str, Any], context: StepContext) -> Any:
        channel, wanted = next(iter(params.items()))
        ways = {"email": self._email, "slack": self._slack, "webhook": self._webhook, "in_app": self._tell}
        send = ways[channel]
        return {"channel": channel, **await send(wanted, context)}

    async def _email(self, wanted: Mapping[str, Any], context: StepContext) -> dict[str, Any]:
        if (server := self._mail_server) is None:
            text = "FLOWKEEP_SMTP_HOST is not set: this deployment has no SMTP server to send e-mail by"
            raise HandlerError(NOT_CONFIGURED, text, retryable=False)
        email = await asyncio.to_thread(compose, wanted, server.sender, context.idempotency_token, context.now)
        async with self._places.place(context.org):
            delivery = await deliver(await self._revealed(server, context.org), email)
        refused = [asdict(each) for each in delivery.refused]
        return {"message_id": email.message_id, "accepted": list(delivery.accepted), "refused": refused}

    async def _revealed(self, server: MailServer, org: str) -> MailServer:
        """Return the server with the secrets that its account names."""
        try:
            found = await setting.find(self._secrets, org, (server.username, server.password))
        except SecretNotFoundError as error:
            raise HandlerError(SECRET_NOT_FOUND, f"the account for e-mail: {error}", retryable=False) from None
        except SecretsUnavailableError as error:
            raise HandlerError(SECRETS_UNAVAILABLE, f"the account for e-mail: {error}") from None
        return replace(server, username=found.filled(server.username), password=found.filled(server.password))

    async def _slack(self, wanted: Mapping[str, Any], context: StepContext) -> dict[str, Any]:
        body = {field: wanted[field] for field in ("text", "blocks") if field in wanted}
        way = {"proxy": wanted["proxy"]} if "proxy" in wanted else {}
        return await self._webhook({"url": wanted["url"], "json": body, **way}, context)

    async def _webhook(self, wanted: Mapping[str, Any], context: StepContext) -> dict[str, Any]:
        return {"status": await post(self._egress, wanted, context)}

    async def _tell(self, wanted: Mapping[str, Any], context: StepContext) -> dict[str, Any]:
        if self._in_app is None:
            raise HandlerError(NOT_CONFIGURED, "this process keeps no in-app notifications", retryable=False)
        try:
            return {"seq": await self._in_app.send(_notification(wanted, context))}
        except (UnavailableError, QueueFullError) as error:
            told = error.told if isinstance(error, UnavailableError) else "the database has too much to do"
            raise HandlerError(NOTIFICATION_NOT_KEPT, told, retryable=True) from error
        except PersistenceError as error:
            raise HandlerError(INVALID_PARAMS, f"in_app: cannot be kept: {error}", retryable=False) from error


def _notification(wanted: Mapping[str, Any], context: StepContext) -> NewNotification:
    subjects, groups = (
        [given] if isinstance(given := wanted.get(field, []), str) else given for field in IN_APP_RECIPIENTS
    )
    return NewNotification(
        org=context.org,
        token=context.idempotency_token,
        recipients=tuple(dict.fromkeys((*map(subject, subjects), *map(group, groups)))),
        title=wanted["title"],
        text=wanted.get("text", ""),
        link=wanted.get("link", ""),
        data=wanted.get("data"),
        severity=Severity(wanted.get("severity", "info").upper()),
        workflow_name=context.workflow,
        execution_id=context.execution_id,
        step_path=context.step_path,
    )
