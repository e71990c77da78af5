"""Channels to the servers that steps call: guarded, of each org's own, and closed when nobody needs them."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import grpc
import httpx2

from service.calls.targets import Target
from service.engine.egress.connecting import MOST_TRIED
from service.engine.egress.egress import CertificatesError
from service.engine.egress.guard import Guard
from service.engine.egress.places import Places
from service.engine.egress.routes import Routes, Tls

CALLS, CALLS_OF_ONE_ORG = 500, 125
"""Calls under way at a time; more wait."""

IDLE = 30.0
"""Seconds after which a channel without a call is closed."""

IDLE_CHANNELS, IDLE_CHANNELS_OF_ONE_ORG = 64, 16
"""Channels that are kept, besides those that have calls under way."""

LONGEST = 300.0
"""Seconds after which a host is looked up again, and calls go over a new channel."""

MAX_SENT, MAX_RECEIVED = 256 << 10, 1 << 20
"""Bytes of one message."""

CONNECT_SECONDS = 10
_MAX_METADATA = 64 << 10

_OPTIONS: Sequence[tuple[str, str | int]] = (
    ("grpc.enable_http_proxy", 0),
    ("grpc.service_config_disable_resolution", 1),
    ("grpc.enable_retries", 0),  # the policies of the step decide, and count
    ("grpc.use_local_subchannel_pool", 1),  # channels of two orgs would share a connection
    ("grpc.max_send_message_length", MAX_SENT),
    ("grpc.max_receive_message_length", MAX_RECEIVED),
    ("grpc.max_metadata_size", _MAX_METADATA),
    ("grpc.absolute_max_metadata_size", _MAX_METADATA),
    ("grpc.min_reconnect_backoff_ms", CONNECT_SECONDS * 1000),
)


@dataclass(eq=False, slots=True)
class Channel:
    """A channel, how many calls are under way on it, and whether it takes no more."""

    channel: grpc.aio.Channel
    made: float = field(default_factory=time.monotonic)
    calls: int = 0
    idle_since: float = 0.0
    is_left: bool = False


class Channels:
    """Gives channels. What one org's calls leave behind, bytes or a connection, no other org's calls meet with."""

    def __init__(self, guard: Guard, routes: Routes | None = None) -> None:
        self._guard = guard
        self._routes = routes or Routes()
        self._places = Places(CALLS, CALLS_OF_ONE_ORG)
        self._kept: dict[tuple[str, Target], Channel] = {}
        """The one that was used last at the end."""
        self._credentials: dict[Tls | None, grpc.ChannelCredentials] = {}
        """By certificates of the deployment, None for the usual ones."""

    def __len__(self) -> int:
        return len(self._kept)

    @asynccontextmanager
    async def channel(self, org: str, target: Target) -> AsyncIterator[Channel]:
        """Give a channel to a server, whose name was looked up here and nowhere else.

        Raises AddressNotAllowedError, OSError when the host has no address, CertificatesError, RouteError.
        """
        async with self._places.place(org):
            kept = await self._at(org, target)
            kept.calls += 1
            try:
                yield kept
            finally:
                kept.calls -= 1
                kept.idle_since = time.monotonic()
                if kept.is_left and not kept.calls:
                    await kept.channel.close()
                await self._close(self._surplus(org))

    def leave(self, org: str, target: Target, channel: Channel) -> None:
        """Make no more calls over a channel; it is closed when those under way have ended."""
        channel.is_left = True
        if self._kept.get((org, target)) is channel:
            del self._kept[org, target]

    async def tend(self) -> None:
        """Close what is idle, until cancelled."""
        while True:
            await asyncio.sleep(IDLE / 2)
            since = time.monotonic() - IDLE
            await self._close([key for key, each in self._kept.items() if not each.calls and each.idle_since < since])

    async def close(self) -> None:
        """Close all channels. They are made again when there are more calls."""
        await self._close(list(self._kept))

    async def _at(self, org: str, target: Target) -> Channel:
        key = org, target
        known = self._kept.get(key)
        if known is not None and known.made < time.monotonic() - LONGEST:
            self.leave(org, target, known)
            if not known.calls:
                await known.channel.close()
        if key not in self._kept:
            credentials = await self._credentials_for(org, target) if target.is_secure else None
            addresses = await self._guard.addresses(org, target.host, target.port)
            if key not in self._kept:  # another call may have made it meanwhile
                self._kept[key] = Channel(_made(target, addresses, credentials))
        found = self._kept[key] = self._kept.pop(key)
        return found

    async def _credentials_for(self, org: str, target: Target) -> grpc.ChannelCredentials:
        """Return whom calls to a target trust, and as whom they come. Raises RouteError, CertificatesError."""
        route = self._routes.route(org, target.tls or None)
        route.check(target.host, target.port)
        tls = route.tls
        if tls not in self._credentials:
            own, pair = (None, None) if tls is None else (tls.roots, tls.pair)
            roots = await asyncio.to_thread(_roots) if own is None else own
            self._credentials[tls] = grpc.ssl_channel_credentials(roots, *(pair or (None, None)))
        return self._credentials[tls]

    def _surplus(self, org: str) -> Iterable[tuple[str, Target]]:
        idle = [key for key, each in self._kept.items() if not each.calls]
        own = [key for key in idle if key[0] == org]
        return {*idle[: max(0, len(idle) - IDLE_CHANNELS)], *own[: max(0, len(own) - IDLE_CHANNELS_OF_ONE_ORG)]}

    async def _close(self, keys: Iterable[tuple[str, Target]]) -> None:
        left = [self._kept.pop(key) for key in keys]
        for each in left:
            await each.channel.close()


def _made(target: Target, addresses: Sequence[str], credentials: grpc.ChannelCredentials | None) -> grpc.aio.Channel:
    """Return a channel to these addresses, of which the first that answers is taken."""
    # With TLS the certificate is judged by the authority, too.
    options = [*_OPTIONS, ("grpc.default_authority", target.authority)]
    where = _addressed(addresses[:MOST_TRIED], target.port)
    if not target.is_secure:
        return grpc.aio.insecure_channel(where, options)
    assert credentials is not None  # noqa: S101 - they were made for a secure one
    return grpc.aio.secure_channel(where, credentials, options)


def _addressed(addresses: Sequence[str], port: int) -> str:
    """Return the addresses as gRPC takes them, without a name to look up. Of both kinds, all are written as IPv6."""
    if all(":" not in each for each in addresses):
        return "ipv4:" + ",".join(f"{each}:{port}" for each in addresses)
    return "ipv6:" + ",".join(f"[{each if ':' in each else f'::ffff:{each}'}]:{port}" for each in addresses)


def _roots() -> bytes:
    """Return the certificates that `call_api` trusts, too, as PEM. Raises CertificatesError."""
    try:
        known = httpx2.create_ssl_context(trust_env=True).get_ca_certs(binary_form=True)
    except OSError:
        raise CertificatesError from None
    return "".join(map(ssl.DER_cert_to_PEM_cert, known)).encode()
