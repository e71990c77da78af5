"""Tokens and the keys that they are signed with, as an identity provider makes them."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
OTHER_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)


A_DAY = 86_400
"""Seconds; some tokens are made at the beginning of a run, which takes long on a busy machine."""


def public_jwk(key: Any = KEY, **fields: Any) -> dict[str, Any]:
    """The public part of a key as it stands in a JWKS; a field that is None is left out."""
    kinds: dict[type, Any] = {
        rsa.RSAPrivateKey: jwt.algorithms.RSAAlgorithm,
        ec.EllipticCurvePrivateKey: jwt.algorithms.ECAlgorithm,
        ed25519.Ed25519PrivateKey: jwt.algorithms.OKPAlgorithm,
    }
    (kind,) = (found for each, found in kinds.items() if isinstance(key, each))
    public: dict[str, Any] = kind.to_jwk(key.public_key(), as_dict=True)
    whole = {"kty": public["kty"], "use": "sig", "kid": "one"} | public | fields
    return {name: value for name, value in whole.items() if value is not None}


def jwks(*keys: Any) -> str:
    """A JWKS with these keys, else with the one that signs."""
    return json.dumps({"keys": list(keys) or [public_jwk()]})


def claims(**more: Any) -> dict[str, Any]:
    """Claims that are good by default settings unless something says otherwise; one that is None is left out."""
    whole = {"org": "acme", "sub": "ann", "permissions": ["executions.read"], "exp": time.time() + A_DAY, **more}
    return {name: value for name, value in whole.items() if value is not None}


def signed(claims: Mapping[str, Any], key: Any = KEY, algorithm: str = "RS256", kid: str | None = "one") -> str:
    """A token with these claims."""
    return jwt.encode(dict(claims), key, algorithm, {} if kid is None else {"kid": kid})
