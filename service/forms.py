"""The forms in which settings are written: spans of time, lists of names, what may be called, a database, servers."""

from __future__ import annotations

import getpass
import json
import os
import re
from typing import Annotated, Any
from urllib.parse import parse_qs, urlsplit

from pydantic import AfterValidator, BeforeValidator, SecretStr
from pydantic_settings import NoDecode

from flowkeep.durations import to_seconds
from service.engine.chat import endpoints
from service.engine.egress import named
from service.engine.egress.allowed import parse
from service.engine.mcp import servers

_URL = "must be postgresql://user:password@host:port/database"


def _seconds(value: Any) -> Any:
    """Return a span of time in seconds. A number is one already; pydantic judges what else there may be."""
    if not isinstance(value, str):
        return value
    try:
        return float(value)
    except ValueError:
        pass
    try:
        return to_seconds(value)
    except ValueError:
        raise ValueError("must be a number of seconds, or a span of time such as 10s, 1m30s or 2h") from None


def _names(value: Any) -> Any:
    """Return the names of a list: JSON, or with commas between."""
    if isinstance(value, str):
        text = value.strip()
        try:
            value = json.loads(text) if text.startswith("[") else text.removesuffix(",").split(",")
        except ValueError:
            value = None
    if not isinstance(value, list | tuple) or not all(isinstance(each, str) and each.strip() for each in value):
        raise ValueError('must be names with commas between, such as a,b, or a JSON list: ["a", "b"]')
    return [each.strip() for each in value]


def _roles(value: Any) -> Any:
    """Return the permissions of each role."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            value = None
    lists = value.values() if isinstance(value, dict) else ()
    if not isinstance(value, dict) or not all(isinstance(each, list) for each in lists):
        raise ValueError('must be JSON with the permissions of each role: {"operator": ["executions.read"]}')
    return value


def _variables(value: Any) -> Any:
    """Return the variables that hold the secrets of each org."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            value = None
    named = list(value.values()) if isinstance(value, dict) else [None]
    if not all(isinstance(each, dict) and all(isinstance(name, str) for name in each.values()) for each in named):
        raise ValueError('must be JSON with the variable of each secret, by org: {"acme": {"crm_token": "CRM_TOKEN"}}')
    return value


def _database_url(secret: SecretStr) -> SecretStr:
    """Return the URL of a Postgres. What is wrong with it is told without any part of it."""
    text = secret.get_secret_value().strip()
    try:
        url, (scheme, _, rest) = urlsplit(text), text.partition("://")
        if url.query:
            parse_qs(url.query, strict_parsing=True)
    except ValueError:
        raise ValueError(_URL) from None
    account, _, hosts = url.netloc.rpartition("@")
    ports = (re.fullmatch(r"(?:\[[^\]]*\]|[^:\[\]]*)(?::(\d{1,5}|))?", host) for host in hosts.split(","))
    if scheme not in ("postgresql", "postgres"):
        raise ValueError(_URL)
    # Of a password with such a character a part would be taken for a host, and be told of as one.
    if "@" in account or "#" in rest or not all(ports) or "@" in url.path:
        raise ValueError(f"{_URL}, with @ / : # ? in user and password written as %40 %2F %3A %23 %3F")
    if not (account.partition(":")[0] or "user=" in url.query or "service=" in url.query or _has_user()):
        raise ValueError(f"{_URL}: it names no user, and the account of this process has no name")
    return SecretStr(text)


def _targets(texts: list[str]) -> list[str]:
    """Return what may be called, each written right."""
    for text in texts:
        parse(text)
    return texts


def _http_tls(text: str) -> str:
    """Return certificates by name, each written right."""
    named.parse_tls(text)
    return text


def _http_proxies(secret: SecretStr) -> SecretStr:
    """Return proxies by name, each written right."""
    named.parse_proxies(secret.get_secret_value())
    return secret


def _mcp_servers(secret: SecretStr) -> SecretStr:
    """Return the MCP servers, each written right."""
    servers.parse(secret.get_secret_value())
    return secret


def _models(secret: SecretStr) -> SecretStr:
    """Return the endpoints of models, each written right."""
    endpoints.parse(secret.get_secret_value())
    return secret


def _has_user() -> bool:
    try:
        return bool(os.environ.get("PGUSER") or getpass.getuser())
    except (OSError, KeyError):  # no line in /etc/passwd
        return False


Seconds = Annotated[float, BeforeValidator(_seconds)]
"""A span of time in seconds, written as a number of them or as text such as `10s`."""

Names = Annotated[list[str], NoDecode, BeforeValidator(_names)]
"""A list, written with commas or as JSON."""

Targets = Annotated[list[str], NoDecode, BeforeValidator(_names), AfterValidator(_targets)]
"""What calls may go to: addresses, networks and hosts, with ports or without."""

Roles = Annotated[dict[str, list[str]], NoDecode, BeforeValidator(_roles)]
"""What roles mean, written as JSON."""

Variables = Annotated[dict[str, dict[str, str]], NoDecode, BeforeValidator(_variables)]
"""Which variables of the environment hold the secrets of which org, written as JSON."""

DatabaseUrl = Annotated[SecretStr, AfterValidator(_database_url)]
"""The URL of a Postgres, in which no character means two things."""

HttpTls = Annotated[str, AfterValidator(_http_tls)]
"""Files of certificates by name, as JSON."""

HttpProxies = Annotated[SecretStr, AfterValidator(_http_proxies)]
"""Proxies by name, as JSON: secret as a whole, since there may be passwords in it."""

McpServers = Annotated[SecretStr, AfterValidator(_mcp_servers)]
"""MCP servers by name, as JSON: secret as a whole, since there are secrets in it."""

Models = Annotated[SecretStr, AfterValidator(_models)]
"""Endpoints of models by name, as JSON: secret as a whole, since there may be keys in it."""
