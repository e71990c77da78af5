"""What the writer of a definition probably meant by a name that does not exist."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from google.protobuf.descriptor import EnumDescriptor

# As other systems call it.
_ELSEWHERE: Mapping[str, Mapping[str, str]] = {
    "WorkflowDefinition": {
        **dict.fromkeys(("id", "title", "workflow", "workflow_name"), "name"),
        **dict.fromkeys(("tasks", "jobs", "nodes", "stages", "activities", "states"), "steps"),
        **dict.fromkeys(("inputs", "parameters", "params", "schema"), "input_schema"),
        **dict.fromkeys(("outputs", "result", "returns"), "output"),
        **dict.fromkeys(("order", "mode", "strategy"), "ordering"),
        **dict.fromkeys(("annotations", "metadata"), "labels"),
        **dict.fromkeys(("deadline", "max_duration", "execution_timeout"), "timeout"),
        **dict.fromkeys(("concurrency", "max_parallel"), "max_concurrent_executions"),
        "priority": "default_priority",
    },
    "Step": {
        **dict.fromkeys(("type", "uses", "action", "task", "run", "kind", "call", "function", "agent"), "handler"),
        **dict.fromkeys(("parameters", "args", "arguments", "with", "inputs", "input", "config"), "params"),
        **dict.fromkeys(("needs", "after", "requires", "dependencies", "depends"), "depends_on"),
        **dict.fromkeys(("if", "when", "only_if"), "condition"),
        **dict.fromkeys(("step", "key"), "id"),
        **dict.fromkeys(("title", "label", "description"), "display_name"),
        **dict.fromkeys(("on_failure", "continue_on_error", "error_handling"), "on_error"),
        **dict.fromkeys(("foreach", "loop", "with_items", "map", "matrix"), "for_each"),
        **dict.fromkeys(("set", "vars", "variables", "output", "outputs", "register"), "assign"),
        **dict.fromkeys(("retry", "retry_strategy"), "retry_policy"),
        **dict.fromkeys(("undo", "rollback"), "compensation"),
    },
    "RetryPolicy": {
        **dict.fromkeys(("attempts", "max_retries", "retries", "count", "limit", "max"), "max_attempts"),
        **dict.fromkeys(("backoff", "factor", "multiplier", "coefficient", "backoff_rate"), "backoff_coefficient"),
        **dict.fromkeys(("interval", "delay", "initial_delay", "interval_seconds"), "initial_interval"),
        **dict.fromkeys(("max_delay", "maximum_interval"), "max_interval"),
    },
}
_RETRIES = frozenset({"retries", "retry", "max_retries", "retry_count", "attempts", "max_attempts"})
_ID = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_LONGEST_COMPARED = 128


def unknown(message: str, name: str, fields: Sequence[str], given: Mapping[Any, Any]) -> str:
    """Return what is said of a field of a message that does not exist, of which `given` has all that was written."""
    value = given[name]
    if message == "Step" and _snake(name) in _RETRIES and isinstance(value, int):
        return f"is unknown. Did you mean retry_policy: {{max_attempts: {value}}}?"
    meant = meant_field(message, name, fields, given)
    return f"is unknown. Did you mean {meant}?" if meant else f"is unknown. There are {', '.join(fields)}"


def meant_field(message: str, name: str, fields: Sequence[str], given: Mapping[Any, Any]) -> str:
    """Return the field of a message that was probably meant, empty if none comes near."""
    snake = _snake(name)
    if message == "Step" and snake == "name":
        return "id" if "id" not in given and _ID.fullmatch(str(given[name])) else "display_name"
    if snake in fields:
        return snake
    if elsewhere := _ELSEWHERE.get(message, {}).get(snake):
        return elsewhere
    near = get_close_matches(snake, fields, 1, cutoff=0.6) if len(snake) <= _LONGEST_COMPARED else []
    return near[0] if near else ""


def enum_number(enum: EnumDescriptor, value: Any) -> int:
    """Return the number of an enum's value by its name, in any case and with `-` for `_`; raises ValueError."""
    names = {short_name(enum, each.number): each for each in enum.values}
    wanted = _wanted(enum, value)
    if wanted in names:
        return names[wanted].number
    offered = [name for name in names if name != "UNSPECIFIED"]
    near = get_close_matches(wanted, offered, 1) if len(wanted) <= _LONGEST_COMPARED else []
    hint = f". Did you mean {near[0]}?" if near else ""
    raise ValueError(f"must be one of {', '.join(offered)}, not {shown(value)}{hint}")


def short_name(enum: EnumDescriptor, number: int) -> str:
    """Return the name of an enum's value without the enum's own: `GRAPH` for ORDERING_GRAPH. Unknown: the number."""
    value = enum.values_by_number.get(number)
    return value.name.removeprefix(_prefix(enum)) if value else str(number)


def shown(value: object) -> str:
    """Return a value as an error shows it, cut where it is long."""
    if value is None:
        return "nothing"
    if isinstance(value, Mapping):
        return "an object"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "a list"
    text = str(value).lower() if isinstance(value, bool) else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _wanted(enum: EnumDescriptor, value: Any) -> str:
    name = value.strip().upper().replace("-", "_").replace(" ", "_") if isinstance(value, str) else ""
    return name.removeprefix(_prefix(enum))


def _prefix(enum: EnumDescriptor) -> str:
    return enum.values[0].name.removesuffix("UNSPECIFIED")


def _snake(name: str) -> str:
    """Return `depends_on` for `dependsOn`, `depends-on`, `Depends On`."""
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name[: 2 * _LONGEST_COMPARED])
    return re.sub(r"[-\s]+", "_", words).strip("_").lower()
