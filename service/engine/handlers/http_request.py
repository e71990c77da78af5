"""The HTTP request that the params of a step ask for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import httpx2

from service.engine.handlers.http_auth import authorised
from service.engine.handlers.http_body import ACCEPTED_CODINGS
from service.engine.handlers.http_content import content
from service.engine.handlers.http_events import MEDIA_TYPE
from service.engine.handlers.http_fields import text_of
from service.engine.handlers.http_url import with_query
from service.engine.handlers.model import StepContext

CONNECT_SECONDS = 10.0

# The step's timeout bounds the rest; a host that takes no connection is known much earlier.
_TIMEOUT = httpx2.Timeout(None, connect=CONNECT_SECONDS).as_dict()


def request(params: Mapping[str, Any], context: StepContext) -> httpx2.Request:
    """Return the request, without the token that `auth.oauth2` is for. Raises InvalidURL or ValueError for what cannot
    be sent."""
    url = with_query(httpx2.URL(params["url"]), params.get("query", {}))
    headers = httpx2.Headers({"User-Agent": "flowkeep", "Accept": "*/*", "Accept-Encoding": ACCEPTED_CODINGS})
    if params.get("response") == "events":
        headers.update({"Accept": MEDIA_TYPE, "Accept-Encoding": "identity"})
    headers.update({name: text_of(value) for name, value in params.get("headers", {}).items()})
    headers["Idempotency-Key"] = context.idempotency_token
    headers["X-Flowkeep-Attempt"] = str(context.attempt)
    url = authorised(url, headers, params.get("auth", {}))
    body = content(params, headers, context.idempotency_token)
    return request_to(params.get("method", "GET"), url, headers, body)


def request_to(method: str, url: httpx2.URL, headers: httpx2.Headers, body: bytes | None) -> httpx2.Request:
    """Return a request; what it may take is the business of those who send it."""
    return httpx2.Request(method, url, headers=headers, content=body, extensions={"timeout": _TIMEOUT})
