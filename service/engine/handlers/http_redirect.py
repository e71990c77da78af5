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
    """An answer leads to what is no URL that can be called; the text tells nothing of it."""


def redirected(
    asked: httpx2.Request, response: httpx2.Response, policy: str, secrets: Collection[str]
) -> httpx2.Request | None:
    """Return the request that a redirect asks for, None where there is none to be followed. Raises LocationError.

    A header that holds one of `secrets`, or is named like one, is sent to no other origin.
    """
    location = next(iter(response.headers.get_list("location")), "")
    if policy == "none" or response.status_code not in _STATUSES or not location:
        return None
    url = url_of(asked.url, location)
    if policy == "same_origin" and origin(url) != origin(asked.url):
        return None
    return moved(asked, url, secrets, as_get=_becomes_get(response.status_code, asked.method))


def moved(asked: httpx2.Request, url: httpx2.URL, secrets: Collection[str], *, as_get: bool = False) -> httpx2.Request:
    """Return the same request to another URL, with what only the origin of the one before may see left out."""
    dropped = {"content-length"}
    if origin(url) != origin(asked.url):
        dropped |= {"host"} | {name for name, value in asked.headers.items() if names_secret(name) or value in secrets}
    if as_get:
        dropped.update(_OF_BODY)
    headers = httpx2.Headers([(name, value) for name, value in asked.headers.multi_items() if name not in dropped])
    method, body = ("GET", None) if as_get else (asked.method, asked.content or None)
    return request_to(method, url, headers, body)


def _becomes_get(status: int, method: str) -> bool:
    """Return what the standard of fetch says, by which browsers go."""
    return (status in (301, 302) and method == "POST") or (status == 303 and method not in ("GET", "HEAD"))


def url_of(base: httpx2.URL, location: str) -> httpx2.URL:
    """Return the URL to which an answer from `base` leads. Raises LocationError."""
    try:
        # A user in it would be one that the other side chose.
        url = base.join(location[: LONGEST + 1]).copy_with(userinfo=b"")
    except (httpx2.InvalidURL, ValueError, TypeError):
        raise LocationError from None
    if len(location) > LONGEST or any(check_url(str(url), (), "")):
        raise LocationError
    return url
