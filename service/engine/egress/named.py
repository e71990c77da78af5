"""What FLOWKEEP_HTTP_TLS and FLOWKEEP_HTTP_PROXIES name: files of certificates, and proxies, as they are written."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import msgspec

from service.engine.egress.allowed import Rule
from service.engine.egress.allowed import parse as parse_rule

MOST = 100

Value = TypeVar("Value")

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_TLS_FORM = (
    'must be JSON such as {"internal": {"ca_file": "/etc/ca.pem", "cert_file": "/etc/client.pem", "key_file": '
    '"/etc/client.key", "hosts": ["*.internal"], "orgs": ["acme"]}}'
)
_PROXIES_FORM = (
    'must be JSON such as {"out": {"url": "http://proxy.internal:3128", "username": "flowkeep", "password": '
    '"${ secret(\'proxy\') }", "orgs": ["acme"]}}'
)
_PROXY_PORT = 3128


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Certificates by the files that they stand in: a CA, a client certificate with its key, or both."""

    ca_file: Path | None
    cert_file: Path | None
    key_file: Path | None
    hosts: tuple[Rule, ...]
    orgs: frozenset[str]


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy that is asked by CONNECT. No `orgs`: it is for all. Username and password may name secrets."""

    name: str
    host: str
    port: int
    username: str = field(default="", repr=False)
    password: str = field(default="", repr=False)
    orgs: frozenset[str] = frozenset()


def parse_tls(text: str) -> Mapping[str, TlsFiles]:
    """Return certificates by name, none of an empty text. Raises ValueError that says what is wrong where."""
    return _parsed(text, _TLS_FORM, _files) if text else {}


def parse_proxies(text: str) -> Mapping[str, Proxy]:
    """Return proxies by name, none of an empty text. Raises ValueError that says where, and repeats no value."""
    return _parsed(text, _PROXIES_FORM, _proxy) if text else {}


def _parsed(text: str, form: str, read: Callable[[str, Mapping[str, Any]], Value]) -> Mapping[str, Value]:
    try:
        document = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        raise ValueError(form) from None
    if not isinstance(document, dict) or not all(isinstance(each, dict) for each in document.values()):
        raise ValueError(form)
    if len(document) > MOST:
        raise ValueError(f"must have at most {MOST} names")
    for name in document:
        if not _NAME.fullmatch(name):
            raise ValueError("a name has 1 to 64 letters, digits and _ . - and begins with none of these")
    return {name: read(name, given) for name, given in document.items()}


def _files(name: str, given: Mapping[str, Any]) -> TlsFiles:
    _only(name, given, "ca_file", "cert_file", "key_file", "hosts", "orgs")
    ca_file, cert_file, key_file = (_text(name, given, each) for each in ("ca_file", "cert_file", "key_file"))
    if bool(cert_file) != bool(key_file):
        raise ValueError(f"{name}: cert_file and key_file belong together: give both or none")
    if not (ca_file or cert_file):
        raise ValueError(f"{name}: must have a ca_file, or cert_file and key_file, or all three")
    try:
        hosts = tuple(map(parse_rule, _texts(name, given, "hosts")))
    except ValueError as error:
        raise ValueError(f"{name}.hosts: {error}") from None
    paths = [Path(each) if each else None for each in (ca_file, cert_file, key_file)]
    return TlsFiles(paths[0], paths[1], paths[2], hosts, frozenset(_texts(name, given, "orgs")))


def _proxy(name: str, given: Mapping[str, Any]) -> Proxy:
    _only(name, given, "url", "username", "password", "orgs")
    username, password = _text(name, given, "username"), _text(name, given, "password")
    if bool(username) != bool(password):
        raise ValueError(f"{name}: username and password belong together: give both or none")
    try:
        host, port = _place(_text(name, given, "url"))
    except ValueError:
        text = "must be http://host:port; user and password have fields of their own"
        raise ValueError(f"{name}.url: {text}") from None
    return Proxy(name, host, port, username, password, frozenset(_texts(name, given, "orgs")))


def _place(written: str) -> tuple[str, int]:
    """Return host and port of the URL of a proxy. Raises ValueError."""
    url = urlsplit(written)
    host, port = url.hostname or "", url.port or _PROXY_PORT
    if url.scheme != "http" or url.path not in ("", "/") or url.query or url.fragment or "@" in url.netloc:
        raise ValueError
    parse_rule(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
    return host, port


def _only(name: str, given: Mapping[str, Any], *known: str) -> None:
    if given.keys() - set(known):
        raise ValueError(f"{name}: has a field other than {', '.join(known)}")


def _text(name: str, given: Mapping[str, Any], field: str) -> str:
    value = given.get(field, "")
    if not isinstance(value, str):
        raise ValueError(f"{name}.{field}: must be a string")
    return value


def _texts(name: str, given: Mapping[str, Any], field: str) -> list[str]:
    value = given.get(field, [])
    if not isinstance(value, list) or not all(isinstance(each, str) and each for each in value):
        raise ValueError(f"{name}.{field}: must be a list of strings")
    return value
