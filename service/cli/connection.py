"""Where the server is that a command talks to, and how to print what it says."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from grpc import ChannelCredentials

DEFAULT_TARGET = "localhost:50051"
# A person waits: shorter than the client's default, and about as long as a restart of the server takes.
_TIMEOUT_SECONDS = 4.0


class Format(StrEnum):
    """How a command prints what it found."""

    TEXT = "text"
    JSON = "json"


@dataclass(frozen=True, slots=True)
class Connection:
    """Where the server is, who the caller is, and how to print. `timeout`: seconds that it may take to answer."""

    target: str = DEFAULT_TARGET
    token: str = ""
    tls: bool = False
    output: Format = Format.TEXT
    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    timeout: float = _TIMEOUT_SECONDS

    def credentials(self) -> bool | ChannelCredentials:
        """Return what the client encrypts with: nothing, the system's authorities, or the given files."""
        if not (self.ca or self.cert or self.key):
            return self.tls
        if bool(self.cert) != bool(self.key):
            raise typer.BadParameter("--cert and --key belong together")
        from grpc import ssl_channel_credentials

        from service.certificates import CertificateError, check_pair, read_certificates

        try:
            if self.ca:
                read_certificates(self.ca)
            if self.cert and self.key:
                check_pair(self.cert, self.key)
        except CertificateError as error:
            raise typer.BadParameter(f"TLS: {error}") from None
        ca, key, cert = (path.read_bytes() if path else None for path in (self.ca, self.key, self.cert))
        return ssl_channel_credentials(ca, key, cert)
