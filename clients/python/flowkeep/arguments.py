"""Checks what callers pass: protobuf takes a string for a list of its letters, and names no field in other mistakes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any
from uuid import UUID


def text(name: str, value: Any) -> str:
    """Return a string, or a UUID as one. Raises TypeError."""
    if isinstance(value, UUID):
        return str(value)
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a string, not {kind(value)}")
    return value


def entries(name: str, value: Any) -> list[Any]:
    """Return the entries of any iterable but a string or a mapping. Raises TypeError."""
    if isinstance(value, str):
        raise TypeError(f"{name} must be a list of strings, not one string: write [{value[:32]!r}]")
    if isinstance(value, Mapping | bytes) or not isinstance(value, Iterable):
        raise TypeError(f"{name} must be a list of strings, not {kind(value)}")
    return list(value)


def texts(name: str, value: Any) -> list[str]:
    """Return the strings of any iterable but a string or a mapping. Raises TypeError."""
    return [text(f"{name}[{index}]", each) for index, each in enumerate(entries(name, value))]


def text_map(name: str, value: Any) -> dict[str, str]:
    """Return a mapping of strings to strings. Raises TypeError."""
    if not isinstance(value, Mapping):
        raise TypeError(f"{name} must be a mapping of strings to strings, not {kind(value)}")
    return {text(f"a key of {name}", key): text(f"{name}[{key!r}]", each) for key, each in value.items()}


def whole(name: str, value: Any, *, bits: int = 32) -> int:
    """Return a whole number of so many bits. Raises TypeError, and ValueError for one that has more."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be a whole number, not {kind(value)}")
    most = 2 ** (bits - 1) - 1
    if not -most <= value <= most:
        raise ValueError(f"{name} must be between {-most} and {most}")
    return value


def flag(name: str, value: Any) -> bool:
    """Return a bool. Raises TypeError."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, not {kind(value)}")
    return value


def kind(value: object) -> str:
    """Return what a value is, in words that do not show it."""
    return "None" if value is None else f"a value of type {type(value).__name__}"
