"""Where a gRPC call goes: the host and port of a step's `target`, and whether by TLS."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

_TARGET = re.compile(
    r"(?:(?P<scheme>https?)://|dns:(?:///)?)?(?P<host>\[[0-9A-Fa-f:.]{2,45}\]|[0-9A-Za-z._~-]{1,253})(?::(?P<port>[0-9]{1,5}))?/?",
    re.ASCII,
)
_AUTHORITY = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]{2,45}\]|[0-9A-Za-z._~-]{1,253})(?::[0-9]{1,5})?", re.ASCII)
_PORTS = {"https": 443, "http": 80}

FORM = 'must be host:port, dns:///host:port, https://host or http://host, as in "orders.internal:443"'


@dataclass(frozen=True, slots=True)
class Target:
    """A server as a step names it. `authority` is what calls ask for, and whose certificate the server must show.

    `tls` is the name of certificates of the deployment, empty for the usual ones.
    """

    host: str
    port: int
    is_secure: bool
    authority: str
    tls: str = ""

    @property
    def name(self) -> str:
        """How messages call it."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def target(written: str, tls: bool | str | None = None, authority: str | None = None) -> Target:
    """Return the target that the params of a step name. Raises ValueError with what would be right.

    An authority is taken as it is: `check_authority` judges it.
    """
    found = _TARGET.fullmatch(written)
    if found is None:
        raise ValueError(FORM)
    scheme = found["scheme"] or ""
    if tls is not None and scheme and bool(tls) != (scheme == "https"):
        contradicted = str(tls).lower() if isinstance(tls, bool) else "(certificates)"
        raise ValueError(f"says {scheme}://, which contradicts tls: {contradicted}; remove one of them")
    port = int(found["port"] or _PORTS.get(scheme, 0))
    if not 0 < port < 65_536:
        raise ValueError("has a port that is none; it is a number from 1 to 65535" if found["port"] else FORM)
    host = _bare(found["host"])
    is_secure = scheme == "https" if scheme else tls is not False
    plain = Target(host, port, is_secure, "")
    return Target(host, port, is_secure, authority or plain.name, tls if isinstance(tls, str) else "")


def check_authority(authority: Any) -> None:
    """Raise ValueError, with what would be right, for what is no authority."""
    if not _AUTHORITY.fullmatch(authority):
        raise ValueError('must be a host, with :port behind it or without, as in "orders.internal"')


def _bare(host: str) -> str:
    return host[1:-1] if host.startswith("[") else host
