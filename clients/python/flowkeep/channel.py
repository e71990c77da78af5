"""How the client connects: channel options that fit the server's, and the token of each call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import grpc

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
    merged = list((_OPTIONS | {"grpc.primary_user_agent": _user_agent()} | dict(options)).items())
    if tls is False:
        return grpc.aio.insecure_channel(target, options=merged)
    credentials = grpc.ssl_channel_credentials() if tls is True else tls
    return grpc.aio.secure_channel(target, credentials, options=merged)


def call_metadata(token: Token) -> tuple[tuple[str, str], ...]:
    """Return the metadata that carries a token, also over plain text, for which gRPC's own credentials are refused."""
    text = token() if callable(token) else token
    return (("authorization", f"Bearer {text}"),) if text else ()


def _user_agent() -> str:
    try:
        return f"flowkeep-python/{version('flowkeep-client')}"
    except PackageNotFoundError:  # run from a source tree
        return "flowkeep-python"
