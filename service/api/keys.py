"""The keys that tokens are verified with: one from a file, or those of a JWKS, which change."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from contextvars import Context
from pathlib import Path
from time import monotonic
from typing import Any, Protocol

import httpx2
import structlog

from flowkeep.channel import is_local
from service.api.claims import RefusedTokenError
from service.api.jwks import Key, NoKeysError, fitting_keys
from service.api.key_files import key_of
from service.config import ConfigError
from service.engine.handlers.http_line import root_of

log = structlog.get_logger(__name__)

REFRESH = 30.0
"""Seconds after which a JWKS is read again when somebody needs a key, so that a stream whose key was withdrawn ends
within a minute (CONTRACT W13)."""

PAUSE = 30.0
"""Least seconds between two readings, whatever is asked for: tokens with invented key ids cannot make us a burden for
the provider (FAULTS P25). A provider shows a new key before it signs with it."""

RETRY = 5.0
"""The same after a reading that gave no keys, so that calls are answered soon after the provider is back."""

KEEP = 600.0
"""Seconds for which keys are good when a JWKS can no longer be had."""

FETCH = 5.0
"""Seconds that a reading may take, all in all."""

PATIENCE = 1.0
"""Seconds that a call waits for a reading although it knows its key."""

LARGEST_JWKS = 512 << 10

MOST_TRIED = 16
"""Keys that a token is tried with: several may have its key id, and it may have none."""


class KeysUnavailableError(Exception):
    """Whether a token is valid cannot be told, because the keys cannot be had."""


class KeySource(Protocol):
    """Where the keys come from that tokens are verified with."""

    def start(self) -> None:
        """Begin to read keys, so that it is told early when they cannot be had."""
        ...

    async def keys(self, key_id: str | None) -> Sequence[Any]:
        """Return the keys that a token with this id may be signed with, at least one.

        Raises RefusedTokenError when there is none, KeysUnavailableError when that cannot be told.
        """
        ...

    async def close(self) -> None:
        """End what still reads."""
        ...


class StaticKey:
    """One key from a file."""

    def __init__(self, path: Path, algorithm: str) -> None:
        try:
            self._key = key_of(path, algorithm)
        except (OSError, ValueError) as error:
            raise ConfigError(f"FLOWKEEP_JWT_KEY_FILE={path}: no key for {algorithm}: {error}") from None

    def start(self) -> None:
        """Do nothing: the key is there."""

    async def keys(self, key_id: str | None) -> Sequence[Any]:
        """Return the key, whatever the id."""
        return (self._key,)

    async def close(self) -> None:
        """Do nothing."""


class JwksKeys:
    """The keys of a JWKS file or URL, read again when somebody needs one and they are old or lack it."""

    def __init__(self, source: str, algorithm: str) -> None:
        self.source = source
        self._algorithm = algorithm
        self._keys: list[Key] = []
        self._read_at = float("-inf")
        self._tried_at = float("-inf")
        self._failure = ""
        self._reading: asyncio.Task[None] | None = None
        try:
            if not _is_url(source):
                fitting_keys(_content(source), algorithm)
            elif not httpx2.URL(source).host:
                raise ValueError("the URL has no host")
        except (OSError, ValueError, httpx2.InvalidURL) as error:
            raise ConfigError(f"FLOWKEEP_JWT_JWKS={source}: no JWKS for {algorithm}: {error}") from None

    def start(self) -> None:
        """Begin to read the keys; the log tells what came of it."""
        self._read()

    async def keys(self, key_id: str | None) -> Sequence[Any]:
        """Return the keys with the id, or without any; for a token without an id all."""
        found = self._find(key_id)
        if found and monotonic() - self._read_at <= REFRESH:
            return found
        is_first = self._reading is None
        if reading := self._read():
            # A call that knows its key does not wait while others read, nor long for its own reading.
            if not found:
                await asyncio.wait({reading})
            elif is_first:
                await asyncio.wait({reading}, timeout=PATIENCE)
        if found := self._find(key_id):
            return found
        if self._failure:
            raise KeysUnavailableError("the keys that tokens are verified with cannot be had; try again later")
        raise RefusedTokenError("no key has its id", found=key_id, expected=_ids(self._keys))

    async def look(self) -> list[Key]:
        """Return the keys as they are now. Raises ValueError, which says why they cannot be had."""
        try:
            async with asyncio.timeout(FETCH):
                reading = _fetched(self.source) if _is_url(self.source) else asyncio.to_thread(_content, self.source)
                data = await reading
            return fitting_keys(data, self._algorithm)
        except TimeoutError:
            raise ValueError(f"no complete answer within {FETCH:g} s") from None
        except (OSError, httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise ValueError(f"{type(error).__name__}: {root_of(error)}") from None

    async def close(self) -> None:
        """End a reading that still goes on."""
        if (reading := self._reading) is not None:
            reading.cancel()
            with suppress(asyncio.CancelledError):
                await reading

    @property
    def is_exposed(self) -> bool:
        """Whether keys come over a network on which others can put theirs in place of them."""
        return self.source.lower().startswith("http://") and not is_local(httpx2.URL(self.source).host)

    @property
    def shown_source(self) -> str:
        """The source without what may be secret in it."""
        if not _is_url(self.source):
            return self.source
        return str(httpx2.URL(self.source).copy_with(userinfo=b"", query=None))

    def _find(self, key_id: str | None) -> list[Any]:
        if monotonic() - self._read_at > KEEP:
            return []
        named = [key.key for key in self._keys if key_id is None or key.key_id == key_id]
        return (named or [key.key for key in self._keys if key.key_id is None])[:MOST_TRIED]

    def _read(self) -> asyncio.Task[None] | None:
        """Return the reading that goes on, or a new one if it is time for one."""
        pause = min(PAUSE, RETRY) if self._failure else PAUSE
        if self._reading is None and monotonic() - self._tried_at > pause:
            # In a task of its own: a caller that leaves does not end it for the others, and what is logged is not its.
            self._reading = asyncio.create_task(self._read_now(), context=Context())
        return self._reading

    async def _read_now(self) -> None:
        self._tried_at = monotonic()
        try:
            keys = await self.look()
            if self._failure or _ids(keys) != _ids(self._keys):
                log.info("keys of tokens read", source=self.shown_source, keys=_ids(keys))
            self._keys, self._read_at, self._failure = keys, monotonic(), ""
        except Exception as error:  # whatever a provider sends, the next reading may be better
            self._failure = str(error) or type(error).__name__
            if isinstance(error, NoKeysError):  # the provider has withdrawn all of them
                self._keys = []
            log.error(
                "keys of tokens cannot be had; calls are answered UNAVAILABLE when no key is left that is good",
                source=self.shown_source,
                error=self._failure,
                good_for=round(max(self._read_at + KEEP - monotonic(), 0)) if self._keys else 0,
            )
        finally:
            self._reading = None


def _ids(keys: Sequence[Key]) -> list[str | None]:
    return [key.key_id for key in keys]


def _is_url(source: str) -> bool:
    return source.lower().startswith(("http://", "https://"))


def _content(source: str) -> bytes:
    with Path(source).open("rb") as file:
        data = file.read(LARGEST_JWKS + 1)
    _check_size(len(data))
    return data


async def _fetched(url: str) -> bytes:
    # Proxies of the environment are for the way out, not for providers on this machine.
    trusts = not is_local(httpx2.URL(url).host)
    # Made by the client itself, it would hold the loop for 10 ms at each fetch.
    tls = await asyncio.to_thread(httpx2.create_ssl_context, trust_env=trusts)
    async with (
        httpx2.AsyncClient(timeout=FETCH, trust_env=trusts, verify=tls) as client,
        client.stream("GET", url) as answer,
    ):
        if answer.status_code != 200:
            raise ValueError(f"answered {answer.status_code} {answer.reason_phrase}")
        data = bytearray()
        async for chunk in answer.aiter_bytes():  # uncompressed, in bounded pieces
            data += chunk
            _check_size(len(data))
        return bytes(data)


def _check_size(size: int) -> None:
    if size > LARGEST_JWKS:
        raise ValueError(f"it has more than {LARGEST_JWKS} bytes")
