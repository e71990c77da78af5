"""The endpoints of models that a deployment has, as FLOWKEEP_MODELS names them: URLs, keys and prices."""

from __future__ import annotations

import asyncio
import decimal
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from types import MappingProxyType
from typing import Any

import msgspec

from service.engine.mcp.servers import HttpServer, http_server

MOST_ENDPOINTS = 100
MOST_PRICES = 1_000
ANY_MODEL = "*"
PATH = "/chat/completions"

_FORM = (
    'must be JSON such as {"local": {"url": "http://llm.internal:8000/v1"}, "openai": {"url": '
    '"https://api.openai.com/v1", "key_file": "/run/secrets/openai"}}'
)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_CURRENCY = re.compile(r"[A-Z]{3}")
_KEYS = ("key", "key_file", "key_variable")
_MEMBERS = frozenset({"url", "headers", "tls", "proxy", *_KEYS, "prices", "currency"})
_DEAREST = 1_000_000


class NoKeyError(Exception):
    """The key of an endpoint cannot be had; the text says why, without it."""


@dataclass(frozen=True, slots=True)
class Price:
    """What a million tokens cost. `cached_input`: those of the input that the other side had read before."""

    input: Decimal
    output: Decimal
    cached_input: Decimal

    def micros(self, input_tokens: int, cached_tokens: int, output_tokens: int) -> int:
        """Return millionths of the currency, rounded; `cached_tokens` are among those of the input.

        What a million tokens cost in the currency is what one costs in its millionths.
        """
        cached = min(cached_tokens, input_tokens)
        cost = (input_tokens - cached) * self.input + cached * self.cached_input + output_tokens * self.output
        return int(cost.to_integral_value(decimal.ROUND_HALF_UP))


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where models are asked, with which key, and what their tokens cost, by the name of the model."""

    server: HttpServer
    key: str = field(default="", repr=False)
    key_file: Path | None = None
    key_variable: str = ""
    prices: Mapping[str, Price] = field(default_factory=dict)
    currency: str = ""

    def price(self, model: str) -> Price | None:
        """Return what tokens of a model cost, None where nobody said."""
        return self.prices.get(model) or self.prices.get(ANY_MODEL)

    async def current_key(self) -> str:
        """Return the key, empty for none; that of a file or a variable as it is now. Raises NoKeyError."""
        if self.key_file is not None:
            return await asyncio.to_thread(self.read_key)
        return self.read_key()

    def read_key(self) -> str:
        """Return the key as `current_key` does, while the caller waits. Raises NoKeyError."""
        if self.key_variable:
            found = os.environ.get(self.key_variable, "").strip()
        elif self.key_file is not None:
            try:
                found = self.key_file.read_text(encoding="utf-8").strip()
            except OSError as error:
                raise NoKeyError(f"key_file cannot be read: {error.strerror}") from None
            except UnicodeError:
                raise NoKeyError("key_file is no text") from None
        else:
            return self.key
        if not found or not is_header(found):
            where = "key_variable" if self.key_variable else "key_file"
            raise NoKeyError(f"{where} leads to no key: it is empty, or holds what headers cannot carry")
        return found


def completions_url(url: str) -> str:
    """Return the URL at which models are asked, of that of an API, which may be it already."""
    head, mark, query = url.partition("?")
    head = head.rstrip("/")
    return f"{head if head.endswith(PATH) else head + PATH}{mark}{query}"


def parse(text: str) -> Mapping[str, Endpoint]:
    """Return the endpoints by name. Raises ValueError that says what is wrong where, and repeats no value."""
    try:
        document = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        raise ValueError(_FORM) from None
    if not isinstance(document, dict):
        raise ValueError(_FORM)
    if len(document) > MOST_ENDPOINTS:
        raise ValueError(f"must name at most {MOST_ENDPOINTS} endpoints")
    for name in document:
        if not _NAME.fullmatch(name):
            raise ValueError(
                "a name of an endpoint has 1 to 64 letters, digits and _ . - and begins with none of these"
            )
    endpoints = {name: _endpoint(name, given) for name, given in document.items()}
    if len({each.currency for each in endpoints.values() if each.prices}) > 1:
        raise ValueError("currency: must be one for all prices, since the cost of an execution is one sum")
    return MappingProxyType(endpoints)


def _endpoint(name: str, given: Any) -> Endpoint:
    if not isinstance(given, dict) or not isinstance(url := given.get("url"), str):
        raise ValueError(f'{name}: must be an object with a url, such as "https://api.openai.com/v1"')
    if unknown := sorted(given.keys() - _MEMBERS):
        raise ValueError(f"{name}.{unknown[0][:64]}: is unknown; known are {', '.join(sorted(_MEMBERS))}")
    if "#" in url:
        raise ValueError(f"{name}.url: must be without a fragment")
    server = http_server(name, url, given)
    keys = [each for each in _KEYS if each in given]
    if len(keys) > 1:
        raise ValueError(f"{name}: must have at most one of {', '.join(_KEYS)}")
    if not all(isinstance(given[each], str) and given[each] and "\0" not in given[each] for each in keys):
        raise ValueError(f"{name}.{keys[0]}: must be a text that is not empty")
    if "key" in given and not is_header(given["key"]):
        raise ValueError(f"{name}.key: holds what headers cannot carry")
    currency = given.get("currency", "")
    if "currency" in given and not (isinstance(currency, str) and _CURRENCY.fullmatch(currency)):
        raise ValueError(f'{name}.currency: must be three letters, such as "EUR"')
    return Endpoint(
        server,
        given.get("key", ""),
        Path(given["key_file"]) if "key_file" in given else None,
        given.get("key_variable", ""),
        _prices(given.get("prices", {}), f"{name}.prices"),
        currency,
    )


def _prices(given: Any, place: str) -> Mapping[str, Price]:
    if not isinstance(given, dict) or len(given) > MOST_PRICES:
        raise ValueError(f"{place}: must be an object with the prices of at most {MOST_PRICES:,} models")
    found = {}
    for model, price in given.items():
        match price:
            case {"input": reading, "output": writing, **rest} if rest.keys() <= {"cached_input"}:
                prices = [_price(each) for each in (reading, writing, rest.get("cached_input", reading))]
            case _:
                prices = []
        if not prices or None in prices:
            raise ValueError(
                f'{place}: each model must have what a million tokens cost, such as {{"gpt-5-mini": {{"input": 0.25, '
                f'"output": 2, "cached_input": 0.025}}}}, from 0 to {_DEAREST:,}'
            )
        found[model] = Price(*(each for each in prices if each is not None))
    return MappingProxyType(found)


def _price(given: Any) -> Decimal | None:
    is_number = isinstance(given, int | float) and not isinstance(given, bool)
    return Decimal(str(given)) if is_number and 0 <= given <= _DEAREST else None


def is_header(text: str) -> bool:
    """Return whether a header can carry a text."""
    return text.isascii() and text.isprintable() and text == text.strip()
