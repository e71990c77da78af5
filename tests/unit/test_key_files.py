"""Key files as people give them: one that no token should be verified with is refused, with what would be right."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa, x25519
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from service.api.identity import authenticator
from service.api.key_files import MOST_BITS, exposure
from service.config import Config, ConfigError
from tests.integration.certificates import Authority
from tests.tokens import KEY, claims, signed

EC_KEY = ec.generate_private_key(ec.SECP256R1())


def pem(key: Any, form: PublicFormat = PublicFormat.SubjectPublicKeyInfo, encoding: Encoding = Encoding.PEM) -> bytes:
    made: bytes = key.public_key().public_bytes(encoding, form)
    return made


def private(key: Any, form: PrivateFormat = PrivateFormat.PKCS8, password: bytes = b"") -> bytes:
    how = BestAvailableEncryption(password) if password else NoEncryption()
    made: bytes = key.private_bytes(Encoding.PEM, form, how)
    return made


def short(bits: int) -> Any:
    return rsa.generate_private_key(public_exponent=65537, key_size=bits)


def long_key(bits: int) -> bytes:
    """An RSA key of so many bits; nobody knows a private one for it."""
    numbers = rsa.RSAPublicNumbers(65537, (1 << bits - 1) | 1)
    return numbers.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


REFUSED: dict[str, tuple[str, bytes, str]] = {
    "1,024 bits": ("RS256", pem(short(1024)), "it has 1,024 bits; an RSA key needs 2,048 to 8,192"),
    "2,047 bits": ("RS256", long_key(2047), "it has 2,047 bits"),
    "16,384 bits": ("RS256", long_key(16_384), "it has 16,384 bits"),
    "private key": ("RS256", private(KEY), "it holds a private key, with which tokens are signed; give the public one"),
    "private key of old": ("RS256", private(KEY, PrivateFormat.TraditionalOpenSSL), "it holds a private key"),
    "encrypted private key": ("RS256", private(KEY, password=b"x"), "it holds a private key"),
    "private key of SSH": ("EdDSA", private(ed25519.Ed25519PrivateKey.generate(), PrivateFormat.OpenSSH), "private"),
    "private EC key": ("ES256", private(EC_KEY, PrivateFormat.TraditionalOpenSSL), "it holds a private key"),
    "EC key for RSA": (
        "RS256",
        pem(EC_KEY),
        "it is an EC key of the curve secp256r1, and RS256 takes an RSA key; set FLOWKEEP_JWT_ALGORITHM=ES256",
    ),
    "RSA key for EC": ("ES256", pem(KEY), "it is an RSA key, and ES256 takes an EC key of the curve P-256; set FLOW"),
    "RSA key for EdDSA": ("EdDSA", pem(KEY), "it is an RSA key, and EdDSA takes an Ed25519 key"),
    "another curve": (
        "ES256",
        pem(ec.generate_private_key(ec.SECP384R1())),
        "it is an EC key of the curve secp384r1, and ES256 takes an EC key of the curve P-256$",
    ),
    "X25519": ("EdDSA", pem(x25519.X25519PrivateKey.generate()), "it is a key of another kind, and EdDSA takes"),
    "SSH key of another kind": (
        "RS256",
        pem(EC_KEY, PublicFormat.OpenSSH, Encoding.OpenSSH),
        "it is an EC key of the curve secp256r1",
    ),
    "text": ("RS256", b"hello", r"it holds no public key in PEM \(-----BEGIN PUBLIC KEY-----\)"),
    "broken PEM": ("RS256", pem(KEY).replace(b"A", b"B"), "it holds no public key in PEM|cannot be read|it has"),
    "empty": ("RS256", b"", "it holds no public key in PEM"),
    "huge": ("RS256", b"x" * 100_000, "it has more than 64 KiB"),
    "short secret": ("HS256", b"x" * 31 + b"\n", "a secret needs at least 32 bytes, and it has 31"),
    "no secret": ("HS256", b"", "a secret needs at least 32 bytes"),
    "public key as secret": ("HS256", pem(KEY), "it holds a key in PEM, and HS256 takes a secret"),
    "SSH key as secret": ("HS256", pem(KEY, PublicFormat.OpenSSH, Encoding.OpenSSH), "it holds a public key"),
}


@pytest.mark.parametrize(("algorithm", "content", "said"), REFUSED.values(), ids=REFUSED)
def test_a_file_that_is_refused(algorithm: str, content: bytes, said: str, tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=f"^FLOWKEEP_JWT_KEY_FILE={path}: no key for {algorithm}: .*{said}") as error:
        authenticator(Config(jwt_key_file=path, jwt_algorithm=algorithm))
    assert "\n" not in str(error.value)


def test_a_certificate_is_no_key_and_where_to_get_it_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="it holds a certificate; its key is had by openssl x509 -in"):
        authenticator(Config(jwt_key_file=Authority(tmp_path).file))


@pytest.mark.parametrize(
    ("algorithm", "key", "content"),
    [
        ("RS256", KEY, pem(KEY)),
        ("RS256", KEY, pem(KEY, PublicFormat.PKCS1)),
        ("RS256", KEY, pem(KEY, PublicFormat.OpenSSH, Encoding.OpenSSH)),
        ("ES256", EC_KEY, pem(EC_KEY)),
        *(("EdDSA", key, pem(key)) for key in (ed25519.Ed25519PrivateKey.generate(), ed448.Ed448PrivateKey.generate())),
        ("HS256", "s" * 32, b" " + b"s" * 32 + b"\r\n"),
    ],
)
async def test_a_file_that_is_taken(algorithm: str, key: Any, content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_bytes(content)
    found = authenticator(Config(jwt_key_file=path, jwt_algorithm=algorithm))
    token = signed(claims(), key, algorithm)
    assert (await found.identify({"authorization": [f"Bearer {token}"]})).org == "acme"


def test_the_largest_key_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_bytes(long_key(MOST_BITS))
    authenticator(Config(jwt_key_file=path))


def test_a_file_that_others_may_read_or_change_is_told(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_bytes(b"s" * 32)
    for mode, is_secret, said in (
        (0o600, True, ""),
        (0o640, True, ""),
        (0o644, False, ""),
        (0o644, True, f"every account of this machine may read {path}: chmod o-r {path}"),
        (0o666, False, f"every account of this machine may change {path}: chmod o-w {path}"),
    ):
        path.chmod(mode)
        assert exposure(path, is_secret=is_secret) == said
    found = Config(jwt_key_file=path, jwt_algorithm="HS256", tls_cert_file=path, tls_key_file=path).key_files
    assert [(subject, is_secret) for subject, _, is_secret in found] == [
        ("identity", True),
        ("tls", False),
        ("tls", True),
    ]
