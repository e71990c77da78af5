"""What `flowkeep doctor` looks at."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar

from cryptography.x509 import Certificate

from persistence.errors import EmbeddedPostgresInUseError, PersistenceError, SchemaError
from persistence.postgres.inspection import OLDEST_VERSION, DatabaseFacts, inspect
from service.api.identity import TokenAuthenticator, authenticator
from service.api.key_files import exposure
from service.api.keys import JwksKeys
from service.calls.call_grpc import call_grpc
from service.calls.channels import Channels
from service.certificates import days_left, described, read_certificates
from service.cli.rendering import clean
from service.config import Config, ConfigError
from service.databases import data_root, database
from service.engine.egress.guard import Guard
from service.engine.egress.named import parse_tls
from service.engine.handlers.model import HandlerLoadError
from service.engine.handlers.registry import Registry
from service.listening import addresses
from service.mail import mail_server
from service.routes import routes_of
from service.secrets import secrets_of
from service.server import credentials

LARGEST_CLOCK_OFFSET = 5.0
"""Seconds; executions go by the database's clock, but tokens and page tokens are judged by ours."""

LONGEST_UNSEEN = 60.0
"""Seconds after which a message is seen wherever a server runs: an owner's death included."""

SOON = 14.0
"""Days before its end from which on a certificate is to be replaced."""


class _Verdict(StrEnum):
    OK = "ok"
    WARN = "warn"
    FAIL = "FAIL"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    Verdict: ClassVar = _Verdict

    verdict: _Verdict
    subject: str
    text: str

    @property
    def line(self) -> str:
        """It for people."""
        return clean(f"{self.verdict.value:5} {self.subject}: {self.text}")

    def as_json(self) -> dict[str, str]:
        """Return it for programs."""
        return {"verdict": self.verdict.value.lower(), "subject": self.subject, "text": self.text}


def examine(config: Config) -> list[Finding]:
    """Return all findings. Starts the embedded Postgres for a moment if it is the one that would serve."""
    looks: tuple[Callable[[Config], Iterator[Finding]], ...] = (_machine, _settings, _handlers, _database)
    return [finding for look in looks for finding in look(config)]


def _ok(subject: str, text: str) -> Finding:
    return Finding(_Verdict.OK, subject, text)


def _warn(subject: str, text: str) -> Finding:
    return Finding(_Verdict.WARN, subject, text)


def _fail(subject: str, text: str) -> Finding:
    return Finding(_Verdict.FAIL, subject, text)


def _machine(config: Config) -> Iterator[Finding]:
    yield _ok("python", f"{sys.version.split()[0]}, {os.cpu_count()} cores")


def _settings(config: Config) -> Iterator[Finding]:
    try:
        callers = authenticator(config)
        credentials(config)
        mail = mail_server(config)
        secrets = secrets_of(config)
        routes_of(config)
    except ConfigError as error:
        yield _fail("settings", str(error))
        return
    yield _ok("settings", f"would serve on {config.listen}")
    if isinstance(callers, TokenAuthenticator) and isinstance(callers.keys, JwksKeys):
        yield _keys(callers.keys)
        if callers.keys.is_exposed:
            yield _warn("identity", "keys of tokens are fetched unencrypted; set an https URL as FLOWKEEP_JWT_JWKS")
    if mail is not None:
        yield _ok("mail", f"would be sent by {mail.host}:{mail.port} ({mail.tls}) from {mail.sender.address}")
    if secrets.names:
        yield _ok("secrets", f"would be looked for in {', '.join(secrets.names)}")
    for name, files in parse_tls(config.http_tls).items():
        if files.cert_file is not None:
            yield _tls(read_certificates(files.cert_file)[0], f"http tls {name}")
    for setting, listen in config.listeners:
        try:
            addresses(setting, listen, shared=False)
        except ConfigError as error:
            yield _warn("listen", str(error))
    if not config.has_identity_provider:
        yield _warn(
            "identity", "every caller is taken for the developer; set FLOWKEEP_JWT_JWKS or _KEY_FILE for production"
        )
    if config.tls_cert_file is not None:
        yield _tls(read_certificates(config.tls_cert_file)[0])
    elif config.tls_terminated_by_proxy:
        yield _ok("tls", "a proxy in front terminates it, as FLOWKEEP_TLS_TERMINATED_BY_PROXY says")
    yield from _exposed_files(config)


