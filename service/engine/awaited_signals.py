"""What a step waits for by `wait_signal`: its params, which signals it takes, and what follows when none comes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any

import msgspec

from persistence.signals import Signal
from service.engine import pauses, payload
from service.engine.durations import TEN_YEARS
from service.engine.schema import Problem, Schema, locate
from service.engine.schema_kept import compiling, judging
from service.engine.schema_places import SchemaError
from service.engine.schema_weight import weigh
from service.engine.slices import Work, in_one_go

MOST_NAME = 128
"""Characters of the name of a signal."""

MOST_SCHEMA_BYTES = 16 << 10
"""Bytes of the schemas of a step as JSON: the planner judges and compiles them in one go."""

_MOST_COMPILING = 20_000

_NAME = {"type": "string", "minLength": 1, "maxLength": MOST_NAME}
_SCHEMA = {
    "description": "JSON Schema (draft 2020-12) of the payload; those of a step have at most 16 KiB in all.",
    "type": "object",
}

PARAMS = {
    "type": "object",
    "properties": {
        "name": {"description": "The name of the signal.", **_NAME},
        "schema": _SCHEMA,
        "signals": {
            "description": "Several signals, each of another name.",
            "type": "array",
            "minItems": 1,
            "maxItems": 16,
            "items": {
                "type": "object",
                "properties": {"name": {"description": "The name of the signal.", **_NAME}, "schema": _SCHEMA},
                "required": ["name"],
                "additionalProperties": False,
            },
        },
        "wait_for": {
            "description": "ALL waits for one of each name, FIRST for whichever comes first. Default: ALL.",
            "enum": ["ALL", "FIRST"],
        },
        "timeout": {
            "description": 'How long the step waits: seconds, or "2d", "4h", "PT30M". Without it there is no limit.',
            "type": ["number", "string"],
            "minimum": 0,
            "maximum": TEN_YEARS,
        },
        "on_timeout": {
            "description": "FAIL fails the step with SIGNAL_TIMEOUT, CONTINUE goes on with timed_out. Default: FAIL.",
            "enum": ["FAIL", "CONTINUE"],
        },
        "default": {"description": "The payload with which CONTINUE goes on; not with ALL.", "type": "object"},
    },
    "oneOf": [{"required": ["name"]}, {"required": ["signals"]}],
    "additionalProperties": False,
}


@dataclass(frozen=True, slots=True)
class Awaited:
    """What a step waits for: a signal `of_each` name, or any one of them. `schemas` are by name, as they are written.

    `default` is the payload with which it goes on when none has come in time, None where it fails then.
    """

    names: tuple[str, ...]
    schemas: Mapping[str, Mapping[str, Any]]
    of_each: bool
    due_time: datetime | None
    default: Mapping[str, Any] | None

    def chosen(self, kept: Sequence[Signal]) -> tuple[Signal, ...]:
        """Return which of the signals that came, in their order, the step takes; none where it waits on."""
        first = self.here(kept)
        if self.of_each:
            return tuple(first.values()) if len(first) == len(self.names) else ()
        return tuple(first[signal.name] for signal in kept if signal.name in first)[:1]

    def here(self, kept: Sequence[Signal]) -> dict[str, Signal]:
        """Return the first signal of each name that has come, in the order of the names."""
        first: dict[str, Signal] = {}
        for signal in kept:
            first.setdefault(signal.name, signal)
        return {name: first[name] for name in self.names if name in first}

    def output(self, taken: Sequence[Signal], *, timed_out: bool = False) -> dict[str, Any]:
        """Return what the step gives, with the signals that it takes."""
        if self.of_each:
            missing = [name for name in self.names if name not in {signal.name for signal in taken}]
            signals = {signal.name: _shown(signal) for signal in taken}
            return {"signals": signals, "missing": missing, "timed_out": timed_out}
        if not taken:
            return {"name": "", "payload": dict(self.default or {}), "timed_out": timed_out}
        return {"name": taken[0].name, **_shown(taken[0]), "timed_out": timed_out}

    def wrong(self, signal: Signal) -> list[Problem]:
        """Return all that is wrong with the payload of a signal that the step is to take."""
        return in_one_go(judging_payload(self.schemas.get(signal.name), signal.payload))


def read(params: Mapping[str, Any], now: datetime) -> Awaited:
    """Return what params wait for, from `now` on. Raises ValueError, which says what is wrong with them, and where."""
    problems = _schema().problems(params) or list(check(params))
    if problems:
        raise ValueError("; ".join(f"{locate('', each.path)} {each.message}" for each in problems[:3]).strip())
    due_time = pauses.end({"duration": params["timeout"]}, now) if "timeout" in params else None
    return read_again(params, due_time)


def read_again(params: Mapping[str, Any], due_time: datetime | None = None) -> Awaited:
    """Return what params wait for that `read` found right."""
    signals = params.get("signals") or [params]
    goes_on = params.get("on_timeout") == "CONTINUE"
    return Awaited(
        names=tuple(signal["name"] for signal in signals),
        schemas={signal["name"]: signal["schema"] for signal in signals if "schema" in signal},
        of_each="signals" in params and params.get("wait_for", "ALL") == "ALL",
        due_time=due_time,
        default=params.get("default", {}) if goes_on else None,
    )


def check(params: Mapping[str, Any]) -> Iterator[Problem]:
    """Find what the schema of the params cannot say."""
    signals = params.get("signals")
    if isinstance(signals, list):
        names = [signal.get("name") for signal in signals if isinstance(signal, Mapping)]
        yield from (
            Problem(("signals", at, "name"), "is the name of another one, too")
            for at, name in enumerate(names)
            if name in names[:at]
        )
        for name in ("schema",):
            if name in params:
                yield Problem((name,), "goes with name; give each of signals its own")
    elif "wait_for" in params:
        yield Problem(("wait_for",), "has no effect with one signal; give signals")
    yield from _check_timeout(params, of_each=isinstance(signals, list) and params.get("wait_for", "ALL") == "ALL")
    size = 0
    for place, schema in _schemas(params):
        size += payload.size(schema)
        if size > MOST_SCHEMA_BYTES:
            yield Problem(place, f"is too large: schemas may have {MOST_SCHEMA_BYTES:,} bytes as JSON in all")
            return
        faults = in_one_go(judging(schema, _MOST_COMPILING))
        yield from (Problem((*place, *each.path), each.message) for each in faults)


def _schemas(params: Mapping[str, Any]) -> Iterator[tuple[tuple[str | int, ...], Mapping[str, Any]]]:
    if isinstance(params.get("schema"), Mapping):
        yield ("schema",), params["schema"]
    for at, signal in enumerate(params["signals"] if isinstance(params.get("signals"), list) else ()):
        if isinstance(signal, Mapping) and isinstance(signal.get("schema"), Mapping):
            yield ("signals", at, "schema"), signal["schema"]


def _check_timeout(params: Mapping[str, Any], *, of_each: bool) -> Iterator[Problem]:
    try:
        if "timeout" in params:
            pauses.seconds(params["timeout"])
        elif "on_timeout" in params:
            yield Problem(("on_timeout",), "has no effect without timeout")
    except ValueError as error:
        yield Problem(("timeout",), str(error))
    if "default" in params and params.get("on_timeout") != "CONTINUE":
        yield Problem(("default",), "has no effect without on_timeout: CONTINUE")
    elif "default" in params and of_each:
        yield Problem(("default",), "has no effect where all signals are waited for: what came is given")


def judging_payload(schema: Mapping[str, Any] | None, given: Mapping[str, Any]) -> Work[list[Problem]]:
    """Return all that is wrong with a payload by a schema, in pieces."""
    if schema is None:
        return []
    try:
        compiled = yield from compiling(msgspec.json.encode(schema))
    except SchemaError as error:  # of what is stored, by hand
        return [Problem((), f"cannot be judged: the schema is none: {error}")]
    yield compiled.cost(given, is_wrong=True)
    return compiled.problems(given)


def _shown(signal: Signal) -> dict[str, Any]:
    sent = signal.time.isoformat().replace("+00:00", "Z")
    return {"payload": dict(signal.payload), "signal_id": str(signal.id), "sender": signal.sender, "send_time": sent}


@cache
def _schema() -> Schema:
    return Schema(PARAMS, weigh(PARAMS, is_bounded=False))
