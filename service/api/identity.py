"""Who calls: verified tokens, or the fixed identity of development."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import httpx2
import jwt
import structlog

from persistence.model import Scope
from service.config import Config, ConfigError

log = structlog.get_logger(__name__)

LEEWAY = 30.0
"""Seconds by which clocks may differ (CONTRACT 2.5)."""

REFRESH = 30.0
"""Seconds after which a JWKS is fetched again: no sooner for an unknown key id (FAULTS 4.25), and no later either, so
that a stream whose key was withdrawn ends within a minute (CONTRACT W13)."""

LARGEST_TOKEN = 4096

SHORTEST_SECRET = 32
"""Bytes of an HS256 secret (RFC 7518, 3.2)."""

ALL_OWNERS = "executions.all_owners"
"""Permission to see and cancel executions that other subjects of the org started."""

DEBUG = "executions.debug"
"""Permission to see stack traces of handlers."""


class UnauthenticatedError(Exception):
    """There is no token, or it is not valid. The text never says more than the caller may know."""


class KeysUnavailableError(Exception):
    """Whether a token is valid cannot be told, because the keys could never be fetched."""


@dataclass(frozen=True, slots=True)
class Identity:
    """A verified caller. `permissions` None means all."""

    org: str
    subject: str
    permissions: frozenset[str] | None

    def may(self, permission: str) -> bool:
        """Whether the caller has the permission."""
        return self.permissions is None or permission in self.permissions

    @property
    def scope(self) -> Scope:
        """What the caller sees: of executions the own ones, or with ALL_OWNERS those of the whole org."""
        return Scope(self.org, None if self.may(ALL_OWNERS) else self.subject)


DEVELOPMENT = Identity("development", "developer", None)

current_identity: ContextVar[Identity] = ContextVar("current_identity")


class Authenticator(Protocol):
    """Tells who calls."""

    async def identify(self, metadata: Mapping[str, Sequence[str]]) -> Identity:
        """Return the caller. Raises UnauthenticatedError."""
        ...


class DevelopmentAuthenticator:
    """Takes every caller for the developer; only for servers that nobody else can reach."""

    async def identify(self, metadata: Mapping[str, Sequence[str]]) -> Identity:
        """Return the fixed identity."""
        return DEVELOPMENT


class KeySource(Protocol):
    """Where the keys come from that tokens are verified with."""

    async def key(self, key_id: str | None) -> Any:
        """Return a key that PyJWT takes. Raises UnauthenticatedError when there is none with this id."""
        ...


class StaticKey:
    """One key from a file."""

    def __init__(self, path: Path, algorithm: str) -> None:
        try:
            if algorithm == "HS256" and len(path.read_bytes().strip()) < SHORTEST_SECRET:
                raise ValueError(f"a secret needs at least {SHORTEST_SECRET} bytes")
            self._key = jwt.get_algorithm_by_name(algorithm).prepare_key(path.read_bytes().strip())
        except (OSError, ValueError, TypeError, jwt.PyJWTError) as error:
            raise ConfigError(f"FLOWKEEP_JWT_KEY_FILE: no key for {algorithm}: {error}") from None

    async def key(self, key_id: str | None) -> Any:
        """Return the key, whatever the id."""
        return self._key


class JwksKeys:
    """The keys of a JWKS file or URL, fetched again when somebody needs one and they are 30 s old."""

    def __init__(self, source: str) -> None:
        if not source.startswith(("http://", "https://")):
            try:
                jwt.PyJWKSet.from_json(Path(source).read_text(encoding="utf-8"))
            except (OSError, jwt.PyJWTError, ValueError) as error:
                raise ConfigError(f"FLOWKEEP_JWT_JWKS={source}: no JWKS: {error}") from None
        self._source = source
        self._keys: dict[str | None, Any] = {}
        self._tried = float("-inf")
        self._fetching = asyncio.Lock()

    async def key(self, key_id: str | None) -> Any:
        """Return the key with the id; without an id, the only one."""
        is_old = time.monotonic() - self._tried > REFRESH
        # Who knows the key does not wait while others fetch.
        if is_old and (self._find(key_id) is None or not self._fetching.locked()):
            await self._refresh()
        known = self._find(key_id)
        if known is None:
            raise UnauthenticatedError("the token is not valid")
        return known

    def _find(self, key_id: str | None) -> Any:
        if key_id is None and len(self._keys) == 1:
            return next(iter(self._keys.values()))
        return self._keys.get(key_id)

    async def _refresh(self) -> None:
        async with self._fetching:
            if time.monotonic() - self._tried <= REFRESH:
                return
            try:
                found = jwt.PyJWKSet.from_json(await self._read())
                self._keys = {key.key_id: key.key for key in found.keys}
            except (OSError, httpx2.HTTPError, jwt.PyJWTError, ValueError) as error:
                log.error("JWKS not read", source=self._source, error=str(error))
            finally:
                self._tried = time.monotonic()

    async def _read(self) -> str:
        if not self._source.startswith(("http://", "https://")):
            return await asyncio.to_thread(Path(self._source).read_text)
        async with httpx2.AsyncClient(timeout=5.0, trust_env=False) as client:
            answer = await client.get(self._source)
            answer.raise_for_status()
            return answer.text


class TokenAuthenticator:
    """Verifies the JWT in `authorization: Bearer …`: claims org, sub, permissions; one algorithm; exp required."""

    def __init__(self, keys: KeySource, algorithm: str, issuer: str, audience: str) -> None:
        self._keys = keys
        self._algorithm = algorithm
        self._issuer = issuer
        self._audience = audience
        checked = bool(audience)
        required = ["exp", "sub", "org", *(["iss"] if issuer else []), *(["aud"] if audience else [])]
        self._options: Any = {"require": required, "verify_aud": checked, "strict_aud": checked}

    async def identify(self, metadata: Mapping[str, Sequence[str]]) -> Identity:
        """Return the identity that the token's verified claims give."""
        token = _bearer(metadata)
        try:
            header = jwt.get_unverified_header(token)
            if header.get("alg") != self._algorithm or "crit" in header:
                raise UnauthenticatedError("the token is not valid")
            claims = jwt.decode(
                token,
                await self._keys.key(header.get("kid")),
                algorithms=[self._algorithm],
                issuer=self._issuer or None,
                audience=self._audience or None,
                leeway=LEEWAY,
                options=self._options,
            )
        except jwt.ExpiredSignatureError:
            raise UnauthenticatedError("the token has expired") from None
        except (jwt.PyJWTError, ValueError, TypeError, OverflowError):
            raise UnauthenticatedError("the token is not valid") from None
        return _identity(claims)


