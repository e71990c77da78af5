"""Why no TLS connection comes about: gRPC says little, so the handshake is tried once more by hand."""

from __future__ import annotations

import os
import re
import socket
import ssl
from pathlib import Path

from cryptography import x509

from service.addresses import is_unix, socket_path
from service.certificates import described, read_certificates
from service.cli.connection import Connection

_PATIENCE = 2.0
_EXPIRED, _NOT_YET, _WRONG_HOST, _WRONG_ADDRESS = 10, 9, 62, 64
"""Codes of OpenSSL's verification."""
_UNTRUSTED = (18, 19, 20, 21)


def trouble(connection: Connection) -> str:
    """Return what is wrong with TLS between a caller and its server, empty when it is not TLS."""
    place = _place(connection.target)
    if place is None:
        return ""
    try:
        _connected(place).close()
    except OSError:
        return ""
    where, encrypts = f"the server at {connection.target}", bool(connection.credentials())
    try:
        shown = _handshake(place, _context(connection), read=encrypts)
    except _RefusedError:
        return _own_refused(where, connection)
    except ssl.SSLError as error:
        if encrypts:
            return _refusal(error, where, connection)
        return "" if _is_plain(error) else f"{where} speaks TLS: add --tls, and --ca FILE for its authority"
    except OSError:
        return f"{where} ends the TLS handshake: it does not speak TLS, or not with you" if encrypts else ""
    if not encrypts:
        return f"{where} speaks TLS and shows the {_described(shown)}: add --tls, and --ca FILE for its authority"
    return _distrust(place, where, shown, connection)


class _RefusedError(OSError):
    """A server left without a word after the handshake."""


def _own_refused(where: str, connection: Connection) -> str:
    if connection.cert is None:
        return f"TLS: {where} asks for a certificate of yours: name it by --cert FILE and --key FILE"
    return f"TLS: {where} does not accept your {described(read_certificates(connection.cert)[0])}"


def _distrust(place: tuple[str, int] | str, where: str, shown: bytes, connection: Connection) -> str:
    """Return why a certificate that a server shows is not trusted, empty when it is."""
    context = _context(connection)
    context.verify_mode = ssl.CERT_REQUIRED
    context.check_hostname = isinstance(place, tuple)
    context.load_verify_locations(connection.ca or _roots())
    try:
        _handshake(place, context, read=False)
    except ssl.SSLCertVerificationError as error:
        code = error.verify_code
        if code == _EXPIRED:
            why = "has expired"
        elif code == _NOT_YET:
            why = "is not valid yet"
        elif code in (_WRONG_HOST, _WRONG_ADDRESS):
            why = f"is not for {place[0]}: name the server as its certificate does"
        elif code in _UNTRUSTED:
            trusted = f"of {connection.ca}" if connection.ca else "that gRPC brings: name yours by --ca FILE"
            why = f"comes from no authority {trusted}"
        else:
            why = f"does not hold: {error.verify_message}"
        return f"TLS: the {_described(shown)} of {where} {why}"
    except OSError:
        return ""
    return ""


def _refusal(error: ssl.SSLError, where: str, connection: Connection) -> str:
    """Return what a handshake ended with, without any verification of ours."""
    if _is_plain(error):
        return f"{where} does not speak TLS: leave --tls, --ca and --cert out"
    said = (error.reason or str(error)).upper()
    ours = ("UNKNOWN_CA", "BAD_CERTIFICATE", "EXPIRED") if connection.cert else ("HANDSHAKE_FAILURE",)
    if any(word in said for word in ("CERTIFICATE_REQUIRED", *ours)):
        return _own_refused(where, connection)
    return f"TLS: {where} ends the handshake: {said.lower().replace('_', ' ')}"


def _is_plain(error: ssl.SSLError) -> bool:
    return any(word in str(error) for word in ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "HTTP_REQUEST"))


def _context(connection: Connection) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    if connection.cert and connection.key:
        context.load_cert_chain(connection.cert, connection.key)
    return context


def _handshake(place: tuple[str, int] | str, context: ssl.SSLContext, *, read: bool) -> bytes:
    """Return the certificate that a server shows. Raises OSError, of which ssl.SSLError is one."""
    name = place[0] if isinstance(place, tuple) else None
    with _connected(place) as plain, context.wrap_socket(plain, server_hostname=name) as secured:
        shown = secured.getpeercert(binary_form=True) or b""
        # With TLS 1.3 a server refuses our certificate, or that there is none, only after the handshake.
        if read and not secured.recv(1):
            raise _RefusedError("certificate required")
        return shown


def _connected(place: tuple[str, int] | str) -> socket.socket:
    if isinstance(place, tuple):
        return socket.create_connection(place, _PATIENCE)
    plain = socket.socket(socket.AF_UNIX)
    plain.settimeout(_PATIENCE)
    plain.connect(place)
    return plain


def _place(target: str) -> tuple[str, int] | str | None:
    """Return host and port, or the path of a unix socket; None for what gRPC alone understands."""
    if is_unix(target):
        return socket_path(target)
    found = re.fullmatch(r"(?:dns:(?:///)?|ipv[46]:)?(?:\[([^\]]+)\]|([^:/\[\]]+)):(\d+)", target)
    return (found[1] or found[2], int(found[3])) if found else None


def _roots() -> Path:
    """Return the authorities that gRPC trusts when it is told of no others."""
    import grpc

    if named := os.environ.get("GRPC_DEFAULT_SSL_ROOTS_FILE_PATH"):
        return Path(named)
    return Path(grpc.__file__).parent / "_cython" / "_credentials" / "roots.pem"


def _described(der: bytes) -> str:
    try:
        return described(x509.load_der_x509_certificate(der))
    except ValueError:
        return "certificate"
