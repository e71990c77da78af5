"""The handler `call_api`: one HTTP call, safe to repeat by its Idempotency-Key."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any

import httpx2
import msgspec

from service.engine.failure import INVALID_PARAMS
from service.engine.handlers.http_answer import CONNECTION_FAILED, INVALID_RESPONSE, Expectation, read
from service.engine.handlers.model import Handler, HandlerError, StepContext
from service.engine.schema import Path, Problem

DEFAULT_RESPONSE_BYTES = 256 << 10
MAX_RESPONSE_BYTES = 1 << 20
CONNECT_SECONDS = 10.0
_BODIES = ("json", "text", "form")
# The call's identity and the framing of the message are not the workflow's to choose.
_OWN_HEADERS = frozenset(
    {"idempotency-key", "x-flowkeep-attempt", "content-length", "transfer-encoding", "connection", "upgrade"}
)

_SCALAR = {"type": ["string", "number", "boolean"]}
_FIELDS = {"type": "object", "additionalProperties": {"anyOf": [_SCALAR, {"type": "array", "items": _SCALAR}]}}
PARAMS = {
    "type": "object",
    "properties": {
        "url": {"description": "Where to, http or https.", "type": "string", "minLength": 1, "maxLength": 8192},
        "method": {
            "description": "Default GET.",
            "enum": ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"],
        },
        "headers": {"type": "object", "additionalProperties": _SCALAR, "maxProperties": 64},
        "query": {"description": "Added to what the URL has; lists repeat the name.", **_FIELDS},
        "json": {"description": "Body, sent as JSON. At most one of json, text and form."},
        "text": {"description": "Body, sent as UTF-8 text.", "type": "string"},
        "form": {"description": "Body, sent as a web form.", **_FIELDS},
        "auth": {
            "type": "object",
            "properties": {
                "bearer": {"type": "string", "minLength": 1},
                "basic": {
                    "type": "object",
                    "properties": {"username": {"type": "string"}, "password": {"type": "string"}},
                    "required": ["username", "password"],
                    "additionalProperties": False,
                },
            },
            "minProperties": 1,
            "maxProperties": 1,
            "additionalProperties": False,
        },
        "success_codes": {
            "description": 'Status codes that are a success, such as 200, or classes such as "2xx". Default ["2xx"].',
            "type": "array",
            "minItems": 1,
            "maxItems": 64,
            "items": {
                "type": ["integer", "string"],
                "minimum": 100,
                "maximum": 599,
                "pattern": "^[1-5]([xX]{2}|[0-9]{2})$",
            },
        },
        "response": {
            "description": "How the body is read. Default auto: as JSON if it says so, else as text.",
            "enum": ["auto", "json", "text"],
        },
        "timeout": {
            "description": "Seconds for the whole call. The step's timeout holds in any case.",
            "type": "number",
            "exclusiveMinimum": 0,
        },
        "max_response_bytes": {
            "description": "Longest body, uncompressed. Default 262144.",
            "type": "integer",
            "minimum": 1,
            "maximum": MAX_RESPONSE_BYTES,
        },
    },
    "required": ["url"],
    "additionalProperties": False,
}


def call_api() -> Handler:
    """Return the handler, with connections of its own that are opened at the first call."""
    caller = _Caller()
    return Handler(
        name="call_api",
        description="Calls an HTTP API. Gives {status, headers, body}. Redirects are not followed.",
        params_schema=PARAMS,
        run=caller.run,
        check=_check,
        close=caller.close,
    )


class _Caller:
    """Makes calls over shared connections."""

    def __init__(self) -> None:
        self._client: httpx2.AsyncClient | None = None

    async def run(self, params: Mapping[str, Any], context: StepContext) -> Any:
        request = self._request(params, context)
        # Without the path: those of webhooks are secrets.
        place = f"{request.method} {request.url.netloc.decode('ascii', 'replace')}"[:300]
        expectation = Expectation(
            place=place,
            success_codes=tuple(str(code).lower() for code in params.get("success_codes", ("2xx",))),
            form=params.get("response", "auto"),
            max_bytes=params.get("max_response_bytes", DEFAULT_RESPONSE_BYTES),
            now=context.now,
        )
        async with _bounded(params.get("timeout"), place), self._answer(request, place) as response:
            return await read(response, expectation)

    async def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    @property
    def client(self) -> httpx2.AsyncClient:
        if self._client is None:
            self._client = httpx2.AsyncClient(
                follow_redirects=False,
                trust_env=False,
                # The step's timeout bounds the rest; a host that takes no connection is known much earlier.
                timeout=httpx2.Timeout(None, connect=CONNECT_SECONDS),
                limits=httpx2.Limits(max_connections=1000, max_keepalive_connections=100),
                # A cookie that one tenant's call received must never ride on another's.
                cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
                headers={"User-Agent": "flowkeep"},
            )
        return self._client

    @asynccontextmanager
    async def _answer(self, request: httpx2.Request, place: str) -> AsyncIterator[httpx2.Response]:
        """Give the answer with its body still to be read; whatever breaks on the way is CONNECTION_FAILED."""
        try:
            response = await self.client.send(request, stream=True)
            try:
                yield response
            finally:
                await response.aclose()
        except httpx2.LocalProtocolError:
            raise _invalid("a header has a character that headers cannot have") from None
        except httpx2.DecodingError:
            raise HandlerError(INVALID_RESPONSE, f"{place}: the body is not compressed as its header says") from None
        except httpx2.RequestError as error:
            raise HandlerError(CONNECTION_FAILED, f"{place}: {_reason(error)}") from error

    def _request(self, params: Mapping[str, Any], context: StepContext) -> httpx2.Request:
        try:
            url = httpx2.URL(params["url"])
            headers = httpx2.Headers({name: _text(value) for name, value in params.get("headers", {}).items()})
            headers["Idempotency-Key"] = context.idempotency_token
            headers["X-Flowkeep-Attempt"] = str(context.attempt)
            _authorise(headers, params.get("auth", {}))
            body = _body(params, headers)
            # `params=` of httpx would replace the query that the URL has.
            url = url.copy_merge_params(_listed(params.get("query", {})))
            return self.client.build_request(params.get("method", "GET"), url, headers=headers, **body)
        except (httpx2.InvalidURL, httpx2.UnsupportedProtocol, ValueError, TypeError):
            # What these say may repeat the URL or a header, and those may hold secrets.
            raise _invalid("the URL, the query, a header or the body cannot be sent as it is") from None


@asynccontextmanager
async def _bounded(seconds: float | None, place: str) -> AsyncIterator[None]:
    limit = asyncio.timeout(seconds)
    try:
        async with limit:
            yield
    except TimeoutError:
        if not limit.expired():
            raise
        raise HandlerError(CONNECTION_FAILED, f"{place}: no complete answer within {seconds:g} s") from None


def _body(params: Mapping[str, Any], headers: httpx2.Headers) -> dict[str, Any]:
    if "json" in params:
        headers.setdefault("Content-Type", "application/json")
        return {"content": msgspec.json.encode(params["json"])}  # httpx takes null for no body
    if "text" in params:
        headers.setdefault("Content-Type", "text/plain; charset=utf-8")
        return {"content": params["text"].encode()}
    return {"data": _listed(params["form"])} if "form" in params else {}


def _authorise(headers: httpx2.Headers, auth: Mapping[str, Any]) -> None:
    if "bearer" in auth:
        headers["Authorization"] = f"Bearer {auth['bearer']}"
    elif "basic" in auth:
        basic = httpx2.BasicAuth(auth["basic"]["username"], auth["basic"]["password"])
        headers["Authorization"] = next(basic.auth_flow(httpx2.Request("GET", "http://-"))).headers["Authorization"]


def _listed(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: [*map(_text, v)] if isinstance(v, list) else _text(v) for name, v in fields.items()}


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _reason(error: httpx2.RequestError) -> str:
    """Return what happened. Only the text of a failed connect is known to hold no data of either side."""
    match error:
        case httpx2.ConnectTimeout():
            return f"no connection within {CONNECT_SECONDS:g} s"
        case httpx2.ConnectError():
            return f"no connection: {error}"[:300]
        case _:
            return f"the connection broke off ({type(error).__name__})"


def _invalid(message: str) -> HandlerError:
    return HandlerError(INVALID_PARAMS, message, retryable=False)


def _check(params: Mapping[str, Any]) -> Iterator[Problem]:
    """Find what the schema cannot say; a template stands for a string that may yet become right."""
    yield from _check_url(params["url"], "auth" in params)
    bodies = [name for name in _BODIES if name in params]
    for name in bodies[1:]:
        yield Problem((name,), f"cannot be given beside {bodies[0]}; a call has one body")
    if isinstance(headers := params.get("headers"), Mapping):
        for name in headers:
            yield from _check_header(name, ("headers", name), "auth" in params)


def _check_url(url: str, has_auth: bool) -> Iterator[Problem]:
    if not url.lower().startswith(("http://", "https://")):
        yield Problem(("url",), 'must begin with "http://" or "https://"')
        return
    try:
        parsed = httpx2.URL(url)
        if not parsed.host:
            yield Problem(("url",), "has no host")
        elif (parsed.port or 0) > 65535:
            yield Problem(("url",), "has a port above 65535")
        elif parsed.userinfo and has_auth:
            yield Problem(("url",), "cannot have a user beside auth; remove one of them")
    except (httpx2.InvalidURL, ValueError):
        yield Problem(("url",), "is no valid URL")


def _check_header(name: str, path: Path, has_auth: bool) -> Iterator[Problem]:
    if name.lower() in _OWN_HEADERS:
        yield Problem(path, "is set by Flowkeep; remove it")
    elif name.lower() == "authorization" and has_auth:
        yield Problem(path, "cannot be given beside auth; remove one of them")
