"""What a step asks of people: the params of `create_task`, and what follows from them when nobody does it in time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any

import msgspec

from service.engine import pauses, payload
from service.engine.durations import TEN_YEARS
from service.engine.schema import Problem, Schema, locate
from service.engine.schema_kept import compiling, judging
from service.engine.schema_places import Path, SchemaError
from service.engine.schema_weight import weigh
from service.engine.slices import Work, in_one_go

DONE = "done"
"""The only outcome of a task for which none is named."""

MOST_VALUES_BYTES = 64 << 10
"""Bytes of JSON that may be filled in."""

MOST_FORM_BYTES = 16 << 10
"""Bytes of a form as JSON: the planner judges and compiles it in one go."""

_MOST_COMPILING = 20_000

_NAME = {"type": "string", "minLength": 1, "maxLength": 256}
_NAMES = {"type": "array", "maxItems": 64, "items": _NAME}
_SPAN = {"type": ["number", "string"], "minimum": 0, "maximum": TEN_YEARS}
_OUTCOME = {"type": "string", "minLength": 1, "maxLength": 64}

PARAMS = {
    "type": "object",
    "properties": {
        "title": {"description": "What is to be done, in a line.", **_NAME},
        "description": {"description": "All that a person needs to know.", "type": "string", "maxLength": 8192},
        "form": {
            "description": (
                "JSON Schema (draft 2020-12) of the values to fill in, at most 16 KiB; without it there are none."
            ),
            "type": "object",
        },
        "outcomes": {
            "description": f'What it can end with, such as ["approved", "rejected"]. Default: ["{DONE}"].',
            "type": "array",
            "minItems": 1,
            "maxItems": 16,
            "uniqueItems": True,
            "items": _OUTCOME,
        },
        "assignees": {
            "description": "Subjects that it is for. Without assignees and groups it is for everybody of the org.",
            **_NAMES,
        },
        "groups": {"description": "Groups whose members it is for.", **_NAMES},
        "due_in": {"description": 'By when it is to be done, from now: seconds, or "2d", "4h", "PT30M".', **_SPAN},
        "due_at": {"description": "By when it is to be done, RFC 3339 with a time zone.", "type": "string"},
        "overdue": {
            "description": "What happens when it is not done by then. Default: the step fails with TASK_OVERDUE.",
            "type": "object",
            "properties": {
                "escalate": {
                    "description": "First it is handed to these, once; without due_in they may take any time.",
                    "type": "object",
                    "properties": {"assignees": _NAMES, "groups": _NAMES, "due_in": _SPAN},
                    "additionalProperties": False,
                },
                "outcome": {"description": "The outcome with which the step goes on then.", **_OUTCOME},
                "values": {"description": "The values that go with this outcome.", "type": "object"},
            },
            "additionalProperties": False,
        },
        "wait": {
            "description": "Whether the step waits until it is done; with false it gives the id at once. Default true.",
            "type": "boolean",
        },
    },
    "required": ["title"],
    "additionalProperties": False,
}


@dataclass(frozen=True, slots=True)
class Asked:
    """What is asked. Without assignees and groups, of everybody."""

    title: str
    description: str
    form: Mapping[str, Any] | None
    outcomes: tuple[str, ...]
    assignees: tuple[str, ...]
    groups: tuple[str, ...]
    due_time: datetime | None
    is_waited: bool


@dataclass(frozen=True, slots=True)
class Escalation:
    """A task that is overdue is for these now."""

    assignees: tuple[str, ...]
    groups: tuple[str, ...]
    due_time: datetime | None


@dataclass(frozen=True, slots=True)
class Default:
    """A step goes on with this, as if somebody had chosen it."""

    outcome: str
    values: Mapping[str, Any]


def read(params: Mapping[str, Any], now: datetime) -> Asked:
    """Return what params ask, from `now` on. Raises ValueError, which says what is wrong with them, and where."""
    problems = _schema().problems(params) or list(check(params))
    if problems:
        raise ValueError("; ".join(f"{locate('', each.path)} {each.message}" for each in problems[:3]).strip())
    return Asked(
        title=params["title"],
        description=params.get("description", ""),
        form=params.get("form"),
        outcomes=tuple(params.get("outcomes", (DONE,))),
        assignees=_names(params, "assignees"),
        groups=_names(params, "groups"),
        due_time=_due(params, now),
        is_waited=params.get("wait", True),
    )


def overdue(params: Mapping[str, Any], now: datetime, *, escalated: bool) -> Escalation | Default | None:
    """Return what follows when nobody has done it in time, None when the step fails. `read` found the params right."""
    rules = params.get("overdue", {})
    if "escalate" in rules and not escalated:
        others = rules["escalate"]
        due_time = pauses.end({"duration": others["due_in"]}, now) if "due_in" in others else None
        return Escalation(_names(others, "assignees"), _names(others, "groups"), due_time)
    return Default(rules["outcome"], rules.get("values", {})) if "outcome" in rules else None


def check(params: Mapping[str, Any]) -> Iterator[Problem]:
    """Find what the schema of the params cannot say."""
    yield from _check_times(params)
    form, outcomes = params.get("form"), params.get("outcomes", [DONE])
    problems = _faults(form) if isinstance(form, Mapping) else []
    yield from (Problem(("form", *each.path), each.message) for each in problems)
    rules = params.get("overdue")
    if not isinstance(rules, Mapping):
        return
    others = rules.get("escalate")
    if isinstance(others, Mapping) and not others.get("assignees") and not others.get("groups"):
        yield Problem(("overdue", "escalate"), "names nobody; give assignees or groups")
    if "values" in rules and "outcome" not in rules:
        yield Problem(("overdue", "values"), "go with an outcome; give overdue.outcome")
    if "outcome" in rules and isinstance(outcomes, list) and rules["outcome"] not in outcomes:
        yield Problem(("overdue", "outcome"), "is none of the outcomes")
    if "values" in rules and not problems:
        yield from (Problem(("overdue", "values", *at), text) for at, text in wrong_values(form, rules["values"]))


def _faults(form: Mapping[str, Any]) -> list[Problem]:
    """Return all that is wrong with a form."""
    if payload.size(form) > MOST_FORM_BYTES:
        return [Problem((), f"is too large: it may have {MOST_FORM_BYTES:,} bytes as JSON")]
    return in_one_go(judging(form, _MOST_COMPILING))


def _check_times(params: Mapping[str, Any]) -> Iterator[Problem]:
    if "due_in" in params and "due_at" in params:
        yield Problem(("due_at",), "cannot be given together with due_in")
    if "overdue" in params and "due_in" not in params and "due_at" not in params:
        yield Problem(("overdue",), "has no effect without due_in or due_at")
    elif "overdue" in params and params.get("wait") is False:
        yield Problem(("overdue",), "has no effect where the step does not wait")
    escalate = params.get("overdue", {}).get("escalate", {}) if isinstance(params.get("overdue"), Mapping) else {}
    spans: list[tuple[Path, Any, Any]] = [(("due_in",), params.get("due_in"), pauses.seconds)]
    spans.append((("due_at",), params.get("due_at"), pauses.moment))
    if isinstance(escalate, Mapping):
        spans.append((("overdue", "escalate", "due_in"), escalate.get("due_in"), pauses.seconds))
    for path, value, reader in spans:
        try:
            if value is not None:
                reader(value)
        except ValueError as error:
            yield Problem(path, str(error))


def wrong_values(form: Mapping[str, Any] | None, values: Any) -> list[tuple[Path, str]]:
    """Return all that is wrong with what was filled in: where, and what."""
    return in_one_go(judging_values(form, values))


def judging_values(form: Mapping[str, Any] | None, values: Any) -> Work[list[tuple[Path, str]]]:
    """Do what `wrong_values` does in pieces."""
    if not isinstance(values, Mapping):
        return [((), "must be an object")]
    if payload.size(values) > MOST_VALUES_BYTES:
        return [((), f"must have at most {MOST_VALUES_BYTES:,} bytes as JSON")]
    if form is None:
        return [((name,), "is unknown: the task has no form") for name in values]
    try:
        schema = yield from compiling(msgspec.json.encode(form))
    except SchemaError as error:  # of what is stored, by hand
        return [((), f"cannot be judged: the form is no schema: {error}")]
    yield schema.cost(values, is_wrong=True)
    return [(problem.path, problem.message) for problem in schema.problems(values)]


def _names(params: Mapping[str, Any], name: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(params.get(name, ())))


def _due(params: Mapping[str, Any], now: datetime) -> datetime | None:
    if "due_at" in params:
        return pauses.end({"until": params["due_at"]}, now)
    return pauses.end({"duration": params["due_in"]}, now) if "due_in" in params else None


@cache
def _schema() -> Schema:
    return Schema(PARAMS, weigh(PARAMS, is_bounded=False))
