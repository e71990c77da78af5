"""Puts the place of a secret where the secret itself stands in what comes back, however it is written there."""

from __future__ import annotations

import html
import json
import re
from base64 import b64decode, b64encode
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any
from urllib.parse import quote, quote_plus, urlsplit

from service.engine.expressions.secret import Secret

SHORTEST = 6
"""Characters of a secret from which on it is looked for in what comes back: shorter ones would be found everywhere."""

# What stands in paths and queries as it is (WHATWG), beside letters and digits; other programs leave less of it.
_IN_PATH = "!$%&'()*+,/:;=@[\\]^|"
_IN_QUERY = _IN_PATH + "?`{}"
_ESCAPE = re.compile("%[0-9A-F]{2}")


class Hiding:
    """Knows how each of some secrets may be written, and hides them."""

    def __init__(self, values: Mapping[str, str]) -> None:
        written = {form: str(Secret(name)) for name in sorted(values) for form in _forms(values[name])}
        # Longer ones first, of which others may be a part.
        self._places = dict(sorted(written.items(), key=lambda each: -len(each[0])))
        self._by_beginning: dict[str, list[str]] = {}
        self._by_end: dict[str, list[str]] = {}
        for form in self._places:
            self._by_beginning.setdefault(form[:SHORTEST], []).append(form)
            self._by_end.setdefault(form[-SHORTEST:], []).append(form)

    def hidden(self, value: Any) -> Any:
        """Return JSON without the secrets; what holds none is equal."""
        return self._walk(value, may_be_cut=False)

    def hidden_if_cut(self, value: Any) -> Any:
        """Return JSON whose texts may begin or end inside a secret without the secrets, and without those parts."""
        return self._walk(value, may_be_cut=True)

    def _walk(self, value: Any, *, may_be_cut: bool) -> Any:
        if isinstance(value, str):
            text = _replaced(value, self._places)
            return self._without_parts(text) if may_be_cut else text
        if isinstance(value, Mapping):
            return {
                self._walk(key, may_be_cut=may_be_cut): self._walk(member, may_be_cut=may_be_cut)
                for key, member in value.items()
            }
        if isinstance(value, list | tuple):
            return [self._walk(member, may_be_cut=may_be_cut) for member in value]
        return self._places.get(str(value), value) if isinstance(value, int | float) else value

    def _without_parts(self, text: str) -> str:
        longest = max(map(len, self._places), default=0)
        for at in range(max(0, len(text) - longest + 1), len(text) - SHORTEST + 1):
            for form in self._by_beginning.get(text[at : at + SHORTEST], ()):
                if form.startswith(text[at:]):
                    return self._without_beginning(text[:at], longest) + self._places[form]
        return self._without_beginning(text, longest)

    def _without_beginning(self, text: str, longest: int) -> str:
        for end in range(min(len(text), longest - 1), SHORTEST - 1, -1):
            for form in self._by_end.get(text[end - SHORTEST : end], ()):
                if form.endswith(text[:end]):
                    return self._places[form] + text[end:]
        return text


def _replaced(text: str, places: Mapping[str, str]) -> str:
    """Return a text with places in it. What reads like a secret in a place itself stays as it is."""
    pieces = [text]  # texts and places in turn
    for form, place in places.items():
        if form in text:
            pieces = [
                part
                for index, piece in enumerate(pieces)
                for part in ((piece,) if index % 2 else _interleaved(piece.split(form), place))
            ]
    return "".join(pieces)


def _interleaved(texts: list[str], place: str) -> Iterator[str]:
    yield texts[0]
    for text in texts[1:]:
        yield place
        yield text


def _forms(value: str) -> set[str]:
    """Return a secret as it may come back: as it is, in a URL, in a text of JSON, HTML or Python, or in base64."""
    texts = {text for text in (value, value.strip(), *_of_url(value), *_of_base64(value)) if len(text) >= SHORTEST}
    return {form for text in texts for form in (*_as_text(text), *_as_base64(text.encode()))}


def _of_url(value: str) -> Iterator[str]:
    """Yield what of a URL is told without the rest of it."""
    with suppress(ValueError):
        url = urlsplit(value)
        host = url.netloc.rpartition("@")[2]
        if url.scheme and url.path.strip("/"):
            yield host + url.path
            yield host.lower() + url.path
        yield url.query
        yield url.password or ""


def _of_base64(value: str) -> Iterator[str]:
    """Yield the text that base64 stands for, as it is sent where bytes are."""
    with suppress(ValueError):
        yield b64decode(value, validate=True).decode()


def _as_text(text: str) -> Iterator[str]:
    yield text
    for in_url in (quote_plus(text), *(quote(text, safe=kept) for kept in ("", "/", _IN_PATH, _IN_QUERY))):
        yield in_url
        yield _ESCAPE.sub(lambda found: found[0].lower(), in_url)
    for in_json in (json.dumps(text), json.dumps(text, ensure_ascii=False)):
        yield in_json[1:-1]
        yield in_json[1:-1].replace("/", "\\/")
    for in_python in (repr(text)[1:-1], repr(text.encode())[2:-1]):
        yield in_python
        # As the part of a text that has both kinds of quotes.
        yield in_python.replace("\\'", "'").replace("'", "\\'")
    yield html.escape(text)
    # As servers read headers that are UTF-8.
    yield text.encode().decode("latin-1")


def _as_base64(data: bytes) -> Iterator[str]:
    """Yield what of base64 depends on these bytes alone, with what others before and after them ever."""
    for before in range(3):
        encoded = b64encode(bytes(before) + data).decode()
        # A character holds 6 bits: those at the edges, which hold bits of neighbours, are left out.
        core = encoded[-(-8 * before // 6) : 8 * (before + len(data)) // 6]
        yield core
        yield core.replace("+", "-").replace("/", "_")
