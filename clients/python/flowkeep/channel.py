"""How the client connects: channel options that fit the server's, and the token of each call."""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any
from urllib.parse import unquote
from urllib.request import proxy_bypass

import grpc

from flowkeep.arguments import flag, text

Token = str | Callable[[], str] | None
"""A bearer token, or a function that gives a fresh one. It is called before every call and must not block."""

MAX_REQUEST_BYTES = 4 * 1024 * 1024
MAX_ANSWER_BYTES = 64 * 1024 * 1024
"""What the server sends at most: an execution in the view FULL with all its payloads."""

_OPTIONS: dict[str, Any] = {
    # The server permits a ping each 20 s and more; without pings a dead peer behind a firewall goes unnoticed.
    "grpc.keepalive_time_ms": 30_000,
    "grpc.keepalive_timeout_ms": 10_000,
    "grpc.http2.max_pings_without_data": 0,
    "grpc.max_send_message_length": MAX_REQUEST_BYTES,
    "grpc.max_receive_message_length": MAX_ANSWER_BYTES,
    # By default a channel pauses up to two minutes between connection attempts, and fails every call meanwhile.
    "grpc.initial_reconnect_backoff_ms": 100,
    "grpc.max_reconnect_backoff_ms": 1_000,
}


def open_channel(
    target: str, tls: bool | grpc.ChannelCredentials, options: Sequence[tuple[str, Any]]
) -> grpc.aio.Channel:
    """Return a channel to a server. It connects at the first call. `options` go before those of the client."""
    own = {"grpc.primary_user_agent": _user_agent(), "grpc.enable_http_proxy": int(not _is_direct(target))}
    merged = list((_OPTIONS | own | dict(options)).items())
    if tls is False:
        return grpc.aio.insecure_channel(target, options=merged)
    credentials = grpc.ssl_channel_credentials() if tls is True else tls
    return grpc.aio.secure_channel(target, credentials, options=merged)


def checked_target(target: str) -> str:
    """Return a target without white space around it. Raises TypeError, and ValueError for what is no address."""
    target = text("target", target).strip()
    if re.fullmatch(r"(unix|unix-abstract):/*", target):
        raise ValueError(f"the target {target} names no socket: it must be host:port or unix:/path")
    if re.match("https?://", target):
        raise ValueError(f"the target {target} is a URL: it must be host:port or unix:/path, with TLS as a setting")
    if not target or re.search(r"[\s\x00-\x1f\x7f]", target):
        raise ValueError(f"the target must be host:port or unix:/path, not {target!r}")
    return target


def checked_tls(tls: bool | grpc.ChannelCredentials) -> bool | grpc.ChannelCredentials:
    """Return how to encrypt. Raises TypeError: any other value would pass for True, or for credentials."""
    return tls if isinstance(tls, grpc.ChannelCredentials) else flag("tls", tls)


def call_metadata(token: Token) -> tuple[tuple[str, str], ...]:
    """Return the metadata that carries a token, also over plain text, for which gRPC's own credentials are refused.

    White space around the token, such as the line end of the file that it was read from, is left out. Raises
    TypeError, and ValueError for one that no header can carry; neither shows the token.
    """
    given = token() if callable(token) else token
    bare = "" if given is None else text("token", given).strip()
    if wrong := re.search(r"[^\x21-\x7e]", bare):
        raise ValueError(f"the token holds a character that no token has: U+{ord(wrong[0]):04X}, as its {_nth(wrong)}")
    return (("authorization", f"Bearer {bare}"),) if bare else ()


def _nth(found: re.Match[str]) -> str:
    return f"character {found.start() + 1} of {len(found.string)}"


def _is_direct(target: str) -> bool:
    """Whether no proxy may be asked for a target: one on this machine, or named by no_proxy or NO_PROXY.

    gRPC would ask the proxy of http_proxy for our own machine too, which means another one there.
    """
    scheme, _, rest = target.partition(":")
    if scheme in ("unix", "unix-abstract", "vsock"):
        return True
    addresses = unquote(rest).rpartition("/")[2] if scheme in ("dns", "ipv4", "ipv6") else target
    return all(is_local(_host(each)) or proxy_bypass(each) for each in addresses.split(","))


def _host(address: str) -> str:
    """Return the host of host:port, [host]:port, host, or an IPv6 address without brackets."""
    bracketed = re.fullmatch(r"\[([^\]]*)\](?::.*)?", address)
    if bracketed:
        return bracketed[1]
    return address if address.count(":") > 1 else address.partition(":")[0]


def is_local(host: str) -> bool:
    """Whether a host is this machine, for which no proxy may be asked."""
    name = host.lower().removesuffix(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        found = ipaddress.ip_address(socket.inet_aton(name) if ":" not in name else name)  # 127.1 is an address too
    except (OSError, ValueError):
        return False
    if isinstance(found, ipaddress.IPv6Address):
        found = found.ipv4_mapped or found
    return found.is_loopback or found.is_unspecified


def _user_agent() -> str:
    try:
        return f"flowkeep-python/{version('flowkeep-client')}"
    except PackageNotFoundError:  # run from a source tree
        return "flowkeep-python"
