"""Addresses as settings write them: host:port, or unix:/path."""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import quote, unquote

LONGEST_SOCKET_PATH = 103
"""Bytes, on macOS; 107 on Linux."""


def is_unix(listen: str) -> bool:
    """Whether an address is that of a unix socket."""
    return listen.startswith("unix:")


def socket_path(listen: str) -> str:
    """Return the path of a unix socket's address, in which gRPC reads %20 as a space."""
    return unquote(re.sub("^unix:(//(?=/))?", "", listen))


def socket_address(path: str) -> str:
    """Return the address of a unix socket at a path, for servers and clients."""
    return f"unix:{quote(path, safe='/')}"


def wrong_form(listen: str) -> str:
    """Return what is wrong with the form of an address, empty when nothing is."""
    host, _, port = listen.rpartition(":")
    if is_unix(listen):
        return "" if socket_path(listen).strip("/") else "names no socket: it must be unix:/path, or host:port"
    if host and port.isdecimal() and port.isascii() and int(port) < 65_536 and not re.search(r"[\s/@]", host):
        return ""
    return "must be host:port with a port of 0 to 65535, or unix:/path"


def is_loopback(listen: str) -> bool:
    """Whether only this machine can reach an address."""
    host = listen.rpartition(":")[0].strip("[]")
    try:
        return is_unix(listen) or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
