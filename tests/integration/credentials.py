"""Tokens as a provider would sign them, and tokens with which nobody is known."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time

import jwt
from cryptography.hazmat.primitives import serialization

from service.api.permissions import PERMISSIONS
from tests.tokens import A_DAY, KEY, OTHER_KEY

ISSUER, AUDIENCE = "https://issuer.example", "flowkeep"
ALL = sorted({*PERMISSIONS.values(), "executions.all_owners"})
OWN = [permission for permission in ALL if permission != "executions.all_owners"]
SECRET = b"a secret of more than thirty-two bytes"
PUBLIC_PEM = KEY.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def token(org="acme", sub="alice", key=KEY, algorithm="RS256", headers=None, **claims):
    """A token that is good unless something says otherwise; a claim that is None is left out."""
    whole = {"org": org, "sub": sub, "permissions": OWN, "iss": ISSUER, "aud": AUDIENCE, "exp": time.time() + A_DAY}
    whole = {name: value for name, value in (whole | claims).items() if value is not None}
    return jwt.encode(whole, key, algorithm, headers)


def part(value):
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def forged(header, secret=b"", claims=None):
    """A token with any header, signed by HMAC with any bytes; PyJWT would refuse to make it."""
    body = jwt.decode(token(), options={"verify_signature": False}) if claims is None else claims
    text = f"{part(header)}.{part(body)}"
    return f"{text}.{part(hmac.digest(secret, text.encode(), hashlib.sha256)) if secret else ''}"


def bearer(text):
    return (("authorization", f"Bearer {text}"),)


def bad_credentials():
    """Metadata with which nobody is known."""
    now = time.time()
    tokens = {
        **{f"alg {alg}": forged({"alg": alg}) for alg in ("none", "None", "nOnE", "")},
        "HS256 with the public key": forged({"alg": "HS256"}, PUBLIC_PEM),
        "HS256 with the public key, stripped": forged({"alg": "HS256"}, PUBLIC_PEM.strip()),
        "RS256 named, HMAC made": forged({"alg": "RS256"}, PUBLIC_PEM.strip()),
        "RS512": token(algorithm="RS512"),
        "another key": token(key=OTHER_KEY),
        "another key in the header": token(key=OTHER_KEY, headers={"jku": "http://x", "jwk": {}}),
        "crit": token(headers={"crit": ["exp"]}),
        "expired": token(exp=now - 60),
        "no exp": token(exp=None),
        "exp no number": token(exp="soon"),
        "exp infinite": token(exp=float("inf")),
        "exp beyond the calendar": token(exp=1e308),
        "nbf in the future": token(nbf=now + 600),
        "iat in the future": token(iat=now + 600),
        "wrong issuer": token(iss=ISSUER + "/"),
        "prefix of the issuer": token(iss=ISSUER[:-1]),
        "no issuer": token(iss=None),
        "wrong audience": token(aud="flow"),
        "audiences of others": token(aud=[AUDIENCE + "s", "other"]),
        "no audiences": token(aud=[]),
        "no audience": token(aud=None),
        "no org": token(org=None),
        "org no string": token(org=["acme"]),
        "org empty": token(org=""),
        "org with NUL": token(org="acme\0"),
        "org too long": token(org="a" * 257),
        "no sub": token(sub=None),
        "permissions no list": token(permissions="workflows.read"),
        "claims no object": forged({"alg": "HS256"}, SECRET, ["acme"]),
        "too large": token(more="x" * 4096),
        "signature of another": token().rpartition(".")[0] + "." + token(sub="bob").rpartition(".")[2],
        "no token": "",
        "noise": "x.y.z",
        "deep header": f"{part(b'[' * 2_900)}.e30.e30",
        "header no UTF-8": f"{part(bytes(range(128, 256)))}.e30.e30",
        "long number": f"{part(b'1' * 2_900)}.e30.e30",
        "kid no string": forged({"alg": "RS256", "kid": {"a": 1}}, SECRET),
    }
    good = token()
    return {
        "nothing": (),
        "two headers": (*bearer(good), *bearer(good)),
        "another scheme": (("authorization", f"Basic {good}"),),
        "no scheme": (("authorization", good),),
        **{what: bearer(text) for what, text in tokens.items()},
    }
