"""Certificates and proxies as settings name them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from service.engine.egress.named import parse_proxies, parse_tls


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ([], "must be JSON such as"),
        ({"a": "x"}, "must be JSON such as"),
        ({"a b": {"ca_file": "x"}}, "a name has 1 to 64 letters"),
        ({"a": {}}, "a: must have a ca_file"),
        ({"a": {"cert_file": "x"}}, "a: cert_file and key_file belong together"),
        ({"a": {"ca_file": 1}}, "a.ca_file: must be a string"),
        ({"a": {"ca": "x"}}, "a: has a field other than ca_file"),
        ({"a": {"ca_file": "x", "hosts": "x"}}, "a.hosts: must be a list of strings"),
        ({"a": {"ca_file": "x", "hosts": ["https://x"]}}, "a.hosts: 'https://x' is a URL"),
    ],
)
def test_certificates_that_are_written_wrong_are_refused(given: Any, complaint: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse_tls(json.dumps(given))
    assert complaint in str(caught.value)


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"a": {"url": "https://proxy:1"}}, "a.url: must be http://host:port"),
        ({"a": {"url": "http://me:geheim@proxy:1"}}, "a.url: must be http://host:port; user and password have"),
        ({"a": {"url": "http://proxy:1/path"}}, "a.url: must be"),
        ({"a": {"url": "http://proxy:99999"}}, "a.url: must be"),
        ({"a": {"username": "me", "password": "geheim"}}, "a.url: must be"),
        ({"a": {"url": "http://proxy:1", "password": "geheim"}}, "a: username and password belong together"),
        ({"a": {"url": "http://proxy:1", "orgs": [1]}}, "a.orgs: must be a list of strings"),
    ],
)
def test_proxies_that_are_written_wrong_are_refused(given: Any, complaint: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse_proxies(json.dumps(given))
    assert complaint in str(caught.value)
    assert "geheim" not in str(caught.value)


def test_a_proxy_has_a_port_and_tells_no_password() -> None:
    found = parse_proxies('{"a": {"url": "http://[::1]", "username": "me", "password": "geheim"}}')["a"]
    assert (found.host, found.port, "geheim" in repr(found)) == ("::1", 3128, False)
