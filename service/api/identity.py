"""Who calls: verified tokens, or the fixed identity of development."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Any, Protocol

import jwt
import structlog

from service.api.claims import (
    ClaimPath,
    Identity,
    RefusedTokenError,
    Rules,
    claim_paths,
    role_permissions,
    shown,
)
from service.api.keys import JwksKeys, KeySource, StaticKey
from service.api.repeated_lines import RepeatedLines
from service.config import Config, ConfigError

log = structlog.get_logger(__name__)

LARGEST_TOKEN = 4096

DEVELOPMENT = Identity("development", "developer", None)

current_identity: ContextVar[Identity] = ContextVar("current_identity")

_SIGNATURE_ONLY: Any = {
    **dict.fromkeys(("verify_exp", "verify_nbf", "verify_iat", "verify_aud", "verify_iss", "verify_sub"), False),
    "verify_jti": False,
    "verify_signature": True,
}


class Authenticator(Protocol):
    """Tells who calls."""

    async def identify(self, metadata: Mapping[str, Sequence[str]], peer: str = "") -> Identity:
        """Return who calls from the address `peer`.

        Raises UnauthenticatedError, and KeysUnavailableError when that cannot be told.
        """
        ...


class DevelopmentAuthenticator:
    """Takes every caller for the developer; only for servers that nobody else can reach."""

    async def identify(self, metadata: Mapping[str, Sequence[str]], peer: str = "") -> Identity:
        """Return the fixed identity."""
        return DEVELOPMENT


class TokenAuthenticator:
    """Verifies the JWT in `authorization: Bearer …`: one algorithm, and claims by the rules; `exp` is required.

    Why a token is refused stands in the log, never in the answer.
    """

    def __init__(self, keys: KeySource, algorithm: str, rules: Rules) -> None:
        self.keys = keys
        self._algorithm = algorithm
        self._rules = rules
        self._lines = RepeatedLines()

    async def identify(self, metadata: Mapping[str, Sequence[str]], peer: str = "") -> Identity:
        """Return the identity that the token's verified claims give."""
        try:
            token = _bearer(metadata)
            header = _header(token)
            try:
                claims = await self._verified(token, header)
                return self._rules.identity(claims, time.time())
            except RefusedTokenError as refused:
                refused.facts |= {name: shown(header[name]) for name in ("alg", "kid") if name in header}
                raise
        except RefusedTokenError as refused:
            if self._lines.passes("token refused", peer.rpartition(":")[0], refused.reason):
                log.warning("token refused", peer=peer, reason=refused.reason, **refused.facts)
            raise

    async def _verified(self, token: str, header: Mapping[str, Any]) -> dict[str, Any]:
        """Return the claims of a token that one of our keys signed."""
        if header.get("alg") != self._algorithm:
            raise RefusedTokenError(
                "it is signed by another algorithm (FLOWKEEP_JWT_ALGORITHM)", expected=self._algorithm
            )
        if "crit" in header:
            raise RefusedTokenError("its header has crit, of which nothing is known here")
        for key in await self.keys.keys(header.get("kid")):
            try:
                claims: dict[str, Any] = jwt.decode(token, key, algorithms=[self._algorithm], options=_SIGNATURE_ONLY)
            except jwt.InvalidSignatureError:
                continue
            except (jwt.PyJWTError, ValueError, TypeError, RecursionError) as error:
                raise RefusedTokenError(f"it cannot be read: {type(error).__name__}") from None
            return claims
        raise RefusedTokenError("none of our keys has signed it")


def _bearer(metadata: Mapping[str, Sequence[str]]) -> str:
    values = metadata.get("authorization", ())
    if not values:
        text = "the call needs metadata `authorization: Bearer <token>`"
        raise RefusedTokenError("there is no metadata authorization", text)
    if len(values) != 1:
        raise RefusedTokenError("there is more than one authorization", found=len(values))
    scheme, _, token = values[0].partition(" ")
    if scheme.lower() != "bearer":  # what stands there instead may be a secret
        raise RefusedTokenError("the metadata authorization is not `Bearer <token>`")
    if not 0 < len(token) <= LARGEST_TOKEN:
        raise RefusedTokenError("it is empty or too long", expected=f"at most {LARGEST_TOKEN} bytes", found=len(token))
    return token


def _header(token: str) -> dict[str, Any]:
    try:
        header: dict[str, Any] = jwt.get_unverified_header(token)
    except (jwt.PyJWTError, ValueError, TypeError, RecursionError) as error:
        raise RefusedTokenError(f"it is no JWT: {type(error).__name__}") from None
    return header


def authenticator(config: Config) -> Authenticator:
    """Return what the settings ask for. Raises ConfigError."""
    config.check()
    if not config.has_identity_provider:
        return DevelopmentAuthenticator()
    rules = _rules(config)
    keys: KeySource = (
        StaticKey(config.jwt_key_file, config.jwt_algorithm)
        if config.jwt_key_file
        else JwksKeys(config.jwt_jwks, config.jwt_algorithm)
    )
    return TokenAuthenticator(keys, config.jwt_algorithm, rules)


@asynccontextmanager
async def open_authenticator(config: Config) -> AsyncIterator[Authenticator]:
    """Give what `authenticator` returns; inside, its keys are being read already. Raises ConfigError."""
    found = authenticator(config)
    keys = found.keys if isinstance(found, TokenAuthenticator) else None
    if keys is not None:
        keys.start()
    try:
        yield found
    finally:
        if keys is not None:
            await keys.close()


def _rules(config: Config) -> Rules:
    """Return the rules that the settings give. Raises ConfigError, which names the setting."""
    (org,) = _paths("ORG_CLAIM", config.jwt_org_claim, most=1)
    (subject,) = _paths("SUBJECT_CLAIM", config.jwt_subject_claim, most=1)
    permissions = _paths("PERMISSIONS_CLAIM", config.jwt_permissions_claim)
    try:
        roles = role_permissions(config.jwt_roles)
    except ValueError as error:
        raise ConfigError(f"FLOWKEEP_JWT_ROLES {error}") from None
    groups = _paths("GROUPS_CLAIM", config.jwt_groups_claim)
    return Rules(tuple(config.jwt_issuer), tuple(config.jwt_audience), org, subject, permissions, roles, groups)


def _paths(setting: str, text: str, most: int | None = None) -> tuple[ClaimPath, ...]:
    name = f"FLOWKEEP_JWT_{setting}={text}"
    try:
        found = claim_paths(text)
    except ValueError as error:
        raise ConfigError(f"{name} {error}") from None
    if most is not None and len(found) > most:
        raise ConfigError(f"{name} names {len(found)} claims; one is taken")
    return found
