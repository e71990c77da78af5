"""Posts JSON to a webhook, of which nothing but the status of its answer counts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import httpx2

from service.engine.egress.egress import Egress
from service.engine.failure import INVALID_PARAMS
from service.engine.handlers.http_answer import Expectation, read
from service.engine.handlers.http_auth import secrets_of
from service.engine.handlers.http_line import Line, route_of
from service.engine.handlers.http_request import request
from service.engine.handlers.http_secrets import told_by_host
from service.engine.handlers.model import HandlerError, StepContext


async def post(egress: Egress, wanted: Mapping[str, Any], context: StepContext) -> int:
    """Send params as `call_api` would, and return the status, which is a success. Else raises HandlerError."""
    try:
        asked = request({**wanted, "method": "POST"}, context)
    except (httpx2.InvalidURL, ValueError, TypeError):
        # What these say may repeat the URL, which is a secret.
        raise HandlerError(INVALID_PARAMS, "url: the URL cannot be sent as it is", retryable=False) from None
    expected = Expectation(
        method=asked.method,
        told=told_by_host(asked, secrets_of(wanted.get("auth", {}))),
        success_codes=("2xx",),
        form="none",
        has_big_as_text=False,
        max_bytes=0,
        now=context.now,
    )
    line = Line(egress, context.org, None, route_of(egress, context.org, wanted))
    async with line.answer(asked, expected) as (response, limit):
        await read(response, expected, limit)
    return response.status_code
