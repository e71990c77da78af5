"""Certificates in words, and files of them judged before TLS is begun with them."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509


class CertificateError(Exception):
    """A file does not hold what TLS needs; the text says what would be right."""


def described(certificate: x509.Certificate) -> str:
    """Return whose a certificate is, for which hosts, by whom, and until when."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        hosts = [*names.get_values_for_type(x509.DNSName), *map(str, names.get_values_for_type(x509.IPAddress))]
    except (x509.ExtensionNotFound, ValueError):
        hosts = []
    subject = certificate.subject.rfc4514_string() or "(without a subject)"
    whom = f" for {', '.join(hosts[:4])}{', …' if len(hosts) > 4 else ''}" if hosts else ""
    issuer = "signed by itself" if certificate.issuer == certificate.subject else f"by {_issuer(certificate)}"
    ended = certificate.not_valid_after_utc
    state = "expired on" if ended < datetime.now(UTC) else "valid until"
    return f"certificate {subject}{whom}, {issuer}, {state} {ended:%Y-%m-%d %H:%M} UTC"


def days_left(certificate: x509.Certificate) -> float:
    """Return for how many days a certificate is still valid; less than none for one that has expired."""
    return (certificate.not_valid_after_utc - datetime.now(UTC)).total_seconds() / 86_400


def read_certificates(path: Path) -> list[x509.Certificate]:
    """Return the certificates of a PEM file, at least one. Raises CertificateError."""
    content = _content(path)
    try:
        return x509.load_pem_x509_certificates(content)
    except ValueError:
        raise CertificateError(f"{path} holds no certificate in PEM (-----BEGIN CERTIFICATE-----)") from None


def check_pair(cert: Path, key: Path) -> x509.Certificate:
    """Return the certificate that stands first in a file, after checking that a key fits. Raises CertificateError."""
    certificate = read_certificates(cert)[0]
    content = _content(key)
    if b"ENCRYPTED" in content:
        raise CertificateError(f"the private key in {key} is encrypted: TLS needs it without a passphrase")
    if b"PRIVATE KEY-----" not in content:
        raise CertificateError(f"{key} holds no private key in PEM (-----BEGIN PRIVATE KEY-----)")
    try:
        # Without a function for the passphrase OpenSSL would ask the terminal for it.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert, key, password=lambda: b"")
    except (ssl.SSLError, OSError) as error:
        if "KEY_VALUES_MISMATCH" in str(error) or "KEY_TYPE_MISMATCH" in str(error):
            raise CertificateError(f"the private key in {key} does not fit the {described(certificate)}") from None
        raise CertificateError(f"{cert} and {key} cannot be used for TLS: {error}") from None
    return certificate


def _issuer(certificate: x509.Certificate) -> str:
    return certificate.issuer.rfc4514_string() or "an authority without a name"


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CertificateError(f"cannot read {path}: {error.strerror}") from None
