"""How a call goes out: the params that name certificates and a proxy of the deployment, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from service.engine.schema import Problem

SCHEMA = {
    "tls": {
        "description": (
            "The name of certificates in the server's setting FLOWKEEP_HTTP_TLS: whom to trust in place of the usual "
            "CAs, as whom to come, or both. For https. They are for the hosts that the setting names; where it names "
            "none, for the origin of the URL and for that of a token, and not for others that answers lead to."
        ),
        "type": "string",
        "minLength": 1,
        "maxLength": 64,
    },
    "proxy": {
        "description": (
            "The name of a proxy in the server's setting FLOWKEEP_HTTP_PROXIES, by which the call goes out, and all "
            "that it takes. Default: none. The host is looked up here and must be allowed; the proxy is asked for its "
            "address."
        ),
        "type": "string",
        "minLength": 1,
        "maxLength": 64,
    },
}


def check(params: Mapping[str, Any]) -> Iterator[Problem]:
    """Find what the schema cannot say."""
    if "tls" in params and str(params["url"]).lower().startswith("http://"):
        yield Problem(("tls",), "has no effect on a URL with http://; write https://, or remove it")
