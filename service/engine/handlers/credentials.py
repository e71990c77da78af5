"""Where credentials stand among params whose schema cannot name them: in headers, queries, bodies and URLs.

Told by names and by the form of what stands there, so that a definition can be warned of one that is written out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from service.engine.handlers.http_secrets import names_secret
from service.engine.schema_places import Path

NAMES = frozenset(
    {
        "authorization",
        "proxyauthorization",
        "cookie",
        "password",
        "passwd",
        "passphrase",
        "secret",
        "clientsecret",
        "token",
        "accesstoken",
        "authtoken",
        "idtoken",
        "privatetoken",
        "refreshtoken",
        "securitytoken",
        "apikey",
        "apisecret",
        "apitoken",
        "authkey",
        "functionskey",
        "privatekey",
        "secretkey",
        "subscriptionkey",
    }
)
"""Names of credentials, without case, - and _."""

MOST_LOOKED_AT = 2_000
"""Members of one value; each takes some microseconds."""

_ENDS = tuple(sorted(NAMES))
_BETWEEN = re.compile("[-_]")
_TOKEN = re.compile(
    r"(?:bearer|basic|token|apikey) +\S"
    r"|gh[oprsu]_\w{16}|github_pat_\w|glpat-\w|xox[a-z]-\w|sk[-_]\w|AKIA[0-9A-Z]{12}|AIza[\w-]{20}|ya29\.|hvs\.\w|npm_\w{16}"
    r"|eyJ[\w-]+\.[\w-]+\.|-----BEGIN [A-Z ]*PRIVATE KEY",
    re.IGNORECASE,
)


def of_headers(given: Any, path: Path) -> Iterator[Path]:
    """Yield the paths of headers, or of metadata, whose name is one of NAMES or ends with one, as X-Goog-Api-Key does.

    Others that are named like a secret count if they hold what has the form of a token.
    """
    for name, value in given.items() if isinstance(given, Mapping) else ():
        if _plain(name).endswith(_ENDS) or (looks_like_token(value) and names_secret(name)):
            yield (*path, name)


def of_fields(given: Any, path: Path) -> Iterator[Path]:
    """Yield the paths of members, at any depth, whose name is one of NAMES; of the first 2,000 that there are.

    Others that are named like a secret count if they hold what has the form of a token.
    """
    for place, name, value in islice(_members(given, path), MOST_LOOKED_AT):
        if _plain(name) in NAMES or (looks_like_token(value) and names_secret(name)):
            yield place


def _members(given: Any, path: Path) -> Iterator[tuple[Path, str, Any]]:
    """Yield the members of objects that are neither objects nor lists, with their paths and names."""
    if isinstance(given, Mapping):
        for name, value in given.items():
            if isinstance(value, Mapping | list):
                yield from _members(value, (*path, name))
            else:
                yield (*path, name), name, value
    elif isinstance(given, list):
        for index, value in enumerate(given):
            if isinstance(value, Mapping | list):
                yield from _members(value, (*path, index))


def of_url(url: Any, path: Path) -> Iterator[Path]:
    """Yield the path of a URL that holds a password, or a query one of whose names is one of NAMES."""
    if not isinstance(url, str):
        return
    try:
        parts = urlsplit(url)
        has_password = bool(parts.password)
    except ValueError:  # which the check of URLs tells of
        return
    if has_password or any(_plain(name) in NAMES and value for name, value in parse_qsl(parts.query)):
        yield path


def looks_like_token(value: Any) -> bool:
    """Return whether a text begins as the tokens of well-known services do, or as a header with one."""
    return isinstance(value, str) and _TOKEN.match(value) is not None


def _plain(name: str) -> str:
    return _BETWEEN.sub("", name.lower())
