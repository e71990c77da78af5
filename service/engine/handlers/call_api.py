"""The handler `call_api`: one HTTP call, safe to repeat by its Idempotency-Key."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import httpx2

from service.engine.egress.egress import Egress
from service.engine.egress.guard import Guard
from service.engine.failure import INVALID_PARAMS
from service.engine.handlers.http_exchange import Exchange
from service.engine.handlers.http_line import Line, route_of
from service.engine.handlers.http_pages import Pages, sources
from service.engine.handlers.http_params import DEFAULT_RESPONSE_BYTES, PARAMS, check, credentials
from service.engine.handlers.http_request import request
from service.engine.handlers.http_tokens import Tokens
from service.engine.handlers.model import Effect, Handler, HandlerError, StepContext

DESCRIPTION = """\
Calls an HTTP API. Gives {status, headers, body}; headers of one name are joined by commas, those with secrets left out.

With `pages` it fetches a list page by page, and gives {status, headers, items, pages, next} instead.

Redirects are not followed unless `redirects` says so, cookies not kept, and proxies of the server's environment not
used: calls go straight to the host, unless `proxy` names one of the server's settings. gzip and deflate are undone. An
answer that has begun must be complete within 30 s, or within `timeout`.

The token of `auth.oauth2` is fetched by a call of its own under the same rules, which fails with the same codes; the
details name its URL then. `timeout` is for both together.

Hosts are called at public addresses only, unless the server's setting FLOWKEEP_HTTP_ALLOW names others.

Fails with these codes; details hold the method, the URL without secrets, the status, and the beginning of the body:
HTTP_STATUS_2XX to HTTP_STATUS_5XX: a status that is no success, whatever its body is. Retried: 5XX (beyond 599 too),
408, 425 and 429; a Retry-After of 429 and 503 is waited for, at most an hour.
CONNECTION_FAILED: no connection, or none up to the end of the answer, or not in time. Retried.
ADDRESS_NOT_ALLOWED: the host has an address that workflows may not call. Nothing was sent. Not retried.
INVALID_RESPONSE: what came is not HTTP, not what its headers say, or not what `response` asks for. Not retried.
RESPONSE_TOO_LARGE: a body longer than `max_response_bytes`. Not retried.
INVALID_OUTPUT: an answer that cannot be kept as the output of a step, for its size or its numbers. Not retried.
EXPRESSION_ERROR: the CEL of `pages` cannot be computed from an answer, or gives what it must not. Not retried.
INVALID_PARAMS: params that are wrong once their templates are filled in. Not retried."""


def call_api(egress: Egress | None = None) -> Handler:
    """Return the handler, which calls by `egress`; by default by one of its own that leads to public addresses only."""
    caller = _Caller(egress or Egress(Guard()))
    return Handler(
        name="call_api",
        description=DESCRIPTION,
        params_schema=PARAMS,
        effect=Effect.EXTERNAL,
        run=caller.run,
        check=check,
        sources=sources,
        credentials=credentials,
        close=caller.close,
    )


class _Caller:
    """Makes calls, each over the connections of its org."""

    def __init__(self, egress: Egress) -> None:
        self._egress = egress
        self._tokens = Tokens()

    async def run(self, params: Mapping[str, Any], context: StepContext) -> Any:
        try:
            asked = request(params, context)
        except (httpx2.InvalidURL, ValueError, TypeError):
            # What these say may repeat the URL or a header, and those may hold secrets.
            message = "url: the URL, or the query with what is added to it, cannot be sent as it is"
            raise HandlerError(INVALID_PARAMS, message, retryable=False) from None
        route = route_of(self._egress, context.org, params)
        line = Line(self._egress, context.org, params.get("timeout"), route)
        exchange = Exchange(params, context, line, self._tokens)
        max_bytes = params.get("max_response_bytes", DEFAULT_RESPONSE_BYTES)
        if "pages" in params:
            return await Pages(params["pages"], max_bytes).fetch(asked, exchange)
        output = (await exchange.answer(asked, max_bytes)).output
        return {**exchange.shown(output), "body": output["body"]}

    async def close(self) -> None:
        await self._egress.close()
