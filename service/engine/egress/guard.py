"""Decides to which addresses a call for a workflow may be made (FAULTS P23)."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterable
from ipaddress import IPv4Address, ip_address

from service.engine.egress.allowed import Allowed
from service.engine.egress.lookups import Lookups
from service.engine.egress.reach import Address, is_loopback, is_public

SETTING = "FLOWKEEP_HTTP_ALLOW"

# They tell a machine of a cloud its secrets, at whatever address.
_OF_CLOUDS = frozenset({"metadata", "metadata.google.internal", "metadata.goog", "instance-data"})
_OF_CLOUDS_SUFFIX = ".metadata.google.internal"
_HOST = re.compile(r"[0-9A-Za-z._~-]{1,254}")


class AddressNotAllowedError(Exception):
    """A call is not made, since its host leads to what is not public and no setting allows. Tells no address."""

    def __init__(self, host: str) -> None:
        super().__init__(
            f"the host {host[:253]!r} has an address that is not public; {SETTING} names what else may be called"
        )


class Guard:
    """Finds the addresses of hosts, and refuses those that lead inside unless they are allowed.

    `has_loopback`: this machine's loopback addresses may be called, as where a developer tries things.
    """

    def __init__(
        self, allowed: Allowed | None = None, *, has_loopback: bool = False, lookups: Lookups | None = None
    ) -> None:
        self._allowed = allowed or Allowed()
        self._has_loopback = has_loopback
        self.lookups = lookups or Lookups()
        self._own_ports: frozenset[int] = frozenset()

    def keep_off(self, ports: Iterable[int]) -> None:
        """Refuse calls to ports of this server itself, unless a rule names one."""
        self._own_ports = frozenset(ports)

    async def addresses(self, org: str, host: str, port: int) -> list[str]:
        """Return the addresses of a host. A call must be made to one of these, and the name not be looked up again.

        Raises AddressNotAllowedError when not all of them are allowed, OSError when there is none.
        """
        literal = _literal(host)
        if literal is None and not _HOST.fullmatch(host):
            raise AddressNotAllowedError(host)
        found = [str(literal)] if literal is not None else await self.lookups.find(org, host, port)
        if not found:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        name = host.lower().removesuffix(".")
        # One of several that is inside is refused with the others: such a name is either a mistake or an attack, and a
        # call that succeeds or not by the order of the answers would hide it.
        if not all(self._is_allowed(name, port, address) for address in map(_literal, found)):
            raise AddressNotAllowedError(host)
        return found

    def _is_allowed(self, name: str, port: int, address: Address | None) -> bool:
        if address is None:
            return False
        if port in self._own_ports and (is_loopback(address) or address.is_unspecified or _is_own(address)):
            return self._allowed.permits(name, port, address, by_port=True)
        if self._allowed.permits(name, port, address):
            return True
        if is_loopback(address):
            return self._has_loopback
        return is_public(address) and not _is_of_cloud(name) and not _is_own(address)


def _literal(host: str) -> Address | None:
    try:
        return ip_address(host)
    except ValueError:
        return None


def _is_of_cloud(name: str) -> bool:
    return name in _OF_CLOUDS or name.endswith(_OF_CLOUDS_SUFFIX)


def _is_own(address: Address) -> bool:
    """Return whether a public address is this machine's: services that listen on all of them take it for inside.

    Nothing is sent: the system says from where it would.
    """
    family = socket.AF_INET if isinstance(address, IPv4Address) else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((str(address), 9))
            return _literal(probe.getsockname()[0]) == address
    except OSError:  # there is no way to it
        return False
