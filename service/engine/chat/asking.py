"""Asks a model: the requests of one attempt, and what each of its answers is to the step."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import httpx2

from service.engine.chat.answer import Answer, Gathering, LongAnswerError, NoAnswerError, ServerSaysError, Used
from service.engine.chat.endpoints import Price
from service.engine.chat.failures import (
    ANSWER_TRUNCATED,
    CONTENT_FILTERED,
    MODEL_REFUSED,
    OUTPUT_REJECTED,
)
from service.engine.chat.reading import Said
from service.engine.egress.egress import Egress
from service.engine.egress.routes import DIRECT, Route
from service.engine.failure import INVALID_PARAMS, SERVER_ERROR
from service.engine.handlers.http_answer import (
    CONNECTION_FAILED,
    EXCERPT,
    INVALID_RESPONSE,
    RESPONSE_TOO_LARGE,
    Expectation,
    read_sized,
)
from service.engine.handlers.http_body import media_type
from service.engine.handlers.http_events import MEDIA_TYPE
from service.engine.handlers.http_line import Line
from service.engine.handlers.http_request import request
from service.engine.handlers.http_secrets import Told, told
from service.engine.handlers.model import HandlerError, StepContext

MAX_ANSWER_BYTES = 1 << 20
"""Longest document, or event of a stream."""

MAX_STREAM_BYTES = 16 << 20
"""Longest stream: some 200 bytes for each token, those of what a model thinks too."""

# Seconds for a connection to end in good order, so that it can be used again.
_MOMENT = 2.0
_MOST_MICROS = 10**12
_FILTERED = re.compile(r'"(?:code|type)"\s*:\s*"content_filter"')
_OUT_OF_QUOTA = re.compile(r'"(?:code|type)"\s*:\s*"insufficient_quota"')


@dataclass(frozen=True, slots=True)
class Place:
    """Where a model is asked, and how that is told of: by the name of its endpoint where it has one."""

    url: str = field(repr=False)
    headers: Mapping[str, Any] = field(repr=False)
    key: str = field(repr=False)
    egress: Egress
    endpoint: str = ""
    price: Price | None = None
    currency: str = ""
    route: Route = DIRECT


@dataclass(frozen=True, slots=True)
class _Asked(Expectation):
    """What is expected of an answer of a model. `facts` stand in the details of failures."""

    facts: Mapping[str, Any] = field(default_factory=dict)

    def error(
        self, code: str, text: str, *, retryable: bool = True, retry_after: float | None = None, **details: Any
    ) -> HandlerError:
        body = details.get("body", "")
        if code == "HTTP_STATUS_4XX" and _FILTERED.search(body):
            code, text = CONTENT_FILTERED, f"{text}: a filter of the server takes offence at what it was asked"
        elif code == "HTTP_STATUS_4XX" and _OUT_OF_QUOTA.search(body):
            text, retryable, retry_after = f"{text}: the quota of the key is used up", False, None
        return HandlerError(code, f"{self.told.place}: {text}", {**self.facts, **details}, retryable, retry_after)

    def too_long(self) -> str:
        most = self.max_bytes if self.form == "json" else f"{self.max_stream_bytes} bytes, or an event {self.max_bytes}"
        return f"the answer is longer than {most} bytes"


def _until_done(gathering: Gathering, limit: asyncio.Timeout) -> Callable[[str], None]:
    """Return what hears events. After the last one, the other side has a moment to end the stream."""

    def hear(data: str) -> None:
        gathering.hear(data)
        if gathering.is_done:
            until = asyncio.get_running_loop().time() + _MOMENT
            limit.reschedule(min(until, limit.when() or until))

    return hear


class Asking:
    """The requests of one attempt, one after the other, and what they have used."""

    def __init__(self, place: Place, params: Mapping[str, Any], context: StepContext) -> None:
        self.asks = 0
        self._place = place
        self._params = params
        self._context = context
        self._line = Line(place.egress, context.org, params.get("timeout"), place.route, may_last=True)
        self._used = Used()
        self._cost = 0

    async def answer(self, body: Mapping[str, Any]) -> Answer:
        """Return the answer to a body. Raises HandlerError."""
        self.asks += 1
        gathering = Gathering(self._show)
        asked = self._request(body)
        expected = self._expectation(asked)
        try:
            await self._gather(asked, expected, gathering)
            answer = gathering.answer()
        except NoAnswerError as error:
            text = f"what came is no answer of chat completions: {error}"
            raise expected.error(INVALID_RESPONSE, text, retryable=False) from None
        except LongAnswerError as error:
            raise expected.error(RESPONSE_TOO_LARGE, str(error), retryable=False) from None
        except ServerSaysError as error:
            text = expected.told.hide(f"the server tells of an error: {error}")
            raise expected.error(SERVER_ERROR, text, retryable=not error.is_final) from None
        finally:
            self._count(gathering.used)
        self._judge(answer, expected)
        return answer

    async def _gather(self, asked: httpx2.Request, expected: _Asked, gathering: Gathering) -> None:
        """Let an answer be gathered. Raises HandlerError, and what gathering raises."""
        is_stream = False
        try:
            async with self._line.answer(asked, expected) as (response, limit):
                # Some servers cannot stream, and answer as if nobody had asked them to.
                is_stream = media_type((response.headers.get_list("content-type") or [""])[-1]) == MEDIA_TYPE
                if is_stream:
                    expected = replace(expected, form="events", emit=_until_done(gathering, limit))
                output, _ = await read_sized(response, expected, limit)
        except HandlerError:
            if not gathering.is_done:  # else all has come, and how the connection ends changes nothing
                raise
            return
        if not is_stream:
            gathering.take(output["body"])
        elif not gathering.has_ended:
            raise expected.error(CONNECTION_FAILED, "the stream ended before the answer did")

    def rejected(self, answer: Answer, problems: list[str]) -> HandlerError:
        """Return the error that no answer met its schema; this one was the last."""
        times = "the only answer" if self.asks == 1 else f"the last of {self.asks} answers"
        expected = self._expectation(self._request({}))
        return expected.error(
            OUTPUT_REJECTED,
            f"{times} is not what was asked for: {'; '.join(problems)}",
            retryable=False,
            asks=self.asks,
            problems=problems,
            answer=expected.told.hide(answer.text)[:EXCERPT],
        )

    def output(self, answer: Answer, said: Said, messages: Sequence[Mapping[str, Any]] | None) -> dict[str, Any]:
        """Return the output of the step. `messages` are those that another step may go on with."""
        has_price = self._place.price is not None
        return {
            "text": said.text,
            "value": said.value,
            "tool_calls": said.calls,
            "messages": messages,
            "finish_reason": answer.finish_reason,
            "id": answer.id,
            "model": answer.model or self._params["model"],
            "asks": self.asks,
            "usage": {
                "input_tokens": self._used.input,
                "cached_input_tokens": self._used.cached,
                "output_tokens": self._used.output,
                "cost_micros": self._cost if has_price else None,
                "currency": (self._place.currency or None) if has_price else None,
            },
        }

    def _request(self, body: Mapping[str, Any]) -> httpx2.Request:
        place = self._place
        wanted = {
            "method": "POST",
            "url": place.url,
            "headers": place.headers,
            "json": body,
            "auth": {"bearer": place.key} if place.key else {},
            "response": "events" if self._params.get("stream") else "json",
        }
        try:
            asked = request(wanted, self._context)
        except (httpx2.InvalidURL, ValueError, TypeError):
            # What these say may repeat the URL or a header, and those may hold secrets.
            where = f"endpoint: the URL of {place.endpoint}" if place.endpoint else "url: the URL"
            raise HandlerError(INVALID_PARAMS, f"{where} cannot be called as it is", retryable=False) from None
        if self.asks > 1:  # another question than the first, and the same in each attempt
            asked.headers["Idempotency-Key"] = f"{self._context.idempotency_token}.{self.asks}"
        return asked

    def _expectation(self, asked: httpx2.Request) -> _Asked:
        shown, model = self._told(asked), self._params["model"]
        facts = {"endpoint": self._place.endpoint} if self._place.endpoint else {"url": shown.url}
        return _Asked(
            method=asked.method,
            told=shown,
            success_codes=("2xx",),
            form="json",
            has_big_as_text=True,
            max_bytes=MAX_ANSWER_BYTES,
            now=self._context.now,
            max_stream_bytes=MAX_STREAM_BYTES,
            facts={**facts, "model": model},
        )

    def _told(self, asked: httpx2.Request) -> Told:
        """Return how a call is told of: of an endpoint neither its URL nor any of its headers is."""
        place = self._place
        if not place.endpoint:
            return told(asked, [place.key] if place.key else [])
        query = (part.partition("=")[2] for part in asked.url.query.decode("ascii").split("&"))
        headers = [value for each in place.headers.values() for value in (each, each.partition(" ")[2])]
        shown = f"{place.endpoint} {self._params['model']}"[:300]
        return replace(told(asked, [place.key, *query, *headers]), place=shown, url="")

    def _judge(self, answer: Answer, expected: _Asked) -> None:
        """Raise HandlerError for an answer that is none to the step."""

        def failed(code: str, text: str, *, retryable: bool = False) -> HandlerError:
            said = expected.told.hide(answer.text or answer.refusal)[:EXCERPT]
            return expected.error(code, text, retryable=retryable, finish_reason=answer.finish_reason, answer=said)

        match answer.finish_reason:
            case "content_filter":
                raise failed(CONTENT_FILTERED, "a filter of the server cut the answer off")
            case "length" if not self._params.get("accept_truncated"):
                raise failed(ANSWER_TRUNCATED, "the answer was cut off at the most tokens that it may have")
            case "tool_calls" | "function_call" if not answer.calls:
                raise failed(INVALID_RESPONSE, "the answer is to call tools, and calls none")
            case "error":
                raise failed(SERVER_ERROR, "the server broke the answer off with an error", retryable=True)
        if answer.calls and "tools" not in self._params:
            raise failed(INVALID_RESPONSE, "the model calls a tool, and was given none")
        if answer.refusal:
            raise failed(MODEL_REFUSED, f"the model refuses to answer: {expected.told.hide(answer.refusal)}")

    def _show(self, text: str) -> None:
        if self._params.get("stream"):
            self._context.emit(text)

    def _count(self, used: Used) -> None:
        cost = 0
        if (price := self._place.price) is not None:
            cost = min(price.micros(used.input, used.cached, used.output), _MOST_MICROS)
        self._context.add_usage(input_tokens=used.input, output_tokens=used.output, cost_micros=cost)
        before = self._used
        self._used = Used(before.input + used.input, before.cached + used.cached, before.output + used.output)
        self._cost += cost
