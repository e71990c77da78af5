"""The ways out that the settings name for calls of workflows, judged before any is used."""

from __future__ import annotations

import ssl
from pathlib import Path

import httpx2

from service.certificates import CertificateError, check_pair
from service.config import Config, ConfigError
from service.engine.egress.named import TlsFiles, parse_proxies, parse_tls
from service.engine.egress.routes import Routes, Tls
from service.engine.secrets import Secrets


def routes_of(config: Config, secrets: Secrets | None = None) -> Routes:
    """Return the certificates and proxies that steps may name. Raises ConfigError, which names the setting.

    Proxies may name `secrets`.
    """
    tls = {name: _tls(name, files) for name, files in parse_tls(config.http_tls).items()}
    proxies = config.http_proxies.get_secret_value() if config.http_proxies is not None else ""
    return Routes(tls, parse_proxies(proxies), secrets)


def _tls(name: str, files: TlsFiles) -> Tls:
    try:
        return _read(name, files)
    except CertificateError as error:
        raise ConfigError(f"FLOWKEEP_HTTP_TLS, {name}: {error}") from None


def _read(name: str, files: TlsFiles) -> Tls:
    roots, pair = None, None
    if files.ca_file is None:
        context = _usual()
    else:
        context, roots = _trust(files.ca_file), _content(files.ca_file)
    if files.cert_file is not None and files.key_file is not None:
        check_pair(files.cert_file, files.key_file)
        context.load_cert_chain(files.cert_file, files.key_file)
        pair = _content(files.key_file), _content(files.cert_file)
    return Tls(name, context, roots, pair, files.hosts, files.orgs)


def _trust(ca_file: Path) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca_file)
    except ssl.SSLError:
        raise CertificateError(f"{ca_file} holds no certificates in PEM") from None
    except OSError as error:
        raise CertificateError(f"cannot read {ca_file}: {error.strerror}") from None


def _usual() -> ssl.SSLContext:
    """Return what judges by the CAs that calls are judged by without a name."""
    try:
        return httpx2.create_ssl_context(trust_env=True)
    except OSError as error:
        raise ConfigError(f"SSL_CERT_FILE: the CAs for FLOWKEEP_HTTP_TLS cannot be read: {error.strerror}") from None


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CertificateError(f"cannot read {path}: {error.strerror}") from None
