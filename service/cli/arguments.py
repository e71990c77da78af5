"""Values as people type them on a command line."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from service.cli.reading import Document, Fault, UnreadableError


# Commands show the texts of this module in their help, which need not wait for what reads YAML.

SET_HELP = (
    "A field of the input, KEY=VALUE; a.b=VALUE for one in an object. VALUE is text unless it is JSON: true, false,"
    ' null, a number such as 42 or -1.5, or what stands in "…", […] or {…}. 1e5, 007, NaN and numbers that are not'
    " finite are text. Repeatable."
)
SET_STRING_HELP = "A field of the input whose value is text whatever it looks like, KEY=VALUE. Repeatable."

RequestId = Annotated[
    str | None,
    typer.Option(help="Id of this request: what was asked with it before is not done twice.", show_default=False),
]

IsDry = Annotated[bool, typer.Option("--dry-run", help="Send nothing outside: mocks stand for steps.")]

Mocks = Annotated[
    str,
    typer.Option(help="File with the mocks of a dry run, YAML or JSON; - for standard input.", show_default=False),
]

SkipWaits = Annotated[bool, typer.Option("--skip-waits", help="Wait for no time in a dry run.")]

# Without an exponent: 12e4567 and 1e5 are more often the beginning of a hash than a number.
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?")
_LITERALS = {"true": True, "false": False, "null": None}
_FAULTS_SHOWN = 5


def read_input(text: str | None, settings: Iterable[str] = (), strings: Iterable[str] = ()) -> dict[str, Any] | None:
    """Return the input of an execution: JSON, `@file` or `-`, with `key=value` settings and strings on top.

    Raises TextError for what is no object, BadParameter for a field that is set twice or within another one.
    """
    from service.cli.reading import TextError

    given: dict[str, Any] | None = None
    if text is not None:
        document = _input_document(text)
        if not isinstance(document, dict):
            raise TextError("--input must be a JSON object")
        given = document
    paths: set[tuple[str, ...]] = set()
    for option, pairs in (("--set", settings), ("--set-string", strings)):
        for key, value in parse_pairs(pairs, option):
            given = {} if given is None else given
            path = _new_path(key, paths, option)
            _put(given, path, value if option == "--set-string" else _value(value, option), option)
    return given


def read_json(text: str, option: str) -> Any:
    """Return a value that an option gives: JSON, `@file` or `-`. Raises TextError."""
    return _input_document(text, option)


def parse_pairs(pairs: Iterable[str], option: str) -> Iterator[tuple[str, str]]:
    """Yield the keys and values of `key=value` texts. Raises BadParameter for a key that stands twice."""
    keys = set()
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not key or not equals:
            raise typer.BadParameter(f"must be KEY=VALUE, not {pair!r}", param_hint=option)
        if key in keys:
            raise typer.BadParameter(f"{key} is given twice", param_hint=option)
        keys.add(key)
        yield key, value


def read_values(pairs: Iterable[str], option: str) -> dict[str, Any]:
    """Return what `name=value` texts say; a value is JSON, or else text. Raises BadParameter, TextError."""
    return {name: _value(value, option) for name, value in parse_pairs(pairs, option)}


def parse_time(text: str | None, option: str) -> datetime | None:
    """Return a point in time: ISO 8601 (local time unless it says otherwise), or a span before now such as `2h`."""
    from flowkeep.times import to_datetime

    try:
        return None if text is None else to_datetime(text, local=True)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=option) from None


def check_span(text: str | None, option: str) -> str | float | None:
    """Return a span of time: `90s`, `1h30m`, `7d`, `PT5M`, or a number of seconds."""
    from flowkeep.durations import to_duration

    if text is None:
        return None
    # There are no quotes on a command line: only digits are a number.
    span = float(text) if _NUMBER.fullmatch(text) else text
    try:
        to_duration(span)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=option) from None
    return span


def parse_choice(text: str, choices: Iterable[str], option: str) -> str:
    """Return the choice that a text names, in any case and with `-` for `_`."""
    names = list(choices)
    name = text.upper().replace("-", "_")
    if name not in names:
        raise typer.BadParameter(f"must be one of {', '.join(names)}, not {text!r}", param_hint=option)
    return name


def _input_document(text: str, option: str = "--input") -> Any:
    from service.cli.reading import TextError, UnreadableError, parse_documents, parse_json, read_text

    is_file = text == "-" or text.startswith("@")
    source = text.removeprefix("@")
    name = ("standard input" if source == "-" else source) if is_file else option
    try:
        written = read_text(source) if is_file else text
        documents = list(parse_documents(written, source) if is_file else parse_json(written))
    except UnreadableError as error:
        form = "" if is_file else f"; {option} takes JSON, @FILE, or - for standard input"
        raise TextError(f"{_at(name, error)}{form}") from None
    if len(documents) != 1:
        held = "nothing" if not documents else f"{len(documents)} documents"
        raise TextError(f"{name} must hold one JSON {'object' if option == '--input' else 'value'}, not {held}")
    _refuse_faults(documents[0], name)
    return documents[0].value


def _refuse_faults(document: Document, name: str) -> None:
    """Raise TextError when something in a document could only be read past."""
    from service.cli.reading import TextError

    shown = [_at(name, fault) for fault in document.faults[:_FAULTS_SHOWN]]
    if more := len(document.faults) - len(shown):
        shown.append(f"and {more} more")
    if shown:
        raise TextError("\n".join(shown))


def _at(name: str, problem: Fault | UnreadableError) -> str:
    return f"{name}:{problem.place.line}:{problem.place.column}: {problem.description}"


def _new_path(key: str, paths: set[tuple[str, ...]], option: str) -> tuple[str, ...]:
    """Return the path of a key, and note it. It must not be, hold or lie in what was set before."""
    path = tuple(key.split("."))
    if not all(path):
        raise typer.BadParameter(f"{key}: a name between dots is empty", param_hint=option)
    for other in paths:
        shorter = min(len(path), len(other))
        if path[:shorter] == other[:shorter]:
            both = f"{key} is given twice" if path == other else f"{key} and {'.'.join(other)} exclude each other"
            raise typer.BadParameter(f"{both}; set one of them", param_hint=option)
    paths.add(path)
    return path


def _put(target: dict[str, Any], path: tuple[str, ...], value: Any, option: str) -> None:
    *parents, last = path
    for parent in parents:
        target = target.setdefault(parent, {})
        if not isinstance(target, dict):
            raise typer.BadParameter(f"{'.'.join(path)}: {parent} is no object", param_hint=option)
    target[last] = value


def _value(text: str, option: str) -> Any:
    """Return what a setting says: JSON where it is that, but for numbers with an exponent, else text."""
    from service.cli.reading import UnreadableError, parse_json

    bare = text.strip()
    if bare in _LITERALS:
        return _LITERALS[bare]
    if _NUMBER.fullmatch(bare):
        return json.loads(bare) if math.isfinite(float(bare)) else text
    if bare[:1] not in ('"', "[", "{"):
        return text
    try:
        (document,) = parse_json(bare)
    except (UnreadableError, ValueError):
        return text
    _refuse_faults(document, option)
    return document.value


def breakpoints(texts: Iterable[str]) -> dict[str, str]:
    """Return the paths of steps with their conditions, which texts such as `ship if params.amount > 100` tell."""
    parts = (text.partition(" if ") for text in texts)
    return {path.strip(): condition.strip() for path, _, condition in parts}


def expiry(span: str) -> datetime | None:
    """Return when a span such as `90m` from now is over, None for an empty one."""
    from flowkeep.durations import to_seconds

    checked = check_span(span or None, "--within")
    return None if checked is None else datetime.now(UTC) + timedelta(seconds=to_seconds(checked))
