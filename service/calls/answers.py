"""What a gRPC call gives: the output of a step, or the reason why there is none."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import grpc

from service.calls.descriptors import Method
from service.calls.failures import Told
from service.calls.messages import TooManyValuesError, UnreadableMessageError, decoded
from service.engine import payload
from service.engine.failure import INVALID_OUTPUT
from service.engine.handlers.http_answer import INVALID_RESPONSE, RESPONSE_TOO_LARGE
from service.engine.handlers.http_body import big_as_text
from service.engine.handlers.http_secrets import names_secret
from service.engine.handlers.model import HandlerError

MAX_MESSAGE = 512 << 10
"""Bytes. Of more the JSON is hardly ever small enough, and to read what a hostile side makes of more takes too long."""

_TOO_MANY = f"must have at most {payload.MAX_NODES:,} values in all, nested at most {payload.MAX_DEPTH} deep"


class Answer:
    """The messages of one call, as far as they have come."""

    def __init__(self, method: Method, most: int, told: Told) -> None:
        self._method = method
        self._most = most if method.is_streaming else 2  # a second one shows that the other side does otherwise
        self._told = told
        self._messages: list[Any] = []
        self._bytes = self._values = 0

    async def read(self, rpc: Any, emit: Callable[[str], None]) -> dict[str, Any]:
        """Return the output. Messages of a stream are emitted as they come. Raises HandlerError and AioRpcError."""
        is_complete = False
        while len(self._messages) < self._most and not is_complete:
            data = await rpc.read()
            if data is grpc.aio.EOF:
                is_complete = True
            else:
                text = await self._take(data)
                if self._method.is_streaming:
                    emit(text + "\n")
        metadata = _shown(await rpc.initial_metadata(), await rpc.trailing_metadata() if is_complete else None)
        output = {**self._output(is_complete), "metadata": metadata}
        if payload.size(output) > payload.MAX_PAYLOAD_BYTES:
            raise self._too_large()
        if found := payload.check(output, "output"):
            raise self._told.error(INVALID_OUTPUT, f"{found[0].field} {found[0].description}")
        return output

    def _output(self, is_complete: bool) -> dict[str, Any]:
        if self._method.is_streaming:
            return {"messages": self._messages, "complete": is_complete}
        if len(self._messages) != 1:
            said = "more than one message" if self._messages else "no message"
            raise self._told.error(INVALID_RESPONSE, f"{said} came, and the method gives one")
        return {"message": self._messages[0]}

    async def _take(self, data: bytes) -> str:
        """Keep a message, and return it as a text of JSON."""
        if len(data) > MAX_MESSAGE:
            raise self._told.error(RESPONSE_TOO_LARGE, f"the answer has a message of {len(data)} bytes")
        try:
            value = await decoded(data, self._method.response, self._method.pool)
        except UnreadableMessageError as error:
            raise self._told.error(INVALID_RESPONSE, f"a message cannot be read: {error}") from None
        except TooManyValuesError:
            raise self._told.error(INVALID_OUTPUT, _TOO_MANY) from None
        self._values += payload.values(value)
        if not payload.is_bounded(value) or self._values > payload.MAX_NODES:
            raise self._told.error(INVALID_OUTPUT, _TOO_MANY)
        value = big_as_text(value)
        text = payload.encode(value)
        self._bytes += len(text)
        if self._bytes > payload.MAX_PAYLOAD_BYTES:
            raise self._too_large()
        self._messages.append(value)
        return text.decode()

    def _too_large(self) -> HandlerError:
        hint = "; max_messages takes fewer messages" if len(self._messages) > 1 else ""
        text = f"the output is larger than {payload.MAX_PAYLOAD_BYTES} bytes as JSON{hint}"
        return self._told.error(RESPONSE_TOO_LARGE, text)


def _shown(*received: Any) -> Mapping[str, str]:
    """Return metadata of an answer, of one name joined by commas; without gRPC's own, bytes and secrets."""
    found: dict[str, str] = {}
    for name, value in (entry for metadata in received for entry in metadata or ()):
        if isinstance(value, str) and not name.startswith("grpc-") and not names_secret(name):
            found[name] = f"{found[name]}, {value}" if name in found else value
    return found
