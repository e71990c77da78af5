"""How a call shows who makes it: the schema, what is wrong with it, and what is put into the request."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator, Mapping
from typing import Any

import httpx2

from service.engine.handlers.http_fields import HEADER_NAME, OWN_HEADERS, fault_of_value
from service.engine.handlers.http_url import LONGEST, check_url, with_query
from service.engine.schema import Problem

_TEXT = {"type": "string", "minLength": 1, "maxLength": 8192}
_SECRET = {**_TEXT, "writeOnly": True}

SCHEMA = {
    "description": (
        "How the call shows who it is: a bearer token, a user with a password, an API key, or a token that a server "
        "of OAuth 2 gives (client credentials)."
    ),
    "type": "object",
    "properties": {
        "bearer": {"type": "string", "minLength": 1, "writeOnly": True},
        "basic": {
            "type": "object",
            "properties": {"username": {"type": "string"}, "password": {"type": "string", "writeOnly": True}},
            "required": ["username", "password"],
            "additionalProperties": False,
        },
        "api_key": {
            "description": "A key in a header, or in the query, of this name.",
            "type": "object",
            "properties": {
                "value": _SECRET,
                "header": {"type": "string", "minLength": 1, "maxLength": 256},
                "query": {"type": "string", "minLength": 1, "maxLength": 256},
            },
            "required": ["value"],
            "oneOf": [{"required": ["header"]}, {"required": ["query"]}],
            "additionalProperties": False,
        },
        "oauth2": {
            "description": (
                "A token is fetched by client credentials and kept for the calls of the org until shortly before it "
                "ends, five minutes where the server does not say when. When the API answers 401, another one is "
                "fetched and the call made once more, within the same attempt. What is wrong with the fetching fails "
                "the call with the same codes, and names the URL of the token."
            ),
            "type": "object",
            "properties": {
                "token_url": {"type": "string", "minLength": 1, "maxLength": LONGEST},
                "client_id": _TEXT,
                "client_secret": _SECRET,
                "scopes": {
                    "type": "array",
                    "maxItems": 64,
                    "items": {"type": "string", "minLength": 1, "maxLength": 512},
                },
                "audience": {"description": "For servers that ask which API the token is for.", **_TEXT},
                "client_auth": {
                    "description": (
                        "Where id and secret are sent: basic, the default, in the header Authorization; or in the body."
                    ),
                    "enum": ["basic", "body"],
                },
            },
            "required": ["token_url", "client_id", "client_secret"],
            "additionalProperties": False,
        },
    },
    "minProperties": 1,
    "maxProperties": 1,
    "additionalProperties": False,
}


def check(auth: Mapping[str, Any], headers: Mapping[str, Any]) -> Iterator[Problem]:
    """Find what the schema cannot say."""
    if isinstance(bearer := auth.get("bearer"), str) and (fault := fault_of_value(bearer)):
        yield Problem(("auth", "bearer"), fault)
    if isinstance(basic := auth.get("basic"), Mapping) and ":" in str(basic.get("username")):
        yield Problem(("auth", "basic", "username"), "cannot have a colon, which would begin the password")
    if isinstance(key := auth.get("api_key"), Mapping) and isinstance(name := key.get("header"), str):
        yield from _check_key(key, name, headers)
    if isinstance(oauth2 := auth.get("oauth2"), Mapping):
        yield from check_url(oauth2["token_url"], ("auth", "oauth2", "token_url"), "client_id")
        scopes = oauth2.get("scopes")
        for index, scope in enumerate(scopes if isinstance(scopes, list) else ()):
            if len(scope.split()) != 1 or scope != scope.strip():
                yield Problem(("auth", "oauth2", "scopes", index), "is no single scope; write one in each entry")


def _check_key(key: Mapping[str, Any], name: str, headers: Mapping[str, Any]) -> Iterator[Problem]:
    path = ("auth", "api_key", "header")
    if not HEADER_NAME.fullmatch(name):
        yield Problem(path, "is no name of a header: it has a character other than letters, digits and -")
    elif name.lower() in OWN_HEADERS:
        yield Problem(path, "is set by Flowkeep; take another header")
    elif any(name.lower() == other.lower() for other in headers):
        yield Problem(path, "is given in headers, too; remove one of them")
    if fault := fault_of_value(key["value"]):
        yield Problem(("auth", "api_key", "value"), fault)


def authorised(url: httpx2.URL, headers: httpx2.Headers, auth: Mapping[str, Any]) -> httpx2.URL:
    """Put into the headers who calls, as far as it is known without asking; return the URL, which may tell it, too."""
    if "bearer" in auth:
        headers["Authorization"] = f"Bearer {auth['bearer']}"
    elif "basic" in auth:
        headers["Authorization"] = basic(auth["basic"]["username"], auth["basic"]["password"])
    elif "header" in (key := auth.get("api_key", {})):
        headers[key["header"]] = key["value"]
    elif "query" in key:
        return with_query(url, {key["query"]: key["value"]})
    elif url.userinfo:
        headers["Authorization"] = basic(url.username, url.password)
    return url


def basic(username: str, password: str) -> str:
    """Return the header of a user with a password."""
    return f"Basic {b64encode(f'{username}:{password}'.encode()).decode()}"


def secrets_of(auth: Mapping[str, Any]) -> list[str]:
    """Return what must not be told of it."""
    found = (
        auth.get("bearer"),
        auth.get("basic", {}).get("password"),
        auth.get("api_key", {}).get("value"),
        auth.get("oauth2", {}).get("client_secret"),
    )
    return [each for each in found if each]
