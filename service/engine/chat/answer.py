"""What a model answers: read of a document, or gathered from the pieces of a stream."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from service.engine.payload import MAX_PAYLOAD_BYTES

LONGEST_TEXT = MAX_PAYLOAD_BYTES
"""Characters of an answer: more cannot be kept."""

MOST_CALLS = 64
"""Calls of tools in one answer."""

_END = "[DONE]"
_LONGEST_NAME = 256
# What one answer could have used at most, whatever the server says.
_MOST_TOKENS = 10**9


class NoAnswerError(Exception):
    """What came is no answer of the protocol; the text says why."""


class LongAnswerError(Exception):
    """An answer is longer than what can be kept."""


class ServerSaysError(Exception):
    """The server tells of an error in place of an answer, or in the middle of one.

    `is_final`: asking again would not help.
    """

    def __init__(self, text: str, *, is_final: bool) -> None:
        super().__init__(text)
        self.is_final = is_final


@dataclass(frozen=True, slots=True)
class Used:
    """Tokens that an answer took; `cached` are those of the input that the server had read before."""

    input: int = 0
    cached: int = 0
    output: int = 0


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A tool that a model wants called. The arguments are as the model wrote them: JSON if it did well."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model said, and why it ended. `refusal` is what it says in place of an answer."""

    text: str
    calls: tuple[ToolCall, ...]
    refusal: str
    finish_reason: str
    id: str
    model: str
    used: Used


class Gathering:
    """Puts an answer together. `show` is given each text when it comes.

    Taking raises NoAnswerError, LongAnswerError and ServerSaysError.
    """

    def __init__(self, show: Callable[[str], None]) -> None:
        self.used = Used()
        self.is_done = False
        """Whether the stream has said that it is at its end."""
        self._show = show
        self._texts: list[str] = []
        self._refusals: list[str] = []
        self._calls: list[_Call] = []
        self._length = 0
        self._finish: str | None = None
        self._id = self._model = ""
        self._has_choice = False

    def hear(self, data: str) -> None:
        """Take the data of one event of a stream."""
        data = data.strip()
        if data == _END:
            self.is_done = True
            return
        try:
            document = msgspec.json.decode(data)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            raise NoAnswerError("an event of the stream is not JSON") from None
        self.take(document, "delta")

    def take(self, document: Any, part: str = "message") -> None:
        """Take an answer, or a piece of one: what is new stands in this part of its first choice."""
        if not isinstance(document, dict):
            raise NoAnswerError("it is no JSON object")
        if (error := document.get("error")) or document.get("object") == "error":
            raise _said(error or document)
        self._id = _name(document.get("id")) or self._id
        self._model = _name(document.get("model")) or self._model
        if isinstance(usage := document.get("usage"), dict):
            self.used = _used(usage)
        choices = document.get("choices")
        choice = choices[0] if isinstance(choices, list) and choices else None
        if not isinstance(choice, dict):
            return
        self._has_choice = True
        if isinstance(reason := choice.get("finish_reason"), str):
            self._finish = reason
        if isinstance(said := choice.get(part), dict):
            self._add(said)

    def answer(self) -> Answer:
        """Return what has been gathered. Raises NoAnswerError when that is none."""
        if not self._has_choice:
            raise NoAnswerError("it has no choices")
        return Answer(
            "".join(self._texts),
            tuple(call.made(number) for number, call in enumerate(self._calls)),
            "".join(self._refusals),
            self._finish or "stop",
            self._id,
            self._model,
            self.used,
        )

    @property
    def has_ended(self) -> bool:
        """Whether the server has said why the answer ends, or that it does."""
        return self.is_done or self._finish is not None

    def _add(self, said: Mapping[str, Any]) -> None:
        if text := _text(said.get("content")):
            self._count(text)
            self._texts.append(text)
            self._show(text)
        if refusal := _text(said.get("refusal")):
            self._count(refusal)
            self._refusals.append(refusal)
        calls = said.get("tool_calls")
        for given in calls if isinstance(calls, list) else ():
            if isinstance(given, dict):
                self._add_call(given)

    def _add_call(self, given: Mapping[str, Any]) -> None:
        """Take a call, or a piece of one, which names its place among the calls, or goes on with the last."""
        place = given.get("index")
        if isinstance(place, bool) or not isinstance(place, int):
            place = len(self._calls) if given.get("id") or not self._calls else len(self._calls) - 1
        if not 0 <= place <= len(self._calls) or place >= MOST_CALLS:
            raise NoAnswerError(f"it calls more than {MOST_CALLS} tools, or not one after the other")
        if place == len(self._calls):
            self._calls.append(_Call())
        call, function = self._calls[place], given.get("function")
        call.id = _name(given.get("id")) or call.id
        if isinstance(function, dict):
            call.name = _name(function.get("name")) or call.name
            if arguments := function.get("arguments"):
                # Some servers give the object itself.
                text = arguments if isinstance(arguments, str) else msgspec.json.encode(arguments).decode()
                self._count(text)
                call.arguments.append(text)

    def _count(self, text: str) -> None:
        self._length += len(text)
        if self._length > LONGEST_TEXT:
            raise LongAnswerError(f"the answer has more than the {LONGEST_TEXT:,} characters that can be kept")


class _Call:
    """A call of a tool in the making."""

    def __init__(self) -> None:
        self.id = self.name = ""
        self.arguments: list[str] = []

    def made(self, number: int) -> ToolCall:
        """Return the call; one without an id gets its number for one."""
        return ToolCall(self.id or f"call_{number}", self.name, "".join(self.arguments))


def _text(content: Any) -> str:
    """Return the text of a content, which some servers give in parts, what the model thought among them."""
    match content:
        case str():
            return content
        case list():
            return "".join(
                each["text"]
                for each in content
                if isinstance(each, dict) and each.get("type") == "text" and isinstance(each.get("text"), str)
            )
        case _:
            return ""


def _name(given: Any) -> str:
    return given[:_LONGEST_NAME] if isinstance(given, str) else ""


def _used(usage: Mapping[str, Any]) -> Used:
    details = usage.get("prompt_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, dict) else 0
    return Used(_tokens(usage.get("prompt_tokens")), _tokens(cached), _tokens(usage.get("completion_tokens")))


def _tokens(given: Any) -> int:
    is_number = isinstance(given, int | float) and not isinstance(given, bool)
    return int(min(max(given, 0), _MOST_TOKENS)) if is_number else 0


def _said(error: Any) -> ServerSaysError:
    """Return the error that a server tells of: an object with message and code, or a text."""
    given = error if isinstance(error, dict) else {"message": error}
    text = given.get("message")
    code = given.get("code")
    status = int(code) if isinstance(code, int | str) and str(code).isdecimal() and len(str(code)) == 3 else 0
    is_final = 400 <= status < 500 and status not in (408, 425, 429)
    said = text[:1_000] if isinstance(text, str) and text else "it does not say which"
    return ServerSaysError(said, is_final=is_final)
