"""The SMTP server that the settings name, judged before anything is sent by it."""

from __future__ import annotations

import re
import ssl

import httpx2

from service.addresses import is_loopback
from service.config import Config, ConfigError
from service.engine.handlers.email_addresses import mailbox
from service.engine.handlers.smtp import MailServer

_PORTS = {"starttls": 587, "implicit": 465, "none": 25}
_HOST = re.compile(r"[0-9A-Za-z._-]{1,253}|[0-9A-Fa-f:.]{2,45}")
_USELESS_ALONE = ("smtp_port", "smtp_ca_file", "smtp_username", "smtp_password", "smtp_sender")


def mail_server(config: Config) -> MailServer | None:
    """Return the SMTP server of the deployment, None where it has none. Raises ConfigError, which names the setting."""
    host = config.smtp_host
    if not host:
        for name in _USELESS_ALONE:
            if getattr(config, name):
                raise ConfigError(f"FLOWKEEP_{name.upper()} needs FLOWKEEP_SMTP_HOST, the SMTP server that it is for")
        return None
    if not _HOST.fullmatch(host):
        raise ConfigError(f"FLOWKEEP_SMTP_HOST={host}: must be a name or an address; FLOWKEEP_SMTP_PORT has the port")
    if config.smtp_tls == "none" and not is_loopback(f"{host}:0"):
        raise ConfigError(
            "FLOWKEEP_SMTP_TLS=none: e-mail would travel unencrypted, which is for loopback alone; use starttls or "
            "implicit"
        )
    if bool(config.smtp_username) != bool(config.smtp_password):
        raise ConfigError("FLOWKEEP_SMTP_USERNAME and FLOWKEEP_SMTP_PASSWORD belong together: set both or none")
    try:
        sender = mailbox(config.smtp_sender)
    except ValueError as error:
        raise ConfigError(f"FLOWKEEP_SMTP_SENDER={config.smtp_sender}: {error}") from None
    return MailServer(
        host=host,
        port=config.smtp_port or _PORTS[config.smtp_tls],
        sender=sender,
        tls=config.smtp_tls,
        context=None if config.smtp_tls == "none" else _trust(config),
        username=config.smtp_username,
        password=config.smtp_password.get_secret_value() if config.smtp_password else "",
    )


def _trust(config: Config) -> ssl.SSLContext:
    """Return what judges the certificate of the SMTP server."""
    if config.smtp_ca_file is None:
        try:
            return httpx2.create_ssl_context(trust_env=True)  # as calls of workflows are judged
        except OSError as error:
            why = f"the CAs for FLOWKEEP_SMTP_HOST cannot be read: {error.strerror}"
            raise ConfigError(f"SSL_CERT_FILE: {why}") from None
    try:
        return ssl.create_default_context(cafile=str(config.smtp_ca_file))
    except OSError as error:
        text = "holds no certificates in PEM" if isinstance(error, ssl.SSLError) else error.strerror
        raise ConfigError(f"FLOWKEEP_SMTP_CA_FILE={config.smtp_ca_file}: {text}") from None
