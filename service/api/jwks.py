"""What a JWKS holds, an identity provider's set of public keys."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jwt

from service.api.key_files import MOST_BITS, unfit

MOST_KEYS = 100
MOST_VALUES = 100 * MOST_KEYS

_KINDS = {"RS256": ("RSA",), "ES256": ("EC", "P-256"), "EdDSA": ("OKP",)}
# What of a key is public. A JWKS that gives private parts away is the provider's trouble, and checking them takes long.
_PARTS = {"RSA": ("n", "e"), "EC": ("crv", "x", "y"), "OKP": ("crv", "x")}
_LONGEST_PART = MOST_BITS // 4
"""Characters of a number in base64, with room to spare."""


class NoKeysError(ValueError):
    """It is a JWKS, and holds no key to verify with."""


@dataclass(frozen=True, slots=True)
class Key:
    """A key of a JWKS and its id, if it has one."""

    key_id: str | None
    key: Any


def fitting_keys(text: str | bytes, algorithm: str) -> list[Key]:
    """Return the keys of a JWKS that verify signatures of the algorithm.

    Raises NoKeysError when it holds none, ValueError when it is no JWKS.
    """
    data = text.encode(errors="replace") if isinstance(text, str) else text
    if sum(map(data.count, (b"[", b"{", b","))) > MOST_VALUES:  # half a second for 512 KiB of them
        raise ValueError("it is nested too deep, or has far more values than a JWKS")
    try:
        document = json.loads(data)
    except RecursionError:
        raise ValueError("it is nested too deep") from None
    except ValueError as error:
        raise ValueError(f"it is not JSON: {error}") from None
    entries = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(entries, list):
        raise ValueError("it is no JWKS, an object with a list of keys")
    if len(entries) > MOST_KEYS:
        raise ValueError(f"it has {len(entries)} keys; at most {MOST_KEYS} are read")
    found, refused = list[Key](), list[str]()
    for entry in entries:
        match _key(entry, algorithm):
            case Key() as key:
                found.append(key)
            case str(why):
                refused.append(why)
    if not found:
        weak = f": {refused[0]}" if refused else ""
        raise NoKeysError(f"none of its {len(entries)} keys is one to verify {algorithm} with{weak}")
    return found


def _key(entry: Any, algorithm: str) -> Key | str | None:
    """Return a key, or why one that is meant for such signatures is not taken; None for what is not meant for them."""
    if not isinstance(entry, Mapping) or not _is_for(entry, algorithm):
        return None
    key_id = entry.get("kid")
    named = key_id if isinstance(key_id, str) else None
    parts = {name: entry[name] for name in ("kty", *_PARTS[entry["kty"]]) if name in entry}
    if any(not isinstance(part, str) or len(part) > _LONGEST_PART for part in parts.values()):
        return f"the parts of the key {named!r} are too long, or no texts"
    try:
        key = jwt.get_algorithm_by_name(algorithm).from_jwk(parts)
    except (jwt.PyJWTError, ValueError, TypeError, KeyError, AttributeError):
        return f"the key {named!r} cannot be read"
    if wrong := unfit(key, algorithm):
        return f"of the key {named!r}, {wrong}"
    return Key(named, key)


def _is_for(entry: Mapping[str, Any], algorithm: str) -> bool:
    """Return whether a key says that it verifies such signatures; what it does not say holds nothing against it."""
    kind, *curve = _KINDS[algorithm]
    operations = entry.get("key_ops")
    return (
        entry.get("kty") == kind
        and (not curve or entry.get("crv") in curve)
        and entry.get("use") in (None, "sig")
        and entry.get("alg") in (None, algorithm, *(("Ed25519",) if algorithm == "EdDSA" else ()))
        and (not isinstance(operations, list) or "verify" in operations)
    )
