"""What a step may say to `call_api`: the schema of its params, and what a schema cannot say of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from service.engine.durations import TEN_YEARS
from service.engine.handlers import http_auth, http_content, http_pages, http_redirect, http_route
from service.engine.handlers.credentials import of_fields, of_headers, of_url
from service.engine.handlers.http_fields import (
    FIELDS,
    HEADER_NAME,
    OWN_HEADERS,
    SCALAR,
    SECRET_HEADERS,
    fault_of_value,
    text_of,
)
from service.engine.handlers.http_url import LONGEST, check_url
from service.engine.pauses import seconds
from service.engine.schema import Problem
from service.engine.schema_places import Path

DEFAULT_RESPONSE_BYTES = 256 << 10
MAX_RESPONSE_BYTES = 1 << 20

PARAMS: dict[str, Any] = {
    "type": "object",
    "properties": {
        "url": {
            "description": (
                "Where to, http or https. Its query is sent as it is written; only a space, quotes, < and >, and what "
                "is not ASCII are percent-encoded."
            ),
            "type": "string",
            "minLength": 1,
            "maxLength": LONGEST,
        },
        "method": {
            "description": "Default GET.",
            "enum": ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"],
        },
        "headers": {
            "description": "Names and values in ASCII. Idempotency-Key and X-Flowkeep-Attempt are sent in any case.",
            "type": "object",
            "additionalProperties": SCALAR,
            "maxProperties": 64,
        },
        "query": {
            "description": (
                "Added behind the query of the URL, in the form of web forms; lists repeat the name. Nothing is "
                'replaced: ?x=1 and {"x": 2} give ?x=1&x=2.'
            ),
            **FIELDS,
        },
        **http_content.SCHEMA,
        "auth": http_auth.SCHEMA,
        "success_codes": {
            "description": (
                'Status codes that are a success, such as 200, or classes such as "2xx". Default ["2xx"]. A status '
                "beyond 599 counts as 5xx."
            ),
            "type": "array",
            "minItems": 1,
            "maxItems": 64,
            "items": {
                "type": ["integer", "string"],
                "minimum": 100,
                "maximum": 999,
                "pattern": "^([1-5][xX]{2}|[1-9][0-9]{2})$",
            },
        },
        "response": {
            "description": (
                "How the body is read. auto, the default: as JSON if its type says so, else as text, and null if there "
                "is none. json: as JSON. text: as text, by its charset, without one as UTF-8. base64: the bytes, "
                "whatever they are. none: not at all, whatever its size; it is null in the output, as is that of HEAD, "
                "204, 205 and 304 in any case. events: as server-sent events up to their end, for which `timeout` must "
                "leave time. The data of each, and a line end, is shown when it comes to those who watch, at most the "
                "last 16384 characters at a time, and not kept. The output's body is {events, last}: how many there "
                "were, and {event, data, id} of the last, null without any."
            ),
            "enum": ["auto", "json", "text", "base64", "none", "events"],
        },
        "response_headers": {
            "description": (
                "Names of the headers that the output gives; the answer need not have them. Default: all, but for "
                "those with secrets, which are never given."
            ),
            "type": "array",
            "maxItems": 64,
            "items": {"type": "string", "minLength": 1, "maxLength": 256},
        },
        "pages": http_pages.SCHEMA,
        "redirects": http_redirect.SCHEMA,
        **http_route.SCHEMA,
        "big_integers": {
            "description": (
                "What becomes of whole numbers beyond 2^53 in JSON, such as ids of 19 digits. refuse, the default: the "
                "step fails, since they could not be told apart. text: each is given as the text of its digits."
            ),
            "enum": ["refuse", "text"],
        },
        "timeout": {
            "description": 'For the whole call: seconds, or text such as "2s". The step\'s timeout holds in any case.',
            "type": ["number", "string"],
            "exclusiveMinimum": 0,
            "maximum": TEN_YEARS,
        },
        "max_response_bytes": {
            "description": "Longest body, uncompressed. Default 262144. An output has at most 262144 bytes as JSON.",
            "type": "integer",
            "minimum": 1,
            "maximum": MAX_RESPONSE_BYTES,
        },
    },
    "required": ["url"],
    "additionalProperties": False,
}


def check(params: Mapping[str, Any]) -> Iterator[Problem]:
    """Find what the schema cannot say; a template stands for a string that may yet become right."""
    headers = params.get("headers")
    headers = headers if isinstance(headers, Mapping) else {}
    authorisation = "auth" if "auth" in params else next((n for n in headers if n.lower() == "authorization"), "")
    yield from check_url(params["url"], ("url",), authorisation)
    yield from http_content.check(params, headers)
    yield from http_pages.check(params)
    yield from check_headers(headers, "auth" if "auth" in params else "")
    if isinstance(auth := params.get("auth"), Mapping):
        yield from http_auth.check(auth, headers)
    yield from http_route.check(params)
    yield from _check_response_headers(params.get("response_headers"))
    if isinstance(timeout := params.get("timeout"), str):
        yield from _check_timeout(timeout)


def credentials(params: Mapping[str, Any]) -> Iterator[Path]:
    """Return where else than in `auth` a call has credentials."""
    yield from of_url(params.get("url"), ("url",))
    yield from of_headers(params.get("headers"), ("headers",))
    for name in ("query", "form", "json"):
        yield from of_fields(params.get(name), (name,))


def check_headers(headers: Mapping[str, Any], beside: str) -> Iterator[Problem]:
    """Find what is wrong with headers. With the param `beside`, which says who calls, they may not say that, too."""
    seen: dict[str, str] = {}
    for name, value in headers.items():
        path: Path = ("headers", name)
        if not HEADER_NAME.fullmatch(name):
            yield Problem(path, "is no name of a header: it has a character other than letters, digits and -")
        elif name.lower() in OWN_HEADERS:
            yield Problem(path, "is set by Flowkeep; remove it")
        elif name.lower() == "authorization" and beside:
            yield Problem(path, f"cannot be given beside {beside}; remove one of them")
        elif (other := seen.setdefault(name.lower(), name)) != name:
            yield Problem(path, f"is the header {other} once more; upper and lower case are one")
        elif fault := fault_of_value(text_of(value)):
            yield Problem(path, fault)


def _check_response_headers(names: Any) -> Iterator[Problem]:
    for index, name in enumerate(names if isinstance(names, list) else ()):
        path: Path = ("response_headers", index)
        if not HEADER_NAME.fullmatch(name):
            yield Problem(path, "is no name of a header: it has a character other than letters, digits and -")
        elif name.lower() in SECRET_HEADERS:
            yield Problem(path, "is never given, since it holds secrets and outputs are kept; remove it")


def _check_timeout(timeout: str) -> Iterator[Problem]:
    try:
        if not seconds(timeout):
            yield Problem(("timeout",), "must be more than 0 s")
    except ValueError as error:
        yield Problem(("timeout",), str(error))
