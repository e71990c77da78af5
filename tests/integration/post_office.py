"""A real SMTP server that answers as a test says, and keeps the e-mail that it takes."""

from __future__ import annotations

import asyncio
import email
import email.policy
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from email.message import EmailMessage
from pathlib import Path
from typing import Any

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

HOST = "127.0.0.1"
USER, PASSWORD = "flowkeep", "geheim-passwort"


@dataclass
class Taken:
    """An e-mail that was taken: from whom and to whom by its envelope, and what was sent."""

    sender: str
    recipients: list[str]
    content: bytes

    @property
    def message(self) -> EmailMessage:
        """The e-mail as a reader shows it."""
        return email.message_from_bytes(self.content, policy=email.policy.default)


@dataclass
class PostOffice:
    """Answers a command with what `answers` has for it (MAIL, DATA) or for the recipient; keeps what it takes."""

    port: int = 0
    answers: dict[str, str] = field(default_factory=dict)
    taken: list[Taken] = field(default_factory=list)
    logins: list[tuple[str, str]] = field(default_factory=list)
    reached: asyncio.Event = field(default_factory=asyncio.Event)
    """A recipient named hang@… was told, and is not answered."""
    left: asyncio.Event = field(default_factory=asyncio.Event)
    """A connection has been closed."""

    async def handle_MAIL(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        envelope.mail_from = address
        return self.answers.get("MAIL", "250 OK")

    async def handle_RCPT(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if address.startswith("hang@"):
            self.reached.set()
            await asyncio.Event().wait()
        answer = self.answers.get(address, "250 OK")
        if answer.startswith("250"):
            envelope.rcpt_tos.append(address)
        return answer

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        answer = self.answers.get("DATA", "250 OK")
        if answer.startswith("250"):
            assert isinstance(envelope.content, bytes)
            self.taken.append(Taken(str(envelope.mail_from), list(envelope.rcpt_tos), envelope.content))
        return answer

    def authenticate(self, server: Any, session: Any, envelope: Any, mechanism: str, data: Any) -> AuthResult:
        assert isinstance(data, LoginPassword)
        self.logins.append((data.login.decode(), data.password.decode()))
        return AuthResult(success=self.logins[-1] == (USER, PASSWORD), handled=False)


@asynccontextmanager
async def serving_mail(
    pair: tuple[Path, Path] | None = None, *, is_implicit: bool = False
) -> AsyncIterator[PostOffice]:
    """A server inside, which offers to log in. Where it has STARTTLS, it takes nothing without both."""
    office = PostOffice()
    context = None
    if pair:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*pair)
    starts_tls = context is not None and not is_implicit

    class Connection(SMTP):
        def connection_lost(self, error: Exception | None) -> None:
            super().connection_lost(error)
            office.left.set()

    make: Callable[[], SMTP] = lambda: Connection(  # noqa: E731 - one for each connection
        office,
        hostname="mail.example.org",
        tls_context=context if starts_tls else None,
        require_starttls=starts_tls,
        auth_required=starts_tls,
        auth_require_tls=starts_tls,
        authenticator=office.authenticate,
    )
    server = await asyncio.get_running_loop().create_server(make, HOST, 0, ssl=context if is_implicit else None)
    office.port = server.sockets[0].getsockname()[1]
    try:
        yield office
    finally:
        server.close()
        await server.wait_closed()
