"""What tokens say of their callers: as real providers shape them, as hostile ones do, and what the log tells."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jwt
import pytest
import structlog

from service.api.claims import KNOWN_PERMISSIONS, ClaimPath, Identity, Rules, UnauthenticatedError, claim_paths
from service.api.identity import authenticator
from service.config import Config, ConfigError
from tests.folders import ROOT
from tests.tokens import KEY, OTHER_KEY, claims, jwks, public_jwk, signed

PAGE = (ROOT / "service" / "api" / "IDENTITY.md").read_text(encoding="utf-8")
TENANT, CLIENT = "9188040d-6c67-4c5b-b112-36a304b66dad", "6731de76-14a6-49ae-97bc-6eba6914391e"


@pytest.fixture
def settings(tmp_path: Path) -> dict[str, Any]:
    path = tmp_path / "jwks.json"
    path.write_text(jwks())
    return {"jwt_jwks": str(path)}


async def identified(token: str, settings: Mapping[str, Any]) -> Identity:
    return await authenticator(Config(**settings)).identify({"authorization": [f"Bearer {token}"]})


async def refused(token: str, settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """What the log tells of a token that is refused."""
    with structlog.testing.capture_logs() as logged, pytest.raises(UnauthenticatedError) as error:
        await identified(token, settings)
    assert str(error.value) in ("the token is not valid", "the token has expired")
    (entry,) = (entry for entry in logged if entry["event"] == "token refused")
    assert token not in str(entry)
    return entry


# Real providers, with the settings of IDENTITY.md

NOW = int(time.time())
LATER = NOW + 86_400  # read before the first test: the last one may run hours later
LIFE = {"iat": NOW, "nbf": NOW, "exp": LATER, "jti": "d3f0"}
OPERATOR = frozenset({"workflows.read", "executions.read", "executions.execute"})

KEYCLOAK = {
    **LIFE,
    "auth_time": NOW,
    "iss": "https://login.example.com/realms/main",
    "aud": ["flowkeep", "account"],
    "sub": "f:8a1c:42",
    "typ": "Bearer",
    "azp": "portal",
    "sid": "c2f5",
    "acr": "1",
    "realm_access": {"roles": ["offline_access", "uma_authorization", "default-roles-main"]},
    "resource_access": {"flowkeep": {"roles": ["operator"]}, "account": {"roles": ["manage-account", "admin"]}},
    "scope": "openid email profile organization",
    "organization": ["acme"],
    "email_verified": True,
    "preferred_username": "ann",
}
AUTH0 = {
    "iat": NOW,
    "exp": LATER,
    "https://example.com/org": "acme",
    "iss": "https://example.eu.auth0.com/",
    "sub": "auth0|5f7c8ec7c33c6c004bbafe82",
    "aud": ["https://flowkeep.example.com", "https://example.eu.auth0.com/userinfo"],
    "azp": "my_client_id",
    "scope": "openid profile executions.read",
    "org_id": "org_9ybsU1dN2dKfDkBi",
    "permissions": ["executions.execute", "workflows.read"],
}
ENTRA_2 = {
    "iat": NOW,
    "nbf": NOW,
    "exp": LATER,
    "aud": CLIENT,
    "iss": f"https://login.microsoftonline.com/{TENANT}/v2.0",
    "azp": "0f1c2d3e",
    "azpacr": "1",
    "name": "Ann",
    "oid": "690222be-ff1a-4d56-abd1-7e4f7d38e474",
    "preferred_username": "ann@example.com",
    "rh": "0.AXk",
    "roles": ["Flowkeep.Operator"],
    "scp": "access_as_user workflows.write",
    "sub": "HKZpfaHyWadeOouYlitjrI-KffTm222X5rrV3xDqfKQ",
    "tid": TENANT,
    "uti": "fqiBqXLPj0eQa82S-IYFAA",
    "ver": "2.0",
}
ENTRA_1 = {
    **{name: value for name, value in ENTRA_2.items() if name not in ("azp", "azpacr", "roles", "scp")},
    "aud": f"api://{CLIENT}",
    "iss": f"https://sts.windows.net/{TENANT}/",
    "appid": "0f1c2d3e",
    "appidacr": "1",
    "roles": ["executions.cancel"],
    "ver": "1.0",
}


def settings_of(provider: str, folder: Path) -> dict[str, Any]:
    """The settings of a provider as the page has them, with keys of ours."""
    (block,) = re.findall(rf"```sh {provider}\n(.*?)```", PAGE, re.DOTALL)
    lines = re.findall(r"^export FLOWKEEP_(\w+)='?(.*?)'?$", block, re.MULTILINE)
    found = {name.lower(): value.replace("TENANT", TENANT).replace("CLIENT", CLIENT) for name, value in lines}
    path = folder / "keys.json"
    assert found["jwt_jwks"].startswith("https://")
    # As Keycloak and Entra publish them: one more key that is for encryption, and keys that do not say for what.
    path.write_text(
        jwks(public_jwk(OTHER_KEY, alg="RSA-OAEP", use="enc", kid="two"), public_jwk(alg=None, x5t="x", x5c=["x"]))
    )
    return {**found, "jwt_jwks": str(path), "jwt_roles": json.loads(found.get("jwt_roles", "{}"))}


@pytest.mark.parametrize(
    ("provider", "token", "expected"),
    [
        ("keycloak", KEYCLOAK, Identity("acme", "ann", OPERATOR)),
        (
            "auth0",
            AUTH0,
            Identity(
                "acme",
                "auth0|5f7c8ec7c33c6c004bbafe82",
                frozenset({"executions.execute", "workflows.read", "executions.read"}),
            ),
        ),
        ("entra", ENTRA_2, Identity(TENANT, str(ENTRA_2["oid"]), OPERATOR | {"workflows.write"})),
        ("entra", ENTRA_1, Identity(TENANT, str(ENTRA_2["oid"]), frozenset({"executions.cancel"}))),
    ],
)
async def test_tokens_of_providers_with_the_settings_of_the_page(
    provider: str, token: dict[str, Any], expected: Identity, tmp_path: Path
) -> None:
    settings = settings_of(provider, tmp_path)
    found = await identified(signed(token), settings)
    assert (found.org, found.subject) == (expected.org, expected.subject)
    assert found.permissions is not None and expected.permissions is not None
    assert found.permissions & KNOWN_PERMISSIONS == expected.permissions
    for claim in ("iss", "aud"):
        assert (await refused(signed({**token, claim: "https://evil.example"}), settings))["claim"] == claim
    await refused(signed(token, OTHER_KEY, kid="two"), settings)


async def test_a_role_can_have_all_permissions(settings: dict[str, Any]) -> None:
    roles = {"admin": ["*"], "viewer": ["executions.read"]}
    token = signed(claims(permissions=["admin", "viewer", "workflows.read"]))
    found = await identified(token, {**settings, "jwt_roles": roles})
    assert found.permissions == KNOWN_PERMISSIONS
    # Without a role of this name the star means nothing.
    assert (await identified(signed(claims(permissions=["*"])), settings)).permissions == frozenset({"*"})


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("org", [("org",)]),
        ("realm_access.roles", [("realm_access", "roles")]),
        ('resource_access."my.client".roles, scope', [("resource_access", "my.client", "roles"), ("scope",)]),
        ("https://example.com/a.b", [("https://example.com/a.b",)]),
        ('"https://example.com/app".org,permissions', [("https://example.com/app", "org"), ("permissions",)]),
        ("urn:example:org", [("urn:example:org",)]),
        (r'"a\"b\\".c', [('a"b\\', "c")]),
        ("cognito:groups", [("cognito:groups",)]),
        ("organization.0", [("organization", "0")]),
    ],
)
def test_paths_of_claims(text: str, names: list[tuple[str, ...]]) -> None:
    assert [path.names for path in claim_paths(text)] == names


@pytest.mark.parametrize("text", ["", ".", "a.", ".a", "a..b", "a,", '"a', 'a"b"', '"a"b', "a b", '""', "a,,b"])
def test_paths_that_cannot_be_read_are_refused_at_the_start(text: str, settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        claim_paths(text)
    for name in ("jwt_org_claim", "jwt_subject_claim", "jwt_permissions_claim"):
        with pytest.raises(ConfigError, match=f"FLOWKEEP_{name.upper()}="):
            authenticator(Config(**{**settings, name: text}))


def test_settings_that_name_no_permission_or_two_orgs_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r'FLOWKEEP_JWT_ROLES .*"executions\.reed".*did you mean "executions\.read"'):
        authenticator(Config(**settings, jwt_roles={"viewer": ["executions.reed"]}))
    with pytest.raises(ConfigError, match="FLOWKEEP_JWT_ORG_CLAIM=org,tid names 2 claims"):
        authenticator(Config(**settings, jwt_org_claim="org,tid"))


def test_what_a_path_finds() -> None:
    document = {"a": {"b": [{"c": 1}], "b.c": 2}, "n": None, "0": 3}
    for names, found in (
        (("a", "b", "0", "c"), 1),
        (("a", "b.c"), 2),
        (("0",), 3),
        (("a", "b", "1"), None),
        (("a", "b", "-1"), None),
        (("a", "b", "9" * 5000), None),
        (("n", "x"), None),
        (("a", "b", "0", "c", "d"), None),
    ):
        assert ClaimPath(names).find(document) == found, names


# What is refused, and what the log tells of it


@pytest.mark.parametrize(
    ("more", "claim"),
    [
        ({"exp": None}, "exp"),
        ({"exp": time.time() - 31}, "exp"),
        ({"exp": "1900000000"}, "exp"),
        ({"exp": 1e308}, "exp"),
        ({"exp": float("inf")}, "exp"),
        ({"exp": float("nan")}, "exp"),
        ({"exp": time.time() * 1000}, "exp"),
        ({"exp": -1}, "exp"),
        ({"exp": 10**400}, "exp"),
        ({"exp": True}, "exp"),
        ({"exp": [1900000000]}, "exp"),
        ({"nbf": LATER}, "nbf"),
        ({"nbf": "0"}, "nbf"),
        ({"iat": LATER}, "iat"),
        ({"org": None}, "org"),
        ({"org": ""}, "org"),
        ({"org": 7}, "org"),
        ({"org": "a\nb"}, "org"),
        ({"sub": 7}, "sub"),
        ({"sub": ""}, "sub"),
        ({"sub": None}, "sub"),
        ({"sub": "a" * 257}, "sub"),
        ({"permissions": "executions.read"}, "permissions"),
        ({"permissions": {"a": 1}}, "permissions"),
        ({"iss": "https://issuer.example/"}, "iss"),
        ({"iss": ["https://issuer.example"]}, "iss"),
        ({"iss": None}, "iss"),
        ({"aud": []}, "aud"),
        ({"aud": ["flow", "keep"]}, "aud"),
        ({"aud": {"flowkeep": 1}}, "aud"),
        ({"aud": None}, "aud"),
    ],
)
async def test_a_claim_that_is_refused(more: dict[str, Any], claim: str, settings: dict[str, Any]) -> None:
    settings |= {"jwt_issuer": "https://issuer.example", "jwt_audience": "flowkeep"}
    token = {"iss": "https://issuer.example", "aud": "flowkeep", **more}
    # PyJWT checks what it signs; the providers whose tokens these are do not.
    made = jwt.api_jws.encode(json.dumps(claims(**token)).encode(), KEY, "RS256", {"kid": "one"})
    entry = await refused(made, settings)
    assert entry["claim"] == claim
    assert entry["reason"] and entry["expected"] and entry["kid"] == "one"
    found = more[claim]
    assert found is None or str(found)[:20] in entry["found"] or repr(found)[:20] in entry["found"]


@pytest.mark.parametrize(
    "more",
    [
        {"exp": LATER + 0.75},
        {"exp": LATER},
        {"nbf": 0.5},
        {"permissions": None},
        {"permissions": []},
        {"aud": "anybody", "iss": "anybody"},
    ],
)
async def test_a_claim_that_is_taken(more: dict[str, Any], settings: dict[str, Any]) -> None:
    assert (await identified(signed(claims(**more)), settings)).subject == "ann"


def test_clocks_may_differ_by_30_seconds() -> None:
    now = 1_800_000_000.0
    for more in ({"exp": now - 29}, {"nbf": now + 30, "iat": now + 30}):
        assert Rules().identity(claims(**{"exp": now, **more}), now).subject == "ann"
    for more in ({"exp": now - 30}, {"nbf": now + 31}, {"iat": now + 31}):
        with pytest.raises(UnauthenticatedError):
            Rules().identity(claims(**{"exp": now, **more}), now)


async def test_a_signature_that_is_refused(settings: dict[str, Any]) -> None:
    for token, said, facts in (
        (signed(claims(), OTHER_KEY), "none of our keys has signed it", {"kid": "one"}),
        (signed(claims(), kid="new"), "no key has its id", {"kid": "new", "expected": "['one']"}),
        (signed(claims(), "x" * 32, "HS256"), "another algorithm", {"alg": "HS256", "expected": "RS256"}),
        ("noise", "it is no JWT", {}),
        ("x" * 5000, "too long", {"found": "5000"}),
    ):
        entry = await refused(token, settings)
        assert said in entry["reason"]
        assert facts.items() <= entry.items(), entry


@pytest.mark.parametrize(
    "values",
    [[], [""], ["Bearer"], ["Bearer "], ["Basic YTpi"], ["Bearer a", "Bearer b"], ["\xa0\ud800"], ["Bearer é.é.é"]],
)
async def test_metadata_that_is_no_token(values: list[str], settings: dict[str, Any]) -> None:
    with structlog.testing.capture_logs() as logged, pytest.raises(UnauthenticatedError):
        await authenticator(Config(**settings)).identify({"authorization": values})
    assert [entry["event"] for entry in logged if entry["log_level"] == "warning"] == ["token refused"]
    assert "YTpi" not in str(logged)
