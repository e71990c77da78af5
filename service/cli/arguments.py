"""Values as people type them on a command line."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import typer
import yaml


def read_text(source: str) -> str:
    """Return the text of a file, or of standard input for `-`."""
    if source == "-":
        return sys.stdin.read()
    try:
        return Path(source).read_text(encoding="utf-8")
    except OSError as error:
        raise typer.BadParameter(f"cannot read {source}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise typer.BadParameter(f"{source} is no text in UTF-8") from None


def read_documents(source: str) -> list[Any]:
    """Return the YAML or JSON documents of a file, or of standard input for `-`.

    A key that stands twice is refused: YAML's own reader would silently keep the last one.
    """
    try:
        documents = list(yaml.load_all(read_text(source), _StrictLoader))
    except (yaml.YAMLError, RecursionError) as error:
        raise typer.BadParameter(f"{source} is neither YAML nor JSON: {error}") from None
    return [document for document in documents if document is not None]


def read_input(text: str | None, settings: Iterable[str]) -> dict[str, Any] | None:
    """Return the input of an execution: JSON, `@file` or `-`, with `key=value` settings on top."""
    given: dict[str, Any] | None = None
    if text is not None:
        document = _input_document(text)
        if not isinstance(document, dict):
            raise typer.BadParameter("must be a JSON object", param_hint="--input")
        given = document
    for key, value in parse_pairs(settings, "--set"):
        given = given or {}
        _put(given, key, value)
    return given


def parse_pairs(pairs: Iterable[str], option: str) -> Iterator[tuple[str, str]]:
    """Yield the keys and values of `key=value` texts."""
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not key or not equals:
            raise typer.BadParameter(f"must be KEY=VALUE, not {pair!r}", param_hint=option)
        yield key, value


def parse_time(text: str | None, option: str) -> datetime | None:
    """Return a point in time: ISO 8601 (local time unless it says otherwise), or a span before now such as `2h`."""
    from flowkeep.durations import to_duration

    if text is None:
        return None
    if re.match(r"\d{4}-", text):
        try:
            moment = datetime.fromisoformat(text)
        except ValueError as error:
            raise typer.BadParameter(str(error), param_hint=option) from None
        try:
            return moment.astimezone(UTC)
        except (OverflowError, OSError, ValueError):  # beyond the calendar, where nothing can lie
            return (datetime.max if moment.year > 1 else datetime.min).replace(tzinfo=UTC)
    try:
        before = to_duration(text)
        return datetime.now(UTC) - timedelta(seconds=before.seconds, microseconds=before.nanos // 1000)
    except (ValueError, OverflowError):
        raise typer.BadParameter(
            f"must be a time such as 2026-11-21T08:00 or a span before now such as 2h, not {text!r}", param_hint=option
        ) from None


def check_span(text: str | None, option: str) -> str | None:
    """Return a span of time as it was given, if it is one."""
    from flowkeep.durations import to_duration

    if text is not None:
        try:
            to_duration(text)
        except ValueError as error:
            raise typer.BadParameter(str(error), param_hint=option) from None
    return text


def parse_choice(text: str, choices: Iterable[str], option: str) -> str:
    """Return the choice that a text names, in any case and with `-` for `_`."""
    names = list(choices)
    name = text.upper().replace("-", "_")
    if name not in names:
        raise typer.BadParameter(f"must be one of {', '.join(names)}, not {text!r}", param_hint=option)
    return name


def _input_document(text: str) -> Any:
    if text == "-" or text.startswith("@"):
        documents = read_documents(text.removeprefix("@"))
        return documents[0] if len(documents) == 1 else documents
    try:
        return json.loads(text)
    except ValueError as error:
        hint = "must be JSON, @FILE, or - for standard input"
        raise typer.BadParameter(f"{hint}: {error}", param_hint="--input") from None


def _put(target: dict[str, Any], key: str, text: str) -> None:
    *parents, last = key.split(".")
    for parent in parents:
        target = target.setdefault(parent, {})
        if not isinstance(target, dict):
            raise typer.BadParameter(f"{key}: {parent} is no object", param_hint="--set")
    try:
        target[last] = json.loads(text)
    except ValueError:
        target[last] = text


class _StrictLoader(yaml.SafeLoader):
    """YAML in which a key stands once in an object."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = key_node.value
            if key in seen and key_node.tag != "tag:yaml.org,2002:merge":
                mark = key_node.start_mark
                raise yaml.MarkedYAMLError(problem=f"the key {key!r} stands twice", problem_mark=mark)
            seen.add(key)
        return super().construct_mapping(node, deep)
