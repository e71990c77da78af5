"""Lists that an API gives page by page: the schema, what is wrong with it, and how the pages are fetched."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from typing import Any

import httpx2

from service.engine import payload
from service.engine.expressions import Expression, ExpressionError, compile_value
from service.engine.failure import EXPRESSION_ERROR, INVALID_OUTPUT, INVALID_PARAMS
from service.engine.handlers.http_answer import INVALID_RESPONSE, Expectation
from service.engine.handlers.http_exchange import Answered, Exchange
from service.engine.handlers.http_redirect import LocationError, url_of
from service.engine.handlers.model import OF_ANSWER, HandlerError, Source
from service.engine.schema import Problem

MOST = 100

_TOO_MANY = f"pages.items gives more than the {payload.MAX_PAYLOAD_BYTES} bytes of an output; limit the pages"

_CEL = {"type": "string", "minLength": 1, "maxLength": 4096}
SCHEMA = {
    "description": (
        "Fetches a list that comes in pages, by GET. Both expressions are CEL and see status, headers (names in lower "
        "case, without those that hold secrets) and body of the answer that gave a page. The output is {status, "
        "headers, items, pages, next}: status and headers of the last page, the items of all, how many pages there "
        "were, and the URL of the page after them, null at the end. max_response_bytes and timeout are for all pages "
        "together; an output has at most 262144 bytes as JSON."
    ),
    "type": "object",
    "properties": {
        "next": {
            "description": (
                'The URL of the next page, null or "" at the end, such as body.next. It may be relative to the page. '
                "auth and headers that are named like secrets are sent to the first page's origin alone."
            ),
            **_CEL,
        },
        "items": {"description": "The list of the items of a page, such as body.items.", **_CEL},
        "limit": {
            "description": f"Most pages, default {MOST}.",
            "type": "integer",
            "minimum": 1,
            "maximum": MOST,
        },
    },
    "required": ["next", "items"],
    "additionalProperties": False,
}


def check(params: Mapping[str, Any]) -> Iterator[Problem]:
    """Find what the schema cannot say."""
    if "pages" not in params:
        return
    if params.get("method", "GET") != "GET":
        yield Problem(("method",), "must be GET where pages is given")
    if (form := params.get("response")) in ("none", "events"):
        yield Problem(("response",), f"cannot be {form} where pages is given: each page is read as a whole")


def sources(params: Mapping[str, Any]) -> Iterator[Source]:
    """Return the CEL, to be compiled with the workflow."""
    pages = params.get("pages")
    for name in ("next", "items"):
        if isinstance(pages, Mapping) and name in pages:
            yield Source(("pages", name), pages[name], names=OF_ANSWER)


class Pages:
    """Fetches the pages of one attempt."""

    def __init__(self, given: Mapping[str, Any], max_bytes: int) -> None:
        """Raises HandlerError for CEL that came out of a template and is wrong."""
        self._next = _compiled("next", given["next"])
        self._items = _compiled("items", given["items"])
        self._limit = given.get("limit", MOST)
        self._max_bytes = max_bytes

    async def fetch(self, asked: httpx2.Request, exchange: Exchange) -> dict[str, Any]:
        """Return {status, headers, items, pages, next}. Raises HandlerError."""
        items: list[Any] = []
        left, size, pages = self._max_bytes, 0, 0
        fetched = {str(asked.url)}
        while True:
            pages += 1
            page = await exchange.answer(asked, left)
            left -= page.size
            found = _list(await self._value("items", self._items, page), page.expected)
            items += found
            size += payload.size(found)
            if size > payload.MAX_PAYLOAD_BYTES or len(items) > payload.MAX_NODES:
                raise page.expected.error(INVALID_OUTPUT, _TOO_MANY, retryable=False)
            onward = await self._onward(page)
            if onward is None or pages == self._limit:
                break
            if str(onward) in fetched:
                text = "pages.next leads to a page that was fetched already"
                raise page.expected.error(INVALID_RESPONSE, text, retryable=False)
            fetched.add(str(onward))  # as the answer has it: a key may be added to what is sent
            asked = exchange.moved(page.asked, onward)
        return {
            **exchange.shown(page.output),
            "items": items,
            "pages": pages,
            "next": None if onward is None else str(onward),
        }

    async def _onward(self, page: Answered) -> httpx2.URL | None:
        found = await self._value("next", self._next, page)
        if found is None or found == "":
            return None
        if not isinstance(found, str):
            raise _wrong("next", "gives what is no text; it must give a URL, or null at the end", page.expected)
        try:
            return url_of(page.asked.url, found)
        except LocationError:
            text = "pages.next gives what is no URL that can be called"
            raise page.expected.error(INVALID_RESPONSE, text, retryable=False) from None

    async def _value(self, name: str, expression: Expression, page: Answered) -> Any:
        await asyncio.sleep(0)  # each may take a while
        try:
            return expression.evaluate(page.output)
        except ExpressionError as error:
            raise _wrong(name, str(error), page.expected) from None


def _compiled(name: str, source: str) -> Expression:
    try:
        return compile_value(source, OF_ANSWER)
    except ExpressionError as error:
        raise HandlerError(INVALID_PARAMS, f"pages.{name}: {error}", retryable=False) from None


def _list(found: Any, expected: Expectation) -> list[Any]:
    if not isinstance(found, list):
        raise _wrong("items", "gives what is no list", expected)
    return found


def _wrong(name: str, text: str, expected: Expectation) -> HandlerError:
    return expected.error(EXPRESSION_ERROR, expected.told.hide(f"pages.{name}: {text}"), retryable=False)
