"""Where a redirect leads, and the request that goes there."""

from __future__ import annotations

from collections.abc import Collection

import httpx2

from service.engine.handlers.http_request import request_to
from service.engine.handlers.http_secrets import names_secret
from service.engine.handlers.http_url import LONGEST, check_url, origin

MOST = 5
"""Redirects that are followed for one answer."""

SCHEMA = {
    "description": (
        f"Which redirects are followed, at most {MOST} for an answer. none, the default; same_origin: those that keep "
        "scheme, host and port; any. A status of `success_codes` is none. Each is a call under the same rules, and "
        "`timeout` is for all together. 303 leads to a GET without a body, as do 301 and 302 of a POST; 307 and 308 "
        "send the same again, the body too. auth, cookies and headers that are named like secrets are sent to no "
        "other origin."
    ),
    "enum": ["none", "same_origin", "any"],
}

_STATUSES = frozenset({301, 302, 303, 307, 308})
_OF_BODY = ("content-type", "content-encoding", "content-language", "content-location")


class LocationError(ValueError):
    """A redirect names no URL that can be called; the text tells nothing of it."""


def redirected(
    asked: httpx2.Request, response: httpx2.Response, policy: str, secrets: Collection[str]
) -> httpx2.Request | None:
    """Return the request that a redirect asks for, None where there is none to be followed. Raises LocationError.

    A header that holds one of `secrets`, or is named like one, stays with the origin that it was meant for.
    """
    location = next(iter(response.headers.get_list("location")), "")
    if policy == "none" or response.status_code not in _STATUSES or not location:
        return None
    url = _url(asked.url, location)
    is_same = origin(url) == origin(asked.url)
    if policy == "same_origin" and not is_same:
        return None
    dropped = {"host", "content-length"}
    if not is_same:
        dropped |= {name for name, value in asked.headers.items() if names_secret(name) or value in secrets}
    method, body = asked.method, asked.content
    if _becomes_get(response.status_code, method):
        method, body = "GET", b""
        dropped.update(_OF_BODY)
    headers = httpx2.Headers([(name, value) for name, value in asked.headers.multi_items() if name not in dropped])
    return request_to(method, url, headers, body or None)


def _becomes_get(status: int, method: str) -> bool:
    """Return what the standard of fetch says, by which browsers go."""
    return (status in (301, 302) and method == "POST") or (status == 303 and method not in ("GET", "HEAD"))


def _url(base: httpx2.URL, location: str) -> httpx2.URL:
    try:
        # A user in it would be one that the other side chose.
        url = base.join(location[: LONGEST + 1]).copy_with(userinfo=b"")
    except (httpx2.InvalidURL, ValueError, TypeError):
        raise LocationError from None
    if len(location) > LONGEST or any(check_url(str(url), (), "")):
        raise LocationError
    return url
