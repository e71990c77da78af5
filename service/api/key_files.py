"""Keys judged before tokens are verified with them, and read from files."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key, load_ssh_public_key

SHORTEST_SECRET = 32
"""Bytes of an HS256 secret (RFC 7518, 3.2)."""

FEWEST_BITS = 2_048
"""Of an RSA key (RFC 7518, 3.3)."""

MOST_BITS = 8_192
"""Of an RSA key: with longer ones a signature takes milliseconds."""

LARGEST_FILE = 64 << 10

_TAKEN = {"RS256": "an RSA key", "ES256": "an EC key of the curve P-256", "EdDSA": "an Ed25519 key"}


def unfit(key: Any, algorithm: str) -> str:
    """Return why a public key is none to verify signatures of an algorithm with, empty when it is one."""
    kind, meant = _kind(key)
    if meant != algorithm:
        hint = f"; set FLOWKEEP_JWT_ALGORITHM={meant} if tokens are signed by it" if meant else ""
        return f"it is {kind}, and {algorithm} takes {_TAKEN[algorithm]}{hint}"
    if isinstance(key, RSAPublicKey) and not FEWEST_BITS <= key.key_size <= MOST_BITS:
        return f"it has {key.key_size:,} bits; an RSA key needs {FEWEST_BITS:,} to {MOST_BITS:,}"
    return ""


def _kind(key: Any) -> tuple[str, str]:
    """Return what a key is, and the algorithm that takes it, if one does."""
    match key:
        case RSAPublicKey():
            return "an RSA key", "RS256"
        case EllipticCurvePublicKey():
            return f"an EC key of the curve {key.curve.name}", "ES256" if key.curve.name == "secp256r1" else ""
        case Ed25519PublicKey() | Ed448PublicKey():
            return "an EdDSA key", "EdDSA"
        case _:
            return "a key of another kind", ""


def key_of(path: Path, algorithm: str) -> Any:
    """Return the key of a file. Raises OSError, and ValueError, which says what would be right."""
    with path.open("rb") as file:
        data = file.read(LARGEST_FILE + 1).strip()
    if len(data) > LARGEST_FILE:
        raise ValueError(f"it has more than {LARGEST_FILE >> 10} KiB")
    return _secret(data) if algorithm == "HS256" else _public_key(data, algorithm)


def _secret(data: bytes) -> Any:
    if b"-----BEGIN " in data:
        raise ValueError(
            "it holds a key in PEM, and HS256 takes a secret; for public keys set FLOWKEEP_JWT_ALGORITHM to RS256, "
            "ES256 or EdDSA"
        )
    if len(data) < SHORTEST_SECRET:
        raise ValueError(f"a secret needs at least {SHORTEST_SECRET} bytes, and it has {len(data)}")
    try:
        return jwt.get_algorithm_by_name("HS256").prepare_key(data)
    except jwt.PyJWTError:  # one that begins like a public key of SSH
        raise ValueError("it holds a public key, and HS256 takes a secret") from None


def _public_key(data: bytes, algorithm: str) -> Any:
    if b"PRIVATE KEY-----" in data:
        # Whoever reads it here could sign tokens: it must not lie on servers that only verify.
        raise ValueError(
            "it holds a private key, with which tokens are signed; give the public one, which is had by "
            "openssl pkey -in PRIVATE -pubout"
        )
    if b"BEGIN CERTIFICATE-----" in data:
        raise ValueError("it holds a certificate; its key is had by openssl x509 -in CERTIFICATE -pubkey -noout")
    try:
        key = load_ssh_public_key(data) if data.startswith((b"ssh-", b"ecdsa-")) else load_pem_public_key(data)
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError("it holds no public key in PEM (-----BEGIN PUBLIC KEY-----)") from None
    if wrong := unfit(key, algorithm):
        raise ValueError(wrong)
    return key


def exposure(path: Path, *, is_secret: bool) -> str:
    """Return what other accounts of the machine may do with a file and should not; empty when nothing."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return ""
    if mode & stat.S_IWOTH:
        return f"every account of this machine may change {path}: chmod o-w {path}"
    if is_secret and mode & stat.S_IROTH:
        return f"every account of this machine may read {path}: chmod o-r {path}"
    return ""
