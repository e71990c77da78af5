"""The HTTP request that the params of a step ask for."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from typing import Any

import httpx2

from service.engine.handlers.http_body import ACCEPTED_CODINGS
from service.engine.handlers.http_content import content
from service.engine.handlers.http_fields import listed, text_of
from service.engine.handlers.model import StepContext

CONNECT_SECONDS = 10.0

# The step's timeout bounds the rest; a host that takes no connection is known much earlier.
_TIMEOUT = httpx2.Timeout(None, connect=CONNECT_SECONDS).as_dict()


def request(params: Mapping[str, Any], context: StepContext) -> httpx2.Request:
    """Return the request. Raises InvalidURL or ValueError for what cannot be sent."""
    url = _with_query(httpx2.URL(params["url"]), params.get("query", {}))
    headers = httpx2.Headers({"User-Agent": "flowkeep", "Accept": "*/*", "Accept-Encoding": ACCEPTED_CODINGS})
    headers.update({name: text_of(value) for name, value in params.get("headers", {}).items()})
    headers["Idempotency-Key"] = context.idempotency_token
    headers["X-Flowkeep-Attempt"] = str(context.attempt)
    _authorise(headers, url, params.get("auth", {}))
    body = content(params, headers, context.idempotency_token)
    method = params.get("method", "GET")
    return httpx2.Request(method, url, headers=headers, content=body, extensions={"timeout": _TIMEOUT})


def _with_query(url: httpx2.URL, more: Mapping[str, Any]) -> httpx2.URL:
    """Return the URL with `more` behind its query, which stays as it was written."""
    added = str(httpx2.QueryParams(listed(more)))
    if not added:
        return url
    written = url.query.decode("ascii")
    joined = f"{written}{'' if written.endswith('&') else '&'}{added}" if written else added
    return url.copy_with(query=joined.encode("ascii"))


def _authorise(headers: httpx2.Headers, url: httpx2.URL, auth: Mapping[str, Any]) -> None:
    if "bearer" in auth:
        headers["Authorization"] = f"Bearer {auth['bearer']}"
    elif "basic" in auth:
        headers["Authorization"] = _basic(auth["basic"]["username"], auth["basic"]["password"])
    elif url.userinfo:
        headers["Authorization"] = _basic(url.username, url.password)


def _basic(username: str, password: str) -> str:
    return f"Basic {b64encode(f'{username}:{password}'.encode()).decode()}"
