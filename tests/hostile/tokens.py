"""FAULTS H6: credentials that nobody must be known by, by name, as the values of `authorization`."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Iterator
from typing import Any

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from tests.tokens import KEY, OTHER_KEY, claims, public_jwk

ISSUER, AUDIENCE = "https://issuer.example", "flowkeep"
INVALID, EXPIRED = "the token is not valid", "the token has expired"
ABSENT = "the call needs metadata `authorization: Bearer <token>`"

_PEM = KEY.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
_DER = KEY.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
_PKCS1 = KEY.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.PKCS1)
_PUBLIC = {
    "PEM": _PEM,
    "PEM stripped": _PEM.strip(),
    "DER": _DER,
    "PKCS1": _PKCS1,
    "modulus": KEY.public_key().public_numbers().n.to_bytes(256, "big"),
    "JWK": json.dumps(public_jwk()).encode(),
    "nothing": b"",
    "its id": b"one",
}
"""What an attacker has of the key, to be taken for a secret."""


def part(value: Any) -> str:
    """A part of a token: JSON, or bytes as they are."""
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def good(**more: Any) -> dict[str, Any]:
    """Claims by which one is known; one that is None is left out."""
    return claims(**{"iss": ISSUER, "aud": AUDIENCE, **more})


def made(header: Any, body: Any = None, key: Any = KEY) -> str:
    """A token of any header and body that is signed as RS256."""
    text = f"{part(header)}.{part(good() if body is None else body)}"
    return f"{text}.{part(jwt.get_algorithm_by_name('RS256').sign(text.encode(), key))}"


def with_hmac(header: Any, secret: bytes, digest: Any = hashlib.sha256) -> str:
    """A token whose signature is an HMAC."""
    text = f"{part(header)}.{part(good())}"
    return f"{text}.{part(hmac.digest(secret, text.encode(), digest))}"


RS256 = {"alg": "RS256", "kid": "one"}


def _algorithms() -> Iterator[tuple[str, str]]:
    for name in ("none", "None", "NONE", "nOnE", "", " RS256", "rs256", "RS256 ", "RS1", "dir", "RSA-OAEP"):
        yield f"alg {name!r} without signature", f"{part({'alg': name, 'kid': 'one'})}.{part(good())}."
        yield f"alg {name!r} with a good signature", made({"alg": name, "kid": "one"})
    for odd in (None, 256, ["RS256"], {"RS256": 1}, True):
        yield f"alg {odd!r}", made({"alg": odd, "kid": "one"})
    yield "no alg", made({"kid": "one"})
    yield "alg twice", made(b'{"alg": "RS256", "kid": "one", "alg": "none"}')
    for name, digest in (("HS256", hashlib.sha256), ("HS384", hashlib.sha384), ("HS512", hashlib.sha512)):
        for form, secret in _PUBLIC.items():
            yield f"{name} by the public key as {form}", with_hmac({"alg": name, "kid": "one"}, secret, digest)
    for form, secret in _PUBLIC.items():
        yield f"RS256 by HMAC of the public key as {form}", with_hmac(RS256, secret)
    for name in ("RS384", "RS512", "PS256"):
        yield name, jwt.encode(good(), KEY, name, {"kid": "one"})
    yield "ES256", jwt.encode(good(), ec.generate_private_key(ec.SECP256R1()), "ES256", {"kid": "one"})
    yield "EdDSA", jwt.encode(good(), ed25519.Ed25519PrivateKey.generate(), "EdDSA", {"kid": "one"})


def _signatures() -> Iterator[tuple[str, str]]:
    whole = made(RS256)
    head, body, signature = whole.split(".")
    raw = base64.urlsafe_b64decode(signature + "==")
    yield "another key", made(RS256, key=OTHER_KEY)
    yield "signature of another", f"{head}.{part(good(sub='root'))}.{signature}"
    yield "header of another", f"{part(RS256 | {'x': 1})}.{body}.{signature}"
    for name, bad in (
        ("empty", b""),
        ("cut", raw[:-1]),
        ("longer", raw + b"\0"),
        ("zeros", bytes(256)),
        ("one", (1).to_bytes(256, "big")),
        ("ones", b"\xff" * 256),
        ("reversed", raw[::-1]),
    ):
        yield f"signature {name}", f"{head}.{body}.{part(bad)}"
    for name, more in (
        ("jku", {"jku": "https://evil.example/jwks"}),
        ("x5u", {"x5u": "https://evil.example/cert"}),
        ("jwk", {"jwk": public_jwk(OTHER_KEY)}),
        ("x5c", {"x5c": ["MIIB"]}),
    ):
        yield f"{name} of another key", made(RS256 | more, key=OTHER_KEY)
    for critical in (["exp"], ["b64"], [], "exp", None, {"exp": 1}):
        yield f"crit {critical!r}", made(RS256 | {"crit": critical, "b64": True})
    yield "unencoded payload", made(RS256 | {"crit": ["b64"], "b64": False})


def _key_ids() -> Iterator[tuple[str, str]]:
    for kid in (
        "two", "ONE", "one ", "", "one\0", "../../../../dev/null", "/proc/self/environ", "' OR 1=1 --", "| id", "*",
        "https://evil.example/jwks", "${7*7}", "x" * 2_000, "\u202eeno",
    ):  # fmt: skip
        yield f"kid {kid[:24]!r}", made({"alg": "RS256", "kid": kid})
        yield f"kid {kid[:24]!r}, by HMAC of nothing", with_hmac({"alg": "HS256", "kid": kid}, b"")
    for odd in (1, ["one"], {"one": 1}, True):
        yield f"kid {odd!r}", made({"alg": "RS256", "kid": odd})


def _claims() -> Iterator[tuple[str, str]]:
    now = time.time()
    odd: list[tuple[str, Any]] = [
        *(("exp", value) for value in (None, "soon", str(now + 600), 1e308, float("inf"), float("nan"), -1, True)),
        *(("exp", value) for value in ([now + 600], {"a": 1}, (now + 600) * 1000, 10**400, -(10**400), "")),
        *(("nbf", value) for value in (now + 600, str(now), 1e308, [0], True, float("nan"))),
        *(("iat", value) for value in (now + 600, str(now), 1e308, [0], False, -1)),
        *(("iss", value) for value in (None, "", ISSUER + "/", ISSUER[:-1], ISSUER.upper(), [ISSUER], 7, {"a": 1})),
        *(("aud", value) for value in (None, "", "flow", AUDIENCE + "s", [], ["flow", "keep"], [[AUDIENCE]], 7)),
        *(("aud", value) for value in ({AUDIENCE: 1}, AUDIENCE.upper(), f" {AUDIENCE}", [None])),
        *((n, v) for n in ("org", "sub") for v in (None, "", 7, ["a"], {"a": 1}, True, "a\0", "a\nb", "\u202ea")),
        *((name, "a" * 257) for name in ("org", "sub")),
        *(("permissions", value) for value in ("executions.read", {"executions.read": True}, 7, True)),
    ]
    for name, value in odd:
        yield f"{name} {str(value)[:24]!r} ({type(value).__name__})", made(RS256, good(**{name: value}))
    yield "exp null", made(RS256, good() | {"exp": None})


def _forms() -> Iterator[tuple[str, str]]:
    whole = made(RS256)
    head, body, signature = whole.split(".")
    yield from {
        "one part": head,
        "two parts": f"{head}.{body}",
        "four parts": f"{whole}.{signature}",
        "five parts": f"{head}..{body}.{signature}.{signature}",
        "dots": "...",
        "noise": "x.y.z",
        "percent signs": "%%%.%%%.%%%",
        "spaces inside": whole.replace(".", ". "),
        "a comma behind": whole + ",",
        "padding": f"{head}==.{body}==.{signature}==" + "=",
        "header no UTF-8": f"{part(bytes(range(128, 256)))}.{body}.{signature}",
        "header deep": f"{part(b'[' * 2_500)}.{body}.{signature}",
        "body deep": made(RS256, b"[" * 2_500),
        "body of objects, deep": made(RS256, b'{"a":' * 500 + b"1" + b"}" * 500),
        "body no UTF-8": made(RS256, bytes(range(128, 256))),
        "body empty": made(RS256, b""),
        "body long number": made(RS256, b"1" * 2_000),
        "4,097 bytes": made(RS256, good(more="x" * 4_097)),
        "8 KiB": made(RS256, good(more="x" * 5_600)),
        **{f"header {text}": f"{part(text.encode())}.{body}.{signature}" for text in ("[]", "1", "null", '"x"', "{}")},
        **{f"body {text}": made(RS256, text.encode()) for text in ("[]", "1", "null", '"x"', "{}", "[1]")},
    }.items()


def _metadata() -> Iterator[tuple[str, tuple[str, ...], str]]:
    whole = made(RS256)
    yield "no metadata", (), ABSENT
    yield "expired", (f"Bearer {made(RS256, good(exp=time.time() - 31))}",), EXPIRED
    yield "expired since 1970", (f"Bearer {made(RS256, good(exp=0))}",), EXPIRED
    for name, values in {
        "two": (f"Bearer {whole}", f"Bearer {whole}"),
        "two, one of them nothing": (f"Bearer {whole}", ""),
        "no scheme": (whole,),
        "Basic": (f"Basic {whole}",),
        "Basic, named Bearer": ("Bearer dXNlcjpwYXNz",),
        "scheme alone": ("Bearer",),
        "Bearer twice": (f"Bearer Bearer {whole}",),
        "nothing": ("",),
        "two in one": (f"Bearer {whole}, Bearer {whole}",),
        "two spaces": (f"Bearer  {whole}",),
    }.items():
        yield f"authorization: {name}", values, INVALID


def credentials() -> Iterator[tuple[str, tuple[str, ...], str]]:
    """Yield credentials: a name, the values of `authorization`, and what the caller is told."""
    for source in (_algorithms, _signatures, _key_ids, _claims, _forms):
        for name, token in source():
            yield name, (f"Bearer {token}",), INVALID
    yield from _metadata()