def _bearer(metadata: Mapping[str, Sequence[str]]) -> str:
    values = metadata.get("authorization", ())
    if not values:
        raise UnauthenticatedError("the call needs metadata `authorization: Bearer <token>`")
    scheme, _, token = values[0].partition(" ")
    if len(values) != 1 or scheme.lower() != "bearer" or not 0 < len(token) <= LARGEST_TOKEN:
        raise UnauthenticatedError("the token is not valid")
    return token


def _identity(claims: Mapping[str, Any]) -> Identity:
    org, subject, permissions = claims["org"], claims["sub"], claims.get("permissions", [])
    if not (_is_name(org) and _is_name(subject) and isinstance(permissions, list)):
        raise UnauthenticatedError("the token is not valid")
    return Identity(org, subject, frozenset(p for p in permissions if isinstance(p, str)))


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= 256 and value.isprintable()


def authenticator(config: Config) -> Authenticator:
    """Return what the settings ask for. Raises ConfigError."""
    config.check()
    if not config.has_identity_provider:
        return DevelopmentAuthenticator()
    keys: KeySource = (
        StaticKey(config.jwt_key_file, config.jwt_algorithm) if config.jwt_key_file else JwksKeys(config.jwt_jwks)
    )
    return TokenAuthenticator(keys, config.jwt_algorithm, config.jwt_issuer, config.jwt_audience)
