"""Hands e-mail to the SMTP server of the deployment."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from typing import Literal, cast

import aiosmtplib

from service.engine.failure import storable
from service.engine.handlers.email_addresses import Mailbox
from service.engine.handlers.email_message import Email
from service.engine.handlers.http_answer import CONNECTION_FAILED
from service.engine.handlers.model import HandlerError

EMAIL_REJECTED = "EMAIL_REJECTED"
EMAIL_DEFERRED = "EMAIL_DEFERRED"
EMAIL_AUTHENTICATION_FAILED = "EMAIL_AUTHENTICATION_FAILED"

ANSWER_SECONDS = 30.0
"""For each answer of the server."""

CONTENT_SECONDS = 120.0
"""For the answer to the content, which many servers look through first."""

_QUIT_SECONDS = 2.0
_LONGEST_TEXT = 200
# Authentication is asked for, is too weak, or failed (RFC 4954, 6).
_OF_AUTHENTICATION = frozenset({530, 534, 535, 538})


@dataclass(frozen=True, slots=True)
class MailServer:
    """The SMTP server of the deployment, and as whom it is called. `context` judges its certificate, if any."""

    host: str
    port: int
    sender: Mailbox
    tls: Literal["starttls", "implicit", "none"]
    context: ssl.SSLContext | None = field(default=None, repr=False)
    username: str = ""
    password: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Refusal:
    """A recipient that the server does not take, with the status and the beginning of the text of its answer."""

    address: str
    status: int
    message: str

    @property
    def is_temporary(self) -> bool:
        """Whether the server may take it later."""
        return _is_temporary(self.status)


@dataclass(frozen=True, slots=True)
class Delivery:
    """Whom a server has taken an e-mail for, and whom not."""

    accepted: tuple[str, ...]
    refused: tuple[Refusal, ...]


async def deliver(server: MailServer, email: Email) -> Delivery:
    """Hand an e-mail over for all recipients that the server takes, at least one; else raise HandlerError.

    Cancelled, the connection is cut, and the server throws away what has not been sent whole.
    """
    client = aiosmtplib.SMTP(
        hostname=server.host,
        port=server.port,
        # Looking up the name of this machine may take long, and the domain of the sender is known to the other side.
        local_hostname=server.sender.domain,
        timeout=ANSWER_SECONDS,
        use_tls=server.tls == "implicit",
        start_tls=False,
        tls_context=server.context,
    )
    try:
        with _told():
            try:
                await _connect(client, server)
                delivery = await _hand_over(client, email)
            except (HandlerError, aiosmtplib.SMTPResponseException):
                await _leave(client)
                raise
            await _leave(client)
            return delivery
    finally:
        _cut(client)


async def _connect(client: aiosmtplib.SMTP, server: MailServer) -> None:
    """Connect, encrypted as the settings say, and as whom they say."""
    await client.connect()
    await client.ehlo()
    if server.tls == "starttls":
        if not client.supports_extension("starttls"):
            text = "the SMTP server offers no STARTTLS, which FLOWKEEP_SMTP_TLS asks for"
            raise HandlerError(CONNECTION_FAILED, text)
        await client.starttls()
        await client.ehlo()
    if server.username:
        await _authenticate(client, server)


async def _authenticate(client: aiosmtplib.SMTP, server: MailServer) -> None:
    """Log in by one method, once (LIBRARIES E1). The connection is encrypted, or stays on this machine."""
    try:
        if "plain" in client.server_auth_methods:
            await client.auth_plain(server.username, server.password)
        elif "login" in client.server_auth_methods:
            await client.auth_login(server.username, server.password)
        else:
            text = "the SMTP server offers neither AUTH PLAIN nor AUTH LOGIN"
            raise HandlerError(EMAIL_AUTHENTICATION_FAILED, text, retryable=False)
    except aiosmtplib.SMTPAuthenticationError as error:
        # Nothing of its text: it may repeat what it was told.
        details = {"status": error.code}
        if _is_temporary(error.code):
            raise HandlerError(EMAIL_DEFERRED, f"the SMTP server cannot log in now ({error.code})", details) from None
        text = f"the SMTP server refuses FLOWKEEP_SMTP_USERNAME with FLOWKEEP_SMTP_PASSWORD ({error.code})"
        raise HandlerError(EMAIL_AUTHENTICATION_FAILED, text, details, retryable=False) from None


async def _hand_over(client: aiosmtplib.SMTP, email: Email) -> Delivery:
    """Send it, command by command (LIBRARIES E2)."""
    size = [f"SIZE={len(email.content)}"] if client.supports_extension("size") else []
    await client.mail(email.sender, options=size)
    refused = []
    for address in email.recipients:
        try:
            await client.rcpt(address)
        except aiosmtplib.SMTPRecipientRefused as error:
            refused.append(Refusal(address, error.code, _text(error)))
    left = {each.address for each in refused}
    accepted = tuple(address for address in email.recipients if address not in left)
    if not accepted:
        raise _refused_all(refused)
    try:
        await client.data(email.content, timeout=CONTENT_SECONDS)
    except aiosmtplib.SMTPResponseException as error:
        raise _answered(error, refused) from None
    return Delivery(accepted, tuple(refused))


def _refused_all(refused: Sequence[Refusal]) -> HandlerError:
    """Return the failure when nobody is left to send to, to be tried again if the server may take one of them later."""
    first = next((each for each in refused if each.is_temporary), refused[0])
    text = f"the SMTP server takes no recipient: {first.status} {first.message}".rstrip()
    details = {"status": first.status, "refused": [asdict(each) for each in refused]}
    return HandlerError(_code(first.status), text, details, retryable=first.is_temporary)


@contextmanager
def _told() -> Iterator[None]:
    """Make what comes of a connection a failure of the step. But for what the server said, it names no server."""
    try:
        yield
    except aiosmtplib.SMTPResponseException as error:
        raise _answered(error) from None
    except OSError as error:
        raise HandlerError(CONNECTION_FAILED, f"the SMTP server was not reached: {_reason(error)}") from None
    except aiosmtplib.SMTPException as error:
        text = f"the SMTP server does not do what sending takes ({type(error).__name__})"
        raise HandlerError(CONNECTION_FAILED, text) from None


def _answered(error: aiosmtplib.SMTPResponseException, refused: Sequence[Refusal] = ()) -> HandlerError:
    """Return what an answer means that is no success."""
    status, said = error.code, _text(error)
    if not 400 <= status < 600:
        return HandlerError(CONNECTION_FAILED, "the SMTP server answered what is no SMTP, or out of turn")
    subject = "the sender" if isinstance(error, aiosmtplib.SMTPSenderRefused) else "the e-mail"
    text = f"the SMTP server does not take {subject}: {status} {said}".rstrip()
    details = {"status": status, "refused": [asdict(each) for each in refused]}
    return HandlerError(_code(status), text, details, retryable=_is_temporary(status))


def _code(status: int) -> str:
    if status in _OF_AUTHENTICATION:
        return EMAIL_AUTHENTICATION_FAILED
    return EMAIL_DEFERRED if _is_temporary(status) else EMAIL_REJECTED


def _is_temporary(status: int) -> bool:
    return 400 <= status < 500


def _text(error: aiosmtplib.SMTPResponseException) -> str:
    """Return what the server said, in one line."""
    return storable(" ".join(error.message.split()), _LONGEST_TEXT)


def _reason(error: BaseException) -> str:
    """Return why there is no connection, from what knows it best, without hosts and addresses."""
    cause: BaseException | None = error
    while cause is not None:
        match cause:
            case ssl.SSLCertVerificationError():
                return f"its certificate is not accepted: {cause.verify_message}"[:_LONGEST_TEXT]
            case ssl.SSLError():
                return f"no TLS with it: {cause.reason}"[:_LONGEST_TEXT]
            case socket.gaierror():
                return "its name has no address"
            case OSError(errno=int() as number) if number > 0:
                return os.strerror(number)
        cause = cause.__cause__ or cause.__context__
    return "no answer in time" if isinstance(error, TimeoutError) else "the connection broke off"


async def _leave(client: aiosmtplib.SMTP) -> None:
    """Say goodbye, which changes nothing any more."""
    with suppress(aiosmtplib.SMTPException, OSError):
        await client.quit(timeout=_QUIT_SECONDS)


def _cut(client: aiosmtplib.SMTP) -> None:
    """Close a connection without sending what is still to be sent (LIBRARIES E3)."""
    if client.transport is not None:
        cast(asyncio.WriteTransport, client.transport).abort()
    client.close()
