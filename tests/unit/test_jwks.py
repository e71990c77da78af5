"""Which keys of an identity provider's set are taken, and which sets are none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from service.api.claims import UnauthenticatedError
from service.api.identity import authenticator
from service.api.jwks import fitting_keys
from service.api.keys import MOST_TRIED, JwksKeys
from service.config import Config, ConfigError
from tests.tokens import KEY, OTHER_KEY, claims, jwks, public_jwk, signed

EC_KEY = ec.generate_private_key(ec.SECP256R1())
OKP_KEY = ed25519.Ed25519PrivateKey.generate()
WEAK_KEY = rsa.generate_private_key(public_exponent=65537, key_size=1024)  # noqa: S505 - refused


async def identified(token: str, path: Path, algorithm: str = "RS256") -> str:
    """The org of a token by the keys of a file."""
    found = authenticator(Config(jwt_jwks=str(path), jwt_algorithm=algorithm))
    return (await found.identify({"authorization": [f"Bearer {token}"]})).org


@pytest.mark.parametrize(
    ("algorithm", "key", "entry"),
    [
        ("RS256", KEY, public_jwk(use=None, key_ops=["verify"])),
        ("RS256", KEY, public_jwk(alg="RS256")),
        ("RS256", KEY, public_jwk(kid=None)),
        ("RS256", KEY, public_jwk(kid=7)),
        ("RS256", KEY, json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(KEY)) | {"kid": "one", "key_ops": None}),
        ("ES256", EC_KEY, public_jwk(EC_KEY)),
        ("EdDSA", OKP_KEY, public_jwk(OKP_KEY, alg="Ed25519")),
    ],
)
async def test_a_key_that_is_taken(algorithm: str, key: Any, entry: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "jwks.json"
    path.write_text(jwks({"kty": "oct", "k": "x"}, "noise", None, {"kty": "RSA", "kid": "one"}, entry))
    for kid in ("one", None):
        assert await identified(signed(claims(), key, algorithm, kid), path, algorithm) == "acme"


async def test_several_keys_of_one_id_and_tokens_without_any(tmp_path: Path) -> None:
    path = tmp_path / "jwks.json"
    path.write_text(jwks(public_jwk(EC_KEY), public_jwk(OTHER_KEY), public_jwk()))
    for key in (KEY, OTHER_KEY):
        for kid in ("one", None):
            assert await identified(signed(claims(), key, kid=kid), path) == "acme"


async def test_of_many_keys_of_one_id_a_few_are_tried(tmp_path: Path) -> None:
    path = tmp_path / "jwks.json"
    path.write_text(jwks(*[public_jwk(OTHER_KEY)] * 99, public_jwk()))
    for kid in ("one", None):
        assert len(await JwksKeys(str(path), "RS256").keys(kid)) == MOST_TRIED


async def test_keys_that_are_weak_or_too_long_are_left_out(tmp_path: Path) -> None:
    endless = public_jwk(n="_" * 400_000)
    path = tmp_path / "jwks.json"
    path.write_text(jwks(public_jwk(WEAK_KEY, kid="weak"), endless, public_jwk()))
    assert len(await JwksKeys(str(path), "RS256").keys("one")) == 1
    with pytest.raises(UnauthenticatedError):
        await identified(signed(claims(), kid="weak"), path)


def test_private_parts_of_a_key_are_not_looked_at() -> None:
    """To check them takes seconds where they are long."""
    given = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(KEY))
    (found,) = fitting_keys(jwks(given | {"d": "!", "p": given["q"], "key_ops": None}), "RS256")
    assert found.key.public_numbers() == KEY.public_key().public_numbers()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is not JSON"),
        ("[" * 100_000, "nested too deep, or has far more values"),
        ("[" * 9_999, "it is nested too deep$"),
        ("[" + "1e5," * 100_000 + "1]", "far more values"),
        ('{"keys": [' + "[]," * 170_000 + "1]}", "nested too deep, or has far more values"),
        ("[]", "no JWKS"),
        ('{"keys": {"a": 1}}', "no JWKS"),
        ('{"keys": []}', "none of its 0 keys"),
        (jwks(public_jwk(use="enc")), "none of its 1 keys"),
        (jwks(public_jwk(alg="RS512")), "none of its 1 keys"),
        (jwks(public_jwk(key_ops=["encrypt"])), "none of its 1 keys"),
        (jwks(public_jwk(EC_KEY)), "none of its 1 keys is one to verify RS256 with"),
        (jwks(public_jwk(n="!")), "none of its 1 keys"),
        (jwks(*[public_jwk()] * 101), "101 keys"),
        (
            jwks(public_jwk(WEAK_KEY)),
            "RS256 with: of the key 'one', it has 1,024 bits; an RSA key needs 2,048 to 8,192",
        ),
    ],
)
def test_a_jwks_without_a_key(text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=said):
        fitting_keys(text, "RS256")
    path = tmp_path / "jwks.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match="FLOWKEEP_JWT_JWKS="):
        authenticator(Config(jwt_jwks=str(path)))


@pytest.mark.parametrize("url", ["https://", "HTTP:///keys", "https:/host/keys", "host/keys"])
def test_a_source_of_keys_that_cannot_be_is_refused_at_the_start(url: str) -> None:
    with pytest.raises(ConfigError, match="FLOWKEEP_JWT_JWKS="):
        authenticator(Config(jwt_jwks=url))


def test_keys_that_others_can_replace_are_told() -> None:
    for url, exposed in (("http://idp/k", True), ("http://127.0.0.1/k", False), ("https://idp/k", False)):
        assert JwksKeys(url, "RS256").is_exposed is exposed, url