def _keys(keys: JwksKeys) -> Finding:
    """Fetch the keys of tokens once, as the server would."""
    try:
        found = asyncio.run(keys.look())
    except ValueError as error:
        return _fail("identity", f"FLOWKEEP_JWT_JWKS={keys.shown_source}: {error}; calls would answer UNAVAILABLE")
    return _ok("identity", f"{keys.shown_source} has the keys {', '.join(str(key.key_id) for key in found)}")


def _tls(certificate: Certificate, subject: str = "tls") -> Finding:
    left = days_left(certificate)
    judge = _fail if left <= 0 else _warn if left < SOON else _ok
    return judge(subject, described(certificate))


def _exposed_files(config: Config) -> Iterator[Finding]:
    for subject, path, is_secret in config.key_files:
        if found := exposure(path, is_secret=is_secret):
            yield _warn(subject, found)


def _handlers(config: Config) -> Iterator[Finding]:
    registry = Registry.with_builtins()
    registry.register(call_grpc(Channels(Guard())))
    try:
        registry.load(config.handlers)
        registry.load_entry_points()
    except HandlerLoadError as error:
        yield _fail("handlers", str(error))
        return
    yield _ok("handlers", ", ".join(registry.names()))


def _database(config: Config) -> Iterator[Finding]:
    where = "embedded" if config.is_embedded else "FLOWKEEP_DATABASE_URL"
    try:
        if config.is_embedded:
            where = f"embedded in {data_root(config)}"
        with database(config) as place:
            facts = asyncio.run(inspect(place.dsn))
    except EmbeddedPostgresInUseError as error:
        yield _warn("database", f"{error}: a server is running, and its database was not looked at")
        return
    except (ConfigError, PersistenceError) as error:
        yield _fail("database", f"{where}: {error}")
        return
    yield _ok("database", f"Postgres {facts.version}, {where}")
    yield from _fitness(facts, config)


def _fitness(facts: DatabaseFacts, config: Config) -> Iterator[Finding]:
    if facts.major < OLDEST_VERSION:
        yield _fail("database", f"Postgres {OLDEST_VERSION} is the oldest that is supported")
    if not facts.is_primary:
        yield _fail("database", "is a standby and cannot be written to")
    if not facts.is_durable:
        yield _fail("durability", "fsync, full_page_writes or synchronous_commit is off: a crash loses executions")
    if facts.is_superuser and not config.is_embedded:
        yield _warn("database", "the server connects as a superuser; give it a role of its own")
    if abs(facts.clock_offset) > LARGEST_CLOCK_OFFSET:
        yield _warn("clock", f"differs from the database's by {facts.clock_offset:+.1f} s")
    else:
        yield _ok("clock", f"differs from the database's by {facts.clock_offset:+.3f} s")
    yield _schema(facts.revision)
    if facts.messages is not None:
        yield _inboxes(facts.messages, facts.oldest_message)


def _inboxes(waiting: int, oldest: float) -> Finding:
    if not waiting:
        return _ok("inboxes", "no messages wait")
    judge = _warn if oldest > LONGEST_UNSEEN else _ok
    return judge("inboxes", f"{waiting} messages wait to be seen, the oldest for {oldest:.1f} s")


def _schema(revision: str | None) -> Finding:
    from persistence.postgres.revisions import check_readable, expected_revision

    try:
        check_readable(revision)
    except SchemaError as error:
        return _fail("schema", str(error))
    if revision == expected_revision():
        return _ok("schema", f"at {revision}")
    if revision is None:
        return _warn("schema", "none yet; the server makes it at its first start")
    return _warn("schema", f"at {revision}, this program needs {expected_revision()}")
