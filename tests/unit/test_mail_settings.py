"""The SMTP server as settings name it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from service.config import Config, ConfigError
from service.engine.handlers.email_addresses import Mailbox
from service.mail import mail_server

GIVEN: dict[str, Any] = {"smtp_host": "mail.example.org", "smtp_sender": "Flowkeep <it@example.org>"}


@pytest.mark.parametrize(
    ("settings", "port"),
    [({}, 587), ({"smtp_tls": "implicit"}, 465), ({"smtp_host": "::1", "smtp_tls": "none"}, 25), ({"smtp_port": 7}, 7)],
)
def test_a_server_has_the_port_of_its_tls(settings: dict[str, Any], port: int) -> None:
    found = mail_server(Config(**GIVEN | settings))
    assert found is not None
    assert (found.port, found.sender) == (port, Mailbox("Flowkeep", "it@example.org"))
    assert (found.context is None) == (found.tls == "none")


def test_without_a_host_there_is_none() -> None:
    assert mail_server(Config()) is None


def test_cas_of_the_system_that_cannot_be_read_are_told_of(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none"))
    with pytest.raises(ConfigError, match="SSL_CERT_FILE: the CAs for FLOWKEEP_SMTP_HOST cannot be read: No such file"):
        mail_server(Config(**GIVEN))


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"smtp_host": ""}, "FLOWKEEP_SMTP_SENDER needs FLOWKEEP_SMTP_HOST"),
        ({"smtp_host": "mail.example.org:25"}, "FLOWKEEP_SMTP_PORT has the port"),
        ({"smtp_host": "a b"}, "FLOWKEEP_SMTP_HOST=a b: must be a name"),
        ({"smtp_tls": "none"}, "FLOWKEEP_SMTP_TLS=none: e-mail would travel unencrypted"),
        ({"smtp_username": "it"}, "belong together"),
        ({"smtp_password": "geheim"}, "belong together"),
        ({"smtp_sender": ""}, "FLOWKEEP_SMTP_SENDER=: is no address"),
        ({"smtp_ca_file": Path("/nowhere.pem")}, "FLOWKEEP_SMTP_CA_FILE=/nowhere.pem: No such file"),
        ({"smtp_ca_file": Path(__file__)}, "holds no certificates in PEM"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        mail_server(Config(**GIVEN | settings))
    assert complaint in str(caught.value)
    assert "geheim" not in str(caught.value)


def test_the_password_is_not_shown() -> None:
    found = mail_server(Config(**GIVEN, smtp_username="it", smtp_password="geheim"))
    assert found is not None
    assert found.password == "geheim"
    assert "geheim" not in repr(found)
