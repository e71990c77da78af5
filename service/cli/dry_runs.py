"""Dry runs on a command line: what stands in the place of steps is read from a file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import typer
from google.protobuf.json_format import ParseDict, ParseError

from flowkeep.errors import PayloadError
from flowkeep.payload import to_struct, to_value
from flowkeep.v1.dry_run_pb2 import DryRun, Mock
from service.cli.arguments import read_json
from service.cli.reading import TextError

_FIELDS = ("mocks", "handlers", "default_mock", "skip_waits")
_OF_MOCK, _OF_FAILURE = ("output", "failure"), ("code", "message", "details", "retryable", "times")


def read_dry_run(mocks: str, *, is_dry: bool, skips_waits: bool) -> DryRun | None:
    """Return what makes an execution a dry run, with mocks from a file or standard input; None where it is none.

    Raises BadParameter where mocks are given for what is no dry run, TextError for what are no mocks.
    """
    if not is_dry:
        for option in ("--mocks",) * bool(mocks) + ("--skip-waits",) * skips_waits:
            raise typer.BadParameter("is for a dry run; give --dry-run, too", param_hint=option)
        return None
    dry_run = _read(mocks) if mocks else DryRun()
    dry_run.skip_waits |= skips_waits
    return dry_run


def _read(file: str) -> DryRun:
    given = _fields(read_json(file if file == "-" else f"@{file}", "--mocks"), _FIELDS, "the file")
    dry_run = DryRun()
    for field in ("mocks", "handlers"):
        for name, mock in _object(given.get(field), field).items():
            getattr(dry_run, field)[name].CopyFrom(_mock(mock, f"{field}.{name}"))
    if "default_mock" in given:
        dry_run.default_mock.CopyFrom(_mock(given["default_mock"], "default_mock"))
    skips = given.get("skip_waits", False)
    if not isinstance(skips, bool):
        raise TextError("skip_waits must be true or false")
    dry_run.skip_waits = skips
    return dry_run


def _mock(given: Any, where: str) -> Mock:
    fields, mock = _fields(given, _OF_MOCK, where), Mock()
    try:
        if "output" in fields:
            mock.output.CopyFrom(to_value(fields["output"]))
        if "failure" in fields:
            failure = dict(_fields(fields["failure"], _OF_FAILURE, f"{where}.failure"))
            details = _object(failure.pop("details", None), f"{where}.failure.details")
            ParseDict(failure, mock.failure)
            if details:
                mock.failure.details.CopyFrom(to_struct(details, "details"))
            mock.failure.SetInParent()
    except (ParseError, PayloadError) as error:
        raise TextError(f"{where}: {error}") from None
    return mock


def _object(given: Any, where: str) -> Mapping[str, Any]:
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise TextError(f"{where} must be an object")
    return given


def _fields(given: Any, known: tuple[str, ...], where: str) -> Mapping[str, Any]:
    if not isinstance(given, Mapping):
        raise TextError(f"{where} must be an object with {', '.join(known)}")
    if unknown := [name for name in given if name not in known]:
        raise TextError(f"{where}: {unknown[0]} is unknown; known are: {', '.join(known)}")
    return given
