"""What FLOWKEEP_HTTP_ALLOW names: addresses, networks and hosts that are not public and may be called all the same."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import ip_address, ip_network

from service.engine.egress.reach import Address, Network, embedded

_FORM = "must be an address, a network such as 10.1.0.0/16, a host, or *.suffix, each with :port behind it or without"
_LABEL = r"(?!-)[0-9a-z_-]{1,63}(?<!-)"
_HOST = re.compile(rf"(?:\*\.)?{_LABEL}(?:\.{_LABEL})*")
_NUMBER = re.compile(r"(?:.*\.)?(?:[0-9]+|0x[0-9a-f]*)")
_WITH_PORT = re.compile(r"(\[[^\]]*\]|[^\[\]:]*)(?::([0-9]*))?")
_LONGEST_HOST = 253


@dataclass(frozen=True, slots=True)
class Rule:
    """What may be called: a network, or a host; `*.` stands for every name below. Port 0 is any."""

    network: Network | None
    host: str
    port: int

    def is_for_port(self, port: int) -> bool:
        """Return whether the rule is about a port."""
        return self.port in (0, port)

    def names(self, host: str) -> bool:
        """Return whether the rule names a host, which is written in lower case without a dot at its end."""
        return host.endswith(self.host[1:]) if self.host.startswith("*.") else bool(host) and host == self.host

    def covers(self, address: Address) -> bool:
        """Return whether an address, or the one in it, is in the rule's network."""
        reached = (address, embedded(address))
        return self.network is not None and any(each is not None and each in self.network for each in reached)


def parse(text: str) -> Rule:
    """Return the rule that a text writes. Raises ValueError with what would be right."""
    written = text.strip().lower()
    if "//" in written:
        raise ValueError(f"{text!r} is a URL; name its host: {_FORM}")
    host, port = _divided(written)
    if network := _network(text, host[1:-1] if host.startswith("[") and host.endswith("]") else host):
        return Rule(network, "", port)
    if not host.isascii():
        raise ValueError(f"{text!r} must be in ASCII, as in xn--bcher-kva.example")
    name = host.removesuffix(".")
    if _NUMBER.fullmatch(name):
        raise ValueError(f"{text!r} is no address: an IPv4 address has four numbers up to 255, as 10.1.2.3 has")
    if not _HOST.fullmatch(name) or len(name) > _LONGEST_HOST:
        raise ValueError(f"{text!r}: {_FORM}")
    return Rule(None, name, port)


def _divided(written: str) -> tuple[str, int]:
    """Return host or network, and port. Without brackets what has several colons is an IPv6 address."""
    found = _WITH_PORT.fullmatch(written)
    if found is None or found[2] is None:
        return written, 0
    if not 0 < int(found[2][:6] or 0) < 65_536:
        raise ValueError(f"{written!r}: a port is a number from 1 to 65535")
    return found[1], int(found[2])


def _network(text: str, host: str) -> Network | None:
    """Return the network that is written, None if none is. Raises ValueError for one that is wrong."""
    address, slash, length = host.partition("/")
    try:
        ip_address(address)
    except ValueError:
        if slash:
            raise ValueError(f"{text!r}: {address!r} is no address; a network is written as 10.1.0.0/16") from None
        return None
    if "%" in address:
        raise ValueError(f"{text!r} must be without the part from % on")
    try:
        return ip_network(host)
    except ValueError:
        pass
    try:
        right = ip_network(host, strict=False)
    except ValueError:
        raise ValueError(f"{text!r}: {length!r} is no length of a network; 10.1.0.0/16 has one") from None
    raise ValueError(f"{text!r} has bits set behind its length; the network is {right}")


class Allowed:
    """All the rules of a server."""

    def __init__(self, texts: Iterable[str] = ()) -> None:
        """Read the rules. Raises ValueError."""
        self._rules = [parse(text) for text in texts]

    def permits(self, host: str, port: int, address: Address, *, by_port: bool = False) -> bool:
        """Return whether a rule permits a call; `by_port`, whether one does that names the port, too."""
        return any(
            (rule.port == port if by_port else rule.is_for_port(port)) and (rule.names(host) or rule.covers(address))
            for rule in self._rules
        )
